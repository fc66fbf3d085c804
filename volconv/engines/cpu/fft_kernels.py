"""The compiled loops of the fft algorithm: transforms of many lines at once, each line in a lane of vectors.

An *element* is the real parts of :func:`lanes_of` complex numbers and then their imaginary parts, one line each. A
transform is a sequence of passes over elements in one buffer that fits L1. Forward passes leave frequencies in an order
of their own (that of reversed digits), and inverse ones take them so: products do not mind.
"""

from __future__ import annotations

import itertools
from functools import cache
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from volconv.engines.cpu.fft_tiles import ELEMENT, LINE
from volconv.engines.cpu.jit import compiled_kernel, jit
from volconv.engines.cpu.simd import LONG, Emitter

if TYPE_CHECKING:
    from collections.abc import Callable





#: Butterflies there are.
RADICES = (8, 5, 4, 3, 2)
#: Elements of a line whose products are summed at a time, which hides how long each addition takes.
TOGETHER = 2
#: Products summed in plain order: each may err by half an epsilon of the sum of magnitudes.
CHAIN = 16
#: What :func:`compiled_middle` does with spectra.
MAKE, USE, NEITHER = 0, 1, 2
#: What is done with twiddle factors: nothing, they multiply results, or they multiply what is loaded.
PLAIN, AFTER, BEFORE = 0, 1, 2


