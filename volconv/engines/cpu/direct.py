"""The direct algorithm: the sum as it is written, a few taps a pass. For few channels and small kernels."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from volconv.engines import Needs, weight_bytes
from volconv.engines.cpu.flat import Phases, TapPlaces, groups_of, phase_bytes
from volconv.engines.cpu.nonfinite import all_finite
from volconv.shapes import taps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Seconds for one multiply-add in float32, of channels that share a tile and of neighbours that do; the steps that
#: beginning and ending a tile takes the time of; seconds to read one voxel and to store one (all set by
#: tests/benchmarks/algorithms.py).
SECONDS_AS_CHANNELS = 1 / 90e9
SECONDS_AS_NEIGHBOURS = 1 / 90e9
STEPS_OF_A_TILE = 8
LANES = 16
SECONDS_PER_VOXEL = 0.45e-9

#: A core's share of a common L3 cache: the loops stream through a block plane by plane, and fewer, larger items cost
#: less Python and less halo (set by tests/benchmarks/algorithms.py).
BLOCK_BYTES = 1 << 22

#: What programs hold for each tap of an output channel.
BYTES_PER_TAP = 320


class Direct:
    """See :class:`volconv.engines.Engine`."""

    name = "direct"
    exact_spread = True
    compiled = True

    def supports(self, problem: Problem) -> str | None:  # noqa: ARG002  # the protocol's signature
        """Everything."""
        return None

    def cost(self, problem: Problem) -> float:
        """Multiply-adds at the measured rate, and the memory traffic."""
        params, shape = problem.params, problem.output_shape
        per_group = params.out_channels // params.groups
        as_channels = per_group // 4 * 4 / per_group
        per_step = as_channels * SECONDS_AS_CHANNELS + (1 - as_channels) * SECONDS_AS_NEIGHBOURS
        # Vectors that are not full at the ends of lines, or what lies between joined lines; and tiles of few vectors.
        line, vectors = shape[4], -(-shape[4] // LANES)
        joined = 1 + (params.effective_kernel[2] - 1) / line if params.stride[1] == 1 else math.inf
        filled = min(joined, vectors * LANES / line * (1 + 0.5 / vectors))
        steps = math.prod(shape) * (taps(params) + STEPS_OF_A_TILE) * filled
        voxels = math.prod(shape) * (1 + params.in_channels / params.out_channels * math.prod(params.stride))
        return (steps * per_step + voxels * SECONDS_PER_VOXEL) * problem.dtype.itemsize / 4

    def needs(self, problem: Problem) -> Needs:
        """No grid: a sum's order is that of its taps, wherever the block lies."""
        # A strided block is held twice, as it is and split into phases.
        strided = problem.params.stride[2] > 1
        # Weights as they came, in the order of a tile, and while they are put in it; places of the taps.
        prepared = 3 * weight_bytes(problem) + BYTES_PER_TAP * taps(problem.params)
        return Needs((1, 1, 1), BLOCK_BYTES // 2 if strided else BLOCK_BYTES, prepared)

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:
        """A strided block once more, split into phases."""
        return phase_bytes(problem, groups, box)

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedDirect:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedDirect(problem.params, weight, bias, problem.output_shape)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


class PreparedDirect:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5) -> None:
        from volconv.engines.cpu.correlation import Correlation

        places = TapPlaces.of(params)
        self._phases = Phases(places, weight.dtype)
        self._rows = params.out_channels // params.groups
        # Outputs of one channel share what they load along D, or along H where there is no D to speak of.
        axis = 1 if params.kernel_size[0] == 1 or output_shape[2] < 4 else 0
        self._correlation = Correlation(
            places,
            weight.reshape(params.groups, self._rows, *weight.shape[1:]),
            bias.reshape(params.groups, self._rows),
            axis,
        )

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        finite = self._correlation.sparse and all_finite(block)
        block = self._phases(block)
        with groups_of(block, out, self._rows) as groups:
            data, target = groups[0]
            self._correlation(first_group, len(groups), data, target, out.shape[1:], finite)
