"""The compiled loops of the fft algorithm: transforms along each axis, and the products between them.

A transform is a sequence of passes over *elements* (:mod:`volconv.engines.cpu.fft_vectors`) in a buffer that fits L1.
Forward passes leave frequencies in an order of their own (that of reversed digits), and inverse ones take them so:
products do not mind.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numba
from numba.core import types

from volconv.engines.cpu.fft_tiles import ELEMENT, LINE
from volconv.engines.cpu.fft_vectors import AFTER, BEFORE, PLAIN, TOGETHER, emit
from volconv.engines.cpu.jit import compiled_kernel, jit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

#: Products summed in plain order: each may err by half an epsilon of the sum of magnitudes.
CHAIN = 16
#: Spectra of kernels that are made at a time: a share of L2 (set by tests/benchmarks/algorithms.py).
MADE_BYTES = 1 << 18


@jit
def _forward(like: Any, buffer: Any, passes: Any, first: Any) -> None:
    """Transform elements in place, from one pass on. ``passes`` is that of :class:`volconv.engines.cpu.fft.Axis`."""
    for i in range(first, passes.shape[0]):
        kind, radix, gap, by, count = passes[i]
        emit(like, "butterflies", (kind + PLAIN, buffer, gap, by, LINE, radix * gap, count))
        for j in range(1, gap // ELEMENT):
            emit(like, "butterflies", (kind + AFTER, buffer + j * ELEMENT, gap, by, LINE, radix * gap, count))
            by += (radix - 1) * 2 * like.itemsize


@jit
def _fill(like: Any, buffer: Any, passes: Any, filled: Any, size: Any) -> int:
    """Make all elements behind the first ``filled`` zeros; in return how many passes of the transform that replaces."""
    if passes.shape[0] == 0 or filled > passes[0, 2] // ELEMENT:
        for j in range(filled, size):
            emit(like, "clear", (buffer + j * ELEMENT,))
        return 0
    # Of each butterfly only the first element is not zero.
    _, radix, gap, by, _ = passes[0]
    for j in range(gap // ELEMENT):
        at = buffer + j * ELEMENT
        for to in range(at + gap, at + radix * gap, gap):
            if j == 0:
                emit(like, "move", (at, to))
            elif j < filled:
                emit(like, "turn", (at, by, to))
                by += 2 * like.itemsize
            else:
                emit(like, "clear", (to,))
        if j >= filled:
            emit(like, "clear", (at,))
    return 1


@jit
def _inverse(like: Any, buffer: Any, passes: Any) -> None:
    """Undo :func:`_forward`, but for a factor: the number of elements."""
    for i in range(passes.shape[0] - 1, -1, -1):
        kind, radix, gap, by, count = passes[i]
        emit(like, "butterflies", (kind + PLAIN, buffer + LINE, gap, by, -LINE, radix * gap, count))
        for j in range(1, gap // ELEMENT):
            emit(like, "butterflies", (kind + BEFORE, buffer + LINE + j * ELEMENT, gap, by, -LINE, radix * gap, count))
            by += (radix - 1) * 2 * like.itemsize


@cache
def compiled_enter(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The forward transform along D of one channel, compiled for one dtype.

    It takes

    like : array of the dtype
    data, plane, row : addresses and bytes
        Where voxels lie; lines are read to the end of their last vector.
    shape : tuple of 3 ints
        Voxels (D, H, W).
    passes, twists : arrays
        Of the axis.
    buffer, zeros : addresses
        For one line of elements; of a line of zeros.
    spectrum, depth_gap : address and bytes
        Where elements go, in the order (frequency along D, H, W); those of neighbouring frequencies lie so far apart.
    """

    def enter(
        like: Any,
        data: Any,
        plane: Any,
        row: Any,
        shape: Any,
        passes: Any,
        twists: Any,
        buffer: Any,
        zeros: Any,
        spectrum: Any,
        depth_gap: Any,
    ) -> None:
        depth, height, width = shape
        half, to = twists.shape[0], spectrum
        for y in range(height):
            for x in range(0, width * like.itemsize, LINE):
                at = data + y * row + x
                for k in range(half):
                    low = at + k * plane if k < depth else zeros
                    high = at + (k + half) * plane if k + half < depth else zeros
                    emit(like, "twist", (low, high, twists.ctypes.data + k * 2 * like.itemsize, buffer + k * ELEMENT))
                _forward(like, buffer, passes, 0)
                for k in range(half):
                    emit(like, "move", (buffer + k * ELEMENT, to + k * depth_gap))
                to += ELEMENT

    return _compiled(enter, dtype, "aiii3PRiiii")


