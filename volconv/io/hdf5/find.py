"""Which dataset of an HDF5 file is meant, and whether all of it lies in that file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py

from volconv.errors import ReadError
from volconv.io.hdf5.chunks import chunk_cache

if TYPE_CHECKING:
    from pathlib import Path

#: What h5py raises where a file is damaged, or holds what it does not know.
H5_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)

RANKS = "3 axes (D, H, W), 4 (C, D, H, W) or 5 (N, C, D, H, W)"

#: How many datasets a message lists.
LISTED = 8

#: Soft links followed on the way to one dataset: as many as HDF5 itself follows.
_SOFT_LINKS = 16

#: Virtual datasets made of virtual datasets.
_VIRTUAL_LEVELS = 4


def opened(path: Path) -> Any:
    """Open the file for reading.

    Raises
    ------
    ReadError
        It is no HDF5 file, damaged, or may not be read.
    """
    try:
        return h5py.File(path, "r")
    except PermissionError as error:
        raise ReadError(f"{path}: cannot be read: Permission denied") from error
    except OSError as error:
        if not path.stat().st_size:
            raise ReadError(f"{path}: is empty") from error
        if not h5py.is_hdf5(path):
            raise ReadError(f"{path}: is no HDF5 file") from error
        what = "is truncated" if "truncated file" in str(error) else "cannot be read"
        raise ReadError(f"{path}: {what}: {one_line(error)}") from error


def datasets(file: Any) -> list[Any]:
    """Every dataset that has a shape, by name; the search follows neither soft nor external links."""
    found: list[Any] = []

    def visit(name: str, item: Any) -> None:  # noqa: ARG001  # h5py's callback
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.append(item)

    try:
        file.visititems(visit)
    except H5_ERRORS as error:
        raise ReadError(f"{file.filename}: cannot be read: {one_line(error)}") from error
    return sorted(found, key=name_of)


def opened_dataset(file: Any, path: Path, key: str | None) -> Any:
    """Open the dataset to read, with room for a layer of its chunks.

    Parameters
    ----------
    file : h5py.File
    path : Path
        The file's, for messages.
    key : str or None
        Path inside the file; None takes the only dataset of three axes or more.

    Raises
    ------
    ReadError
        The dataset is missing, ambiguous, or lies outside the file.
    """
    name, cache = _chosen(file, path, key)  # no handle of it is kept: the first to open a dataset sets its cache
    return opened_as(file, name, cache)


def opened_as(file: Any, name: str, cache: tuple[int, int] | None) -> Any:
    """A dataset of a file, of which nothing is open, with so many slots and bytes for its chunks."""
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    if cache is not None:
        access.set_chunk_cache(*cache, 0.75)
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode("utf-8", "surrogateescape"), access), readonly=True)


def parts_inside(file: Any, data: Any, name: str) -> list[Any]:
    """Every dataset that holds voxels of this one: itself, or all that a virtual one is made of.

    Raises
    ------
    ReadError
        Some of its voxels are kept in other files.
    """
    return _parts_inside(file, data, name, _VIRTUAL_LEVELS)


def followed(file: Any, key: str, name: str) -> Any:
    """Open what lies at a path inside the file; h5py by itself would follow links out of it.

    Raises
    ------
    ReadError
        The path leads out of the file, or in a circle.
    KeyError
        There is nothing.
    """
    item, pending, soft = file["/"], _steps(key), 0
    while pending:
        part = pending.pop()
        if not isinstance(item, h5py.Group):
            raise KeyError(key)
        label = part.encode("utf-8", "surrogateescape")
        links = item.id.links
        if not links.exists(label):
            raise KeyError(key)
        kind = links.get_info(label).type
        if kind == h5py.h5l.TYPE_HARD:
            item = item[part]
        elif kind == h5py.h5l.TYPE_SOFT:
            soft += 1
            if soft > _SOFT_LINKS:
                raise ReadError(f"{name}: its soft links lead in a circle")
            target = links.get_val(label).decode("utf-8", "surrogateescape")
            if target.startswith("/"):
                item = file["/"]
            pending += _steps(target)
        elif kind == h5py.h5l.TYPE_EXTERNAL:
            other, inside = (text.decode("utf-8", "replace") for text in links.get_val(label))
            raise ReadError(
                f"{name}: is reached by an external link to {other}:{inside}, and links are not followed out of a file",
                hint="name that file instead",
            )
        else:
            raise ReadError(f"{name}: is reached by a link of an unknown kind")
    return item


def name_of(item: Any) -> str:
    """Path of an object in its file, whatever its bytes."""
    name = item.name
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)


def one_line(error: BaseException) -> str:
    """Message of an error as one line."""
    return " ".join(str(error).strip("'\"").split()) or type(error).__name__


def _steps(key: str) -> list[str]:
    """Steps of a path, the last one first."""
    return [part for part in key.split("/") if part not in ("", ".")][::-1]


def _chosen(file: Any, path: Path, key: str | None) -> tuple[str, tuple[int, int] | None]:
    data = _only(file, path) if key is None else _named(file, path, key)
    parts_inside(file, data, f"{path}:{name_of(data)}")  # before anything of it is read
    return name_of(data), chunk_cache(data.shape, data.chunks, data.id.get_type().get_size())


def _named(file: Any, path: Path, key: str) -> Any:
    try:
        item = followed(file, key, f"{path}:{key}")
    except H5_ERRORS as error:
        names = [name_of(other) for other in datasets(file)[:LISTED]]
        raise ReadError(f"{path}: holds no dataset {key} (it holds {', '.join(names) or 'none'})") from error
    if not isinstance(item, h5py.Dataset):
        raise ReadError(f"{path}: {key} is a group, not a dataset")
    return item


def _only(file: Any, path: Path) -> Any:
    every = datasets(file)
    found = [item for item in every if item.ndim >= 3]
    if len(found) == 1:
        return found[0]
    names = [f"{name_of(item)} {item.shape}" for item in (found or every)[:LISTED]]
    more = f" and {len(found or every) - LISTED} more" if len(found or every) > LISTED else ""
    if found:
        raise ReadError(
            f"{path}: holds {len(found)} datasets that could be the volume: {', '.join(names)}{more}",
            hint=f"name one, as in {path.name}:{name_of(found[0])}",
        )
    raise ReadError(
        f"{path}: holds no dataset of {RANKS}" + (f", only {', '.join(names)}{more}" if names else ""),
        hint=f"name one and its axes, as in {path.name}:{name_of(every[0])} --axes {'ZYX'[-every[0].ndim :]}"
        if names
        else None,
    )


def _parts_inside(file: Any, data: Any, name: str, levels: int) -> list[Any]:
    if data.external:
        raise ReadError(
            f"{name}: keeps its voxels in another file ({data.external[0][0]}), and other files are not followed",
            hint="copy it into one file, as h5repack does",
        )
    if not data.is_virtual:
        return [data]
    parts = []
    for other, inside in sorted({(source.file_name, source.dset_name) for source in data.virtual_sources()}):
        if other != ".":
            raise ReadError(
                f"{name}: is a virtual dataset of {other}:{inside}, and other files are not followed",
                hint="copy it into one file, as h5repack does",
            )
        try:
            part = followed(file, inside, name)
        except H5_ERRORS:
            part = None
        # HDF5 would fill in for a part that is missing, without a word.
        if not isinstance(part, h5py.Dataset) or not levels:
            raise ReadError(f"{name}: is a virtual dataset, and its part {inside} cannot be found")
        parts += _parts_inside(file, part, name, levels - 1)
    return parts
