"""The direct algorithm: the sum as it is written, a few taps a pass. For few channels and small kernels."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs
from volconv.engines.cpu.flat import FlatTaps, flat_output
from volconv.shapes import multiply_adds, taps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams
    from volconv.region import Index5

#: Seconds for one multiply-add in float32, one output channel a pass and four (set by tests/benchmarks/algorithms.py).
SECONDS_ALONE = 1 / 25e9
SECONDS_IN_FOURS = 1 / 32e9
#: Seconds to read one float32 voxel into a block, and to store one (set by tests/benchmarks/algorithms.py).
SECONDS_PER_VOXEL = 0.4e-9

#: A core's share of a common L3 cache: the loops stream through a block plane by plane, and fewer, larger items cost
#: less Python and less halo (set by tests/benchmarks/algorithms.py).
BLOCK_BYTES = 1 << 21


class Direct:
    """See :class:`volconv.engines.Engine`."""

    name = "direct"

    def supports(self, params: Conv3dParams, dtype: np.dtype[Any]) -> str | None:  # noqa: ARG002  # the protocol's signature
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

    def needs(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> Needs:  # noqa: ARG002  # the protocol's signature
        """No grid: a sum's order is that of its taps, wherever the block lies."""
        # A strided block is held twice, as it is and split into phases.
        return Needs(grid=(1, 1, 1), block_bytes=BLOCK_BYTES if params.stride == (1, 1, 1) else BLOCK_BYTES // 2)

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
        from volconv.engines.cpu.direct_kernels import DEPTH, RUN, compiled_correlate

        per_group = params.out_channels // params.groups
        self._weight = np.ascontiguousarray(weight).reshape(params.groups, per_group * taps(params))
        self._bias = np.ascontiguousarray(bias).reshape(params.groups, per_group)
        self._flat = FlatTaps(params, weight.dtype)
        kd, layers = params.kernel_size[0], params.in_channels // params.groups * params.kernel_size[0]
        neighbours = params.stride[0] == params.dilation[0] == 1
        self._layers = layers, kd if neighbours else 1
        self._work = (3, DEPTH, RUN)
        self._kernel = compiled_correlate(weight.dtype)

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        work = np.empty(self._work, block.dtype)
        rows = self._bias.shape[1]
        for i, (data, pitch, plane, offsets) in enumerate(self._flat.groups(block)):
            weight, bias = self._weight[first_group + i], self._bias[first_group + i]
            with flat_output(out[i * rows : (i + 1) * rows]) as (flat, shape, strides):
                self._kernel(data, pitch, plane, offsets, *self._layers, weight, bias, flat, shape, strides, work)
