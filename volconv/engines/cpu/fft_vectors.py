"""Vector code of the fft algorithm: what compiled loops do with *elements* of many lines at once.

An element is the real parts of some complex numbers, one line each, and then their imaginary parts: two cache lines.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from volconv.engines.cpu.emitter import LONG, Emitter
from volconv.engines.cpu.fft_tiles import ELEMENT, RADICES
from volconv.engines.cpu.memory import LINE

#: What is done with twiddle factors: nothing, they multiply results, or they multiply what is loaded.
PLAIN, AFTER, BEFORE = 0, 1, 2
#: Elements of a line whose products are summed at a time, which hides how long each addition takes.
TOGETHER = 2


class _Lines(Emitter):
    """Emits arithmetic of elements: pairs (real, imaginary) of vectors. Gaps are bytes, as in addresses."""

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
        if n in (3, 5, 7):
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

    def number(self, address: Any, index: int) -> Any:
        """A complex number in memory, for all lines."""
        return self.load_splat(address, 2 * index), self.load_splat(address, 2 * index + 1)

    def get(self, address: Any, imaginary: Any = LONG(LINE)) -> Any:  # noqa: B008  # a constant
        return tuple(self.load(at, self.vector, self.size) for at in (address, self.builder.add(address, imaginary)))

    def put(self, a: Any, address: Any, imaginary: Any = LONG(LINE)) -> None:  # noqa: B008
        self.store(a[0], address)
        self.store(a[1], self.builder.add(address, imaginary))

    def loop(self, count: Any) -> Any:
        return cgutils.for_range_slice(self.builder, LONG(0), count, LONG(1), intp=LONG)

    # --- what loops call; all arguments are integers

    def plain(self, *numbers: Any) -> None:
        """:meth:`_butterflies` without twiddle factors."""
        self._butterflies(PLAIN, *numbers)

    def after(self, *numbers: Any) -> None:
        """:meth:`_butterflies` whose results they multiply."""
        self._butterflies(AFTER, *numbers)

    def before(self, *numbers: Any) -> None:
        """:meth:`_butterflies` of what they multiply."""
        self._butterflies(BEFORE, *numbers)

    def _butterflies(
        self, order: int, kind: Any, at: Any, gap: Any, by: Any, imaginary: Any, apart: Any, count: Any
    ) -> None:
        """``count`` butterflies in place, ``apart`` from each other, each of elements ``gap`` from each other.

        ``kind`` is a place in :data:`RADICES`; twiddle factors lie at ``by``. Imaginary parts lie ``imaginary`` from
        real ones; with the two exchanged, transforms are inverse ones.
        """
        builder = self.builder
        end, never = builder.append_basic_block("end"), builder.append_basic_block("never")
        switch = builder.switch(kind, never)
        for i, n in enumerate(RADICES):
            block = builder.append_basic_block(f"radix.{n}")
            switch.add_case(LONG(i), block)
            builder.position_at_end(block)
            with self.loop(count) as (number, _):
                first = builder.add(at, builder.mul(apart, number))
                places = [builder.add(first, builder.mul(gap, LONG(leg))) for leg in range(n)]
                a = [self.get(place, imaginary) for place in places]
                if order == BEFORE:
                    a[1:] = [self.times(x, self.number(by, leg)) for leg, x in enumerate(a[1:])]
                a = self.dft(a)
                if order == AFTER:
                    a[1:] = [self.times(x, self.number(by, leg)) for leg, x in enumerate(a[1:])]
                for x, place in zip(a, places, strict=True):
                    self.put(x, place, imaginary)
            builder.branch(end)
        builder.position_at_end(never)
        builder.unreachable()
        builder.position_at_end(end)

    def twist(self, low: Any, high: Any, by: Any, to: Any) -> None:
        """Make one element of two vectors of reals: ``(low - i*high) * by``."""
        a, b = (self.load(address, self.vector, self.size) for address in (low, high))
        self.put(self.times((a, self.builder.fneg(b)), self.number(by, 0)), to)

    def untwist(self, at: Any, by: Any, bias: Any, low: Any, high: Any, many: Any) -> None:
        """Undo :meth:`twist`: store ``many`` reals of each vector, plus a bias; an address of 0 is left out."""
        builder = self.builder
        real, imaginary = self.times(self.get(at), self.number(by, 0))
        added = self.load_splat(bias, 0)
        whole = builder.icmp_signed(">=", many, LONG(self.lanes))
        for address, value in ((low, builder.fadd(real, added)), (high, builder.fsub(added, imaginary))):
            wanted = builder.icmp_signed("!=", address, LONG(0))
            with builder.if_then(wanted), builder.if_else(whole) as (full, part):
                with full:
                    self.store(value, address)
                with part:
                    self.store_lanes(value, address, LONG(0), many)

    def clear(self, to: Any) -> None:
        self.put((self.zero, self.zero), to)

    def move(self, at: Any, to: Any) -> None:
        self.put(self.get(at), to)

    def turn(self, at: Any, by: Any, to: Any) -> None:
        """Multiply one element by a complex number."""
        self.put(self.times(self.get(at), self.number(by, 0)), to)

    def sum(self, a: Any, b: Any, to: Any) -> None:
        self.put(self.plus(self.get(a), self.get(b)), to)

    def accumulate(self, part: Any, total: Any, lost: Any) -> None:
        """Add an element to a total, and what that rounds away to another (Knuth's TwoSum)."""
        b, a = self.get(part), self.get(total)
        after = self.plus(a, b)
        added = self.minus(after, a)
        rounded = self.plus(self.minus(a, self.minus(after, added)), self.minus(b, added))
        self.put(after, total)
        self.put(self.plus(self.get(lost), rounded), lost)

    def products(self, a: Any, b: Any, gap: Any, terms: Any, to: Any, earlier: Any) -> None:
        """Add :data:`TOGETHER` neighbouring elements of a sum of ``a * conj(b)``, whose terms lie ``gap`` apart.

        If there were no ``earlier`` terms, the sum begins with zero.
        """
        builder = self.builder
        fresh = builder.icmp_signed("==", earlier, LONG(0))
        places = [builder.add(to, LONG(i * ELEMENT)) for i in range(TOGETHER)]
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(2)] for _ in places]
        for place, pair in zip(places, sums, strict=True):
            for value, total in zip(self.get(place), pair, strict=True):
                builder.store(builder.select(fresh, self.zero, value), total)
        with self.loop(terms) as (term, _):
            along = builder.mul(gap, term)
            for i, (real, imaginary) in enumerate(sums):
                x, y = (self.get(builder.add(builder.add(at, along), LONG(i * ELEMENT))) for at in (a, b))
                part = self.multiply_add(x[0], y[0], builder.load(real))
                builder.store(self.multiply_add(x[1], y[1], part), real)
                part = self.multiply_add(x[1], y[0], builder.load(imaginary))
                builder.store(self.multiply_add(builder.fneg(x[0]), y[1], part), imaginary)
        for place, pair in zip(places, sums, strict=True):
            self.put([builder.load(total) for total in pair], place)

    def transpose(self, at: Any, gap: Any, to: Any, to_gap: Any) -> None:
        """Turn lanes into elements, and elements into lanes."""
        n, builder = self.lanes, self.builder
        numbers = ir.VectorType(ir.IntType(32), n)
        masks = [[first + i // 2 + (n if i % 2 else 0) for i in range(n)] for first in (0, n // 2)]
        halves = [ir.Constant(numbers, mask) for mask in masks]
        for part in (0, LINE):

            def place(address: Any, between: Any, i: int, part: int = part) -> Any:
                return builder.add(address, builder.add(builder.mul(between, LONG(i)), LONG(part)))

            rows = [self.load(place(at, gap, i), self.vector, self.size) for i in range(n)]
            # The first row and the middle one interleaved, and so on, over and over, bring each number to its place.
            for _ in range(n.bit_length() - 1):
                rows = [builder.shuffle_vector(rows[i // 2], rows[i // 2 + n // 2], halves[i % 2]) for i in range(n)]
            for i, row in enumerate(rows):
                self.store(row, place(to, to_gap, i))


def _emit(typing_context: Any, like: Any, what: Any, numbers: Any) -> Any:  # noqa: ARG001  # numba's protocol
    """Vector code in a compiled loop: a method of this module's class by its name, and a tuple of its arguments.

    ``like`` is an array, which only tells the dtype.
    """
    integers = types.UniTuple(types.int64, len(numbers))

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001  # numba's protocol
        made = _Lines(context, builder, like.dtype)
        getattr(made, what.literal_value)(*cgutils.unpack_tuple(builder, values[2], len(numbers)))
        return context.get_dummy_value()

    return types.void(like, what, integers), generate


emit: Any = intrinsic(prefer_literal=True)(_emit)
