"""NaN and infinity in algorithms that would smear them.

An algorithm that transforms its input, or leaves out products with zero, would let a value that is not finite spread
farther, or less far, than the direct sum does. It is given a copy in which they are zero instead. Then an output whose
window holds a NaN is NaN; one whose window holds an infinity, or that overflowed, is taken from the direct algorithm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import item_voxels
from volconv.engines.cpu.memory import with_slack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Prepared, Problem
    from volconv.params import Conv3dParams, Triple


class Guarded:
    """An algorithm with values that are not finite kept from it: see :class:`volconv.engines.Prepared`."""

    def __init__(self, inner: Prepared, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        self._inner, self._problem = inner, problem
        self._weight, self._bias = weight, bias
        self._direct: Prepared | None = None

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        self._inner(block, out, first_group)
        if all_finite(out):  # then so was all that it saw
            return
        finite = np.isfinite(block)
        if finite.all():
            self._take_direct(block, out, first_group, ~np.isfinite(out))
            return
        clean = with_slack(block.shape, block.dtype)
        np.copyto(clean, block)
        clean[~finite] = 0
        self._inner(clean, out, first_group)
        nan = self._reached(np.isnan(block), len(out))
        other = (self._reached(np.isinf(block), len(out)) | ~np.isfinite(out)) & ~nan
        out[nan] = np.nan
        if other.any():
            self._take_direct(block, out, first_group, other)

    def _take_direct(self, block: NDArray[Any], out: NDArray[Any], first_group: int, where: NDArray[np.bool_]) -> None:
        if self._direct is None:
            from volconv.engines.cpu.direct import Direct

            self._direct = Direct().prepare(self._problem, self._weight, self._bias)
        exact = np.empty(out.shape, out.dtype)
        self._direct(block, exact, first_group)
        np.copyto(out, exact, where=where)

    def _reached(self, marked: NDArray[np.bool_], out_channels: int) -> NDArray[np.bool_]:
        """Which of the outputs have a marked voxel in their window, zero taps included."""
        params = self._problem.params
        channels = params.in_channels // params.groups
        groups = len(marked) // channels
        of_groups = np.logical_or.reduce(marked.reshape(groups, channels, *marked.shape[1:]), axis=1)
        seen = windows_with_any(of_groups, params)
        return np.repeat(seen, out_channels // groups, axis=0)


def guard_bytes(problem: Problem, groups: int, box: Triple) -> int:
    """Most bytes that :class:`Guarded` holds for a block with values that are not finite."""
    from volconv.engines.cpu.direct import Direct

    voxels, outputs = item_voxels(problem, groups, box)
    size = problem.dtype.itemsize
    # The clean copy and two masks of the block; exact results and masks of the outputs.
    return voxels * (size + 2) + outputs * (size + 4) + Direct().workspace(problem, groups, box)


def windows_with_any(marked: NDArray[np.bool_], params: Conv3dParams, xp: Any = np) -> NDArray[np.bool_]:
    """Which outputs of a valid convolution see a marked voxel; (G, D, H, W) to (G, d, h, w), arrays of ``xp``."""
    for axis, (k, stride, dilation) in enumerate(
        zip(params.kernel_size, params.stride, params.dilation, strict=True), start=1
    ):
        count = (marked.shape[axis] - dilation * (k - 1) - 1) // stride + 1
        seen = xp.zeros((*marked.shape[:axis], count, *marked.shape[axis + 1 :]), bool)
        for tap in range(k):
            first = tap * dilation
            part = (slice(None),) * axis + (slice(first, first + (count - 1) * stride + 1, stride),)
            seen |= marked[part]
        marked = seen
    return marked


def all_finite(values: NDArray[Any]) -> bool:
    """Whether all are: NaN is the largest and the smallest of all."""
    return values.size == 0 or bool(np.isfinite(values.max()) and np.isfinite(values.min()))
