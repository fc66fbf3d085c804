"""Pages that must be decoded: one at a time, the latest ones kept."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from volconv.io.checks import check_within
from volconv.io.volume import Access
from volconv.region import NCDHW

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.region import Index5, Region

#: Decoded pages kept: neighbouring blocks share the pages of their halos.
CACHE_BYTES = 64 << 20


class PageReader:
    """A volume of decoded pages, read by region.

    Parameters
    ----------
    load : callable
        Values of the page of a number, in the file's order.
    shape : tuple of 5 ints
        (N, C, D, H, W).
    dtype : numpy.dtype
        Native.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) as the file holds them, slowest first.
    paged : int
        How many of these, from the end, a page covers; pages count the others.

    Attributes
    ----------
    chunk : tuple of 5 ints
        Box (N, C, D, H, W) of a page.
    access : Access
        What touching a region costs.
    """

    def __init__(
        self,
        load: Callable[[int], NDArray[Any]],
        shape: Index5,
        dtype: np.dtype[Any],
        order: Index5 = NCDHW,
        paged: int = 2,
    ) -> None:
        self._load = load
        self._shape = shape
        self._outer, self._inner = order[: 5 - paged], order[5 - paged :]
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self.chunk = cast("Index5", tuple(shape[axis] if axis in self._inner else 1 for axis in range(5)))
        page = math.prod(self.chunk) * dtype.itemsize
        self.access = Access(self.chunk, packed=True, order=order, held_bytes=3 * page)
        self._most = max(1, CACHE_BYTES // max(1, math.prod(self.chunk) * dtype.itemsize))

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """Put the values of a region into an array (N, C, D, H, W)."""
        check_within(region, self._shape)
        values = out.transpose(*self._outer, *self._inner)
        if values.size:
            inside = tuple(region.slices[axis] for axis in self._inner)
            for place in np.ndindex(*(region.shape[axis] for axis in self._outer)):
                number = 0
                for axis, index in zip(self._outer, place, strict=True):
                    number = number * self._shape[axis] + region.start[axis] + index
                values[place] = self._page(number)[inside]

    def _page(self, number: int) -> NDArray[Any]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        page = self._load(number).reshape([self._shape[axis] for axis in self._inner])
        self._kept[number] = page
        return page
