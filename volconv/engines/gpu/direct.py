"""The sum as it is written: each output is computed from the voxels that it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.engines import Needs, weight_bytes
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import generic
from volconv.shapes import multiply_adds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.kernels import Source
    from volconv.engines.gpu.plan import Prepared
    from volconv.params import Triple


class Direct:
    """See :class:`volconv.engines.gpu.plan.DeviceEngine`."""

    name = "direct"

    def supports(self, problem: Problem) -> str | None:
        """All that is floating."""
        return rates.floating(self.name, problem)

    def cost(self, problem: Problem) -> float:
        """The voxels' way through memory, or the multiply-adds, whichever takes longer."""
        macs = multiply_adds(problem.output_shape, problem.params) / rates.multiply_adds(problem.dtype)
        return rates.LAUNCH + max(rates.through_memory(problem), macs / rates.DIRECT_SHARE)

    def needs(self, problem: Problem) -> Needs:
        """No grid: sums come in the order of their taps."""
        return Needs((1, 1, 1), 0, weight_bytes(problem))

    def workspace(self, problem: Problem, box: Triple) -> int:  # noqa: ARG002  # the protocol's signature
        """Nothing."""
        return 0

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        params = problem.params
        weights, biases = device.xp.asarray(weight), device.xp.asarray(bias)

        def compute(source: Source, out: Array) -> None:
            generic(
                device,
                stream,
                source,
                weights,
                biases,
                out,
                stride=params.stride,
                dilation=params.dilation,
                groups=params.groups,
            )

        return compute
