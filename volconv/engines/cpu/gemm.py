"""The gemm algorithm: outputs unfolded into panels (im2col), a matrix product each; NumPy and its BLAS alone.

Nothing is compiled or loaded for it, so it takes the jobs that are done before a compiler would be ready.
"""

from __future__ import annotations

import math
import threading
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

#: Outputs in one panel: its products stay in L2 (set by tests/benchmarks/algorithms.py).
COLUMNS = 2048
#: Taps in one product, which are summed in plain order. Each may err by half an epsilon of the sum of magnitudes, as do
#: the total and the bias: 30 stay under the bound of 16 epsilon.
CHAIN = 30
#: Size of the panels of several products that are formed at a time: a share of L2.
PANEL_BYTES = 1 << 20
BLOCK_BYTES = 1 << 19
#: What BLAS takes for itself.
BLAS_BYTES = 32 << 20


class Gemm:
    """See :class:`volconv.engines.Engine`."""

    name = "gemm"
    exact_spread = True

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
        rows, parts = params.out_channels // params.groups, -(-taps(params) // CHAIN)
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
        """A panel, and sums of its products."""
        params = problem.params
        columns = math.prod(panel_box(problem.output_shape, params))
        rows = taps(params) + CHAIN + 4 * (params.out_channels // params.groups)
        return rows * columns * problem.dtype.itemsize

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
    (1, 20, 99)
    """
    depth, height, width = output_shape[2:]
    columns = max(1, min(COLUMNS, PANEL_BYTES // (4 * min(CHAIN, taps(params)))))
    w = -(-width // -(-width // columns))
    h = min(height, max(1, columns // w))
    d = min(depth, max(1, columns // (w * h)))
    return d, h, w


class PreparedGemm:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5) -> None:
        self._params, self._box = params, panel_box(output_shape, params)
        self._rows = params.out_channels // params.groups
        count = taps(params)
        chain = CHAIN if weight.dtype.kind == "f" else count  # integers are exact
        parts = -(-count // chain)
        length = -(-count // parts)
        # Taps are padded with zero weights to parts of one length; the panel has zeros there.
        matrix = np.zeros((params.groups, self._rows, parts * length), weight.dtype)
        matrix[:, :, :count] = weight.reshape(params.groups, self._rows, count)
        self._matrix = np.ascontiguousarray(matrix.reshape(params.groups, self._rows, parts, length).swapaxes(1, 2))
        self._bias = bias.reshape(params.groups, self._rows, 1)
        self._buffers = threading.local()  # kept from block to block: fresh memory costs more than filling it

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        rows, channels = self._rows, self._params.in_channels // self._params.groups
        _, parts, _, length = self._matrix.shape
        if not hasattr(self._buffers, "panel"):
            # Zeros, not whatever memory holds: columns of no output are multiplied too.
            self._buffers.panel = np.zeros((parts * length, *self._box), block.dtype)
            self._buffers.sums = np.zeros((4, rows, math.prod(self._box)), block.dtype)
        panel = self._buffers.panel
        count = taps(self._params)
        columns = panel.reshape(parts, length, -1)
        for group in range(len(out) // rows):
            matrix, bias = self._matrix[first_group + group], self._bias[first_group + group]
            windows = self._windows(block[group * channels : (group + 1) * channels], out.shape[1:])
            target = out[group * rows : (group + 1) * rows]
            for corner in _corners(out.shape[1:], self._box):
                box = tuple(slice(c, c + b) for c, b in zip(corner, self._box, strict=True))
                seen = windows[:, :, :, :, box[0], box[1], box[2]]
                d, h, w = seen.shape[4:]
                unfolded = panel[:count].reshape(*seen.shape[:4], *self._box)
                np.copyto(unfolded[..., :d, :h, :w], seen)
                total = self._product(matrix, columns, bias)
                target[(slice(None), *box)] = total.reshape(rows, *self._box)[:, :d, :h, :w]

    def _windows(self, block: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """What each output sees, without a copy: (C_in, kD, kH, kW, d, h, w)."""
        strides, params = block.strides, self._params
        taps_apart = [s * d for s, d in zip(strides[1:], params.dilation, strict=True)]
        outputs_apart = [s * n for s, n in zip(strides[1:], params.stride, strict=True)]
        size = (len(block), *params.kernel_size, *shape)
        return as_strided(block, size, (strides[0], *taps_apart, *outputs_apart), writeable=False)

    def _product(self, matrix: NDArray[Any], columns: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
        """The sum of the parts' products; what their additions round away is kept and added at the end.

        Dekker's Fast2Sum: see :meth:`volconv.engines.cpu.tile_kernels._Tile._added`.
        """
        total, lost, part, after = self._buffers.sums
        np.matmul(matrix[0], columns[0], out=total)
        if len(matrix) > 1:
            lost[...] = 0
            for weights, values in zip(matrix[1:], columns[1:], strict=True):
                np.matmul(weights, values, out=part)
                np.add(total, part, out=after)
                np.subtract(after, total, out=total)
                np.subtract(part, total, out=part)
                lost += part
                total, after = after, total
            # Where the sum is not finite, neither is what was lost, and it must not count.
            np.add(total, lost, out=total, where=np.isfinite(total))
        total += bias
        result: NDArray[Any] = total
        return result


def _corners(shape: tuple[int, ...], box: Triple) -> list[tuple[int, int, int]]:
    return [
        (z, y, x)
        for z in range(0, shape[0], box[0])
        for y in range(0, shape[1], box[1])
        for x in range(0, shape[2], box[2])
    ]