@jit
def _plane(
    like: Any,
    at: Any,
    shape: Any,
    size: Any,
    row_passes: Any,
    column_passes: Any,
    buffer: Any,
    rows: Any,
    to: Any,
    gap: Any,
) -> None:
    """Transform along H and W the (H, W) plane of elements at one address; all else is zero.

    Elements go out in the order (frequencies along H that share a vector, frequency along W), the former ``gap`` bytes
    apart. ``rows`` is room for the plane in between.
    """
    height, width = shape
    lanes = LINE // like.itemsize
    pitch = -(-width // lanes) * ELEMENT
    for x in range(0, pitch, ELEMENT):
        for y in range(height):
            emit(like, "move", (at + y * pitch + x, buffer + y * ELEMENT))
        _forward(like, buffer, row_passes, _fill(like, buffer, row_passes, height, size[0]))
        for y in range(size[0]):
            emit(like, "move", (buffer + y * ELEMENT, rows + y * pitch + x))
    for y in range(0, size[0], lanes):
        for x in range(0, pitch, ELEMENT):
            emit(like, "transpose", (rows + y * pitch + x, pitch, to + x * lanes, ELEMENT))
        _forward(like, to, column_passes, _fill(like, to, column_passes, width, size[1]))
        to += gap


@cache
def compiled_middle(dtype: np.dtype[Any]) -> Callable[..., None]:
    """What lies between the transforms along D: those along H and W, products, and back; compiled for one dtype.

    Spectra of kernels are made where they are used: it takes no more time than to fetch them from memory.

    It takes

    like : array of the dtype
    half, size : int and (H, W)
        Frequencies.
    source, shape, gaps : address, (C_in, H, W), bytes between channels and between frequencies along D
        What came from D.
    kernel, kernel_shape, kernel_gaps : address, (H, W), bytes
        The same of kernels, of which there are C_out*C_in.
    target, target_shape, step : address, (C_out, H, W), int
        What goes back to D: along H, only every so many rows; gaps are those of the source, which it may overwrite.
    row_passes, column_passes : arrays
    work, together : address, int
        Of :func:`work_elements` elements, for so many channels' kernels at a time.
    """

    def middle(
        like,
        half,
        size,
        source,
        shape,
        gaps,
        kernel,
        kernel_shape,
        kernel_gaps,
        target,
        target_shape,
        step,
        row_passes,
        column_passes,
        work,
        together,
    ):  # type: ignore[no-untyped-def]
        channels, height, width = shape
        results, out_height, out_width = target_shape
        lanes = LINE // like.itemsize
        line = -(-size[1] // lanes) * lanes * ELEMENT
        plane = size[0] // lanes * line
        pitch = -(-out_width // lanes) * ELEMENT
        chained = channels > CHAIN
        sums, totals, lost = work, work + plane, work + 2 * plane
        rows = work + (3 * plane if chained else plane)
        buffer = rows + plane
        values = buffer + size[0] * ELEMENT
        made = values + channels * plane
        for k in range(half):
            for c in range(channels):
                at = source + c * gaps[0] + k * gaps[1]
                to = values + c * plane
                _plane(like, at, (height, width), size, row_passes, column_passes, buffer, rows, to, line)
            for o in range(results):
                for c in range(0, channels, together):
                    terms = min(together, channels - c)
                    for i in range(terms):
                        at = kernel + (o * channels + c + i) * kernel_gaps[0] + k * kernel_gaps[1]
                        to = made + i * plane
                        _plane(like, at, kernel_shape, size, row_passes, column_passes, buffer, rows, to, line)
                    is_last = c + together >= channels
                    for y in range(0, plane, line):
                        # Sums that are done at once stay in L1.
                        first = y if channels > together else 0
                        for x in range(0, size[1] * ELEMENT, TOGETHER * ELEMENT):
                            at, to = values + c * plane + y + x, sums + first + x
                            emit(like, "products", (at, made + y + x, plane, terms, to, c % CHAIN))
                        if chained and (is_last or (c + together) % CHAIN == 0):
                            for x in range(y, y + size[1] * ELEMENT, ELEMENT):
                                if c < CHAIN:
                                    emit(like, "clear", (totals + x,))
                                    emit(like, "clear", (lost + x,))
                                emit(like, "accumulate", (sums + x, totals + x, lost + x))
                                if is_last:
                                    emit(like, "sum", (totals + x, lost + x, sums + x))
                        if is_last:
                            _inverse(like, sums + first, column_passes)
                            to = rows + y // line * lanes * pitch
                            for x in range(0, pitch, ELEMENT):
                                emit(like, "transpose", (sums + first + x * lanes, ELEMENT, to + x, pitch))
                for x in range(0, pitch, ELEMENT):
                    for y in range(size[0]):
                        emit(like, "move", (rows + y * pitch + x, buffer + y * ELEMENT))
                    _inverse(like, buffer, row_passes)
                    to = target + o * gaps[0] + k * gaps[1] + x
                    for y in range(out_height):
                        emit(like, "move", (buffer + y * step * ELEMENT, to + y * pitch))

    return _compiled(middle, dtype, "ai2i32i22i3iPPii")


def work_elements(channels: int, together: int, size: tuple[int, int], itemsize: int) -> int:
    """Elements of room that :func:`compiled_middle` needs."""
    planes = (3 if channels > CHAIN else 1) + 1 + channels + together
    return size[0] + planes * plane_elements(size, itemsize)


def kernels_together(channels: int, size: tuple[int, int], itemsize: int) -> int:
    """How many channels' kernels are transformed at a time: a divisor of :data:`CHAIN`, planes that stay in L2."""
    together = CHAIN
    while together > 1 and (
        together // 2 >= channels or together * plane_elements(size, itemsize) * ELEMENT > MADE_BYTES
    ):
        together //= 2
    return together


def plane_elements(size: tuple[int, int], itemsize: int) -> int:
    """Elements of a plane (H, W) of frequencies."""
    lanes = LINE // itemsize
    return size[0] // lanes * -(-size[1] // lanes) * lanes


@cache
def compiled_leave(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The inverse transform along D of one channel, compiled for one dtype.

    It takes

    like : array of one value of the dtype
        The bias.
    spectrum, depth_gap : address and bytes
    shape, step : tuple of 3 ints and int
        Outputs (D, H, W); along D, every so many.
    passes, twists : arrays
        Of the axis; twists have the factor that the whole transform is to be multiplied by.
    buffer : address
    out, plane, row : address and bytes
        Where outputs go.
    """

    def leave(
        like: Any,
        spectrum: Any,
        depth_gap: Any,
        shape: Any,
        step: Any,
        passes: Any,
        twists: Any,
        buffer: Any,
        out: Any,
        plane: Any,
        row: Any,
    ) -> None:
        depth, height, width = shape
        half, at = twists.shape[0], spectrum
        lanes = LINE // like.itemsize
        for y in range(height):
            for x in range(0, width, lanes):
                for k in range(half):
                    emit(like, "move", (at + k * depth_gap, buffer + k * ELEMENT))
                at += ELEMENT
                _inverse(like, buffer, passes)
                to = out + y * row + x * like.itemsize
                for k in range(half):
                    z, low, high = k // step, 0, 0
                    if k % step == 0 and z < depth:
                        low = to + z * plane
                    z = (k + half) // step
                    if (k + half) % step == 0 and z < depth:
                        high = to + z * plane
                    if low or high:
                        by = twists.ctypes.data + k * 2 * like.itemsize
                        emit(like, "untwist", (buffer + k * ELEMENT, by, like.ctypes.data, low, high, width - x))

    return _compiled(leave, dtype, "aii3iPRiiii")


def _compiled(function: Any, dtype: np.dtype[Any], arguments: str) -> Callable[..., None]:
    """Compile for arguments of these kinds: a(rray), i(nteger), 3 integers, P(asses), R(eal pairs)."""
    real, index = numba.from_dtype(dtype), numba.int64
    kinds = {
        "a": real[::1],
        "i": index,
        "2": types.UniTuple(index, 2),
        "3": types.UniTuple(index, 3),
        "P": index[:, ::1],
        "R": real[:, ::1],
    }
    made: Callable[..., None] = compiled_kernel(function, numba.void(*(kinds[a] for a in arguments)))
    return made
