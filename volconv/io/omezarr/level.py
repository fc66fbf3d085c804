"""How the values of one level are stored, chunk by chunk; and which they are, for displays."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.errors import WriteError
from volconv.io.checks import check_block
from volconv.io.formats import Url
from volconv.io.omezarr.pieces import at_a_time, pieces, within
from volconv.io.omezarr.store import load_zarr, opened_store, together, writing
from volconv.io.volume import NewVolume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from volconv.io.volume import VolumeInfo
    from volconv.region import Index5, Region


#: Chunks are written as they are, those of zeros too: bit by bit, with the sign of a zero.
AS_IT_IS: Any = {"write_empty_chunks": True}

#: Seconds.
_CHECKED_EVERY = 1.0


def opened_array(store: Any, path: str) -> Any:
    """An array that is there already, to be written."""
    import zarr

    return zarr.open_array(store, path=path, mode="r+").with_config(AS_IT_IS)


def in_file(values: Any, letters: str) -> Any:
    """Those of five values that belong to an array's axes."""
    return tuple(value for value, letter in zip(values, "TCZYX", strict=True) if letter in letters)


class LevelArray:
    """The array of a level, to be written.

    Parameters
    ----------
    array : zarr.Array
    letters : str
        Of its axes, some of TCZYX in this order.
    name : str
        For messages.

    Attributes
    ----------
    cache_bytes : int
        Memory for pieces that are kept until they are complete: one that is stored in parts is read, unpacked and
        packed again for each.
    """

    def __init__(self, array: Any, letters: str, name: str, cache_bytes: int = 0) -> None:
        self._array, self._letters, self._name, self.cache_bytes = array, letters, name, cache_bytes
        self._shape = self._as_five(array.shape)
        self._unit = within(self._as_five(array.shards or array.chunks), self._shape)
        self._kept: dict[Region, _Piece] = {}

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region, each once."""
        stored = []
        for piece in pieces(region, self._unit, self._shape):
            part = piece & region
            block = values[part.within(region).slices]
            if part == piece or math.prod(self._unit) * values.dtype.itemsize > self.cache_bytes:
                stored.append((part, block))
                continue
            kept = self._kept.setdefault(piece, _Piece(np.empty(piece.shape, values.dtype), []))
            kept.values[part.within(piece).slices] = block
            kept.parts.append(part)
            if sum(math.prod(one.shape) for one in kept.parts) == kept.values.size:
                stored.append((piece, self._kept.pop(piece).values))
        self._store(stored)
        while sum(kept.values.nbytes for kept in self._kept.values()) > self.cache_bytes:
            self._store_parts(next(iter(self._kept)))

    def flush(self) -> None:
        """Store what is kept."""
        for piece in list(self._kept):
            self._store_parts(piece)

    def _store_parts(self, piece: Region) -> None:
        kept = self._kept.pop(piece)
        for part in kept.parts:  # of one piece: one after the other
            self._store([(part, kept.values[part.within(piece).slices])])

    def _store(self, parts: list[tuple[Region, NDArray[Any]]]) -> None:
        """Store values of parts of different pieces, some at a time."""
        count = at_a_time(self._unit, self._array.dtype.itemsize)
        asynchronous = self._array.async_array
        for first in range(0, len(parts), count):
            calls = [
                asynchronous.setitem(
                    in_file(part.slices, self._letters), values.reshape(in_file(part.shape, self._letters))
                )
                for part, values in parts[first : first + count]
            ]
            with writing(self._name):
                together(calls)

    def sync(self, folder: Path, region: Region) -> None:
        """Bring to the disk what lies in a folder of a region."""
        for piece in pieces(region, self._unit, self._shape):
            numbers = [start // edge for start, edge in zip(piece.start, self._unit, strict=True)]
            key = self._array.metadata.encode_chunk_key(in_file(numbers, self._letters))
            with writing(self._name), Path(folder, self._array.path, key).open("rb") as file:
                os.fsync(file.fileno())

    def _as_five(self, sizes: Sequence[int]) -> Index5:
        found = dict(zip(self._letters, sizes, strict=True))
        n, c, d, h, w = (int(found.get(letter, 1)) for letter in "TCZYX")
        return n, c, d, h, w


class _Piece(NamedTuple):
    """A piece that is kept, and which parts of it are there."""

    values: NDArray[Any]
    parts: list[Region]


class Ranges:
    """The least and the largest value of each channel so far."""

    def __init__(self, channels: int) -> None:
        self._found = [(math.inf, -math.inf)] * channels

    def widen(self, region: Region, values: NDArray[Any]) -> None:
        """Count the values of a region; complex ones have no order."""
        if not values.size or values.dtype.kind not in "iuf":
            return
        for number, found in enumerate(values.swapaxes(0, 1), region.start[1]):
            kept = found[np.isfinite(found)] if values.dtype.kind == "f" else found
            if kept.size:
                self._add(number, kept.min().item(), kept.max().item())

    def merge(self, other: Sequence[Sequence[float] | None]) -> None:
        """Count what :meth:`known` told of other values."""
        for number, pair in enumerate(other):
            if pair is not None:
                self._add(number, *pair)

    def known(self) -> list[tuple[float, float] | None]:
        """By channel; None where no value was finite."""
        return [pair if pair[0] <= pair[1] else None for pair in self._found]

    def _add(self, number: int, low: float, high: float) -> None:
        before = self._found[number]
        self._found[number] = min(before[0], low), max(before[1], high)


class SharedLevel(NewVolume):
    """A level of an image that several processes write: what one of them has of it.

    Parameters
    ----------
    image : Path
        A folder or URL, in which the level's array lies already.
    number : int
    info : VolumeInfo
        Of the level.
    cache_bytes : int
        As :class:`LevelArray` has it.
    check : callable
        Called every second, before values are stored: raises where they no longer shall be.

    Raises
    ------
    WriteError
        It cannot be written.
    """

    def __init__(
        self, image: Path, number: int, info: VolumeInfo, cache_bytes: int = 0, *, check: Callable[[], None]
    ) -> None:
        self.info = info
        self._check, self._checked = check, monotonic()
        self.ranges = Ranges(info.shape[1])
        self._image = image
        self._regions: list[Region] = []
        load_zarr(str(image), WriteError)
        with writing(str(image)):
            array = opened_array(opened_store(image, WriteError, read_only=False), str(number))
        self._array = LevelArray(array, info.axes, str(image), cache_bytes)

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        if monotonic() - self._checked > _CHECKED_EVERY:
            self._check()
            self._checked = monotonic()
        self._array.write(region, values)
        self._regions.append(region)
        self.ranges.widen(region, values)

    def commit(self) -> None:
        """Bring what was written to the disk."""
        self._array.flush()
        if not isinstance(self._image, Url):
            for region in self._regions:
                self._array.sync(self._image, region)

    def abort(self) -> None:
        """Leave what was written: it is written again, or goes with the image."""


def remove_partial(image: Path) -> None:
    """Remove from a folder the files that zarr-python was writing where a process was killed."""
    with writing(str(image)):
        for folder, _, files in os.walk(image):
            for file in files:
                if file.endswith(".partial"):
                    with contextlib.suppress(FileNotFoundError):
                        Path(folder, file).unlink()
