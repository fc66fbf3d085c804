"""The gemm algorithm: outputs unfolded into panels (im2col), a matrix product each. For many channels."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs
from volconv.engines.cpu.flat import FlatTaps, flat_output
from volconv.engines.cpu.workers import single_threaded_blas
from volconv.shapes import multiply_adds, taps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Seconds for one multiply-add in float32, for one element of a panel, and for each output of each partial product
#: (set by tests/benchmarks/algorithms.py).
SECONDS_PER_MAC = 1 / 38e9
SECONDS_PER_ELEMENT = 0.12e-9
SECONDS_PER_SUM = 0.4e-9

#: Outputs in one panel: its products stay in L2 (set by tests/benchmarks/algorithms.py).
COLUMNS = 512
#: Taps in one product, which are summed in plain order. Each may err by half an epsilon of the sum of magnitudes, as do
#: the total and the bias: 30 stay under the bound of 16 epsilon.
CHAIN = 30
#: Size of the panels of several products that are formed at a time: a share of L2.
PANEL_BYTES = 1 << 20
BLOCK_BYTES = 1 << 19


class Gemm:
    """See :class:`volconv.engines.Engine`."""

    name = "gemm"

    def supports(self, params: Conv3dParams, dtype: np.dtype[Any]) -> str | None:  # noqa: ARG002  # the protocol's signature
        """Floating point only: BLAS has no integers."""
        return None if dtype.kind == "f" else f"gemm needs a floating-point dtype (got {dtype})"

    def cost(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> float:
        """Products at the measured rate, and the traffic of panels and sums."""
        outputs = math.prod(output_shape)
        (_, _, width), pitch = panel_box(output_shape, params)
        elements = outputs // params.out_channels * params.groups * taps(params)
        rows = params.out_channels // params.groups
        # BLAS works on four rows of weights at a time, and on fewer at the same price.
        macs = multiply_adds(output_shape, params) * max(1.0, 4 / rows)
        sums = outputs * (1 + -(-taps(params) // CHAIN))
        seconds = macs * SECONDS_PER_MAC + elements * SECONDS_PER_ELEMENT + sums * SECONDS_PER_SUM
        return seconds * pitch / width * dtype.itemsize / 4

    def needs(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> Needs:  # noqa: ARG002  # the protocol's signature
        """Blocks aligned to panels: a product's bits depend on where in a panel an output lies."""
        return Needs(grid=panel_box(output_shape, params)[0], block_bytes=BLOCK_BYTES)

    def prepare(
        self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5
    ) -> PreparedGemm:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedGemm(params, weight, bias, output_shape)

    def session(self) -> AbstractContextManager[None]:
        """Threads are volconv's own; BLAS adds none."""
        return single_threaded_blas()


def panel_box(output_shape: Index5, params: Conv3dParams) -> tuple[Triple, int]:
    """Box (D, H, W) of outputs in one panel: whole rows where they fit; and the columns that one row takes.

    Rows lie as far apart as in a block of just this width, so that one copy takes several.

    >>> from volconv.params import Conv3dParams
    >>> panel_box((20, 33, 8, 50, 99), Conv3dParams.parse((33, 16, 3, 5, 2), stride=(2, 1, 1)))
    ((1, 5, 99), 100)
    """
    depth, height, width = output_shape[2:]
    w = -(-width // -(-width // COLUMNS))
    pitch = w + -(-params.effective_kernel[2] // params.stride[2]) - 1
    if pitch > 2 * w:  # more between the rows than in them: they are copied one by one
        pitch = w
    h = min(height, max(1, COLUMNS // pitch))
    d = min(depth, max(1, COLUMNS // (pitch * h)))
    return (d, h, w), pitch


class PreparedGemm:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5) -> None:
        from volconv.engines.cpu.gemm_kernels import compiled

        self._box, pitch = panel_box(output_shape, params)
        self._rows = params.out_channels // params.groups
        count = taps(params)
        parts = -(-count // CHAIN)
        length = -(-count // parts)
        # Taps are padded with zero weights to parts of one length; the panel has zeros there.
        matrix = np.zeros((params.groups, self._rows, parts * length), weight.dtype)
        matrix[:, :, :count] = weight.reshape(params.groups, self._rows, count)
        self._matrix = np.ascontiguousarray(matrix.reshape(params.groups, self._rows, parts, length).swapaxes(1, 2))
        columns = self._box[0] * self._box[1] * pitch
        together = min(parts, max(1, PANEL_BYTES // (length * columns * weight.itemsize)))
        self._batches = [(first, min(first + together, parts)) for first in range(0, parts, together)]
        self._panel = together, length, *self._box[:2], pitch
        self._bias = np.ascontiguousarray(bias).reshape(params.groups, self._rows)
        self._flat = FlatTaps(params, weight.dtype)
        self._buffers = threading.local()  # kept from block to block: fresh memory costs more than filling it
        self._kernels = compiled(weight.dtype)

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        rows, kernels = self._rows, self._kernels
        together, length, *box = self._panel
        if not hasattr(self._buffers, "panel"):
            # Zeros, not whatever memory holds: columns of no output are multiplied too.
            self._buffers.panel = np.zeros(self._panel, block.dtype)
            self._buffers.products = np.zeros((together, rows, math.prod(box)), block.dtype)
            self._buffers.sums = np.zeros((2, rows, *box), block.dtype)
        panel, products = self._buffers.panel, self._buffers.products
        total, lost = self._buffers.sums
        flat_total, flat_lost = total.reshape(rows, -1), lost.reshape(rows, -1)
        for i, (data, pitch, plane, offsets) in enumerate(self._flat.groups(block)):
            group, target = first_group + i, out[i * rows : (i + 1) * rows]
            steps = [
                (
                    offsets[first * length : last * length],
                    panel[: last - first].reshape(-1, *box),
                    self._matrix[group, first:last],
                    panel[: last - first].reshape(last - first, length, -1),
                    products[: last - first],
                )
                for first, last in self._batches
            ]
            with flat_output(target) as (flat, shape, strides):
                for z, y, x in _corners(shape[1:], self._box):
                    size = (
                        min(self._box[0], shape[1] - z),
                        min(self._box[1], shape[2] - y),
                        min(self._box[2], shape[3] - x),
                    )
                    start = z * plane + y * pitch + x
                    for step, (where, unfolded, matrix, columns, product) in enumerate(steps, start=1):
                        kernels.gather(data, start, pitch, plane, where, size, unfolded)
                        np.matmul(matrix, columns, out=product)
                        if step < len(steps):
                            kernels.add(product, flat_total, flat_lost, step == 1)
                    final, only = product.reshape(-1, rows, *box), len(steps) == 1
                    kernels.store(final, total, lost, only, self._bias[group], (z, y, x), size, flat, strides)


def _corners(shape: tuple[int, ...], box: Triple) -> list[tuple[int, int, int]]:
    return [
        (z, y, x)
        for z in range(0, shape[0], box[0])
        for y in range(0, shape[1], box[1])
        for x in range(0, shape[2], box[2])
    ]
