"""Kernels that are products of 1-D ones, or sums of a few: passes along D, H and W."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs, weight_bytes
from volconv.engines.gpu import rates
from volconv.engines.gpu.kernels import along
from volconv.engines.gpu.nonfinite import Guarded
from volconv.engines.gpu.source import Source
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.plan import Prepared
    from volconv.params import Triple


#: What there are kernels for.
MOST_TAPS = 127
MOST_STRIDE = 2


class Separable:
    """See :class:`volconv.engines.gpu.plan.DeviceEngine`."""

    name = "separable"

    def supports(self, problem: Problem) -> str | None:
        """Floating point, weights that are sums of few products, and what there are kernels for."""
        params = problem.params
        if problem.factors is None:
            return "separable needs large kernels of one channel that are sums of a few products (these are not)"
        if set(params.dilation) != {1} or max(params.stride) > MOST_STRIDE or max(params.kernel_size) > MOST_TAPS:
            return (
                f"separable needs dilation 1, strides of up to {MOST_STRIDE} and kernels of up to {MOST_TAPS} voxels "
                "an axis on a GPU (these are not)"
            )
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
        _, height, width = block_shape(box, problem.params)
        rows = problem.params.in_channels * box[0]
        return rows * (height + box[1]) * width * problem.dtype.itemsize

    def prepare(
        self, device: Device, stream: Stream, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]
    ) -> Prepared:
        """See :meth:`volconv.engines.gpu.plan.DeviceEngine.prepare`."""
        factors, params, dtype = problem.factors, problem.params, problem.dtype
        assert factors is not None  # noqa: S101  # as supports() says
        d, h, w = (np.ascontiguousarray(factor, dtype) for factor in factors.along)
        rows, biases = params.out_channels // params.groups, device.xp.asarray(bias)
        alike = rows == 1 and all((factor == factor[:1]).all() for factor in (d, h, w))

        def passes(source: Source, out: Array, channel: int, added: Array) -> None:
            """All three, for output channels that share their factors."""
            count, (_, height, width), (_, depth, out_height, _) = len(out), source.size, out.shape
            first = device.empty((count, depth, height, width), dtype)
            second = device.empty((count, depth, out_height, width), dtype)
            sd, sh, sw = params.stride
            for term in range(factors.terms):
                last = term == factors.terms - 1
                along(device, stream, source, 0, d[channel, term], first, stride=sd)
                along(device, stream, Source(first), 1, h[channel, term], second, stride=sh)
                along(
                    device,
                    stream,
                    Source(second),
                    2,
                    w[channel, term],
                    out,
                    stride=sw,
                    bias=added if last else None,
                    accumulate=term > 0,
                )

        def compute(source: Source, out: Array) -> None:
            if alike:
                passes(source, out, 0, biases)
                return
            for o in range(params.out_channels):
                one = replace(source, values=source.values[o // rows : o // rows + 1])
                passes(one, out[o : o + 1], o, biases[o : o + 1])

        return Guarded(device, stream, problem, compute, weight, bias)
