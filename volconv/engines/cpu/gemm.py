"""The gemm algorithm: outputs unfolded into panels (im2col), a matrix product each. For many channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs
from volconv.engines.cpu.workers import single_threaded_blas
from volconv.shapes import multiply_adds, taps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Seconds for one multiply-add in float32, for one element of a panel, and for each output of each partial product
#: (set by tests/benchmarks/algorithms.py).
SECONDS_PER_MAC = 1 / 45e9
SECONDS_PER_ELEMENT = 0.25e-9
SECONDS_PER_SUM = 0.4e-9

#: Outputs in one panel: its products stay in L2 (set by tests/benchmarks/algorithms.py).
COLUMNS = 512
#: Taps in one product. Equal products in sequence drift by up to an eighth of an epsilon each, so 96 keep the error
#: under the bound of 16 epsilon.
CHAIN = 96
BLOCK_BYTES = 1 << 19


class Gemm:
    """See :class:`volconv.engines.Engine`."""

    name = "gemm"

    def supports(self, params: Conv3dParams, dtype: np.dtype[Any]) -> str | None:  # noqa: ARG002
        """Floating point only: BLAS has no integers."""
        return None if dtype.kind == "f" else f"gemm needs a floating-point dtype (got {dtype})"

    def cost(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> float:
        """Products at the measured rate, and the traffic of panels and sums."""
        outputs = math.prod(output_shape)
        elements = outputs // params.out_channels * params.groups * taps(params)
        rows = params.out_channels // params.groups
        # A product of few rows is bound by reading its panel: BLAS works on up to 8 rows at a time.
        macs = multiply_adds(output_shape, params) * max(1.0, 8 / rows)
        sums = outputs * (1 + -(-taps(params) // CHAIN))
        seconds = macs * SECONDS_PER_MAC + elements * SECONDS_PER_ELEMENT + sums * SECONDS_PER_SUM
        return seconds * dtype.itemsize / 4

    def needs(self, params: Conv3dParams, output_shape: Index5, dtype: np.dtype[Any]) -> Needs:
        """Blocks aligned to panels: a product's bits depend on where in a panel an output lies."""
        box = panel_box(output_shape)
        rows = params.out_channels // params.groups
        return Needs(
            grid=box,
            block_bytes=BLOCK_BYTES,
            workspace_bytes=(CHAIN + 3 * rows) * math.prod(box) * dtype.itemsize,
            prepared_bytes=params.out_channels * taps(params) * dtype.itemsize,
        )

    def prepare(
        self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], output_shape: Index5
    ) -> PreparedGemm:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedGemm(params, weight, bias, panel_box(output_shape))

    def session(self) -> AbstractContextManager[None]:
        """Threads are volconv's own; BLAS adds none."""
        return single_threaded_blas()


def panel_box(output_shape: Index5) -> Triple:
    """Box (D, H, W) of outputs in one panel: whole rows where they fit, about COLUMNS in all.

    >>> panel_box((20, 33, 8, 50, 99))
    (1, 5, 99)
    """
    depth, height, width = output_shape[2:]
    w = -(-width // -(-width // COLUMNS))
    h = min(height, max(1, COLUMNS // w))
    d = min(depth, max(1, COLUMNS // (w * h)))
    return d, h, w


class PreparedGemm:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, weight: NDArray[Any], bias: NDArray[Any], box: Triple) -> None:
        from volconv.engines.cpu.gemm_kernels import compiled

        self._params = params
        self._box = box
        rows = params.out_channels // params.groups
        matrix = weight.reshape(params.groups, rows, taps(params))
        self._chunks = [
            (first, np.ascontiguousarray(matrix[:, :, first : first + CHAIN]))
            for first in range(0, taps(params), CHAIN)
        ]
        self._bias = np.ascontiguousarray(bias).reshape(params.groups, rows)
        self._kernels = compiled(weight.dtype)

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        params, box = self._params, self._box
        rows = params.out_channels // params.groups
        channels = params.in_channels // params.groups
        columns = math.prod(box)
        # Zeros, not whatever memory holds: columns past the block's end are multiplied too.
        panel = np.zeros((min(CHAIN, taps(params)), *box), block.dtype)
        total, part, lost = np.zeros((3, rows, columns), block.dtype)
        for group in range(block.shape[0] // channels):
            source = block[group * channels : (group + 1) * channels]
            target = out[group * rows : (group + 1) * rows]
            for origin in _corners(out.shape[1:], box):
                size = tuple(min(b, n - o) for b, n, o in zip(box, out.shape[1:], origin, strict=True))
                lost[...] = 0
                for first, matrix in self._chunks:
                    unfolded = panel[: matrix.shape[2]]
                    self._kernels.gather(
                        source, params.kernel_size, params.stride, params.dilation, first, origin, size, unfolded
                    )
                    product = total if first == 0 else part
                    np.matmul(matrix[first_group + group], unfolded.reshape(-1, columns), out=product)
                    if first:
                        self._kernels.add(total, part, lost)
                shape = (rows, *box)
                self._kernels.store(
                    total.reshape(shape), lost.reshape(shape), self._bias[first_group + group], origin, size, target
                )


def _corners(shape: tuple[int, ...], box: Triple) -> list[tuple[int, int, int]]:
    return [
        (z, y, x)
        for z in range(0, shape[0], box[0])
        for y in range(0, shape[1], box[1])
        for x in range(0, shape[2], box[2])
    ]