class _Lines(Emitter):
    """Emits butterflies; a complex vector is a pair (real, imaginary)."""

    def __init__(self, context: Any, builder: ir.IRBuilder, real: types.Type) -> None:
        super().__init__(context, builder, real)
        self.bytes, self.lanes = LINE, LINE // self.size
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, [ir.Constant(self.element, 0)] * self.lanes)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [ir.Constant(self.element, value)] * self.lanes)

    def plus(self, a: Any, b: Any) -> Any:
        return tuple(self.builder.fadd(x, y) for x, y in zip(a, b, strict=True))

    def minus(self, a: Any, b: Any) -> Any:
        return tuple(self.builder.fsub(x, y) for x, y in zip(a, b, strict=True))

    def times(self, a: Any, b: Any) -> Any:
        """Complex product."""
        builder = self.builder
        real = self.multiply_add(a[0], b[0], builder.fneg(builder.fmul(a[1], b[1])))
        return real, self.multiply_add(a[0], b[1], builder.fmul(a[1], b[0]))

    def scaled(self, factor: float, a: Any, added: Any = None) -> Any:
        """``factor * a``, plus something."""
        c = self.constant(factor)
        if added is None:
            return tuple(self.builder.fmul(c, x) for x in a)
        return tuple(self.multiply_add(c, x, y) for x, y in zip(a, added, strict=True))

    def turned(self, a: Any, numerator: int, denominator: int) -> Any:
        """``a * exp(-2j*pi*numerator/denominator)``."""
        quarters, rest = divmod(4 * numerator, denominator)
        for _ in range(quarters % 4):
            a = a[1], self.builder.fneg(a[0])
        if rest:
            angle = -2 * pi * rest / (4 * denominator)
            a = self.times(a, (self.constant(cos(angle)), self.constant(sin(angle))))
        return a

    def dft(self, a: list[Any]) -> list[Any]:
        """Discrete Fourier transform of a few numbers."""
        n = len(a)
        if n == 2:
            return [self.plus(*a), self.minus(*a)]
        if n in (3, 5):
            return self._odd(a)
        # n = r * m: m-point transforms of every r-th number, then r-point ones of those.
        r = 4 if n % 8 == 0 else 2 if n % 2 == 0 else 3
        m = n // r
        inner = [self.dft(a[i::r]) for i in range(r)]
        columns = [self.dft([self.turned(inner[i][k], i * k, n) for i in range(r)]) for k in range(m)]
        return [columns[k % m][k // m] for k in range(n)]

    def _odd(self, a: list[Any]) -> list[Any]:
        """Sums and differences of mirrored numbers, times cosines and sines."""
        n, half = len(a), len(a) // 2
        sums = [self.plus(a[i], a[n - i]) for i in range(1, half + 1)]
        differences = [self.minus(a[i], a[n - i]) for i in range(1, half + 1)]
        total = a[0]
        for s in sums:
            total = self.plus(total, s)
        results = [total] * n
        for k in range(1, half + 1):
            even, odd = a[0], None
            for i in range(1, half + 1):
                even = self.scaled(cos(2 * pi * i * k / n), sums[i - 1], even)
                odd = self.scaled(sin(2 * pi * i * k / n), differences[i - 1], odd)
            assert odd is not None  # noqa: S101
            turned = odd[1], self.builder.fneg(odd[0])
            results[k], results[n - k] = self.plus(even, turned), self.minus(even, turned)
        return results

    def load_complex(self, address: Any, imaginary: Any) -> Any:
        return tuple(self.load(at, self.vector, self.size) for at in (address, self.builder.add(address, imaginary)))

    def store_complex(self, a: Any, address: Any, imaginary: Any) -> None:
        self.store(a[0], address)
        self.store(a[1], self.builder.add(address, imaginary))

    def factor(self, address: Any, index: int) -> Any:
        return self.load_splat(address, 2 * index), self.load_splat(address, 2 * index + 1)


@intrinsic  # type: ignore[untyped-decorator]
def _butterflies(typing_context: Any, like: Any, kind: Any, at: Any, gap: Any, by: Any, imaginary: Any, apart: Any, count: Any) -> Any:  # noqa: ARG001, E501  # numba's protocol
    """``count`` butterflies in place, ``apart`` bytes from each other, each of elements ``gap`` bytes apart.

    ``kind`` is a place in :data:`RADICES` times three, plus what is done with the twiddle factors at ``by``. Imaginary
    parts lie ``imaginary`` bytes from real ones; with the two exchanged, transforms are inverse ones.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001  # numba's protocol
        made = _Lines(context, builder, like.dtype)
        _, kind, at, gap, by, imaginary, apart, count = values
        end, never = builder.append_basic_block("end"), builder.append_basic_block("never")
        switch = builder.switch(kind, never)
        for (i, n), order in itertools.product(enumerate(RADICES), (PLAIN, AFTER, BEFORE)):
            block = builder.append_basic_block(f"radix.{n}.{order}")
            switch.add_case(LONG(3 * i + order), block)
            builder.position_at_end(block)
            with cgutils.for_range_slice(builder, LONG(0), count, LONG(1), intp=LONG) as (number, _):
                first = builder.add(at, builder.mul(apart, number))
                places = [builder.add(first, builder.mul(gap, LONG(leg))) for leg in range(n)]
                a = [made.load_complex(place, imaginary) for place in places]
                if order == BEFORE:
                    a[1:] = [made.times(x, made.factor(by, leg)) for leg, x in enumerate(a[1:])]
                a = made.dft(a)
                if order == AFTER:
                    a[1:] = [made.times(x, made.factor(by, leg)) for leg, x in enumerate(a[1:])]
                for x, place in zip(a, places, strict=True):
                    made.store_complex(x, place, imaginary)
            builder.branch(end)
        builder.position_at_end(never)
        builder.unreachable()
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(like, kind, at, gap, by, imaginary, apart, count), generate


@intrinsic  # type: ignore[untyped-decorator]
def _twist(typing_context: Any, like: Any, low: Any, high: Any, by: Any, to: Any) -> Any:  # noqa: ARG001
    """Make one element of two lines of reals: ``(low - i*high) * by``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, low, high, by, to = values
        a, b = (made.load(address, made.vector, made.size) for address in (low, high))
        made.store_complex(made.times((a, builder.fneg(b)), made.factor(by, 0)), to, LONG(LINE))
        return context.get_dummy_value()

    return types.void(like, low, high, by, to), generate


@intrinsic  # type: ignore[untyped-decorator]
def _untwist(typing_context: Any, like: Any, at: Any, by: Any, bias: Any, low: Any, high: Any, many: Any) -> Any:  # noqa: ARG001
    """Undo :func:`_twist`: store ``many`` reals of each line, plus a bias; an address of 0 is left out."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, at, by, bias, low, high, many = values
        real, imaginary = made.times(made.load_complex(at, LONG(LINE)), made.factor(by, 0))
        added = made.splat(bias, made.vector)
        whole = builder.icmp_signed(">=", many, LONG(made.lanes))
        for address, value in ((low, builder.fadd(real, added)), (high, builder.fsub(added, imaginary))):
            with builder.if_then(builder.icmp_signed("!=", address, LONG(0))):
                with builder.if_else(whole) as (full, part):
                    with full:
                        made.store(value, address)
                    with part:
                        made.store_lanes(value, address, LONG(0), many)
        return context.get_dummy_value()

    return types.void(like, at, by, bias, low, high, many), generate


@intrinsic  # type: ignore[untyped-decorator]
def _move(typing_context: Any, like: Any, at: Any, to: Any) -> Any:  # noqa: ARG001
    """Copy one element."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, at, to = values
        made.store_complex(made.load_complex(at, LONG(LINE)), to, LONG(LINE))
        return context.get_dummy_value()

    return types.void(like, at, to), generate


@intrinsic  # type: ignore[untyped-decorator]
def _plus(typing_context: Any, like: Any, at: Any, to: Any) -> Any:  # noqa: ARG001
    """Add one element to another."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, at, to = values
        a, b = (made.load_complex(address, LONG(LINE)) for address in (at, to))
        made.store_complex(made.plus(a, b), to, LONG(LINE))
        return context.get_dummy_value()

    return types.void(like, at, to), generate


@intrinsic  # type: ignore[untyped-decorator]
def _clear(typing_context: Any, like: Any, to: Any) -> Any:  # noqa: ARG001
    """Make one element zero."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        made.store_complex((made.zero, made.zero), values[1], LONG(LINE))
        return context.get_dummy_value()

    return types.void(like, to), generate


@intrinsic  # type: ignore[untyped-decorator]
def _transpose(typing_context: Any, like: Any, at: Any, gap: Any, to: Any, to_gap: Any) -> Any:  # noqa: ARG001
    """Turn lanes into elements, and elements, so many bytes apart, into lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, at, gap, to, to_gap = values
        n = made.lanes
        for part in (0, LINE):
            rows = [
                made.load(builder.add(at, builder.add(builder.mul(gap, LONG(i)), LONG(part))), made.vector, made.size)
                for i in range(n)
            ]
            # Row i and row i + n/2 interleaved, over and over, bring each number to its place.
            numbers = ir.VectorType(ir.IntType(32), n)
            masks = [
                ir.Constant(numbers, [first + i // 2 + (n if i % 2 else 0) for i in range(n)]) for first in (0, n // 2)
            ]
            for _ in range(n.bit_length() - 1):
                rows = [
                    builder.shuffle_vector(rows[i // 2], rows[i // 2 + n // 2], masks[i % 2]) for i in range(n)
                ]
            for i, row in enumerate(rows):
                made.store(row, builder.add(to, builder.add(builder.mul(to_gap, LONG(i)), LONG(part))))
        return context.get_dummy_value()

    return types.void(like, at, gap, to, to_gap), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _product(typing_context: Any, like: Any, many: Any, a: Any, a_gap: Any, b: Any, b_gap: Any, terms: Any, to: Any) -> Any:  # noqa: ARG001, E501
    """``many`` neighbouring elements of a sum of ``a * conj(b)``, whose terms lie so many bytes apart."""
    count = many.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, _, a, a_gap, b, b_gap, terms, to = values
        sums = [[cgutils.alloca_once_value(builder, made.zero) for _ in range(2)] for _ in range(count)]
        with cgutils.for_range_slice(builder, LONG(0), terms, LONG(1), intp=LONG) as (term, _):
            first, second = builder.add(a, builder.mul(a_gap, term)), builder.add(b, builder.mul(b_gap, term))
            for i, (real, imaginary) in enumerate(sums):
                x, y = (
                    made.load_complex(builder.add(at, LONG(i * ELEMENT)), LONG(LINE)) for at in (first, second)
                )
                part = made.multiply_add(x[0], y[0], builder.load(real))
                builder.store(made.multiply_add(x[1], y[1], part), real)
                part = made.multiply_add(x[1], y[0], builder.load(imaginary))
                builder.store(made.multiply_add(builder.fneg(x[0]), y[1], part), imaginary)
        for i, pair in enumerate(sums):
            total = tuple(builder.load(part) for part in pair)
            made.store_complex(total, builder.add(to, LONG(i * ELEMENT)), LONG(LINE))
        return context.get_dummy_value()

    return types.void(like, many, a, a_gap, b, b_gap, terms, to), generate


@intrinsic  # type: ignore[untyped-decorator]
def _add(typing_context: Any, like: Any, part: Any, total: Any, lost: Any) -> Any:  # noqa: ARG001
    """Add an element to a total, and what that rounds away to another (Knuth's TwoSum)."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        made = _Lines(context, builder, like.dtype)
        _, *addresses = values
        b, a, rest = (made.load_complex(address, LONG(LINE)) for address in addresses)
        after = made.plus(a, b)
        added = made.minus(after, a)
        rounded = made.plus(made.minus(a, made.minus(after, added)), made.minus(b, added))
        made.store_complex(after, addresses[1], LONG(LINE))
        made.store_complex(made.plus(rest, rounded), addresses[2], LONG(LINE))
        return context.get_dummy_value()

    return types.void(like, part, total, lost), generate


@jit
def _forward(like, buffer, passes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Transform elements in place. ``passes`` is that of :class:`volconv.engines.cpu.fft.Axis`."""
    for i in range(passes.shape[0]):
        kind, radix, gap, by, count = passes[i]
        _butterflies(like, kind + PLAIN, buffer, gap, by, LINE, radix * gap, count)
        for j in range(1, gap // ELEMENT):
            _butterflies(like, kind + AFTER, buffer + j * ELEMENT, gap, by, LINE, radix * gap, count)
            by += (radix - 1) * 2 * like.itemsize


@jit
def _inverse(like, buffer, passes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Undo :func:`_forward`, but for a factor: the number of elements."""
    for i in range(passes.shape[0] - 1, -1, -1):
        kind, radix, gap, by, count = passes[i]
        _butterflies(like, kind + PLAIN, buffer + LINE, gap, by, -LINE, radix * gap, count)
        for j in range(1, gap // ELEMENT):
            _butterflies(like, kind + BEFORE, buffer + LINE + j * ELEMENT, gap, by, -LINE, radix * gap, count)
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

    def enter(like, data, plane, row, shape, passes, twists, buffer, zeros, spectrum, depth_gap):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, E501
        depth, height, width = shape
        half, to = twists.shape[0], spectrum
        for y in range(height):
            for x in range(0, width * like.itemsize, LINE):
                at = data + y * row + x
                for k in range(half):
                    low = at + k * plane if k < depth else zeros
                    high = at + (k + half) * plane if k + half < depth else zeros
                    _twist(like, low, high, twists.ctypes.data + k * 2 * like.itemsize, buffer + k * ELEMENT)
                _forward(like, buffer, passes)
                for k in range(half):
                    _move(like, buffer + k * ELEMENT, to + k * depth_gap)
                to += ELEMENT

    return _compiled(enter, dtype, "aiii3PRiiii")


@jit
def _plane(like, at, shape, size, row_passes, column_passes, buffer, rows, to, gap):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, E501
    """Transform along H and W the (H, W) plane of elements at one address; all else is zero.

    Elements go out in the order (frequencies along H that share a vector, frequency along W), the former ``gap`` bytes
    apart. ``rows`` is room for the plane in between.
    """
    height, width = shape
    lanes = LINE // like.itemsize
    pitch = -(-width // lanes) * ELEMENT
    for x in range(0, pitch, ELEMENT):
        for y in range(height):
            _move(like, at + y * pitch + x, buffer + y * ELEMENT)
        for y in range(height, size[0]):
            _clear(like, buffer + y * ELEMENT)
        _forward(like, buffer, row_passes)
        for y in range(size[0]):
            _move(like, buffer + y * ELEMENT, rows + y * pitch + x)
    for y in range(0, size[0], lanes):
        for x in range(0, pitch, ELEMENT):
            _transpose(like, rows + y * pitch + x, pitch, to + x * lanes, ELEMENT)
        for x in range(width, size[1]):
            _clear(like, to + x * ELEMENT)
        _forward(like, to, column_passes)
        to += gap


@jit
def _products(like, a, b, gap, channels, width, work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Sum over channels ``a * conj(b)``, for a line of elements at ``work``; the two lines behind are room."""
    for x in range(0, width, TOGETHER):
        first = min(x, width - TOGETHER) * ELEMENT
        for channel in range(0, channels, CHAIN):
            at, by, to = a + channel * gap + first, b + channel * gap + first, work + first
            terms = min(CHAIN, channels - channel)
            if channel == 0:
                _product(like, TOGETHER, at, gap, by, gap, terms, to)
                continue
            part, lost = to + gap, to + 2 * gap
            _product(like, TOGETHER, at, gap, by, gap, terms, part)
            for i in range(0, TOGETHER * ELEMENT, ELEMENT):
                if channel == CHAIN:
                    _clear(like, lost + i)
                _add(like, part + i, to + i, lost + i)
        if channels > CHAIN:
            for i in range(0, TOGETHER * ELEMENT, ELEMENT):
                _plus(like, work + first + 2 * gap + i, work + first + i)


@cache
def compiled_middle(dtype: np.dtype[Any]) -> Callable[..., None]:
    """What lies between the transforms along D: those along H and W, products, and back; compiled for one dtype.

    It takes

    like : array of the dtype
    what : int
        :data:`MAKE` the kernels' spectra, :data:`USE` them, or do both at once, :data:`NEITHER` kept.
    half, size : int and (H, W)
        Frequencies.
    source, shape, gaps : address, (C_in, H, W), bytes between channels and between frequencies along D
        What came from D.
    kernel, kernel_shape, kernel_gaps : address, (H, W), bytes
        The same of kernels, of which there are C_out*C_in.
    spectra : address
        Where kernels' spectra are.
    target, target_shape, step : address, (C_out, H, W), int
        What goes back to D: along H, only every so many rows; gaps are those of the source, which it may overwrite.
    row_passes, column_passes : arrays
    work : address
        Of :func:`work_elements` elements.
    """

    def middle(like, what, half, size, source, shape, gaps, kernel, kernel_shape, kernel_gaps, spectra, target, target_shape, step, row_passes, column_passes, work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, E501
        channels, height, width = shape
        results, out_height, out_width = target_shape
        lanes = LINE // like.itemsize
        line = -(-size[1] // lanes) * lanes * ELEMENT
        strip = channels * line
        plane = size[0] // lanes * strip
        pitch = -(-out_width // lanes) * ELEMENT
        buffer = work
        rows = buffer + max(size[0] * ELEMENT, 3 * line)
        values = rows + size[0] // lanes * line
        made = values + plane
        for k in range(half):
            if what != MAKE:
                for c in range(channels):
                    at, to = source + c * gaps[0] + k * gaps[1], values + c * line
                    _plane(like, at, (height, width), size, row_passes, column_passes, buffer, rows, to, strip)
            for o in range(results):
                by = made if what == NEITHER else spectra + (k * results + o) * plane
                if what != USE:
                    for c in range(channels):
                        at = kernel + (o * channels + c) * kernel_gaps[0] + k * kernel_gaps[1]
                        to = by + c * line
                        _plane(like, at, kernel_shape, size, row_passes, column_passes, buffer, rows, to, strip)
                if what == MAKE:
                    continue
                for y in range(size[0] // lanes):
                    _products(like, values + y * strip, by + y * strip, line, channels, size[1], buffer)
                    _inverse(like, buffer, column_passes)
                    for x in range(0, pitch, ELEMENT):
                        _transpose(like, buffer + x * lanes, ELEMENT, rows + y * lanes * pitch + x, pitch)
                for x in range(0, pitch, ELEMENT):
                    for y in range(size[0]):
                        _move(like, rows + y * pitch + x, buffer + y * ELEMENT)
                    _inverse(like, buffer, row_passes)
                    to = target + o * gaps[0] + k * gaps[1] + x
                    for y in range(out_height):
                        _move(like, buffer + y * step * ELEMENT, to + y * pitch)

    return _compiled(middle, dtype, "aii2i32i22ii3iPPi")


def work_elements(channels: int, size: tuple[int, int], itemsize: int) -> int:
    """Elements of room that :func:`compiled_middle` needs."""
    lanes = LINE // itemsize
    line = -(-size[1] // lanes) * lanes
    return max(size[0], 3 * line) + size[0] // lanes * line * (1 + 2 * channels)


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

    def leave(like, spectrum, depth_gap, shape, step, passes, twists, buffer, out, plane, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, E501
        depth, height, width = shape
        half, at = twists.shape[0], spectrum
        lanes = LINE // like.itemsize
        for y in range(height):
            for x in range(0, width, lanes):
                for k in range(half):
                    _move(like, at + k * depth_gap, buffer + k * ELEMENT)
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
                        _untwist(like, buffer + k * ELEMENT, by, like[0], low, high, width - x)

    return _compiled(leave, dtype, "aii3iPRiiii")


def _compiled(function: Any, dtype: np.dtype[Any], arguments: str) -> Callable[..., None]:
    """Compile for arguments of these kinds: a(rray), i(nteger), 3 integers, P(asses), R(eal pairs)."""
    real, index = numba.from_dtype(dtype), numba.int64
    kinds = {"a": real[::1], "i": index, "2": types.UniTuple(index, 2), "3": types.UniTuple(index, 3), "P": index[:, ::1], "R": real[:, ::1]}
    return compiled_kernel(function, numba.void(*(kinds[a] for a in arguments)))
