"""Which files an input is made of: one, a header and its voxels, or a folder or pattern of slices."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from volconv.errors import ReadError
from volconv.io.formats import split_path
from volconv.io.pair import header_of, is_pair, voxels_of

if TYPE_CHECKING:
    import os


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """All files that an input by this name is made of, in order.

    Raises
    ------
    ReadError
        A folder or pattern holds no slices.
    """
    file, _ = split_path(path)
    if not file.is_file():
        return slices_of(file)
    return [header_of(file), voxels_of(file)] if is_pair(file) else [file]


def slices_of(path: Path) -> list[Path]:
    """TIFF files of a folder or pattern, in natural order: slice2 comes before slice10.

    Raises
    ------
    ReadError
        There are none, or the folder cannot be read.
    """
    if path.is_dir():
        try:
            found = [file for file in path.iterdir() if not file.name.startswith(".")]
        except OSError as error:
            raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  # Path.glob takes no absolute pattern
    files = sorted((file for file in found if file.suffix.lower() in (".tif", ".tiff")), key=_natural)
    if not files and path.is_dir():
        raise ReadError(f"{path}: is a folder, and holds no .tif or .tiff files")
    if not files:
        raise ReadError(f"{path}: {'the pattern names no .tif or .tiff files' if found else 'no such files'}")
    return files


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key that counts runs of digits as numbers."""
    parts = re.split(r"(\d+)", str(file))
    return [(int(part), part) if part.isdecimal() and part.isascii() else (-1, part) for part in parts]
