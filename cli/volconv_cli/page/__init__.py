"""``volconv apply --report FILE.html``: what was done, as one page that needs nothing beside itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.io import open_stack, open_volume, split_path
from volconv.io.target import Target, translated
from volconv.report import report_document
from volconv_cli.page.document import document
from volconv_cli.page.pictures import Shown, shown_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from volconv.io import OpenVolume

#: Of so many runs slices are shown: with those of more, a page would take long to make and to load.
MOST_SHOWN = 20


def write_page(
    path: Path,
    runs: Sequence[dict[str, Any]],
    commands: Sequence[str],
    reading: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a page that tells what :func:`volconv.report.write_report` does; it appears when it is complete.

    Parameters
    ----------
    path : Path
    runs : sequence of dict
        As reports have them.
    commands : sequence of str
        What makes each of them again.
    reading : dict
        Keywords of :func:`volconv.open_volume`, for every input.
    overwrite : bool

    Raises
    ------
    WriteError
        As for any output.
    """
    shown: list[tuple[Shown, Shown] | None] = []
    for run in runs:
        if run["status"] not in ("done", "skipped"):
            shown.append(None)
        elif sum(pair is not None for pair in shown) < MOST_SHOWN:
            shown.append(_before_and_after(run, reading))
        else:
            shown.append((Shown(note=f"Slices are shown of {MOST_SHOWN} files only."), Shown()))
    target = Target(path, overwrite=overwrite)
    with translated(path):
        target.file.write(document(report_document(runs), shown, commands).encode())
    target.commit()


def _before_and_after(run: dict[str, Any], reading: Mapping[str, Any]) -> tuple[Shown, Shown]:
    inputs, output = run["inputs"], run["output"]

    def source() -> OpenVolume:
        return open_stack(inputs, **reading) if len(inputs) > 1 else open_volume(inputs[0], **reading)

    made = split_path(output)[0].resolve()
    if made in {split_path(name)[0].resolve() for name in inputs}:
        before = Shown(note="The output took the input's place.")
    else:
        before = shown_of(source)
    return before, shown_of(lambda: open_volume(output))
