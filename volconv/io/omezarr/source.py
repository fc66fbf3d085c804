"""A level of an OME-Zarr image as a volume."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError, ReadError
from volconv.io.axes import arrange
from volconv.io.checks import check_memory, check_within
from volconv.io.formats import ZARR, Url
from volconv.io.omezarr.codecs import Packing, chain, check_codecs, packing_of
from volconv.io.omezarr.metadata import Image, geometry_of, letters_of, parse_image
from volconv.io.omezarr.pieces import at_a_time, held_bytes, pieces, within
from volconv.io.omezarr.store import ask, library_bytes, load_zarr, opened_store, reading, together
from volconv.io.volume import Access, Entry, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Index5, Region


@dataclass(frozen=True, slots=True)
class ZarrHeader:
    """What of an input image a sink of OME-Zarr carries on.

    Parameters
    ----------
    letters : str
        Of its axes.
    chunk : tuple of 5 ints
        (N, C, D, H, W).
    shard : tuple of 5 ints or None
    compression : str
        By name; "none" where there is none.
    packing : Packing or None
        The same where it can be written.
    channels : tuple of dict
        NGFF's ``omero`` channels.
    version : {"0.4", "0.5"}
        Of NGFF.
    """

    letters: str
    chunk: Index5
    shard: Index5 | None
    compression: str
    packing: Packing | None
    channels: tuple[dict[str, Any], ...]
    version: str


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> ZarrSource:
    """Open a level of an image, the finest unless ``key`` is the number of another."""
    group, image = _opened(path)
    level = int(key or 0)
    if level >= len(image.levels):
        raise ReadError(f"{path}: has the levels 0 to {len(image.levels) - 1} (got {level})")
    name = f"{path}:{level}" if key is not None else str(path)
    array = _array(group, image, level, str(path))
    source = ZarrSource(array, image, level, name, library=library_bytes(path), axes=axes)
    if rgb and "S" not in source.info.axes:
        raise ParameterError(
            f"rgb must be used with files of colour pixels (got {name}, axes {source.info.axes})",
            hint="--axes (axes=...) says which axis is channels",
        )
    return source


def open_level(path: Path, attributes: dict[str, Any], number: int) -> ZarrSource:
    """Open a level of an image that is not finished: what would make it one is given, and not there yet."""
    zarr, name = load_zarr(str(path), ReadError), f"{path}:{number}"
    image = parse_image(attributes, 3 if "ome" in attributes else 2, str(path))
    with reading(name):
        array = zarr.open_array(opened_store(path, ReadError, read_only=True), path=image.levels[number].path, mode="r")
    return ZarrSource(array, image, number, name, library=library_bytes(path))


def list_contents(path: Path) -> list[Entry]:
    """Every level."""
    group, image = _opened(path)
    found = []
    for number in range(len(image.levels)):
        array = _array(group, image, number, str(path))
        try:
            letters = letters_of(image, array.shape, str(path), None)
        except ReadError:
            letters = ""
        found.append(Entry(f"{path}:{number}", tuple(map(int, array.shape)), np.dtype(array.dtype).name, letters))
    return found


class ZarrSource(OpenVolume):
    """An array of 2 to 5 axes, read chunk by chunk.

    Parameters
    ----------
    array : zarr.Array
    image : Image
        Of which the array is the level ``level``.
    name : str
        For messages.
    library : int
        Bytes that libraries take.
    axes : str or None
        Letters of the axes, in the array's own order; None takes what the image says.

    Raises
    ------
    ReadError
        The array is no volume, or its codecs are not known to be harmless.
    ParameterError
        ``axes`` does not fit.
    """

    def __init__(
        self, array: Any, image: Image, level: int, name: str, *, library: int, axes: str | None = None
    ) -> None:
        self._array: Any = array
        self._name = name
        self._kept: OrderedDict[Index5, NDArray[Any]] = OrderedDict()
        self._cache_bytes = 0
        letters = letters_of(image, array.shape, name, axes)
        shape, order = arrange(letters, array.shape)
        self._order, self._held = order, order[5 - array.ndim :]
        dtype = _native_dtype(array, name)
        geometry, step, notes = geometry_of(image, image.levels[level], letters, name)
        with reading(name):
            chunk, shard = arrange(letters, array.chunks).shape, array.shards and arrange(letters, array.shards).shape
        held = held_bytes(chunk, dtype.itemsize)
        check_memory(held, f"{name}: a chunk")
        self._at_a_time = at_a_time(chunk, dtype.itemsize)
        self._chunk = within(chunk, shape)
        codecs = chain(array.metadata)
        check_codecs(codecs, name)
        compression, packing = packing_of(codecs)
        self.info = VolumeInfo(
            shape,
            dtype,
            geometry,
            time_step=step,
            format="zarr",
            axes=letters,
            compression=compression,
            # Packed even where it is not compressed: of a chunk all is read.
            access=Access(self._chunk, packed=True, order=order, held_bytes=library + held),
            header=ZarrHeader(letters, chunk, shard, compression or "none", packing, image.channels, image.version),
            notes=image.remarks + notes,
            spacing_notes=notes,
            provenance=image.note,
        )

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        self._cache_bytes = reading.cache_bytes
        self._kept.clear()

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        check_within(region, self.info.shape)
        if self._array is None:
            raise ValueError(f"{self._name} is closed")
        if 0 in region.shape:
            return
        wanted = []
        for piece in pieces(region, self._chunk, self.info.shape):
            kept = self._kept.get(piece.start)
            if kept is None:
                wanted.append(piece)
                continue
            self._kept.move_to_end(piece.start)
            part = piece & region
            out[part.within(region).slices] = kept[part.within(piece).slices]
        for first in range(0, len(wanted), self._at_a_time):
            self._fetch(wanted[first : first + self._at_a_time], region, out)

    def _fetch(self, wanted: list[Region], region: Region, out: NDArray[Any]) -> None:
        """Read chunks; those that the region cuts are kept whole, as the next one may have the rest of them."""
        parts = [piece & region for piece in wanted]
        size = math.prod(self._chunk) * self.info.dtype.itemsize
        whole = [
            piece if size <= self._cache_bytes and part != piece else part
            for piece, part in zip(wanted, parts, strict=True)
        ]
        asynchronous = self._array.async_array
        with reading(self._name):
            found = together([asynchronous.getitem(self._place(one)) for one in whole])
        for piece, part, one, values in zip(wanted, parts, whole, found, strict=True):
            held = self._as_volume(np.asarray(values), one.shape)
            out[part.within(region).slices] = held[part.within(one).slices]
            if one is not part:
                self._kept[piece.start] = held
        while len(self._kept) * size > self._cache_bytes:
            self._kept.popitem(last=False)

    def _place(self, region: Region) -> tuple[slice, ...]:
        return tuple(region.slices[axis] for axis in self._held)

    def _as_volume(self, values: NDArray[Any], shape: Index5) -> NDArray[Any]:
        """What the array gives, as (N, C, D, H, W)."""
        sizes = [shape[axis] for axis in self._order]
        return values.reshape(sizes).transpose(np.argsort(self._order))

    def close(self) -> None:
        """Let go of the array and of what is kept of it."""
        self._array = None
        self._kept.clear()


def _opened(path: Path) -> tuple[Any, Image]:
    """The group of an image, and what its metadata say."""
    zarr = load_zarr(str(path), ReadError)
    with reading(str(path)):
        store = opened_store(path, ReadError, read_only=True)
        if isinstance(path, Url):
            ask(store)
        try:
            group = zarr.open_group(store, mode="r")
        except FileNotFoundError as error:
            raise ReadError(f"{path}: is no OME-Zarr image (there is no Zarr group)") from error
        except zarr.errors.ContainsArrayError as error:
            raise ReadError(f"{path}: is no OME-Zarr image (it is a Zarr array alone)") from error
        attributes, version = group.attrs.asdict(), group.metadata.zarr_format
    return group, parse_image(attributes, version, str(path))


def _array(group: Any, image: Image, level: int, name: str) -> Any:
    zarr = load_zarr(name, ReadError)
    path = image.levels[level].path
    with reading(name, f"its level {level} cannot be read"):
        array = group.get(path)
    if not isinstance(array, zarr.Array):
        raise ReadError(f"{name}: its level {level} is missing (there is no array {path!r})")
    if array.ndim != len(image.names):
        raise ReadError(f"{name}: its level {level} must have {len(image.names)} axes (got shape {array.shape})")
    if 0 in array.shape:
        raise ReadError(f"{name}: every axis must hold a voxel (got shape {array.shape})")
    if max(array.shape) >= 1 << 62 or math.prod(array.shape) >= 1 << 62:
        raise ReadError(f"{name}: is larger than any volume can be (got shape {array.shape})")
    return array


def _native_dtype(array: Any, name: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(array.dtype)
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if dtype.newbyteorder("=").name not in ZARR.dtypes:
        raise ReadError(f"{name}: voxels of dtype {dtype} are not supported (known: {', '.join(ZARR.dtypes)})")
    return dtype.newbyteorder("=")
