"""The code of :mod:`volconv.engines.cpu.tile`'s loop, as numba compiles it; loaded only to be compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from volconv.engines.cpu.emitter import LONG, Emitter
from volconv.engines.cpu.tile import TileShape, patterns, tile_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from llvmlite import ir


class _Tile(Emitter):
    """Emits the code of one tile."""

    def __init__(self, context: Any, builder: ir.IRBuilder, real: types.Type, shape: TileShape) -> None:
        super().__init__(context, builder, real)
        self.shape = shape
        self.places = [(r, v) for r in range(shape.rows) for v in range(shape.vectors)]
        self.sums = {place: cgutils.alloca_once(builder, self.vector) for place in self.places}

    def clear(self, work: Any, chained: Any, compensated: Any) -> None:
        """Start sums, and totals and what they lost where there are such."""
        for place in self.places:
            self.builder.store(self.zero, self.sums[place])
        for i, needed in enumerate((chained, compensated)):
            with self.builder.if_then(needed):
                for j in range(len(self.places)):
                    self.store(self.zero, self.offset(work, i * len(self.places) + j, self.bytes))

    def run(
        self, program: Any, segments: Any, data: Any, offsets: Any, weights: Any, work: Any, compensated: Any
    ) -> None:
        """All segments of a program; each is a pattern, its steps from first to last, and rows to flush before it."""
        builder = self.builder
        with cgutils.for_range(builder, segments) as segment:
            where = self.offset(program, segment.index, 4 * 8)
            pattern, first, last, flushed = (self.load_long(where, i) for i in range(4))
            self.flush(flushed, work, compensated)
            if self.shape.cycle:
                self.cycle(first, data, offsets, weights)
            else:
                self.pattern(pattern, first, last, data, offsets, weights)

    def pattern(self, pattern: Any, first: Any, last: Any, data: Any, offsets: Any, weights: Any) -> None:
        """The steps of one segment."""
        builder = self.builder
        end, never = builder.append_basic_block("end"), builder.append_basic_block("never")
        switch = builder.switch(pattern, never)
        for i, (low, high) in enumerate(patterns(self.shape)):
            block = builder.append_basic_block(f"rows.{low}.{high}")
            switch.add_case(LONG(i), block)
            builder.position_at_end(block)
            with cgutils.for_range_slice(builder, first, last, LONG(1), intp=LONG) as (step, _):
                self.step(low, high, step, data, offsets, weights)
            builder.branch(end)
        builder.position_at_end(never)
        builder.unreachable()
        builder.position_at_end(end)

    def cycle(self, first: Any, data: Any, offsets: Any, weights: Any) -> None:
        """The steps of one channel: layer by layer, each seen by those rows that it belongs to."""
        layers = self.shape.cycle
        for i in range(layers + self.shape.rows - 1):
            for j in range(layers):
                step = self.builder.add(first, LONG(i * layers + j))
                self.step(max(0, i - layers + 1), min(self.shape.rows, i + 1), step, data, offsets, weights)

    def step(self, low: int, high: int, step: Any, data: Any, offsets: Any, weights: Any) -> None:
        """Load the data at one offset, and add those of each tap of a run to some rows.

        Later taps' data are shifted in registers: most loads that do not begin in step with cache lines take two.
        """
        shape = self.shape
        source = self.offset(data, self.load_long(offsets, step), self.size)
        row = self.offset(weights, step, shape.run * shape.rows * self.size)
        loaded = [self.load_vector(source, v) for v in range(shape.vectors + (shape.run > 1))]
        for tap in range(shape.run):
            values = [self.shifted(*loaded[v : v + 2], tap) if tap else loaded[v] for v in range(shape.vectors)]
            for r in range(low, high):
                weight = self.load_splat(row, tap * shape.rows + r)
                for v, value in enumerate(values):
                    place = self.sums[r, v]
                    self.builder.store(self.multiply_add(value, weight, self.builder.load(place)), place)

    def flush(self, rows: Any, work: Any, compensated: Any) -> None:
        """Move some rows (bits of a mask) of partial sums into their totals."""
        builder = self.builder
        with builder.if_then(builder.icmp_signed("!=", rows, LONG(0)), likely=False):
            for r in range(self.shape.rows):
                with builder.if_then(builder.icmp_signed("!=", builder.and_(rows, LONG(1 << r)), LONG(0))):
                    for kept in (False, True):
                        with builder.if_then(compensated if kept else builder.not_(compensated)):
                            for v in range(self.shape.vectors):
                                self._flush_vector((r, v), work, kept)

    def _flush_vector(self, place: tuple[int, int], work: Any, kept: bool) -> None:
        total, lost = self._totals(place, work)
        after, rounded = self._added(place, total, kept)
        self.store(after, total)
        if rounded is not None:
            self.store(self.add(self.load(lost, self.vector, self.size), rounded), lost)
        self.builder.store(self.zero, self.sums[place])

    def _added(self, place: tuple[int, int], total: Any, kept: bool) -> tuple[Any, Any]:
        """A total with its partial sum, and what the addition rounds away where that is kept.

        Dekker's Fast2Sum: where the part is larger than the total it may be off by half an epsilon of the part, which
        over all parts comes to half an epsilon of the sum of magnitudes.
        """
        builder = self.builder
        before, part = self.load(total, self.vector, self.size), builder.load(self.sums[place])
        after = self.add(before, part)
        if self.exact or not kept:
            return after, None
        return after, builder.fsub(part, builder.fsub(after, before))

    def _totals(self, place: tuple[int, int], work: Any) -> tuple[Any, Any]:
        """Addresses of a total and of what it lost."""
        i = self.places.index(place)
        return self.offset(work, i, self.bytes), self.offset(work, i + len(self.places), self.bytes)

    def collect(self, work: Any, chained: Any, compensated: Any) -> None:
        """Make the sums what they are with their totals."""
        builder = self.builder
        for kept in (False, True):
            with builder.if_then(compensated if kept else builder.and_(chained, builder.not_(compensated))):
                for place in self.places:
                    total, lost = self._totals(place, work)
                    value, rounded = self._added(place, total, kept)
                    if rounded is not None:
                        rounded = builder.fadd(self.load(lost, self.vector, self.size), rounded)
                        # Where the sum is not finite, neither is what was lost, and it must not count.
                        finite = builder.fcmp_ordered("==", builder.fsub(value, value), self.zero)
                        value = builder.select(finite, builder.fadd(value, rounded), value)
                    builder.store(value, self.sums[place])

    def write(self, out: Any, between: Any, many: Any, bias: Any, column: Any, row: tuple[Any, Any, Any, Any]) -> None:
        """Add the bias and store ``many`` rows, ``between`` elements apart.

        ``row`` is (width, pitch, pitch of the output, rows left): the tile begins at ``column`` of one row of outputs
        and may reach into the next ones, each ``pitch`` further, of which only the first ``width`` are outputs.
        """
        builder = self.builder
        within = builder.icmp_signed("<=", builder.add(column, LONG(self.shape.width)), row[0])
        with builder.if_else(within) as (inside, across):
            with inside:
                for r, target in self._rows_left(out, between, many):
                    first = self.offset(target, column, self.size)
                    for v in range(self.shape.vectors):
                        self.store(self._result(r, v, bias), self.offset(first, v * self.lanes, self.size))
            with across:
                starts = [
                    self._start(builder.add(column, LONG(v * self.lanes)), row[1]) for v in range(self.shape.vectors)
                ]
                for r, target in self._rows_left(out, between, many):
                    for v, start in enumerate(starts):
                        self._write_across(self._result(r, v, bias), target, start, row)

    def _rows_left(self, out: Any, between: Any, many: Any) -> Iterator[tuple[int, Any]]:
        """Those of the tile's rows that are outputs, and where they go."""
        for r in range(self.shape.rows):
            with self.builder.if_then(self.builder.icmp_signed(">", many, LONG(r))):
                yield r, self.offset(out, self.builder.mul(between, LONG(r)), self.size)

    def _result(self, r: int, v: int, bias: Any) -> Any:
        return self.add(self.builder.load(self.sums[r, v]), self.load_splat(bias, r))

    def _start(self, column: Any, pitch: Any) -> tuple[Any, Any]:
        """In which row of outputs a vector begins, and at which lane (zero or less) that row does."""
        first_row = self.builder.sdiv(column, pitch)
        return first_row, self.builder.sub(self.builder.mul(first_row, pitch), column)

    def _write_across(self, value: Any, target: Any, begin: tuple[Any, Any], row: tuple[Any, Any, Any, Any]) -> None:
        """Store those lanes of a vector that are outputs, in as many rows as it reaches."""
        builder, (width, pitch, out_pitch, rows) = self.builder, row
        start, (test, body, end) = builder.block, (builder.append_basic_block(n) for n in ("test", "body", "end"))
        builder.branch(test)

        builder.position_at_end(test)
        lane, r = builder.phi(LONG), builder.phi(LONG)
        r.add_incoming(begin[0], start)
        lane.add_incoming(begin[1], start)
        more = builder.icmp_signed("<", lane, LONG(self.lanes))
        builder.cbranch(builder.and_(more, builder.icmp_signed("<", r, rows)), body, end)

        builder.position_at_end(body)
        address = self.offset(target, builder.sub(builder.mul(r, out_pitch), lane), self.size)
        self.store_lanes(value, address, lane, builder.add(lane, width))
        lane.add_incoming(builder.add(lane, pitch), body)
        r.add_incoming(builder.add(r, LONG(1)), body)
        builder.branch(test)
        builder.position_at_end(end)


