"""The fft algorithm: products of spectra, tile by tile (overlap-save). For large kernels."""

from __future__ import annotations

import itertools
import math
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Needs
from volconv.engines.cpu.fft_tiles import bytes_of, choose_tiles, input_bytes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.engines import Problem
    from volconv.engines.cpu.fft_tiles import Tiles
    from volconv.params import Conv3dParams

#: Elements that are multiplied at a time: a share of L2 (set by tests/benchmarks/algorithms.py).
PRODUCTS = 1 << 14


class Fft:
    """See :class:`volconv.engines.Engine`."""

    name = "fft"

    def supports(self, problem: Problem) -> str | None:
        """Floating point only."""
        return None if problem.dtype.kind == "f" else f"it computes in floating point (got {problem.dtype})"

    def cost(self, problem: Problem) -> float:
        """Transforms and products at measured rates."""
        return choose_tiles(problem).seconds

    def needs(self, problem: Problem) -> Needs:
        """Blocks of whole tiles."""
        tiles = choose_tiles(problem)
        return Needs(grid=tiles.box, block_bytes=input_bytes(tiles, problem.params, problem.dtype.itemsize))

    def prepare(self, problem: Problem, weight: NDArray[Any], bias: NDArray[Any]) -> PreparedFft:
        """See :meth:`volconv.engines.Engine.prepare`."""
        return PreparedFft(problem.params, choose_tiles(problem), weight, bias)

    def session(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


class PreparedFft:
    """See :class:`volconv.engines.Prepared`."""

    def __init__(self, params: Conv3dParams, tiles: Tiles, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        self._params, self._tiles = params, tiles
        self._rows = params.out_channels // params.groups
        self._channels = params.in_channels // params.groups
        self._weight, self._bias = weight, bias
        self._thread = threading.local()  # buffers, kept from block to block: fresh memory costs more than filling it
        self._spectra: NDArray[Any] | None = None
        if tiles.keep:
            transform = Transform(tiles.size, weight.dtype)
            self._spectra = np.empty((*weight.shape[:2], *transform.shape), transform.complex)
            for kernel, spectrum in zip(weight, self._spectra, strict=True):
                for taps, target in zip(kernel, spectrum, strict=True):
                    transform.kernel(taps, params.dilation, target)

    @property
    def prepared_bytes(self) -> int:
        """Memory of the spectra that are kept."""
        return bytes_of(self._tiles, self._params, self._weight.itemsize) if self._tiles.keep else 0

    def __call__(self, block: NDArray[Any], out: NDArray[Any], first_group: int) -> None:
        """See :meth:`volconv.engines.Prepared.__call__`."""
        box, stride, kernel = self._tiles.box, self._params.stride, self._params.effective_kernel
        rows, channels = self._rows, self._channels
        corners = itertools.product(*(range(0, n, b) for n, b in zip(out.shape[1:], box, strict=True)))
        for corner in corners:
            ends = [min(c + b, n) for c, b, n in zip(corner, box, out.shape[1:], strict=True)]
            here = tuple(slice(c, e) for c, e in zip(corner, ends, strict=True))
            seen = tuple(
                slice(c * s, min((e - 1) * s + k, c * s + n))
                for c, e, s, k, n in zip(corner, ends, stride, kernel, self._tiles.size, strict=True)
            )
            for group in range(len(out) // rows):
                values = block[(slice(group * channels, (group + 1) * channels), *seen)]
                values = self._without_unseen(values, tuple(e - c for c, e in zip(corner, ends, strict=True)))
                target = out[(slice(group * rows, (group + 1) * rows), *here)]
                self._tile(values, target, (first_group + group) * rows)

    def _without_unseen(self, values: NDArray[Any], outputs: tuple[int, ...]) -> NDArray[Any]:
        """Zeros for voxels between taps that no output sees: a large one would leave its rounding errors everywhere."""
        params, kept = self._params, values
        for axis, (k, d, s, n) in enumerate(
            zip(params.kernel_size, params.dilation, params.stride, outputs, strict=True), 1
        ):
            if s == 1 and (d == 1 or n >= d):
                continue
            seen = (np.arange(n)[:, None] * s + np.arange(k) * d).reshape(-1)
            unseen = np.setdiff1d(np.arange(values.shape[axis]), seen)
            if unseen.size:
                kept = kept.copy() if kept is values else kept
                kept[(slice(None),) * axis + (unseen,)] = 0
        return kept

    def _tile(self, values: NDArray[Any], target: NDArray[Any], first_row: int) -> None:
        """One tile of one group: each channel there, and each output channel back."""
        buffers = self._buffers()
        transform = buffers.transform
        for channel, spectrum in zip(values, buffers.spectra, strict=True):
            transform.forward(channel, spectrum)
        for row, result in enumerate(target, first_row):
            self._accumulate(buffers, row)
            transform.inverse(buffers.total, self._params.stride, self._bias[row], result)

    def _accumulate(self, buffers: _Buffers, row: int) -> None:
        """Sum over channels of spectrum times spectrum, a stretch at a time that stays in L2."""
        total = buffers.total.reshape(-1)
        spectra = buffers.spectra.reshape(self._channels, -1)
        if self._spectra is None:
            for channel in range(self._channels):
                buffers.transform.kernel(self._weight[row, channel], self._params.dilation, buffers.kernel)
                _add_product(spectra[channel], buffers.kernel.reshape(-1), total, buffers.product, channel == 0)
            return
        kernels = self._spectra[row].reshape(self._channels, -1)
        for start in range(0, total.size, PRODUCTS):
            part = slice(start, start + PRODUCTS)
            for channel in range(self._channels):
                _add_product(spectra[channel, part], kernels[channel, part], total[part], buffers.product, channel == 0)

    def _buffers(self) -> _Buffers:
        if not hasattr(self._thread, "buffers"):
            self._thread.buffers = _Buffers(self._tiles, self._channels, self._weight.dtype)
        return self._thread.buffers  # type: ignore[no-any-return]


def _add_product(a: NDArray[Any], b: NDArray[Any], total: NDArray[Any], product: NDArray[Any], is_first: bool) -> None:
    for start in range(0, total.size, PRODUCTS):
        part = slice(start, start + PRODUCTS)
        if is_first:
            np.multiply(a[part], b[part], out=total[part])
        else:
            some = np.multiply(a[part], b[part], out=product[: total[part].size])
            np.add(total[part], some, out=total[part])


class _Buffers:
    """Memory of one thread."""

    def __init__(self, tiles: Tiles, channels: int, dtype: np.dtype[Any]) -> None:
        self.transform = Transform(tiles.size, dtype)
        shape, kind = self.transform.shape, self.transform.complex
        self.spectra = np.empty((channels, *shape), kind)
        self.total = np.empty(shape, kind)
        self.kernel = np.empty((0,) if tiles.keep else shape, kind)
        self.product = np.empty(PRODUCTS, kind)


class Transform:
    """Real transforms of one size, there and back, that leave out rows of zeros and rows that nobody needs.

    NumPy's transforms stay in single precision, and are vectorised, where they scale and where they need not pad:
    scaling is by ``1/sqrt(n)`` both ways.
    """

    def __init__(self, size: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self.size = size
        self.shape = (size[0], size[1], size[2] // 2 + 1)
        self.complex = np.result_type(dtype, np.complex64)
        self._gain = dtype.type(math.sqrt(math.prod(size)))
        self._real = np.zeros(size, dtype)
        self._parts = np.empty((2, *self.shape), self.complex)

    def kernel(self, taps: NDArray[Any], dilation: tuple[int, int, int], spectrum: NDArray[Any]) -> None:
        """Conjugated spectrum of a kernel, without the scaling: the product with it is a correlation."""
        extent = [(k - 1) * d + 1 for k, d in zip(taps.shape, dilation, strict=True)]
        if dilation != (1, 1, 1):
            apart = np.zeros(extent, taps.dtype)
            apart[:: dilation[0], :: dilation[1], :: dilation[2]] = taps
            taps = apart
        self.forward(taps * self._gain, spectrum)
        np.conjugate(spectrum, out=spectrum)

    def forward(self, values: NDArray[Any], spectrum: NDArray[Any]) -> None:
        """Scaled spectrum of values that zeros follow along each axis."""
        d, h, w = values.shape
        _, nh, nw = self.size
        first, second = self._parts
        real = self._real[:d, :h]
        real[..., :w] = values
        real[..., w:] = 0
        first[:d, h:] = 0
        np.fft.rfft(real, nw, axis=2, norm="ortho", out=first[:d, :h])
        np.fft.fft(first[:d], nh, axis=1, norm="ortho", out=second[:d])
        second[d:] = 0
        np.fft.fft(second, axis=0, norm="ortho", out=spectrum)

    def inverse(self, spectrum: NDArray[Any], stride: tuple[int, int, int], bias: Any, result: NDArray[Any]) -> None:
        """First outputs of each axis, every one or each at a distance of ``stride``."""
        wanted = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(result.shape, stride, strict=True))
        d, h, _ = result.shape
        first, second = self._parts
        np.fft.ifft(spectrum, axis=0, norm="ortho", out=first)
        np.fft.ifft(first[wanted[0]], axis=1, norm="ortho", out=second[:d])
        real = self._real[:d, :h]
        np.fft.irfft(second[:d, wanted[1]], self.size[2], axis=2, norm="ortho", out=real)
        np.add(real[..., wanted[2]], bias, out=result)
