"""Kernels that are products of 1-D ones, or sums of a few: passes along D, H and W."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs, weight_bytes
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import Source, generic
from volconv.engines.gpu.nonfinite import Guarded
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared
    from volconv.params import Triple


class Separable:
    """See :class:`volconv.engines.gpu.plan.DeviceEngine`."""

    name = "separable"

    def supports(self, problem: Problem) -> str | None:
        """Floating point, and weights that are sums of few products."""
        if problem.factors is None:
            return "separable needs large kernels of one channel that are sums of a few products (these are not)"
        return rates.floating(self.name, problem)

    def cost(self, problem: Problem) -> float:
        """Three passes through memory, for each term."""
        terms = 1 if problem.factors is None else problem.factors.terms
        macs = sum(problem.params.kernel_size) * terms * float(np.prod(problem.output_shape))
        compute = macs / rates.multiply_adds(problem.dtype) / rates.DIRECT_SHARE
        return 3 * rates.LAUNCH + max(3 * terms * rates.through_memory(problem), compute)

    def needs(self, problem: Problem) -> Needs:
        """No grid: sums come in the order of their taps."""
        return Needs((1, 1, 1), 0, 3 * weight_bytes(problem))

    def workspace(self, problem: Problem, box: Triple) -> int:
        """What was passed along D, and along H."""
        assert problem.factors is not None  # noqa: S101  # as supports() says
        _, height, width = block_shape(box, problem.params)
        rows = problem.factors.terms * problem.params.out_channels * box[0]
        return rows * (height + box[1]) * width * problem.dtype.itemsize

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        factors, params, dtype = problem.factors, problem.params, problem.dtype
        assert factors is not None  # noqa: S101  # as supports() says
        outputs, terms = params.out_channels, factors.terms
        d, h, w = (device.xp.asarray(np.ascontiguousarray(factor, dtype)) for factor in factors.along)
        weights = d.reshape(-1, 1, len(d[0, 0]), 1, 1), h.reshape(-1, 1, 1, len(h[0, 0]), 1), w[:, :, None, None]
        groups = params.groups, outputs * terms, outputs
        biases = device.xp.asarray(bias)

        def along(axis: int, source: Source, out: Array) -> None:
            def only(value: Triple) -> Triple:
                d, h, w = (v if i == axis else 1 for i, v in enumerate(value))
                return d, h, w

            last = axis == 2
            generic(
                device,
                stream,
                source,
                weights[axis],
                biases if last else None,
                out,
                stride=only(params.stride),
                dilation=only(params.dilation),
                groups=groups[axis],
            )

        def compute(source: Source, out: Array) -> None:
            (_, height, width), (depth, out_height, _) = source.size, out.shape[1:]
            first = device.empty((outputs * terms, depth, height, width), dtype)
            along(0, source, first)
            second = device.empty((outputs * terms, depth, out_height, width), dtype)
            along(1, Source(first), second)
            along(2, Source(second), out)

        return Guarded(device, stream, problem, compute, weight, bias)
