"""A block as memory in which every tap of a kernel is an offset, whatever stride, dilation and channels.

Where lines are strided, they are first split into phases: within one phase a strided convolution has stride 1. Then
output ``(z, y, x)`` sees each tap at an offset of its own from ``z*sd*plane + y*sh*pitch + x``.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.engines import item_voxels
from volconv.engines.cpu.memory import with_slack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple


class Flat(NamedTuple):
    """Where compiled loops find the data of one group, or put its outputs.

    An address, and how many elements apart neighbours lie: volumes of channels (or of their phases), then voxels along
    D, H, W. Whoever makes one holds the array meanwhile.
    """

    address: int
    strides: tuple[int, int, int, int]
    itemsize: int

    @classmethod
    def of(cls, array: NDArray[Any]) -> Flat:
        """That of a (C, D, H, W) array whose strides are whole elements."""
        c, d, h, w = array.strides
        n = array.itemsize
        return cls(array.__array_interface__["data"][0], (c // n, d // n, h // n, w // n), n)

    def volume(self, number: int) -> Flat:
        """From another channel on."""
        return self._replace(address=self.address + number * self.strides[0] * self.itemsize)


@dataclass(frozen=True, slots=True, eq=False)
class TapPlaces:
    """Where the taps of a convolution lie in a block, once its lines are split into the phases of their stride.

    Parameters
    ----------
    stride : tuple of 3 ints
    phases : tuple of ints
        Along W, the phases that some tap falls in; those of no tap are never formed.
    taps : (C_in/groups, kD, kH, kW, 4) array
        For each tap its place among the (channel, phase) volumes, then along D, H and, within its phase, W.
    layers : 3 lists of lists
        For each axis the kernel's layers, those together that one output sees where another sees the one before.
    neighbour : tuple of 3 ints
        How many outputs apart those two are.
    """

    stride: Triple
    phases: tuple[int, ...]
    taps: NDArray[np.int64]
    layers: tuple[list[list[int]], ...]
    neighbour: Triple

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, params: Conv3dParams) -> TapPlaces:
        """The places for these parameters: the same object for the same ones, as long as few others are asked for."""
        d, h, w = ([k * dil for k in range(n)] for n, dil in zip(params.kernel_size, params.dilation, strict=True))
        stride = params.stride[2]
        phases = sorted({x % stride for x in w})
        channels = params.in_channels // params.groups
        taps = np.empty((channels, *params.kernel_size, 4), np.int64)
        taps[..., 0] = np.arange(channels)[:, None, None, None] * len(phases) + [phases.index(x % stride) for x in w]
        taps[..., 1], taps[..., 2] = np.array(d)[:, None, None], np.array(h)[:, None]
        taps[..., 3] = [x // stride for x in w]
        layers = tuple(
            [[k for k, x in enumerate(axis) if x % s == phase] for phase in sorted({x % s for x in axis})]
            for axis, s in zip((d, h, w), params.stride, strict=True)
        )
        nd, nh, nw = (dil // math.gcd(s, dil) for dil, s in zip(params.dilation, params.stride, strict=True))
        return cls(params.stride, tuple(phases), taps, layers, (nd, nh, nw))


class Phases:
    """Splits the lines of blocks into the phases of their stride: within one phase a convolution has stride 1 along W.

    Parameters
    ----------
    places : TapPlaces
    dtype : numpy.dtype
        Of the blocks.
    """

    def __init__(self, places: TapPlaces, dtype: np.dtype[Any]) -> None:
        self._stride = places.stride[2]
        self.count = len(places.phases)
        self._phases = np.array(places.phases)
        self._split = None
        if self._stride > 1:
            from volconv.engines.cpu.flat_kernels import compiled_split_phases

            self._split = compiled_split_phases(dtype)

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        """A (C, D, H, W) block as (C*phases, D, H, W/stride): itself where the stride is 1."""
        if self._split is None:
            return block
        channels, depth, height, width = block.shape
        phases = with_slack((channels, len(self._phases), depth, height, -(-width // self._stride)), block.dtype)
        self._split(block, self._stride, self._phases, phases)
        return phases.reshape(-1, *phases.shape[2:])


def phase_bytes(problem: Problem, groups: int, box: Triple) -> int:
    """Bytes of a padded block split into :class:`Phases`; none where the stride is 1."""
    stride, kernel = problem.params.stride[2], problem.params.kernel_size[2]
    if stride == 1:
        return 0
    voxels, _ = item_voxels(problem, groups, box)
    return math.ceil(voxels * min(stride, kernel) / stride * 1.1) * problem.dtype.itemsize  # lines are filled up


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


@contextmanager
def groups_of(block: NDArray[Any], out: NDArray[Any], rows: int) -> Iterator[list[tuple[Flat, Flat]]]:
    """Data and outputs of each group of a block, of ``rows`` output channels; ``out`` may have any strides."""
    with lines_of(out) as target:
        data, outputs = Flat.of(block), Flat.of(target)
        groups = len(out) // rows
        channels = len(block) // groups
        yield [(data.volume(i * channels), outputs.volume(i * rows)) for i in range(groups)]
