"""How a batch ended: one table for all files."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from volconv_cli.text import WIDTH, counted, duration

if TYPE_CHECKING:
    from volconv.batch import Outcome

#: Files that are listed of those that failed for one reason.
SHOWN = 10

#: Columns before the last, which says why.
_START = 19

_ORDER = ("done", "planned", "skipped", "failed", "left")

_WHY = {
    "skipped": "made in the same way before",
    "left": "not begun: the first failure was the last (--fail-fast)",
}


class Summary:
    """Counts of what became of files, and why; of each failure the names of the first files.

    Nothing more is kept of an outcome: there may be many.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._names: dict[tuple[str, str], list[str]] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        kind = outcome.status, _why_failed(outcome) or _WHY.get(outcome.status, "")
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < SHOWN:
            names.append(" + ".join(outcome.task.inputs))

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(count for (status, _), count in self._counts.items() if status == "failed")

    def said_on_the_way(self, total: int) -> str:
        """One line on how far it got, and how to go on from there."""
        made = sum(count for (status, _), count in self._counts.items() if status in ("done", "skipped"))
        return f"{made} of {counted(total, 'file')} were made, and --skip-existing goes on from there"

    def table(self, seconds: float) -> str:
        """All of it in at most 80 columns, but for names, which are not broken."""
        lines = [" result    files  why", f" {'─' * (WIDTH - 2)}"]
        for (status, why), count in sorted(self._counts.items(), key=lambda item: _ORDER.index(item[0][0])):
            wrapped = textwrap.wrap(why, WIDTH - _START, break_long_words=False, break_on_hyphens=False)
            first, *others = wrapped or [""]
            lines += [f" {status:8}{count:7}  {first}".rstrip(), *(f"{'':{_START}}{line}" for line in others)]
            if status == "failed":
                names = self._names[status, why]
                lines += [f"{'':{_START - 2}}- {name}" for name in names]
                lines += [f"{'':{_START - 2}}  and {count - len(names)} more"] if count > len(names) else []
        total = sum(self._counts.values())
        return "\n".join([*lines, f" {counted(total, 'file')} in {duration(seconds)}"])


def _why_failed(outcome: Outcome) -> str:
    """An error without the name of the file, which is listed below it: the same for all to which it happened."""
    text = "" if outcome.error is None else str(outcome.error)
    for name in (*outcome.task.inputs, outcome.task.output):
        text = text.removeprefix(f"{name}: ")
    return text
