"""Which output each input gets, and that no output takes another file's place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from volconv.errors import ParameterError, WriteError
from volconv.io import output_format, split_path, stem_and_ext
from volconv.io.formats import Url, as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FIELDS = "{parent}, {name}, {stem} and {ext}"


class Task(NamedTuple):
    """What is made into what: several inputs are the channels of one volume."""

    inputs: tuple[str, ...]
    output: str


def name_outputs(inputs: Sequence[str], template: str, *, stack: bool = False) -> list[Task]:
    """Name an output for each input, or one for all.

    Parameters
    ----------
    inputs : sequence of str
    template : str
        For several inputs with fields: of ``raw/sub-01/T1w.nii.gz``, ``{parent}`` is ``raw/sub-01``, ``{name}``
        ``T1w.nii.gz``, ``{stem}`` ``T1w`` and ``{ext}`` ``.nii.gz``. Braces that are meant are written twice.
    stack : bool
        All inputs are the channels of one volume, named after the first.

    Raises
    ------
    ParameterError
        The template has other fields, or leads out of the folder that it names.

    Examples
    --------
    >>> name_outputs(["sub-01/T1w.nii.gz"], "derivatives/{parent}/{stem}_smooth{ext}")[0].output
    'derivatives/sub-01/T1w_smooth.nii.gz'
    """
    groups = [tuple(inputs)] if stack else [(name,) for name in inputs]
    if len(groups) == 1 and "{" not in template:
        return [Task(groups[0], template)]
    fields = _fields(template)
    return [Task(group, _filled(template, fields, group[0])) for group in groups]


def check_tasks(tasks: Sequence[Task], *, mkdir: bool = False) -> None:
    """Refuse names that take each other's place, those of no format, and missing folders, before any work.

    Raises
    ------
    ParameterError
        Two tasks have one output, one's output is another's input, or an output's suffix names no format.
    WriteError
        An output's folder does not exist, and is not to be made.
    """
    makers, readers = _by_file((task.output,) for task in tasks), _by_file(task.inputs for task in tasks)
    for key, found in makers.items():
        (number, name), *others = found
        for other, again in others:
            if _same(name, again):
                _refuse_shared(tasks[number], tasks[other])
        for reader, read in readers.get(key, ()):
            for maker, made in found:
                if maker != reader and _same(made, read):
                    raise ParameterError(
                        f"output must not be an input of another output (got {made}, made of "
                        f"{' + '.join(tasks[maker].inputs)})",
                        hint="write into another folder",
                    )
    for task in tasks:
        output_format(task.output)
    if not mkdir:
        _check_folders(tasks)


def names_in(content: bytes) -> list[str]:
    r"""Names of files in a list of them: one a line, or each ended by NUL, as of ``find -print0``.

    Examples
    --------
    >>> names_in(b"a.nii\nb c.nii\n"), names_in(b"a.nii\0b\nc.nii\0")
    (['a.nii', 'b c.nii'], ['a.nii', 'b\nc.nii'])
    """
    parts = content.split(b"\0") if b"\0" in content else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return [os.fsdecode(part) for part in parts if part]


def _fields(template: str) -> set[str]:
    """Fields that a template uses, all of them known."""
    from string import Formatter

    try:
        parsed = [found for found in Formatter().parse(template) if found[1] is not None]
    except ValueError:
        raise ParameterError(
            f"output may use {_FIELDS} (got {template!r})", hint="write braces that are meant twice"
        ) from None
    for _, field, spec, conversion in parsed:
        if field not in ("parent", "name", "stem", "ext") or spec or conversion:
            shown = f"{{{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
            raise ParameterError(
                f"output may use {_FIELDS} (got {shown} in {template!r})", hint="write braces that are meant twice"
            )
    return {str(field) for _, field, _, _ in parsed}


def _filled(template: str, fields: set[str], name: str) -> str:
    stem, ext = stem_and_ext(f"{name.rstrip('/')}/" if Path(name).is_dir() else name)
    file = split_path(name)[0]
    filled = template.format(stem=stem, ext=ext, name=file.name, parent=file.parent)
    if "parent" not in fields:
        return filled
    before = template.partition("{parent}")[0]
    if before and ".." in file.parent.parts:
        raise ParameterError(
            f"output with {{parent}} must stay in {before} (got {filled} for {name})",
            hint="name inputs from their own folder, or by absolute paths",
        )
    # "out/./brain.nii" and "out//data/brain.nii", of inputs that lie here or were named from the root.
    return f"{as_path(filled)}/" if filled.endswith("/") else str(as_path(filled))


def _by_file(names: Iterable[Iterable[str]]) -> dict[str, list[tuple[int, str]]]:
    """Numbers of tasks, and their real files, by what would name one file where neither case nor accents count."""
    found: dict[str, list[tuple[int, str]]] = {}
    for number, group in enumerate(names):
        for name in group:
            real = os.path.realpath(split_path(name)[0])
            found.setdefault(_folded(real), []).append((number, real))
    return found


def _folded(name: str) -> str:
    if name.isascii():
        return name.lower()
    from unicodedata import normalize

    return normalize("NFC", name.casefold())


def _same(a: str, b: str) -> bool:
    """Whether two real names, which are alike but for their case, name one file."""
    return a == b or _ignores_case(Path(a).parent)


def _ignores_case(folder: Path) -> bool:
    """Whether a folder, or what there is of it, finds files by names in another case; asked without a new file."""
    for place in (folder, *folder.parents):
        try:
            known = next((entry for entry in place.iterdir() if entry.name.swapcase() != entry.name), None)
        except OSError:
            continue
        if known is not None:
            other = known.with_name(known.name.swapcase())
            return other.exists() and other.samefile(known)
    return False


def _refuse_shared(first: Task, second: Task) -> None:
    if first.inputs == second.inputs:
        raise ParameterError(f"inputs must be given once each (got {' + '.join(first.inputs)} again)")
    a, b = (" + ".join(task.inputs) for task in (first, second))
    got = f"{first.output} for {a} and {b}"
    if first.output != second.output:
        got = f"{first.output} for {a} and {second.output} for {b}, which are one file"
    raise ParameterError(
        f"outputs must have names of their own (got {got})",
        hint="use a template such as 'out/{parent}/{stem}_smooth{ext}', or --stack for channels of one volume",
    )


def _check_folders(tasks: Sequence[Task]) -> None:
    files = {task.output: split_path(task.output)[0] for task in tasks}
    folders = {name: Path(os.path.realpath(file)).parent for name, file in files.items() if not isinstance(file, Url)}
    missing = dict.fromkeys(folder for folder in folders.values() if not os.path.lexists(folder))
    if missing:
        output, first = next((output, folder) for output, folder in folders.items() if folder in missing)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise WriteError(
            f"{output}: the output's folder does not exist (got {first}{more})",
            hint="create it first, or pass --mkdir (mkdir=True)",
        )
