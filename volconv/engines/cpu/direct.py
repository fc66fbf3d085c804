"""The direct algorithm: the sum as it is written, a few taps a pass. For few channels and small kernels."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.engines import Needs, weight_bytes
from volconv.engines.cpu.flat import Phases, TapPlaces, groups_of, phase_bytes
from volconv.engines.cpu.nonfinite import all_finite
from volconv.shapes import taps, voxels_read

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Seconds in float32 (set by tests/benchmarks/algorithms.py): for one vector of multiply-adds; for beginning and ending
#: a tile, and more where it reaches across lines; to read one voxel or store it, and to split one into the phases of a
#: stride; for each tap, before anything is computed.
SECONDS_PER_VECTOR = 1 / 5.4e9
SECONDS_PER_TILE = 70e-9
SECONDS_ACROSS = 60e-9
SECONDS_PER_VOXEL = 0.2e-9
SECONDS_PER_PHASE = 0.55e-9
SECONDS_PER_TAP = 0.2e-6
#: Tiles that these were measured with: rows and vectors of tall ones and others, and elements of a vector.
TALL, LOW, LANES = (8, (3, 2, 1)), (4, (4, 2)), 16

#: A core's share of a common L3 cache: the loops stream through a block plane by plane, and fewer, larger items cost
#: less Python and less halo (set by tests/benchmarks/algorithms.py).
BLOCK_BYTES = 1 << 22

#: What programs hold for each tap of an output channel.
BYTES_PER_TAP = 320


def _block_bytes(params: Conv3dParams) -> int:
    """Size of a block; a strided one is held twice, as it is and split into phases."""
    return BLOCK_BYTES // 2 if params.stride[2] > 1 else BLOCK_BYTES


class _Lines(NamedTuple):
    """Lines of outputs that lie in so many tiles' rows: as many, as wide, and so far apart."""

    many: int
    width: int
    apart: float

    @classmethod
    def of(cls, params: Conv3dParams, shape: Index5, axis: int) -> _Lines:
        """Those of outputs that are not neighbours along an axis (D or H)."""
        pitch = shape[4] + params.effective_kernel[2] - 1
        return cls(shape[3], shape[4], pitch * params.stride[1]) if axis == 0 else cls(shape[2], shape[4], math.inf)

    def seconds(self, widths: tuple[int, ...], products: int) -> float:
        """Time for so many products an output, joined or line by line (see ``correlation._Lines``)."""
        line = -(-self.width // LANES)
        run = -(-((self.many - 1) * self.apart + self.width) // LANES) if self.apart < math.inf else math.inf
        joined = run < self.many * line
        vectors, runs = (int(run), 1) if joined else (line, self.many)
        each = SECONDS_PER_TILE + joined * SECONDS_ACROSS
        whole, rest = divmod(vectors, widths[0])
        used = whole * widths[0] + (min(w for w in widths if w >= rest) if rest else 0)
        return runs * (used * products * SECONDS_PER_VECTOR + (whole + (rest > 0)) * each)


def neighbour_axis(params: Conv3dParams, shape: Index5) -> int:
    """Along which axis outputs of one channel share what they load: D, or H where there is no D to speak of."""
    return 1 if params.kernel_size[0] == 1 or shape[2] < 4 else 0


class Direct:
    """See :class:`volconv.engines.Engine`."""

    name = "direct"
    exact_spread = True
    compiled = True

    def supports(self, problem: Problem) -> str | None:  # noqa: ARG002  # the protocol's signature
        """Everything."""
        return None

    def cost(self, problem: Problem) -> float:
        """Tiles, of which some are not full, their multiply-adds, and the voxels."""
        params, shape = problem.params, problem.output_shape
        count, steps = params.out_channels // params.groups, taps(params)
        lines = _Lines.of(params, shape, axis=0)
        seconds = 0.0
        for rows, widths in (TALL, LOW):
            blocks = (count + rows // 4) // rows
            count -= min(count, blocks * rows)
            seconds += blocks * shape[2] * lines.seconds(widths, rows * steps)
        if count:
            axis = neighbour_axis(params, shape)
            lines = _Lines.of(params, shape, axis)
            rows, widths = LOW
            whole, rest = divmod(shape[2 + axis], rows)
            one = whole * lines.seconds(widths, rows * steps)
            # One row alone waits for its own sums.
            seconds += count * (one + (lines.seconds(widths, max(2, rest) * steps) if rest else 0.0))
        read = voxels_read(shape, params, _block_bytes(params) // (4 * params.in_channels // params.groups))
        voxels = (read + math.prod(shape)) * SECONDS_PER_VOXEL
        if params.stride[2] > 1:
            voxels += read * SECONDS_PER_PHASE
        return (shape[0] * params.groups * seconds + voxels) * problem.dtype.itemsize / 4 + steps * SECONDS_PER_TAP

    def needs(self, problem: Problem) -> Needs:
        """No grid: a sum's order is that of its taps, wherever the block lies."""
        # Weights as they came, in the order of a tile, and while they are put in it; places of the taps.
        prepared = 3 * weight_bytes(problem) + BYTES_PER_TAP * taps(problem.params)
        return Needs((1, 1, 1), _block_bytes(problem.params), prepared)

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
        self._correlation = Correlation(
            places,
            weight.reshape(params.groups, self._rows, *weight.shape[1:]),
            bias.reshape(params.groups, self._rows),
            neighbour_axis(params, output_shape),
        )

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        finite = self._correlation.sparse and all_finite(block)
        block = self._phases(block)
        with groups_of(block, out, self._rows) as groups:
            data, target = groups[0]
            self._correlation(first_group, len(groups), data, target, out.shape[1:], finite)