@intrinsic(prefer_literal=True)
def _tile(typing_context: Any, weights: Any, tall: Any, run: Any, cycle: Any, numbers: Any) -> Any:  # noqa: ARG001  # numba's protocol
    """One tile as a function that compiled code can call.

    The array of weights only tells the dtype. ``numbers`` are integers: addresses of data, offsets, weights and
    program, segments, chained, addresses of work, bias and out, what :meth:`_Tile.write` takes, and outputs left to
    the run's end.
    """
    shape = tile_shape(as_dtype(weights.dtype), bool(tall.literal_value), run.literal_value, cycle.literal_value)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001  # numba's protocol
        data, offsets, w, program, segments, chained, work, bias, out, between, many, column, *row, left = (
            cgutils.unpack_tuple(builder, values[4], 17)
        )
        several = builder.icmp_signed("!=", chained, LONG(0))
        compensated = builder.icmp_signed("==", chained, LONG(2))

        def emit(widths: list[int]) -> None:
            """A tile of the first width; a narrower one where fewer outputs are left."""
            made = _Tile(context, builder, weights.dtype, replace(shape, vectors=widths[0]))
            if len(widths) > 1:
                few = builder.icmp_signed("<=", left, LONG(widths[1] * shape.lanes))
                with builder.if_else(few, likely=False) as (narrow, full):
                    with narrow:
                        emit(widths[1:])
                    with full:
                        finish(made)
            else:
                finish(made)

        def finish(made: _Tile) -> None:
            made.clear(work, several, compensated)
            made.run(program, segments, data, offsets, w, work, compensated)
            made.collect(work, several, compensated)
            made.write(out, between, many, bias, column, tuple(row))

        emit(shape.widths)
        return context.get_dummy_value()

    return types.void(weights, tall, run, cycle, numbers), generate


