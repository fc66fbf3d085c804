"""A block as one row of memory in which every tap of a kernel is an offset, whatever stride, dilation and channels.

A strided block is first split into its phases: within one phase a strided convolution has stride 1. Then output
``(z, y, x)`` sees tap ``t`` at ``offsets[t] + z*plane + y*pitch + x``.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams

Flat = tuple["NDArray[Any]", int, int, "NDArray[np.int64]"]


class FlatTaps:
    """Where the taps of one convolution lie in any block.

    Parameters
    ----------
    params : Conv3dParams
    dtype : numpy.dtype
        Of the blocks.
    """

    def __init__(self, params: Conv3dParams, dtype: np.dtype[Any]) -> None:
        self._stride = params.stride
        self._channels = params.in_channels // params.groups
        self._phases, self._taps = _locate_taps(params)
        self._offsets: dict[tuple[int, ...], NDArray[np.int64]] = {}
        self._split = None
        if params.stride != (1, 1, 1):
            from volconv.engines.cpu.flat_kernels import compiled_split_phases

            self._split = compiled_split_phases(dtype)

    def groups(self, block: NDArray[Any]) -> Iterator[Flat]:
        """For each group of channels of a (G*C, D, H, W) block: its flat data, pitch, plane and taps' offsets."""
        phases = block[:, None]
        if self._split is not None:
            size = [-(-n // s) for n, s in zip(block.shape[1:], self._stride, strict=True)]
            phases = np.empty((block.shape[0], len(self._phases), *size), block.dtype)
            self._split(block, self._stride, self._phases, phases)
        _, _, depth, height, width = phases.shape
        plane = height * width
        offsets = self._offsets.get(phases.shape[2:])
        if offsets is None:
            offsets = self._offsets[phases.shape[2:]] = self._taps @ np.array([plane * depth, plane, width, 1])
        for first in range(0, block.shape[0], self._channels):
            yield phases[first : first + self._channels].reshape(-1), width, plane, offsets


@contextmanager
def flat_output(out: NDArray[Any]) -> Iterator[tuple[NDArray[Any], tuple[int, ...], tuple[int, ...]]]:
    """A (C, D, H, W) array as one row of memory to write to: that row, the shape, and the strides along C, D, H.

    Compiled loops are several times faster on rows that are known to be side by side. Where those of ``out`` are not,
    the row is a copy that is stored on leaving.
    """
    ordered = out.strides[3] == out.itemsize and all(s >= 0 and s % out.itemsize == 0 for s in out.strides)
    target = out if ordered else np.empty(out.shape, out.dtype)
    strides = tuple(s // out.itemsize for s in target.strides)
    size = 1 + sum((n - 1) * s for n, s in zip(target.shape, strides, strict=True)) if target.size else 0
    yield as_strided(target, (size,), (target.itemsize,)), target.shape, strides[:3]
    if target is not out:
        out[...] = target


def _locate_taps(params: Conv3dParams) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each tap lies once a block is split into the phases of its strides.

    Returns
    -------
    phases : (P, 3) array
        The phases that some tap falls in; those of no tap are never formed.
    taps : (C_in/groups * kD*kH*kW, 4) array
        For each tap its place among the (channel, phase) planes, then along D, H, W.
    """
    where = [
        [(k * dilation % stride, k * dilation // stride) for k in range(kernel)]
        for kernel, dilation, stride in zip(params.kernel_size, params.dilation, params.stride, strict=True)
    ]
    phases = sorted({(d[0], h[0], w[0]) for d, h, w in itertools.product(*where)})
    index = {phase: i for i, phase in enumerate(phases)}
    located = [
        (channel * len(phases) + index[d[0], h[0], w[0]], d[1], h[1], w[1])
        for channel in range(params.in_channels // params.groups)
        for d, h, w in itertools.product(*where)
    ]
    return np.array(phases, dtype=np.int64), np.array(located, dtype=np.int64)
