"""Pages that must be decoded: one at a time, the latest ones kept."""

from __future__ import annotations

import itertools
import lzma
import math
import struct
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.io.checks import check_within
from volconv.io.raw import NCDHW

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.region import Index5, Region

#: What tifffile and its codecs raise for files that are damaged or packed in an unknown way.
DECODE_ERRORS = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)

#: Decoded pages kept: neighbouring blocks share the pages of their halos.
CACHE_BYTES = 64 << 20


class PageReader:
    """A volume of decoded pages, read by region.

    Parameters
    ----------
    load : callable
        Decoded page of a number, shape (H, W).
    shape : tuple of 5 ints
        (N, C, D, H, W).
    dtype : numpy.dtype
        Native.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) as the pages follow each other, slowest first; it ends in ``3, 4``.
    """

    def __init__(
        self, load: Callable[[int], NDArray[Any]], shape: Index5, dtype: np.dtype[Any], order: Index5 = NCDHW
    ) -> None:
        self._load = load
        self._shape = shape
        self._dtype = dtype
        self._order = order
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._most = max(1, CACHE_BYTES // max(1, shape[3] * shape[4] * dtype.itemsize))

    def read(self, region: Region) -> NDArray[Any]:
        """Values of a region, axes (N, C, D, H, W), in memory of their own."""
        check_within(region, self._shape)
        values: NDArray[Any] = np.empty(region.shape, self._dtype)
        if values.size == 0:
            return values
        axes = self._order[:3]
        step = [math.prod(self._shape[other] for other in axes[place + 1 :]) for place in range(3)]
        for index in itertools.product(*(range(region.start[axis], region.stop[axis]) for axis in axes)):
            number = sum(i * s for i, s in zip(index, step, strict=True))
            place = [0, 0, 0]
            for axis, i in zip(axes, index, strict=True):
                place[axis] = i - region.start[axis]
            values[tuple(place)] = self._page(number)[region.slices[3:]]
        return values

    def _page(self, number: int) -> NDArray[Any]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        page = self._load(number).reshape(self._shape[3:])
        self._kept[number] = page
        return page
