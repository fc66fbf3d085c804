"""How an HDF5 file is written."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py

from volconv.errors import ReadError, WriteError
from volconv.io.checks import check_block
from volconv.io.hdf5.attributes import LABELS, output_attributes
from volconv.io.hdf5.chunks import DEFAULT_CHUNK, check_chunk, chunk_cache, fitted, parse_chunks, piece_bytes
from volconv.io.hdf5.filters import Packing, settled_packing
from volconv.io.hdf5.find import LISTED, datasets, name_of, one_line, opened
from volconv.io.hdf5.output import Output
from volconv.io.raw import RawFile
from volconv.io.target import Target, check_target, write_error
from volconv.io.trial import try_out
from volconv.io.volume import Access, NewVolume, VolumeInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.hdf5.attributes import Hdf5Header
    from volconv.io.volume import Request
    from volconv.region import Index5, Region

#: Letters of an output of 3, 4 or 5 axes, as of any other dataset.
_AXES = {3: "ZYX", 4: "CZYX", 5: "NCZYX"}


class _Layout(NamedTuple):
    """How the dataset is laid out in its file."""

    rank: int
    chunk: Index5 | None
    packing: Packing | None
    notes: tuple[str, ...]


def describe_new(request: Request) -> VolumeInfo:
    """Check a new file, and tell what it will be."""
    check_target(request.path, overwrite=request.overwrite, mkdir=request.mkdir)
    layout = _laid_out(request)
    if request.path.exists():
        _keep_others(request.path, request.key or "/data")
    held = piece_bytes(layout.chunk, request.dtype.itemsize) if layout.packing else 0
    return VolumeInfo(
        request.shape,
        request.dtype,
        request.geometry,
        time_step=request.time_step,
        format="hdf5",
        axes=_AXES[layout.rank],
        compression=layout.packing.name if layout.packing else None,
        access=Access(layout.chunk, packed=layout.packing is not None, held_bytes=held),
        notes=layout.notes + output_attributes(request, layout.rank)[1],
    )


def create_file(request: Request, info: VolumeInfo) -> Hdf5Sink:
    """Create an HDF5 file of one dataset, at ``key`` or ``/data``."""
    return Hdf5Sink(request, info)


class Hdf5Sink(NewVolume):
    """An HDF5 file being written.

    Parameters
    ----------
    request : Request
    info : VolumeInfo
        As :func:`describe_new` tells it.

    Raises
    ------
    WriteError
        The file cannot be made, or no dataset at the path in it.
    """

    def __init__(self, request: Request, info: VolumeInfo) -> None:
        self.info = info
        self._path = request.path
        self._key = request.key or "/data"
        layout = _laid_out(request)
        self._first = 5 - layout.rank
        self._target = Target(request.path, overwrite=request.overwrite)
        self._output = Output(self._target.file.fileno())
        self._raw: RawFile | None = None
        try:
            with self._writing():
                self._file = h5py.File(self._output, "w")
                self._data = self._created(layout, request.cache_bytes)
                for name, value, dtype in output_attributes(request, layout.rank)[0]:
                    self._data.attrs.create(name, value, dtype=dtype)
                for axis, label in enumerate(LABELS[layout.rank]):
                    self._data.dims[axis].label = label
                if layout.chunk is None:
                    self._raw = self._laid_bare()
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        if self._raw is not None:
            self._raw.write(region, values)
            return
        with self._writing():
            self._data[region.slices[self._first :]] = values.reshape(values.shape[self._first :])

    def commit(self) -> None:
        """Close the file and put it in place."""
        try:
            with self._writing():
                self._file.close()
            self._target.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written."""
        self._output.give_up()
        if hasattr(self, "_file"):
            with contextlib.suppress(OSError, RuntimeError):  # a full disk is no reason to stay
                self._file.close()
        self._target.abort()

    def _created(self, layout: _Layout, cache_bytes: int | None) -> Any:
        arguments: dict[str, Any] = layout.packing.arguments if layout.packing else {}
        shape = self.info.shape[self._first :]
        if layout.chunk is None:
            arguments["dcpl"] = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            arguments["dcpl"].set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        else:
            arguments["chunks"] = layout.chunk[self._first :]
            cache = chunk_cache(self.info.shape[2:], layout.chunk[2:], self.info.dtype.itemsize, cache_bytes)
            if cache is not None:
                arguments["rdcc_nslots"], arguments["rdcc_nbytes"] = cache
        return self._file.create_dataset(self._key, shape, self.info.dtype, **arguments)

    def _laid_bare(self) -> RawFile:
        """The voxels of a file that is complete but for them; HDF5 would write them row by row, and is done."""
        file, offset = self._target.file, self._data.id.get_offset()
        raw = RawFile(file, offset, self._data.dtype, self.info.shape, name=str(self._path))
        self._file.close()
        if self._output.error is None and (offset is None or os.fstat(file.fileno()).st_size < offset + raw.nbytes):
            raise RuntimeError(f"HDF5 laid out no room for the voxels (got {offset}, {self.info.shape})")
        return raw

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what h5py raises, and what it does not know of, into a WriteError that names the file."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise WriteError(f"{self._path}: {self._key} cannot be written: {one_line(error)}") from error
        if isinstance(self._output.error, OSError):
            raise write_error(self._path, self._output.error) from self._output.error
        if self._output.error is not None:
            raise self._output.error


def _laid_out(request: Request) -> _Layout:
    """Axes, chunks and packing by the creation options, and otherwise as the input has them.

    Raises
    ------
    ParameterError, WriteError
        See :mod:`volconv.io.hdf5.chunks` and :mod:`volconv.io.hdf5.filters`.
    """
    header: Hdf5Header | None = request.carried("hdf5")
    rank = _rank(request.shape, header)
    chunked, chunk = None, header.chunk if header else None
    if "chunks" in request.options:
        asked = parse_chunks(request.options["chunks"])
        chunked = asked is not None
        chunk = (1, 1, *asked) if asked is not None else None
        if asked is not None:
            check_chunk(asked, request.shape, request.dtype.itemsize)
    carried = header.packing if header else None
    packing, notes = settled_packing(request.options, carried, request.path, chunked=chunked)
    if packing is not None and chunk is None:
        chunk = (1, 1, *DEFAULT_CHUNK)
    if chunk is not None:
        chunk = fitted(chunk, request.shape, request.dtype.itemsize)
    return _Layout(rank, chunk, packing, notes)


def _rank(shape: Index5, header: Hdf5Header | None) -> int:
    """3 axes where that is all there is, but those of size 1 that the input had stay."""
    letters = header.letters if header else ""
    if shape[0] > 1 or set(letters) & set("NT"):
        return 5
    if "C" in letters or "S" in letters:
        return 4
    return 3 if shape[1] == 1 else 5


def _keep_others(path: Path, key: str) -> None:
    """Refuse to replace a file that holds more than the dataset to be replaced."""
    if not h5py.is_hdf5(path):
        return
    try:
        try_out(lambda: _others(path, key), str(path), "HDF5")
        others = _others(path, key)
    except ReadError as error:
        raise WriteError(
            f"{path}: is not replaced, as what it holds cannot be told ({error.message})", hint="write to a new file"
        ) from error
    if others:
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        raise WriteError(
            f"{path}: is not replaced, as it holds other datasets ({', '.join(others[:LISTED])}{more})",
            hint="write to a new file",
        )


def _others(path: Path, key: str) -> list[str]:
    with opened(path) as file:
        return [name for item in datasets(file) if (name := name_of(item)) != key]