def correlate_function(dtype: np.dtype[Any], tile: TileShape) -> Callable[..., None]:
    """What :func:`volconv.engines.cpu.tile.compiled_correlate` compiles; it also takes scratch for two tiles."""
    tall, run_of_taps, cycle = tile.rows > 4, tile.run, tile.cycle
    # Constants of the compiled code.
    rows, width, size = tile.rows, tile.width, dtype.itemsize

    def correlate(
        data, offsets, weights, bias, program, chained, out, shape, strides, out_strides, joined, stretch, work
    ):
        slices, neighbours, lines, line = shape
        sets, blocks, steps = weights.shape[0], weights.shape[1], weights.shape[2]
        runs, rows_left = (1, lines) if joined else (lines, 1)
        run = (rows_left - 1) * strides[2] + line
        # All tiles' rows for a stretch of each line, while its data are in cache; or line by line, as the output lies.
        together, stretch = (neighbours, stretch * width) if stretch else (rows, run)
        for s in range(slices):
            for n0 in range(0, neighbours, together):
                for r in range(runs):
                    source = data + (s * strides[0] + r * strides[2]) * size
                    target = out + (s * out_strides[0] + r * out_strides[2]) * size
                    for begin in range(0, run, stretch):
                        for n in range(n0, min(n0 + together, neighbours), rows):
                            block = n // rows if blocks > 1 else 0
                            own = (s if sets > 1 else 0) * blocks + block
                            for x in range(begin, min(begin + stretch, run), width):
                                first = x // strides[2]
                                _tile(
                                    weights,
                                    tall,
                                    run_of_taps,
                                    cycle,
                                    (
                                        source + (n * strides[1] + x) * size,
                                        offsets.ctypes.data,
                                        weights.ctypes.data + own * steps * rows * size,
                                        program.ctypes.data,
                                        program.shape[0],
                                        chained,
                                        work.ctypes.data,
                                        bias.ctypes.data + own * rows * size,
                                        target + (n * out_strides[1] + first * out_strides[2]) * size,
                                        out_strides[1],
                                        min(rows, neighbours - n),
                                        x - first * strides[2],
                                        line,
                                        strides[2],
                                        out_strides[2],
                                        rows_left - first,
                                        run - x,
                                    ),
                                )

    return correlate
