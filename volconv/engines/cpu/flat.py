"""A block as memory in which every tap of a kernel is an offset, whatever stride, dilation and channels.

A strided block is first split into its phases: within one phase a strided convolution has stride 1. Then output
``(z, y, x)`` sees each tap at an offset of its own from ``z*plane + y*pitch + x``.
"""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.engines import SLACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams, Triple


class Flat(NamedTuple):
    """Where compiled loops find the data of one group, or put its outputs.

    An address, and how many elements apart neighbours lie: volumes of channels (or of their phases), then voxels along
    D, H, W. Whoever makes one holds the array meanwhile.
    """

    address: int
    strides: tuple[int, int, int, int]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Flat:
        """That of a (C, D, H, W) array whose strides are whole elements."""
        c, d, h, w = array.strides
        n = array.itemsize
        return cls(array.__array_interface__["data"][0], (c // n, d // n, h // n, w // n))

    def volume(self, number: int, itemsize: int) -> Flat:
        """From another channel on."""
        return Flat(self.address + number * self.strides[0] * itemsize, self.strides)


@dataclass(frozen=True, slots=True, eq=False)
class TapPlaces:
    """Where the taps of a convolution lie once a block is split into the phases of its strides.

    Parameters
    ----------
    phases : (P, 3) array
        The phases that some tap falls in; those of no tap are never formed.
    taps : (C_in/groups, kD, kH, kW, 4) array
        For each tap its place among the (channel, phase) planes, then along D, H, W.
    layers : 3 lists of lists
        For each axis the kernel's layers, those of one phase together.
    neighbour : tuple of 3 ints
        Outputs so far apart see the same places, one layer on.
    """

    phases: NDArray[np.int64]
    taps: NDArray[np.int64]
    layers: tuple[list[list[int]], ...]
    neighbour: Triple

    @classmethod
    def of(cls, params: Conv3dParams) -> TapPlaces:
        """The places for these parameters."""
        axes = list(zip(params.kernel_size, params.dilation, params.stride, strict=True))
        where = [[(k * dilation % stride, k * dilation // stride) for k in range(n)] for n, dilation, stride in axes]
        phases = sorted({(d[0], h[0], w[0]) for d, h, w in itertools.product(*where)})
        index = {phase: i for i, phase in enumerate(phases)}
        located = [
            (channel * len(phases) + index[d[0], h[0], w[0]], d[1], h[1], w[1])
            for channel in range(params.in_channels // params.groups)
            for d, h, w in itertools.product(*where)
        ]
        layers = tuple(
            [[k for k in range(len(axis)) if axis[k][0] == phase] for phase in sorted({p for p, _ in axis})]
            for axis in where
        )
        nd, nh, nw = (dilation // math.gcd(stride, dilation) for _, dilation, stride in axes)
        taps = np.array(located, dtype=np.int64).reshape(-1, *params.kernel_size, 4)
        return cls(np.array(phases, dtype=np.int64), taps, layers, (nd, nh, nw))


class Phases:
    """Splits blocks into the phases of their strides: within one phase a strided convolution has stride 1.

    Parameters
    ----------
    params : Conv3dParams
    places : TapPlaces
    dtype : numpy.dtype
        Of the blocks.
    """

    def __init__(self, params: Conv3dParams, places: TapPlaces, dtype: np.dtype[Any]) -> None:
        self._stride = params.stride
        self._phases = places.phases
        self._split = None
        if params.stride != (1, 1, 1):
            from volconv.engines.cpu.flat_kernels import compiled_split_phases

            self._split = compiled_split_phases(dtype)

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        """A (C, D, H, W) block as (C*phases, d, h, w): itself where there is but one phase."""
        if self._split is None:
            return block
        size = tuple(-(-n // s) for n, s in zip(block.shape[1:], self._stride, strict=True))
        phases = with_slack((block.shape[0], len(self._phases), *size), block.dtype)
        self._split(block, self._stride, self._phases, phases)
        return phases.reshape(-1, *size)


def with_slack(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A fresh array, readable beyond its end as far as a tile may reach."""
    size = math.prod(shape)
    return np.empty(size + SLACK_BYTES // dtype.itemsize, dtype)[:size].reshape(shape)


@contextmanager
def lines_of(out: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """A (C, D, H, W) array whose voxels lie side by side along W, as compiled loops write them.

    Where those of ``out`` do not, it is a copy that is stored on leaving.
    """
    if out.strides[3] == out.itemsize and all(s % out.itemsize == 0 for s in out.strides):
        yield out
        return
    copy = np.empty(out.shape, out.dtype)
    yield copy
    out[...] = copy
