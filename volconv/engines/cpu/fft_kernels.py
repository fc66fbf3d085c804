"""The compiled loops of the fft algorithm: transforms along each axis, and the products between them.

A transform is a sequence of passes over *elements* (:mod:`volconv.engines.cpu.fft_vectors`) in a buffer that fits L1.
Forward passes leave frequencies in an order of their own (that of reversed digits), and inverse ones take them so:
products do not mind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volconv.engines.cpu.fft_tiles import CHAIN, ELEMENT
from volconv.engines.cpu.fft_vectors import TOGETHER, emit
from volconv.engines.cpu.jit import jit
from volconv.engines.cpu.memory import LINE

if TYPE_CHECKING:
    from collections.abc import Callable


@jit
def _forward(like: Any, buffer: Any, passes: Any, first: Any) -> None:
    """Transform elements in place, from one pass on. ``passes`` is that of :class:`volconv.engines.cpu.fft.Axis`."""
    for i in range(first, passes.shape[0]):
        kind, radix, gap, by, count = passes[i]
        emit(like, "plain", (kind, buffer, gap, by, LINE, radix * gap, count))
        for j in range(1, gap // ELEMENT):
            emit(like, "after", (kind, buffer + j * ELEMENT, gap, by, LINE, radix * gap, count))
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
        emit(like, "plain", (kind, buffer + LINE, gap, by, -LINE, radix * gap, count))
        for j in range(1, gap // ELEMENT):
            emit(like, "before", (kind, buffer + LINE + j * ELEMENT, gap, by, -LINE, radix * gap, count))
            by += (radix - 1) * 2 * like.itemsize


def enter_function() -> Callable[..., None]:
    """See :func:`volconv.engines.cpu.fft_loops.compiled_enter`."""

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

    return enter


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


def middle_function() -> Callable[..., None]:
    """See :func:`volconv.engines.cpu.fft_loops.compiled_middle`."""

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
    ):
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

    return middle


def leave_function() -> Callable[..., None]:
    """See :func:`volconv.engines.cpu.fft_loops.compiled_leave`."""

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

    return leave
