"""Which two files are a ``.hdr/.img`` pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volconv.errors import ReadError
from volconv.io.formats import stem_and_ext

if TYPE_CHECKING:
    from pathlib import Path

_OTHER = {".hdr": ".img", ".img": ".hdr"}


def is_pair(path: Path) -> bool:
    """Whether a name is that of one file of a pair."""
    return _kind(path) in _OTHER


def header_of(path: Path) -> Path:
    """The header's file of a pair of which either was named.

    Raises
    ------
    ReadError
        It is missing.
    """
    return path if _kind(path) == ".hdr" else _partner(path, "header is")


def voxels_of(path: Path) -> Path:
    """The voxels' file of a pair of which either was named.

    Raises
    ------
    ReadError
        It is missing.
    """
    return path if _kind(path) == ".img" else _partner(path, "voxels are")


def _partner(path: Path, what: str) -> Path:
    """The other file, gzipped or not whatever the first one is."""
    stem, ext = stem_and_ext(path)
    kind, packed = ext[:4], ext[4:]
    other = _OTHER[kind.lower()]
    cases = (other.upper(), other) if kind.isupper() else (other, other.upper())
    names = [path.with_name(stem + case + end) for case in cases for end in (packed, "" if packed else ".gz")]
    for name in names:
        if name.exists():
            return name
    raise ReadError(
        f"{path}: its {what} missing: there is no {names[0]}", hint="a .hdr and its .img belong together, in one folder"
    )


def _kind(path: Path) -> str:
    return stem_and_ext(path)[1][:4].lower()
