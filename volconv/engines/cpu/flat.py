"""A block as one row of memory in which every tap of a kernel is an offset, whatever stride, dilation and channels.

A strided block is first split into its phases: within one phase a strided convolution has stride 1. Then output
``(z, y, x)`` sees tap ``t`` at ``offsets[t] + z*plane + y*pitch + x``.
"""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from volconv.engines import SLACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams, Triple


class Flat(NamedTuple):
    """A block of one group as one row of memory, readable a little beyond its end.

    ``strides`` are distances between neighbours: planes of channels (or of their phases), then outputs along D, H, W.
    """

    data: NDArray[Any]
    strides: tuple[int, int, int, int]


class FlatOutput(NamedTuple):
    """An array (C, D, H, W) to write to as one row of memory, and its strides along C, D and H."""

    data: NDArray[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]


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


class Flattener:
    """Makes blocks flat, whatever the stride.

    Parameters
    ----------
    params : Conv3dParams
    places : TapPlaces
    dtype : numpy.dtype
        Of the blocks.
    """

    def __init__(self, params: Conv3dParams, places: TapPlaces, dtype: np.dtype[Any]) -> None:
        self._stride = params.stride
        self._channels = params.in_channels // params.groups
        self._phases = places.phases
        self._split = None
        if params.stride != (1, 1, 1):
            from volconv.engines.cpu.flat_kernels import compiled_split_phases

            self._split = compiled_split_phases(dtype)

    def groups(self, block: NDArray[Any]) -> Iterator[Flat]:
        """The parts of a (G*C, D, H, W) block that belong to one group each."""
        shape = block.shape[1:]
        phases = 1
        if self._split is not None:
            shape = tuple(-(-n // s) for n, s in zip(shape, self._stride, strict=True))
            phases = len(self._phases)
            split = with_slack((block.shape[0], phases, *shape), block.dtype)
            self._split(block, self._stride, self._phases, split)
            block = split
        depth, height, width = shape
        volume = depth * height * width
        data = as_strided(block, (block.size + SLACK_BYTES // block.itemsize,), (block.itemsize,))
        for first in range(0, block.shape[0], self._channels):
            yield Flat(data[first * phases * volume :], (volume, height * width, width, 1))


def with_slack(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A fresh array, readable beyond its end as far as a tile may reach."""
    size = math.prod(shape)
    return np.empty(size + SLACK_BYTES // dtype.itemsize, dtype)[:size].reshape(shape)


@contextmanager
def flat_output(out: NDArray[Any]) -> Iterator[FlatOutput]:
    """A (C, D, H, W) array as one row of memory; where its rows are not side by side, a copy, stored on leaving."""
    ordered = out.strides[3] == out.itemsize and all(s >= 0 and s % out.itemsize == 0 for s in out.strides)
    target = out if ordered else np.empty(out.shape, out.dtype)
    strides = tuple(s // out.itemsize for s in target.strides)
    size = 1 + sum((n - 1) * s for n, s in zip(target.shape, strides, strict=True)) if target.size else 0
    yield FlatOutput(as_strided(target, (size,), (target.itemsize,)), target.shape, strides[:3])
    if target is not out:
        out[...] = target
