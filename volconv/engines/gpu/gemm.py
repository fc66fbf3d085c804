"""Many channels as a product of matrices: the voxels that outputs see, as columns, through BLAS."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from volconv.engines import Needs, weight_bytes
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import Source, gather
from volconv.shapes import block_shape, multiply_adds, taps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared
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
        panels = -(-outputs // math.prod(panel_of(problem)))
        return (
            4 * panels * rates.LAUNCH
            + rates.through_memory(problem)
            + 2 * columns / rates.MEMORY
            + macs / rates.multiply_adds(problem.dtype) / rates.BLAS_SHARE
        )

    def needs(self, problem: Problem) -> Needs:
        """The grid of panels."""
        return Needs(panel_of(problem), 0, weight_bytes(problem))

    def workspace(self, problem: Problem, box: Triple) -> int:  # noqa: ARG002  # a panel at a time
        """A panel's padded block, its columns, and their product."""
        params, panel = problem.params, panel_of(problem)
        seen, outputs = math.prod(block_shape(panel, params)), math.prod(panel)
        columns = outputs * params.groups * taps(params)
        return (params.in_channels * seen + columns + params.out_channels * outputs) * problem.dtype.itemsize

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        xp, params, panel = device.xp, problem.params, panel_of(problem)
        groups, per_in = params.groups, params.in_channels // params.groups
        matrix = xp.asarray(weight).reshape(groups, params.out_channels // groups, -1)
        biases = xp.asarray(bias).reshape(-1, 1, 1, 1)
        seen = block_shape(panel, params)

        def compute(source: Source, out: Array) -> None:
            block = device.empty((params.in_channels, *seen), problem.dtype)
            (c, d, h, w), (sd, sh, sw), (ed, eh, ew) = block.strides, params.stride, params.dilation
            windows = xp.lib.stride_tricks.as_strided(
                block,
                (groups, per_in, *params.kernel_size, *panel),
                (per_in * c, c, d * ed, h * eh, w * ew, d * sd, h * sh, w * sw),
            )
            columns = device.empty(windows.shape, problem.dtype)
            for begin in itertools.product(*(range(0, n, p) for n, p in zip(out.shape[1:], panel, strict=True))):
                first = tuple(b * s for b, s in zip(begin, params.stride, strict=True))
                gather(device, stream, source.beginning((first[0], first[1], first[2])), block)
                xp.copyto(columns, windows)
                product = xp.matmul(matrix, columns.reshape(groups, -1, math.prod(panel)))
                size = [min(p, n - b) for p, n, b in zip(panel, out.shape[1:], begin, strict=True)]
                z, y, x = (slice(b, b + n) for b, n in zip(begin, size, strict=True))
                values = product.reshape(params.out_channels, *panel)[:, : size[0], : size[1], : size[2]]
                out[:, z, y, x] = values + biases

        return compute


def panel_of(problem: Problem) -> Triple:
    """Outputs (D, H, W) of one product: lines first, then rows, then planes."""
    params, (_, _, depth, height, width) = problem.params, problem.output_shape
    column = params.groups * taps(params) * problem.dtype.itemsize
    most = max(1, min(COLUMNS, MOST_BYTES // column))
    w = max(1, min(width, most))
    h = max(1, min(height, most // w))
    return max(1, min(depth, most // (w * h))), h, w
