"""The direct algorithm: the sum as it is written, a few taps a pass. For few channels and small kernels."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs
from volconv.shapes import multiply_adds, taps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams
    from volconv.region import Index5

#: Seconds for one multiply-add in float32, one output channel a pass and four (set by tests/benchmarks/algorithms.py).
SECONDS_ALONE = 1 / 17e9
SECONDS_IN_FOURS = 1 / 24e9
#: Seconds to read one float32 voxel into a block, and to store one (set by tests/benchmarks/algorithms.py).
SECONDS_PER_VOXEL = 0.4e-9

#: Half of a common L2 cache, so that block and results fit.
BLOCK_BYTES = 1 << 19


class Direct:
    """See :class:`volconv.engines.Engine`."""

    name = "direct"

    def supports(self, params: Conv3dParams, dtype: np.dtype[Any]) -> str | None:  # noqa: ARG002
        """Everything."""
        return None

    def cost(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> float:
        """Multiply-adds at the measured rate, and the memory traffic."""
        per_group = params.out_channels // params.groups
        fours = per_group - per_group % 4
        share = fours / per_group
        seconds = share * SECONDS_IN_FOURS + (1 - share) * SECONDS_ALONE
        voxels = math.prod(output_shape) * (1 + params.in_channels / params.out_channels * math.prod(params.stride))
        return (multiply_adds(output_shape, params) * seconds + voxels * SECONDS_PER_VOXEL) * dtype.itemsize / 4

    def needs(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> Needs:  # noqa: ARG002
        """No grid: a sum's order is that of its taps, wherever the block lies."""
        strided = params.stride != (1, 1, 1)
        return Needs(
            grid=(1, 1, 1),
            block_bytes=BLOCK_BYTES // 2 if strided else BLOCK_BYTES,
            workspace_bytes=BLOCK_BYTES if strided else 0,
            prepared_bytes=params.out_channels * taps(params) * dtype.itemsize,
        )

    def prepare(
        self,
        params: Conv3dParams,
        weight: NDArray[Any],
        bias: NDArray[Any],
        output_shape: Index5,  # noqa: ARG002  # the protocol's signature
    ) -> PreparedDirect:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedDirect(params, weight, bias)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


class PreparedDirect:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        from volconv.engines.cpu.direct_kernels import DEPTH, RUN, compiled_correlate, compiled_split_phases

        self._params = params
        per_group = params.out_channels // params.groups
        self._weight = np.ascontiguousarray(weight).reshape(params.groups, per_group, taps(params))
        self._bias = np.ascontiguousarray(bias).reshape(params.groups, per_group)
        self._phases, self._taps = _locate_taps(params)
        self._offsets: dict[tuple[int, ...], NDArray[np.int64]] = {}
        self._work = (3, DEPTH, RUN)
        self._kernel = compiled_correlate(weight.dtype)
        self._split = compiled_split_phases(weight.dtype) if params.stride != (1, 1, 1) else None

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        if self._split is not None:
            size = tuple(-(-n // s) for n, s in zip(block.shape[1:], self._params.stride, strict=True))
            phases = np.empty((block.shape[0], len(self._phases), *size), block.dtype)
            self._split(block, self._params.stride, self._phases, phases)
        else:
            phases = block[:, None]
        per_in = self._params.in_channels // self._params.groups
        per_out = self._params.out_channels // self._params.groups
        for group in range(block.shape[0] // per_in):
            data = phases[group * per_in : (group + 1) * per_in].reshape(-1)
            target = out[group * per_out : (group + 1) * per_out]
            self._correlate(data, phases.shape[2:], first_group + group, target)

    def _correlate(self, data: NDArray[Any], size: tuple[int, ...], group: int, out: NDArray[Any]) -> None:
        depth, height, width = size
        plane = height * width
        offsets = self._offsets.get(size)
        if offsets is None:
            offsets = self._offsets[size] = self._taps @ np.array([plane * depth, plane, width, 1])
        work = np.empty(self._work, data.dtype)
        kd, layers = self._params.kernel_size[0], self._params.in_channels // self._params.groups
        neighbours = self._params.stride[0] == self._params.dilation[0] == 1
        self._kernel(
            data,
            width,
            plane,
            offsets,
            layers * kd,
            kd if neighbours else 1,
            self._weight[group].reshape(-1),
            self._bias[group],
            out,
            work,
        )


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
