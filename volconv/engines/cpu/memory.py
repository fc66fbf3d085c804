"""Room for blocks and what is made of them: readable a little beyond its end, and kept by each thread."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import SLACK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes of a cache line, at a multiple of which all room begins.
LINE = 64


def with_slack(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A fresh array with whatever memory holds, readable beyond its end as far as a vector may reach."""
    size = math.prod(shape)
    room = np.empty(size + (SLACK_BYTES + LINE) // dtype.itemsize, dtype)
    first = -room.ctypes.data % LINE // dtype.itemsize
    return room[first : first + size].reshape(shape)


class Buffers(threading.local):
    """Arrays of each thread, kept from call to call: fresh memory costs more than filling it."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array :func:`with_slack` of this shape, with whatever it held before."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = self._held[name] = with_slack((size,), dtype)
        return held[:size].reshape(shape)
