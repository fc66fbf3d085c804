"""Many channels as a product of matrices: the voxels that outputs see, as columns, through BLAS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from volconv.engines import Needs, weight_bytes
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import columns
from volconv.shapes import multiply_adds, taps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared
    from volconv.engines.gpu.source import Source
    from volconv.params import Triple

#: Outputs of one product, and most bytes of its columns: always as many, as BLAS rounds otherwise for other shapes.
COLUMNS = 1 << 15
MOST_BYTES = 1 << 28


class Gemm:
    """See :class:`volconv.engines.gpu.plan.DeviceEngine`."""

    name = "gemm"

    def supports(self, problem: Problem) -> str | None:
        """All that is floating."""
        return rates.floating(self.name, problem)

    def cost(self, problem: Problem) -> float:
        """Columns written and read, and BLAS."""
        params, outputs = problem.params, math.prod(problem.output_shape) / problem.params.out_channels
        columns = outputs * params.groups * taps(params) * problem.dtype.itemsize
        macs = multiply_adds(problem.output_shape, params)
        panels = params.groups * -(-outputs // width_of(problem))
        return (
            4 * panels * rates.LAUNCH
            + rates.through_memory(problem)
            + 2 * columns / rates.MEMORY
            + macs / rates.multiply_adds(problem.dtype) / rates.BLAS_SHARE
        )

    def needs(self, problem: Problem) -> Needs:
        """No grid: what rounds an output is the shape of products, which is one and the same."""
        return Needs((1, 1, 1), 0, weight_bytes(problem))

    def workspace(self, problem: Problem, box: Triple) -> int:  # noqa: ARG002  # a panel at a time
        """The columns of a panel, some of them for fewer outputs, and the product."""
        params, width = problem.params, width_of(problem)
        return width * (2 * taps(params) + params.out_channels // params.groups) * problem.dtype.itemsize

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        xp, params, width = device.xp, problem.params, width_of(problem)
        per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
        matrices = xp.asarray(weight).reshape(params.groups, per_out, -1)
        biases = xp.asarray(bias).reshape(-1, 1)

        def compute(source: Source, out: Array) -> None:
            size, total = out.shape[1:], math.prod(out.shape[1:])
            results = out.reshape(params.out_channels, total)
            panel = xp.zeros((taps(params), width), problem.dtype)
            seen = panel if total >= width else device.empty((taps(params), total), problem.dtype)
            for group in range(params.groups):
                rows = slice(group * per_out, (group + 1) * per_out)
                for start in range(0, total, width):
                    begin = max(0, min(start, total - width))  # the last one goes over some outputs again
                    columns(
                        device,
                        stream,
                        source,
                        params.kernel_size,
                        seen,
                        size=size,
                        first=group * per_in,
                        begin=begin,
                        stride=params.stride,
                        dilation=params.dilation,
                    )
                    if seen is not panel:
                        panel[:, :total] = seen
                    count = min(width, total)
                    product = device.matmul(matrices[group], panel)[:, :count]
                    results[rows, begin : begin + count] = product + biases[rows]

        return compute


def width_of(problem: Problem) -> int:
    """Outputs of one product."""
    return max(1, min(COLUMNS, MOST_BYTES // (taps(problem.params) * problem.dtype.itemsize)))
