"""Flat, uncompressed arrays inside files, read and written by position.

No memory maps: mapped pages count as resident memory, and an I/O error in one kills the process.
"""

from __future__ import annotations

import itertools
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from volconv.errors import ReadError
from volconv.io.checks import check_within
from volconv.io.target import translated
from volconv.region import NCDHW, Region

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from volconv.region import Index5

#: Rows are read together with the gaps between them where a gap is no longer than this: about what is copied in the
#: time of one call. It makes a block of 130 voxels a side 20 times faster to read, and leaves long runs alone.
BRIDGED_GAP = 16 << 10

#: Memory for rows with their gaps.
BRIDGED_BYTES = 1 << 20

#: Bytes that are brought to the disk as soon as they are written.
LONG_RUN = 1 << 20

#: Bytes moved at a time when a stream is copied.
COPY_BYTES = 1 << 20


class HasDescriptor(Protocol):
    """A file that the operating system knows; ``fileno`` raises ValueError once it is closed."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


class RawFile:
    """One array of a file, by region and in any order.

    Parameters
    ----------
    file : file
        Open, and kept open by the caller.
    offset : int
        Byte at which the array starts.
    dtype : numpy.dtype
        In the file's byte order. Regions are read and written in native byte order.
    shape : tuple of 5 ints
        (N, C, D, H, W).
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) in the order in which the file holds them, slowest first:
        ``(1, 0, 2, 3, 4)`` for NIfTI, whose channels vary slowest.
    name : str
        The file's name, for messages.

    Examples
    --------
    >>> import tempfile
    >>> from volconv.region import Region
    >>> with tempfile.TemporaryFile() as file:
    ...     raw = RawFile(file, 0, np.dtype("<u2"), (1, 1, 2, 2, 3), name="example")
    ...     raw.write(Region.whole(raw.shape), np.arange(12, dtype=np.uint16).reshape(raw.shape))
    ...     raw.read(Region((0, 0, 1, 0, 0), (1, 1, 2, 2, 2))).ravel().tolist()
    [6, 7, 9, 10]
    """

    def __init__(
        self,
        file: HasDescriptor,
        offset: int,
        dtype: np.dtype[Any],
        shape: Index5,
        order: Index5 = NCDHW,
        *,
        name: str,
    ) -> None:
        self.file = file
        self.offset = offset
        self.dtype = dtype
        self.shape = shape
        self.order = order
        self.name = name

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check_length(self) -> None:
        """Refuse a file that ends before the array does.

        Raises
        ------
        ReadError
            The file is truncated.
        """
        held = max(0, os.fstat(self.file.fileno()).st_size - self.offset)
        if held < self.nbytes:
            raise ReadError(f"{self.name}: is truncated: {self.nbytes} bytes of voxels expected, {held} found")

    def read(self, region: Region) -> NDArray[Any]:
        """Values of a region, axes (N, C, D, H, W), in memory of their own.

        Raises
        ------
        ReadError
            The file ends early, or the operating system cannot read it.
        """
        values: NDArray[Any] = np.empty([region.shape[axis] for axis in self.order], self.dtype.newbyteorder("="))
        values = values.transpose(np.argsort(self.order))
        self.read_into(region, values)
        return values

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """Put the values of a region into an array of its shape, in native byte order, of any strides.

        Raises
        ------
        ReadError
            As :meth:`read`.
        """
        memory = out.transpose(self.order)
        if not memory.size:
            check_within(region, self.shape)
            return
        if memory.strides[-1] != memory.itemsize:
            out[...] = self.read(region)
            return
        rows, run, pitch, positions, axis = self._runs(region, _contiguous_from(memory))
        together = BRIDGED_BYTES // pitch if pitch - run <= BRIDGED_GAP else 0
        for place, position in zip(np.ndindex(memory.shape[: max(0, axis - 1)]), positions, strict=True):
            group: NDArray[np.uint8] = memory[place].reshape(rows, run // memory.itemsize).view(np.uint8)
            if rows == 1 or together < 2:
                for row in range(rows):
                    self._read_into(group[row].data, position + row * pitch)
            else:
                self._read_bridged(group, position, pitch, together)
        if not self.dtype.isnative:
            out.byteswap(inplace=True)  # what was read is the file's bytes

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region.

        Raises
        ------
        WriteError
            The disk is full, or the operating system cannot write for another reason.
        """
        source = in_file_order(values, self.dtype, self.order)
        rows, run, pitch, positions, _ = self._runs(region)
        start = 0
        with translated(self.name):
            for first in positions:
                for position in range(first, first + rows * pitch, pitch):
                    self._write_from(source[start : start + run], position)
                    start += run

    def _write_from(self, source: memoryview, position: int) -> None:
        done = 0
        while done < len(source):
            done += os.pwritev(self.file.fileno(), [source[done:]], position + done)
        if done >= LONG_RUN and hasattr(os, "posix_fadvise"):
            # Linux begins to bring it to the disk, and waits for nothing: it need not be done all at the end.
            os.posix_fadvise(self.file.fileno(), position, done, os.POSIX_FADV_DONTNEED)

    def _read_bridged(self, group: NDArray[np.uint8], position: int, pitch: int, together: int) -> None:
        """Read rows with the gaps between them, several a call, and keep the rows."""
        rows, run = group.shape
        scratch = np.empty((min(rows, together), pitch), np.uint8)
        for first in range(0, rows, together):
            count = min(together, rows - first)
            # The last gap is not read: it may lie beyond the end of the file.
            self._read_into(scratch.reshape(-1).data[: (count - 1) * pitch + run], position + first * pitch)
            group[first : first + count] = scratch[:count, :run]

    def _read_into(self, target: memoryview, position: int) -> None:
        done = 0
        while done < len(target):
            try:
                got = os.preadv(self.file.fileno(), [target[done:]], position + done)
            except OSError as error:
                raise ReadError(f"{self.name}: cannot be read: {error.strerror}") from error
            if got == 0:
                raise ReadError(f"{self.name}: is truncated: the file ends at byte {position + done}")
            done += got

    def _runs(self, region: Region, contiguous: int = 0) -> Runs:
        check_within(region, self.shape)
        return runs(region, self.shape, self.order, self.dtype.itemsize, self.offset, contiguous)


