"""The gemm algorithm: outputs unfolded into panels (im2col), a matrix product each; NumPy and its BLAS alone.

Nothing is compiled or loaded for it, so it takes the jobs that are done before a compiler would be ready.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from volconv.engines import Needs, weight_bytes
from volconv.engines.cpu.workers import single_threaded_blas
from volconv.shapes import taps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Seconds for one multiply-add in float32, for one element of a panel, for each output of each partial product, and for
#: each panel (set by tests/benchmarks/algorithms.py).
SECONDS_PER_MAC = 1 / 60e9
SECONDS_PER_ELEMENT = 0.18e-9
SECONDS_PER_SUM = 0.25e-9
SECONDS_PER_PANEL = 10e-6

#: Outputs in one panel at most and at least (set by tests/benchmarks/algorithms.py).
COLUMNS, FEWEST_COLUMNS = 2048, 64
#: How often a term may be rounded, each time by half an epsilon of the sum of magnitudes, before the bias is added:
#: that stays under the bound of 16 epsilon. A product rounds it once for each of its taps.
ROUNDINGS = 30
#: Size of a panel and its products: a few are in cache.
PANEL_BYTES = 1 << 22
BLOCK_BYTES = 1 << 19
#: What BLAS takes for itself.
BLAS_BYTES = 32 << 20


class Gemm:
    """See :class:`volconv.engines.Engine`."""

    name = "gemm"
    exact_spread = True
    compiled = False

    def supports(self, problem: Problem) -> str | None:  # noqa: ARG002  # the protocol's signature
        """Everything; integers by NumPy's own loops."""
        return None

    def cost(self, problem: Problem) -> float:
        """Products at the measured rate, and the traffic of panels and sums."""
        params, output_shape = problem.params, problem.output_shape
        outputs = math.prod(output_shape)
        box = panel_box(output_shape, params)
        panels = math.prod(-(-n // b) for n, b in zip(output_shape[2:], box, strict=True)) * output_shape[0]
        # Columns of no output are multiplied too.
        columns = panels * math.prod(box) * params.groups
        rows, parts = params.out_channels // params.groups, _parts(taps(params))
        # A single row is as slow as two.
        macs = columns * max(rows, 2) * taps(params)
        rate = SECONDS_PER_MAC if problem.dtype.kind == "f" else 1e-9
        seconds = macs * rate + columns * taps(params) * SECONDS_PER_ELEMENT + outputs * (1 + parts) * SECONDS_PER_SUM
        return seconds * problem.dtype.itemsize / 4 + panels * params.groups * (1 + parts) * SECONDS_PER_PANEL

    def needs(self, problem: Problem) -> Needs:
        """Blocks aligned to panels: a product's bits depend on where in a panel an output lies."""
        grid = panel_box(problem.output_shape, problem.params)
        return Needs(grid, BLOCK_BYTES, 3 * weight_bytes(problem) + BLAS_BYTES)

    def workspace(self, problem: Problem, groups: int, box: Triple) -> int:  # noqa: ARG002  # a panel at a time
        """Panels of some groups, and their products."""
        panel = _panel_bytes(problem.params, problem.output_shape, problem.dtype.itemsize)
        return max(panel, min(problem.params.groups * panel, PANEL_BYTES))

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedGemm:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedGemm(problem.params, weight, bias, problem.output_shape)

    def session(self) -> AbstractContextManager[None]:
        """Threads are volconv's own; BLAS adds none."""
        return single_threaded_blas()


def panel_box(output_shape: Index5, params: Conv3dParams) -> Triple:
    """Box (D, H, W) of outputs in one panel: whole rows where they fit.

    >>> from volconv.params import Conv3dParams
    >>> panel_box((20, 33, 8, 50, 99), Conv3dParams.parse((33, 16, 3, 5, 2), stride=(2, 1, 1)))
    (1, 9, 99)
    """
    depth, height, width = output_shape[2:]
    columns = min(COLUMNS, max(FEWEST_COLUMNS, PANEL_BYTES // (4 * _panel_rows(params))))
    w = -(-width // -(-width // columns))
    h = min(height, max(1, columns // w))
    d = min(depth, max(1, columns // (w * h)))
    return d, h, w


def _panel_rows(params: Conv3dParams) -> int:
    """What a panel and its products hold of one output: taps, those of all parts, and a row for each channel."""
    count = taps(params)
    return count + _parts(count) * (1 + params.out_channels // params.groups)


def _panel_bytes(params: Conv3dParams, output_shape: Index5, itemsize: int) -> int:
    """Size of one group's panel and its products."""
    return _panel_rows(params) * math.prod(panel_box(output_shape, params)) * itemsize


@lru_cache(maxsize=64)
def _parts(count: int) -> int:
    """In how many products so many taps are summed, whose results are added in pairs, those in pairs, and so on.

    >>> _parts(27), _parts(125), _parts(343)
    (1, 5, 14)
    """
    parts = -(-count // ROUNDINGS)
    while -(-count // parts) + (parts - 1).bit_length() > ROUNDINGS:
        parts += 1
    return parts


class PreparedGemm:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5) -> None:
        self._params, self._box = params, panel_box(output_shape, params)
        groups, self._rows = params.groups, params.out_channels // params.groups
        count = taps(params)
        parts = _parts(count) if weight.dtype.kind == "f" else 1  # integers are exact
        length = -(-count // parts)
        # Taps are padded with zero weights to parts of one length; the panel has zeros there.
        matrix = np.zeros((groups, self._rows, parts * length), weight.dtype)
        matrix[:, :, :count] = weight.reshape(groups, self._rows, count)
        self._matrix = np.ascontiguousarray(matrix.reshape(groups, self._rows, parts, length).swapaxes(1, 2))
        self._bias = bias.reshape(groups, self._rows, 1)
        self._together = max(1, min(groups, PANEL_BYTES // _panel_bytes(params, output_shape, weight.itemsize)))
        self._buffers = threading.local()  # kept from block to block: fresh memory costs more than filling it

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        rows, channels = self._rows, self._params.in_channels // self._params.groups
        _, parts, _, length = self._matrix.shape
        if not hasattr(self._buffers, "panel"):
            # Zeros, not whatever memory holds: columns of no output are multiplied too.
            self._buffers.panel = np.zeros((self._together, parts * length, *self._box), block.dtype)
            columns = math.prod(self._box)
            self._buffers.products = np.zeros((self._together, parts, rows, columns), block.dtype)
        groups = len(out) // rows
        windows = self._windows(block.reshape(groups, channels, *block.shape[1:]), out.shape[1:])
        targets = out.reshape(groups, rows, *out.shape[1:])
        for first in range(0, groups, self._together):
            some = slice(first, min(first + self._together, groups))
            weights = slice(first_group + some.start, first_group + some.stop)
            for corner in _corners(out.shape[1:], self._box):
                box = tuple(slice(c, c + b) for c, b in zip(corner, self._box, strict=True))
                seen = windows[some, ..., box[0], box[1], box[2]]
                target = targets[(some, slice(None), *box)]
                total = self._sums(seen, self._matrix[weights]) + self._bias[weights]
                d, h, w = target.shape[2:]
                target[...] = total.reshape(*target.shape[:2], *self._box)[..., :d, :h, :w]

    def _windows(self, block: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """What each output sees, without a copy: (groups, C_in, kD, kH, kW, d, h, w) of (groups, C_in, D, H, W)."""
        strides, params = block.strides, self._params
        taps_apart = [s * d for s, d in zip(strides[2:], params.dilation, strict=True)]
        outputs_apart = [s * n for s, n in zip(strides[2:], params.stride, strict=True)]
        size = (*block.shape[:2], *params.kernel_size, *shape)
        return as_strided(block, size, (*strides[:2], *taps_apart, *outputs_apart), writeable=False)

    def _sums(self, seen: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
        """What some windows' outputs are, but for the bias: (groups, rows, columns); the parts' products in pairs."""
        groups, parts, _, length = matrix.shape
        panel, products = self._buffers.panel[:groups], self._buffers.products[:groups]
        d, h, w = seen.shape[5:]
        unfolded = panel[:, : taps(self._params)].reshape(*seen.shape[:5], *self._box)
        np.copyto(unfolded[..., :d, :h, :w], seen)
        np.matmul(matrix, panel.reshape(groups, parts, length, -1), out=products)
        while parts > 1:
            half = (parts + 1) // 2
            products[:, : parts - half] += products[:, half:parts]
            parts = half
        total: NDArray[Any] = products[:, 0]
        return total


def _corners(shape: tuple[int, ...], box: Triple) -> list[tuple[int, int, int]]:
    return [
        (z, y, x)
        for z in range(0, shape[0], box[0])
        for y in range(0, shape[1], box[1])
        for x in range(0, shape[2], box[2])
    ]
