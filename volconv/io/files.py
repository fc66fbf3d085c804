"""Which files an input is made of: one, a header and its voxels, a folder or pattern of slices, an OME-Zarr's."""

from __future__ import annotations

import glob
import os
import re
from importlib import import_module
from pathlib import Path
from typing import cast

from volconv.errors import ReadError
from volconv.io.formats import ZARR, Url, format_of, split_path
from volconv.io.pair import header_of, is_pair, voxels_of


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """All files that an input by this name is made of, in order; none for a URL.

    Raises
    ------
    ReadError
        A folder or pattern holds no slices.
    """
    file, _ = split_path(path)
    if isinstance(file, Url):
        return []
    if is_zarr(file):
        return sorted(Path(folder, name) for folder, _, names in os.walk(file) for name in names)
    if not file.is_file():
        return slices_of(file)
    return [header_of(file), voxels_of(file)] if is_pair(file) else [file]


def bytes_of(path: str | os.PathLike[str]) -> int:
    """Bytes of all files, or objects, that an input is made of.

    Raises
    ------
    ReadError
        As :func:`files_of`; or the store cannot be asked.
    """
    file, _ = split_path(path)
    if isinstance(file, Url):
        return sum(size for _, size, _ in objects_at(file))
    return sum(one.stat().st_size for one in files_of(path))


def objects_at(url: Url) -> list[tuple[str, int, str]]:
    """Name, size and what tells contents apart (an ETag, a time) of each object below a URL, by name.

    Raises
    ------
    ReadError
        The store cannot be asked.
    """
    store = import_module("volconv.io.omezarr.store")  # loaded where there are URLs
    return cast("list[tuple[str, int, str]]", store.listed(url))


def is_zarr(folder: Path) -> bool:
    """Whether a folder is an OME-Zarr, by its name, or by what lies in it: those inside others have any name."""
    if not folder.is_dir():
        return False
    # Not Path.is_file: of a folder that may not be entered it raises, and whoever reads that folder says so.
    return format_of(folder) is ZARR or any(os.path.isfile(folder / name) for name in ("zarr.json", ".zgroup"))  # noqa: PTH113


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
