"""The separable algorithm: kernels that are products of three 1-D ones, or sums of a few, as passes along D, H and W.

All passes of a work item are done while it is in cache; along D first, where neighbouring outputs share most.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs, weight_bytes
from volconv.engines.cpu.flat import Flat, Phases, TapPlaces, lines_of
from volconv.engines.cpu.memory import Buffers
from volconv.engines.factors import roundings
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.factors import Factors
    from volconv.params import Conv3dParams, Triple

#: Seconds for one multiply-add in float32 along D and H, and along W, and to read one voxel and to store one (set by
#: tests/benchmarks/algorithms.py).
SECONDS_ALONG = (1 / 50e9, 1 / 50e9, 1 / 35e9)
SECONDS_PER_VOXEL = 0.4e-9

BLOCK_BYTES = 9 << 19
#: Tiles of a line that are done along a whole axis before the next ones: their data stay in L1 and L2 (set by
#: tests/benchmarks/algorithms.py).
STRETCH = 4


class Separable:
    """See :class:`volconv.engines.Engine`."""

    name = "separable"
    exact_spread = False
    compiled = True

    def supports(self, problem: Problem) -> str | None:
        """Floating point, and weights that are sums of few products."""
        if problem.dtype.kind != "f":
            return f"separable needs a floating-point dtype (got {problem.dtype})"
        if problem.factors is None:
            return "separable needs large kernels of one channel that are sums of a few products (these are not)"
        return None

    def cost(self, problem: Problem) -> float:
        """The passes' multiply-adds at the measured rates, with the halo of work items, and the memory traffic."""
        params, shape, factors = problem.params, problem.output_shape, problem.factors
        terms = 1 if factors is None else factors.terms
        voxels = float(math.prod(shape))
        # What a pass is done for: along D for lines and rows with their halo, along H for lines, along W for outputs.
        (_, eh, ew), (_, sh, sw) = params.effective_kernel, params.stride
        across = [(h * s + e) / h for h, s, e in ((min(shape[3], 40), sh, eh), (min(shape[4], 256), sw, ew))]
        spread = (across[0] * across[1], across[1], 1.0)
        seconds = sum(
            voxels * terms * k * halo * rate
            for k, halo, rate in zip(params.kernel_size, spread, SECONDS_ALONG, strict=True)
        )
        read = voxels * params.in_channels / params.out_channels * params.stride[0] * spread[0]
        return (seconds + (voxels + read) * SECONDS_PER_VOXEL) * problem.dtype.itemsize / 4

    def needs(self, problem: Problem) -> Needs:
        """No grid: sums come in the order of their taps, wherever the block lies."""
        return Needs((1, 1, 1), BLOCK_BYTES, 3 * weight_bytes(problem))

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:  # noqa: ARG002  # a group at a time
        """What was passed along D, and along H."""
        params, terms = problem.params, 1 if problem.factors is None else problem.factors.terms
        _, height, width = block_shape(box, params)
        rows, stride = terms * params.out_channels // params.groups * box[0], params.stride[2]
        phases = 0 if stride == 1 else rows * box[1] * (width + 2 * stride)
        return (rows * (height + box[1]) * width + phases) * problem.dtype.itemsize

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedSeparable:  # noqa: ARG002  # the protocol's signature
        """See :meth:`volconv.engines.Engine.prepare`."""
        assert problem.factors is not None  # noqa: S101  # as supports() says
        return PreparedSeparable(problem.params, problem.factors, bias)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


class PreparedSeparable:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, factors: Factors, bias: NDArray[Any]) -> None:
        from volconv.engines.cpu.correlation import Correlation

        self._dtype, self._rows = bias.dtype, params.out_channels // params.groups
        self._terms, groups, allowed = factors.terms, params.groups, max(3, roundings(factors.terms, factors.growth))
        along = list(factors.along)
        # A factor of one number along D or H needs no pass of its own; never both: a kernel of one line has no factors.
        self._skipped = tuple(params.kernel_size[axis] == params.stride[axis] == 1 for axis in (0, 1))
        for axis in (0, 1):
            if self._skipped[axis]:
                along[2] = along[2] * along[axis]
        many = self._rows * self._terms

        def one_pass(axis: int, channels: int) -> TapPlaces:
            def only(value: Triple) -> Triple:
                d, h, w = (v if i == axis else 1 for i, v in enumerate(value))
                return d, h, w

            kernel, stride, dilation = only(params.kernel_size), only(params.stride), only(params.dilation)
            one = replace(params, in_channels=channels, groups=1, kernel_size=kernel, stride=stride, dilation=dilation)
            return TapPlaces.of(one)

        d, h, w = (factor.astype(self._dtype) for factor in along)
        nothing = np.zeros((groups, many), self._dtype)
        self._depth = Correlation(one_pass(0, 1), d.reshape(groups, many, 1, -1, 1, 1), nothing, 0, allowed, STRETCH)
        self._height = Correlation(
            one_pass(1, 1), h.reshape(groups * many, 1, 1, 1, -1, 1), nothing.reshape(-1, 1), 1, allowed, STRETCH
        )
        places = one_pass(2, self._terms)
        self._width = Correlation(
            places, w.reshape(groups * self._rows, 1, self._terms, 1, 1, -1), bias.reshape(-1, 1), 0, allowed
        )
        self._phases = Phases(places, self._dtype)
        self._buffers = Buffers()

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        many = self._rows * self._terms
        _, height, width = block.shape[1:]
        depth, out_height, _ = out.shape[1:]
        with lines_of(out) as target:
            for i in range(len(block)):
                group, lines = first_group + i, block[i : i + 1]
                if not self._skipped[0]:
                    passed = self._buffers.get("depth", (many, depth, height, width), self._dtype)
                    self._depth(group, 1, Flat.of(lines), Flat.of(passed), passed.shape[1:], finite=False)
                    lines = passed
                if not self._skipped[1]:
                    passed = self._buffers.get("height", (many, depth, out_height, width), self._dtype)
                    data, outputs = Flat.of(lines), Flat.of(passed)
                    for j in range(many):
                        one = data.volume(min(j, len(lines) - 1))  # one channel for all, if nothing was passed yet
                        self._height(group * many + j, 1, one, outputs.volume(j), passed.shape[1:], finite=False)
                    lines = passed
                lines = self._phases(lines)
                data, outputs = Flat.of(lines), Flat.of(target[i * self._rows :])
                for j in range(self._rows):
                    terms = data.volume(j * self._terms * self._phases.count)
                    self._width(group * self._rows + j, 1, terms, outputs.volume(j), out.shape[1:], finite=False)
