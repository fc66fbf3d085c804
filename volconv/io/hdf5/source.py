"""HDF5 datasets as volumes, through h5py."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import h5py
import numpy as np

from volconv.errors import ParameterError, ReadError
from volconv.io.axes import arrange
from volconv.io.checks import check_memory, check_within
from volconv.io.formats import SUFFIXES
from volconv.io.hdf5.attributes import Hdf5Header, as_text, attribute, kept_attributes
from volconv.io.hdf5.axes import Axes, axes_of
from volconv.io.hdf5.bdv import bdv_view
from volconv.io.hdf5.chunks import LEAST_CACHE, chunk_cache, parts, piece_bytes
from volconv.io.hdf5.filters import check_filters, packing_of
from volconv.io.hdf5.find import (
    H5_ERRORS,
    RANKS,
    datasets,
    name_of,
    one_line,
    opened,
    opened_as,
    opened_dataset,
    parts_inside,
)
from volconv.io.hdf5.geometry import stated_places
from volconv.io.trial import try_out
from volconv.io.volume import Access, Entry, OpenVolume, VolumeInfo
from volconv.region import Region

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Index5

DTYPES = SUFFIXES[".h5"].dtypes

#: Chunks that are larger are not unpacked to see whether HDF5 survives it.
_TRIED_BYTES = 16 << 20


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> Hdf5Source:
    """Open a dataset of an HDF5 file: the one at ``key``, or the only one that can be a volume."""

    def attempt() -> None:
        with Hdf5Source(path, key, axes=axes, rgb=rgb) as source:
            source.read_ends()

    try_out(attempt, str(path), "HDF5")
    return Hdf5Source(path, key, axes=axes, rgb=rgb)


def list_contents(path: Path) -> list[Entry]:
    """Every dataset of one axis or more."""
    try_out(lambda: _listed(path), str(path), "HDF5")
    return _listed(path)


def _listed(path: Path) -> list[Entry]:
    with opened(path) as file:
        return [
            Entry(f"{path}:{name_of(item)}", item.shape, _dtype_text(item), _stated_letters(item))
            for item in datasets(file)
            if item.ndim
        ]


class Hdf5Source(OpenVolume):
    """A dataset of 1 to 5 axes.

    Parameters
    ----------
    path : Path
    key : str or None
        Path inside the file; None takes the only dataset of three axes or more.
    axes : str or None
        Letters of the dataset's axes, in its own order; None takes what the file says.
    rgb : bool
        Only with axes that have samples of a colour (S).

    Raises
    ------
    ReadError
        The file is damaged, or the dataset is missing, ambiguous, or no volume.
    ParameterError
        ``axes`` or ``rgb`` does not fit.
    """

    def __init__(self, path: Path, key: str | None, *, axes: str | None, rgb: bool) -> None:
        self._file = opened(path)
        try:
            self._data = opened_dataset(self._file, path, key)
            self._name = f"{path}:{name_of(self._data)}"
            self._describe(path, axes)
            if rgb and "S" not in self.info.axes:
                raise ParameterError(
                    f"rgb must be used with files of colour pixels (got {self._name}, axes {self.info.axes})",
                    hint="--axes (axes=...) says which axis is channels",
                )
        except BaseException:
            self._file.close()
            raise

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`; HDF5 takes its cache when a dataset is opened first."""
        data = self._data
        if data.chunks is not None:
            size = max(reading.cache_bytes, LEAST_CACHE)
            cache = chunk_cache(data.shape, data.chunks, self.info.dtype.itemsize, size)
            name, self._data = str(data.name), None
            data.id.close()
            self._data = opened_as(self._file, name, cache)

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        check_within(region, self.info.shape)
        if not self._file:
            raise ValueError(f"{self._name} is closed")
        if 0 in region.shape:
            return
        check_memory(self.info.access.held_bytes, f"{self._name}: a chunk")
        try:
            # In the dataset's own axes, and in those of its numbers that are none of its axes' all are 0.
            held = self._as_held(out)
            if held.flags.c_contiguous and not self._unsigned and held.dtype == self._data.dtype:
                self._data.read_direct(held, self._place(region))
                return
            for part in parts(region, self.info.access.chunk, self.info.dtype.itemsize):
                values = np.asarray(self._data[self._place(part)])
                if self._unsigned:
                    values = values.astype(np.int16, copy=False).view(np.uint16)
                self._as_held(out[part.within(region).slices])[...] = values
        except (OSError, RuntimeError) as error:
            raise ReadError(f"{self._name}: cannot be read: {one_line(error)}") from error

    def _place(self, region: Region) -> tuple[slice, ...]:
        return tuple(region.slices[axis] for axis in self._held)

    def _as_held(self, values: NDArray[Any]) -> NDArray[Any]:
        held: NDArray[Any] = values.transpose(self._order)[(0,) * (5 - len(self._held))]
        return held

    def read_ends(self) -> None:
        """Read the first voxel and the last, unless that unpacks much."""
        shape, chunk = self.info.shape, self.info.access.chunk or (1,) * 5
        if math.prod(chunk) * self.info.dtype.itemsize <= _TRIED_BYTES:
            for last in ((1,) * 5, shape):
                self.read(Region(cast("Index5", tuple(stop - 1 for stop in last)), last))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _describe(self, path: Path, option: str | None) -> None:
        data, name = self._data, self._name
        if data.shape is None:
            raise ReadError(f"{name}: holds no voxels (its dataspace is empty)")
        if not 1 <= data.ndim <= 5:
            raise ReadError(f"{name}: a volume has {RANKS} (got shape {data.shape})")
        if 0 in data.shape:
            raise ReadError(f"{name}: every axis must hold a voxel (got shape {data.shape})")
        dtype = _native_dtype(data, name)
        for part in parts_inside(self._file, data, name):
            check_filters(part, name)
        axes = axes_of(data, name, option)
        geometry, step, notes = stated_places(self._file, data, axes, path, name)
        self._unsigned = dtype == np.int16 and bdv_view(name_of(data)) is not None
        if self._unsigned:
            dtype = np.dtype(np.uint16)
            notes = (*notes, f"{name}: BigDataViewer keeps uint16 as int16, so values are taken as uint16")
        shape, self._order = arrange(axes.letters, data.shape)
        self._held = self._order[5 - data.ndim :]
        chunk = arrange(axes.letters, data.chunks).shape if data.chunks else None
        packing = packing_of(data)
        header = _header(data, axes, chunk, name)
        held = piece_bytes(chunk, dtype.itemsize) if packing else 0
        self.info = VolumeInfo(
            shape,
            dtype,
            geometry,
            time_step=step,
            format="hdf5",
            axes=axes.letters,
            compression=packing.name if packing else None,
            access=Access(chunk, packed=packing is not None, order=self._order, held_bytes=held),
            header=header,
            notes=axes.notes + notes,
            provenance=header.provenance.rpartition("\n")[2] or None,
        )