class Runs(NamedTuple):
    """Contiguous runs of a region in a file, in groups that lie at even distances.

    Parameters
    ----------
    rows, run, pitch : int
        Runs in a group, bytes of each, bytes from the start of one to the next.
    positions : iterable of int
        Byte in the file at which each group starts.
    axis : int
        The first of the axes, in the file's order, that a run covers; the one before it counts the runs of a group.
    """

    rows: int
    run: int
    pitch: int
    positions: Iterable[int]
    axis: int


def runs(region: Region, shape: Index5, order: Index5, itemsize: int, offset: int = 0, contiguous: int = 0) -> Runs:
    """Where a region of an array lies in a file, as :class:`RawFile` puts it.

    ``contiguous`` is the first axis of those, in the file's order, that a run may hold more than one index of.
    """
    size = [shape[axis] for axis in order]
    first = [region.start[axis] for axis in order]
    count = [region.shape[axis] for axis in order]
    if 0 in count:
        return Runs(1, 0, 1, (), 0)
    # Axes that are taken whole merge with the next slower one into longer runs.
    axis = len(size) - 1
    while axis > contiguous and count[axis] == size[axis]:
        axis -= 1
    stride = [math.prod(size[a + 1 :]) * itemsize for a in range(len(size))]
    base = offset + sum(f * s for f, s in zip(first, stride, strict=True))
    run = count[axis] * stride[axis]
    if axis == 0:
        return Runs(1, run, run, (base,), 0)
    outer = [range(0, count[a] * stride[a], stride[a]) for a in range(axis - 1)]
    positions = (base + sum(steps) for steps in itertools.product(*outer))
    return Runs(count[axis - 1], run, stride[axis - 1], positions, axis)


def span(region: Region, shape: Index5, order: Index5) -> tuple[int, int]:
    """Half-open interval, in voxels from the start of an array in a file, from a region's first voxel to its last.

    >>> span(Region((0, 0, 1, 0, 0), (1, 1, 2, 3, 4)), (1, 1, 2, 3, 4), NCDHW)
    (12, 24)
    """
    first = last = 0
    for axis in order:
        first = first * shape[axis] + region.start[axis]
        last = last * shape[axis] + region.stop[axis] - 1
    return first, last + 1


def in_turn(regions: Iterable[Region], shape: Index5, order: Index5, *, gaps: bool = True) -> bool:
    """Whether each of these regions begins where the one before it ended in the file; later, if there may be gaps.

    >>> slabs = [Region((0, 0, z, 0, 0), (1, 1, z + 1, 2, 3)) for z in (0, 1, 3)]
    >>> in_turn(slabs, (1, 1, 4, 2, 3), NCDHW), in_turn(slabs, (1, 1, 4, 2, 3), NCDHW, gaps=False)
    (True, False)
    """
    end = 0
    for region in regions:
        if 0 not in region.shape:
            first, last = span(region, shape, order)
            if first < end or not (gaps or last - end == math.prod(region.shape)):
                return False
            end = last
    return True


def _contiguous_from(memory: NDArray[Any]) -> int:
    """The first of the axes whose voxels follow each other in memory without gaps, to the last axis."""
    axis, expected = memory.ndim - 1, memory.itemsize
    while axis > 0:
        expected *= memory.shape[axis]
        if memory.shape[axis - 1] > 1 and memory.strides[axis - 1] != expected:
            break
        axis -= 1
    return axis


def in_file_order(values: NDArray[Any], dtype: np.dtype[Any], order: Index5) -> memoryview:
    """Bytes of a region's values as they follow each other in a file; no copy where they do so in memory."""
    return np.ascontiguousarray(values.transpose(order), dtype).reshape(-1).view(np.uint8).data
