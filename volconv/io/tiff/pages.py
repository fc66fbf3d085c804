"""Pages that must be decoded: piece by piece, several at a time, the latest ones kept."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from volconv.io.checks import check_within
from volconv.io.volume import Access
from volconv.region import NCDHW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Index5, Region

#: Decoded pieces that are kept where nobody says how a volume is read: neighbouring regions share some.
CACHE_BYTES = 64 << 20

#: Threads that decode, and what all of them may hold; one that needs more is alone.
MOST_THREADS = 4
DECODING_BYTES = 48 << 20


class _Job(NamedTuple):
    """One piece of one page, the part of it that is wanted, and where it goes."""

    page: int
    piece: int
    part: tuple[slice, ...]
    target: NDArray[Any]


class PageReader:
    """A volume of pages that must be decoded, read by region.

    Parameters
    ----------
    load : callable
        Values of a piece of a page, by their numbers; at the end of a page it may be cut off, or filled up. Those of a
        whole page may be flat. It is called from several threads.
    shape : tuple of 5 ints
        (N, C, D, H, W).
    dtype : numpy.dtype
        Native.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) as the file holds them, slowest first.
    paged : int
        How many of these, from the end, a page covers; pages count the others.
    piece : sequence of int, optional
        Size of a piece along the axes of a page, counted in their order; a whole page by default.

    Attributes
    ----------
    page_shape : tuple of int
        Sizes of the axes that a page covers.
    access : Access
        What touching a region costs.
    """

    def __init__(
        self,
        load: Callable[[int, int], NDArray[Any]],
        shape: Index5,
        dtype: np.dtype[Any],
        order: Index5 = NCDHW,
        paged: int = 2,
        piece: Sequence[int] | None = None,
    ) -> None:
        self._load = load
        self._shape = shape
        self._outer, self._inner = order[: 5 - paged], order[5 - paged :]
        self.page_shape = tuple(shape[axis] for axis in self._inner)
        self._piece = [min(p, n) for p, n in zip(piece or self.page_shape, self.page_shape, strict=True)]
        self._pieces = [-(-n // p) for p, n in zip(self._piece, self.page_shape, strict=True)]
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        edges = dict(zip(self._inner, self._piece, strict=True))
        chunk = cast("Index5", tuple(edges.get(axis, 1) for axis in range(5)))
        self._piece_bytes = max(1, math.prod(chunk) * dtype.itemsize)
        self._most = max(1, CACHE_BYTES // self._piece_bytes)
        # As it is packed, as it is unpacked, and in the dtype that is asked for.
        held = 3 * self._piece_bytes
        self._threads = max(1, min(os.cpu_count() or 1, MOST_THREADS, DECODING_BYTES // held))
        self._pool: ThreadPoolExecutor | None = None
        self.access = Access(chunk, packed=True, order=order, held_bytes=self._threads * held)

    def expect(self, reading: Reading) -> None:
        """See :meth:`volconv.io.OpenVolume.expect`."""
        self._most = reading.cache_bytes // self._piece_bytes
        self._kept.clear()

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """Put the values of a region into an array (N, C, D, H, W)."""
        check_within(region, self._shape)
        jobs = list(self._jobs(region, out.transpose(*self._outer, *self._inner))) if out.size else []
        if len(jobs) < 2 or self._threads == 1:
            for job in jobs:
                self._do(job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "volconv-decode")
        for _ in self._pool.map(self._do, jobs):
            pass

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _jobs(self, region: Region, values: NDArray[Any]) -> Iterator[_Job]:
        first = [region.start[axis] for axis in self._inner]
        last = [region.stop[axis] for axis in self._inner]
        touched = [range(a // p, -(-b // p)) for a, b, p in zip(first, last, self._piece, strict=True)]
        for place in np.ndindex(*(region.shape[axis] for axis in self._outer)):
            page = 0
            for axis, index in zip(self._outer, place, strict=True):
                page = page * self._shape[axis] + region.start[axis] + index
            for where in itertools.product(*touched):
                piece, part, target = 0, [], []
                for index, count, size, a, b in zip(where, self._pieces, self._piece, first, last, strict=True):
                    piece = piece * count + index
                    begin, end = max(a, index * size), min(b, (index + 1) * size)
                    part.append(slice(begin - index * size, end - index * size))
                    target.append(slice(begin - a, end - a))
                yield _Job(page, piece, tuple(part), values[(*place, *target)])

    def _do(self, job: _Job) -> None:
        job.target[...] = self._decoded(job.page, job.piece)[job.part]

    def _decoded(self, page: int, piece: int) -> NDArray[Any]:
        key = page, piece
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        values = self._load(page, piece)
        if values.ndim == 1:
            values = values.reshape(self.page_shape)
        if self._most:
            with self._lock:
                while len(self._kept) >= self._most:
                    self._kept.popitem(last=False)
                self._kept[key] = values
        return values
