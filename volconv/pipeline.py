"""One convolution from a source to a sink, carried out block by block as planned."""

from __future__ import annotations

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.dtypes import convert
from volconv.engines import get_engine, prepare
from volconv.engines.cpu.memory import LINE, Buffers
from volconv.engines.cpu.workers import Workers
from volconv.engines.planar import planar_bias, planar_weight
from volconv.epilogue import NONE_LOST, Counts, count_non_finite, store
from volconv.padding import FILL, Piece, padded_axes, read_block
from volconv.region import Region
from volconv.shapes import padded_interval
from volconv.tiling import work_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volconv.io.volume import Scaling, Sink, Source
    from volconv.padding import Run
    from volconv.plan import Plan
    from volconv.tiling import Item


@dataclass(slots=True)
class Outcome:
    """What a run found: counts over all voxels, and seconds spent waiting for each part."""

    counts: Counts = NONE_LOST
    read_seconds: float = 0.0
    compute_seconds: float = 0.0
    write_seconds: float = 0.0


def run(
    plan: Plan,
    source: Source,
    sink: Sink,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Carry out a plan. The next block is read, and the last one written, while one is computed.

    Parameters
    ----------
    plan : Plan
    source : Source
        Of ``plan.input_shape``.
    sink : Sink
        Of ``plan.output_shape``; neither committed nor aborted here.
    weight : (C_out, C_in/groups, kD, kH, kW) array
    bias : (C_out,) array, optional
    progress : callable, optional
        Called with (output voxels done, output voxels in all) after each work item, from any thread, one at a time.
    """
    outcome = Outcome()
    total = math.prod(plan.output_shape)
    done, lock = 0, threading.Lock()

    def advance(voxels: int) -> None:
        nonlocal done
        with lock:
            done += voxels
            if progress is not None:
                progress(done, total)

    convolution = _Convolution(plan, weight, bias, source, sink)
    with (
        convolution.engine.session(),
        Workers(plan.threads) as workers,
        ThreadPoolExecutor(1, "volconv-read") as reader,
        ThreadPoolExecutor(1, "volconv-write") as writer,
    ):
        coming = None if source.info.access.in_memory else _ahead(reader, convolution.read, plan.blocks)
        written = None
        for block in plan.blocks:
            started = perf_counter()
            piece = next(coming) if coming else convolution.read(block)
            outcome.read_seconds += perf_counter() - started

            started = perf_counter()
            view = sink.view(block)
            result = np.empty(block.shape, sink.info.dtype) if view is None else view
            outcome.counts += convolution.compute(workers, block, piece, result, advance if progress else None)
            outcome.compute_seconds += perf_counter() - started
            del piece

            if view is None:
                started = perf_counter()
                if written is not None:
                    written.result()
                written = writer.submit(sink.write, block, result)
                outcome.write_seconds += perf_counter() - started
        if written is not None:
            started = perf_counter()
            written.result()
            outcome.write_seconds += perf_counter() - started
    return outcome


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Region], _Stored], blocks: tuple[Region, ...]
) -> Iterator[_Stored]:
    """Results of ``read`` for each block in turn, the next one under way while the last is used."""
    pending = [pool.submit(read, block) for block in blocks[:1]]
    for i in range(len(blocks)):
        stored = pending.pop().result()
        pending += [pool.submit(read, block) for block in blocks[i + 1 : i + 2]]
        yield stored
        del stored


@dataclass(frozen=True, slots=True)
class _Stored:
    """Stored voxels that an I/O block needs, where in the volume they are from, and how items see them by axis."""

    values: NDArray[Any]
    piece: Piece
    spans: dict[tuple[int, int, int], tuple[list[Run], int]] = field(default_factory=dict)


class _Convolution:
    """A plan bound to its ends and weights: how one block, and one work item in it, is done."""

    def __init__(self, plan: Plan, weight: NDArray[Any], bias: NDArray[Any] | None, source: Source, sink: Sink) -> None:
        self.plan = plan
        self.source = source
        self.sink = sink
        self.axes = padded_axes(plan.input_shape[2:], plan.params)

        weight = convert("weight", weight, plan.compute_dtype)
        bias = convert("bias", np.zeros(plan.params.out_channels) if bias is None else bias, plan.compute_dtype)
        scaling, fill = source.info.scaling, plan.params.padding_value
        # What a block is made of: which part of a voxel, what pads it, how it is scaled.
        self._parts: tuple[tuple[Callable[[Any], Any], complex, Scaling | None], ...] = (
            ((lambda v: v), fill, scaling),
        )
        if plan.is_complex:
            imaginary = None if scaling is None else scaling.without_intercept()
            self._parts = ((np.real, np.real(fill), scaling), (_imaginary, np.imag(fill), imaginary))
            weight, bias = planar_weight(weight), planar_bias(bias)
        self._dtype = weight.dtype
        self._buffers = Buffers()
        self.engine = get_engine(plan.algorithm)
        self._prepared = prepare(plan.algorithm, plan.problem, weight, bias)

    def read(self, block: Region) -> _Stored:
        """Read what a block of outputs needs; a view where the source is memory."""
        params = self.plan.params
        extents = []
        for i, axis in enumerate(self.axes):
            span = padded_interval(block.start[2 + i], block.stop[2 + i], params.stride[i], params.effective_kernel[i])
            extents.append(tuple(axis.extents(*span)))
        piece = Piece(tuple(extents))
        parts = [
            Region((block.start[0], 0, d[0], h[0], w[0]), (block.stop[0], params.in_channels, d[1], h[1], w[1]))
            for d, h, w in itertools.product(*extents)
        ]
        if len(parts) == 1:
            return _Stored(self.source.read(parts[0]), piece)
        values = np.empty((block.shape[0], params.in_channels, *piece.size), self.source.info.dtype)
        for part in parts:
            place = [piece.place(i, start) for i, start in enumerate(part.start[2:])]
            box = tuple(slice(p, p + n) for p, n in zip(place, part.shape[2:], strict=True))
            values[(slice(None), slice(None), *box)] = self.source.read(part)
        return _Stored(values, piece)

    def compute(
        self,
        workers: Workers,
        block: Region,
        stored: _Stored,
        result: NDArray[Any],
        advance: Callable[[int], None] | None,
    ) -> Counts:
        """Compute one I/O block on all threads; ``advance`` is told of the output voxels of each item."""
        per_group = self.plan.params.out_channels // self.plan.params.groups
        counts: list[Counts] = []

        def work(items: Iterator[Item]) -> None:
            lost = NONE_LOST
            # Casts may overflow to infinity, as in NumPy; a warning from a worker thread would help nobody.
            with np.errstate(all="ignore"):
                for item in items:
                    found = self._item(item, block, stored, result)
                    if found is not NONE_LOST:
                        lost += found
                    if advance is not None:
                        size = [b - a for a, b in zip(item.start, item.stop, strict=True)]
                        advance((item.groups[1] - item.groups[0]) * per_group * math.prod(size))
            counts.append(lost)

        workers.run(work, work_items(block, self.plan.params.groups, self.plan.item_groups, self.plan.item_box))
        return sum(counts, NONE_LOST)

    def _item(self, item: Item, block: Region, stored: _Stored, result: NDArray[Any]) -> Counts:
        """Padded read, valid convolution, epilogue: all in one core's cache."""
        params, parts = self.plan.params, len(self._parts)
        first, last = item.groups
        per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
        (z0, y0, x0), (z1, y1, x1) = item.start, item.stop
        size = z1 - z0, y1 - y0, x1 - x0

        _, _, z, y, x = block.start
        (d, depth), (h, height), (w, width) = (
            self._span(stored, 0, z + z0, z + z1),
            self._span(stored, 1, y + y0, y + y1),
            self._span(stored, 2, x + x0, x + x1),
        )
        voxels = stored.values[item.volume, first * per_in : last * per_in]
        shape = len(voxels), parts, depth, height, width
        padded = self._buffers.get("padded", _padded_lines(shape, self._dtype), self._dtype)[..., :width]
        for i, (part, fill, scaling) in enumerate(self._parts):
            read_block(part(voxels), (d, h, w), padded[:, i], fill, scaling)
        padded = padded.reshape(-1, depth, height, width)

        target = result[item.volume, first * per_out : last * per_out, z0:z1, y0:y1, x0:x1]
        if parts == 1 and target.dtype == self._dtype and self.sink.info.scaling is None:
            self._prepared(padded, target, first)
            return self._counted(target)
        sums = self._buffers.get("sums", ((last - first) * per_out, parts, *size), self._dtype)
        self._prepared(padded, sums.reshape(-1, *size), first)
        values = sums[:, 0]
        if parts == 2:
            values = self._buffers.get("complex", target.shape, self.plan.compute_dtype)
            values.real, values.imag = sums[:, 0], sums[:, 1]
        lost = store(values, target, self.sink.info.scaling)
        return lost if lost is not NONE_LOST else self._counted(target)

    def _counted(self, target: NDArray[Any]) -> Counts:
        """Values that are not finite, counted while they are in cache; nobody asks for those of an array in memory."""
        return NONE_LOST if self.sink.info.access.in_memory else count_non_finite(target)

    def _span(self, stored: _Stored, axis: int, start: int, stop: int) -> tuple[list[Run], int]:
        """What the padded block of outputs ``start`` to ``stop`` holds along one axis of what was read; its size."""
        key = axis, start, stop
        span = stored.spans.get(key)
        if span is None:
            params = self.plan.params
            low, high = padded_interval(start, stop, params.stride[axis], params.effective_kernel[axis])
            runs = [
                run if run.first == FILL else run._replace(first=stored.piece.place(axis, run.first))
                for run in self.axes[axis].runs(low, high)
            ]
            span = stored.spans[key] = runs, high - low
        return span


def _imaginary(voxels: NDArray[Any]) -> NDArray[Any]:
    """Imaginary parts; those of real voxels without an array of zeros."""
    return voxels.imag if voxels.dtype.kind == "c" else np.broadcast_to(voxels.dtype.type(0), voxels.shape)


def _padded_lines(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The shape with lines that begin in step with cache lines, as most vectors that are read from them then do.

    Short lines stay as they are: what lies between them would cost more.
    """
    line = LINE // dtype.itemsize
    return (*shape[:-1], -(-shape[-1] // line) * line) if shape[-1] >= 8 * line else shape