def _native_dtype(data: Any, name: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = data.dtype.newbyteorder("=")
    except H5_ERRORS as error:
        raise ReadError(f"{name}: its datatype cannot be read: {one_line(error)}") from error
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if dtype.name not in DTYPES or h5py.check_enum_dtype(dtype) is not None:
        raise ReadError(f"{name}: voxels of dtype {_dtype_text(data)} are not supported (known: {', '.join(DTYPES)})")
    # A plain dtype: h5py's own may carry metadata.
    return np.dtype(dtype.str)


def _dtype_text(data: Any) -> str:
    """Dtype of a dataset in words, whatever it is."""
    try:
        dtype = data.dtype
    except H5_ERRORS:
        return "unknown"
    if h5py.check_string_dtype(dtype) is not None:
        return "string"
    reference, sequence = h5py.check_ref_dtype(dtype), h5py.check_vlen_dtype(dtype)
    if reference is not None:
        return "region reference" if reference is h5py.RegionReference else "object reference"
    if sequence is not None:
        return f"sequence of {sequence}"
    if dtype != np.bool_ and h5py.check_enum_dtype(dtype) is not None:
        return f"enum of {dtype.name}"
    if dtype.names is not None:
        return f"compound ({', '.join(dtype.names)})"
    if dtype.subdtype is not None:
        return f"array {dtype.shape} of {dtype.base}"
    return "opaque" if dtype.kind == "V" else str(dtype.name)


def _stated_letters(data: Any) -> str:
    try:
        axes = axes_of(data, name_of(data))
    except ReadError:
        return ""
    return axes.letters if axes.stated else ""


def _header(data: Any, axes: Axes, chunk: Index5 | None, name: str) -> Hdf5Header:
    attributes, left = kept_attributes(data, name)
    return Hdf5Header(
        letters=axes.letters,
        chunk=chunk,
        packing=packing_of(data),
        attributes=attributes,
        left_out=left,
        tags=tuple((tag.letter.lower(), tag.description) for tag in axes.tags) if axes.tagged else None,
        provenance=as_text(attribute(data, "volconv", name)) or "",
    )
