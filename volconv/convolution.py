"""How one block of a convolution, and one work item in it, is computed: padded read, valid convolution, epilogue."""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.dtypes import convert
from volconv.engines import get_engine, item_voxels, prepare
from volconv.engines.cpu.memory import LINE, Buffers
from volconv.engines.planar import planar_bias, planar_weight
from volconv.epilogue import NONE_LOST, Counts, count_non_finite, store
from volconv.padding import FILL, every, padded_axes, read_block
from volconv.shapes import padded_interval
from volconv.steps import steps
from volconv.tiling import work_items
from volconv.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volconv.engines.cpu.workers import Workers
    from volconv.io.volume import Scaling, Sink, Source
    from volconv.padding import Piece, Run
    from volconv.params import Triple
    from volconv.plan import Plan
    from volconv.reading import BlockReader
    from volconv.region import Region
    from volconv.steps import Step
    from volconv.tiling import Item


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored voxels that an I/O block needs, where in the volume they are from, and how items see them by axis."""

    values: NDArray[Any]
    piece: Piece
    spans: dict[tuple[int, int, int], tuple[list[Run], int]] = field(default_factory=dict)


#: Padded blocks up to this size are kept by each thread from run to run.
KEPT_BYTES = 8 << 20
_kept = Buffers()


class Convolution:
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
        voxels, _ = item_voxels(plan.problem, plan.item_groups, plan.item_box)
        self._buffers = Buffers()
        self._padded = _kept if voxels * self._dtype.itemsize <= KEPT_BYTES else self._buffers
        self.engine = get_engine(plan.algorithm)
        self._read_block: BlockReader = read_block
        if self.engine.compiled:
            from volconv.reading import block_reader

            self._read_block = block_reader(source.info.dtype, self._dtype)
        self._prepared = prepare(plan.algorithm, plan.problem, weight, bias)

    @property
    def grid(self) -> Triple:
        """What blocks start at multiples of."""
        return self.engine.needs(self.plan.problem).grid

    def drop_memory(self) -> None:
        """Let go of what this thread holds for work items, and of what a failure still refers to."""
        self._buffers = self._padded = Buffers()
        gc.collect()

    def reading(self, blocks: list[Region], copies: int) -> Callable[[int], Stored]:
        """How the input of each block is read, by its number, in order; a view where the source is memory."""
        wanted = list(steps(blocks, self.axes, self.plan.params))
        if self.source.info.access.in_memory:
            return lambda i: Stored(self._view(wanted[i]), wanted[i].piece)
        window = Window(self.source, wanted, copies)
        return lambda i: Stored(window.read(wanted[i]), wanted[i].piece)

    def _view(self, step: Step) -> NDArray[Any]:
        parts = list(replace(step, kept=0).fresh())
        if len(parts) == 1:
            return self.source.read(parts[0][0])
        values = np.empty(step.shape, self.source.info.dtype)
        for region, place in parts:
            self.source.read_into(region, values[place.slices])
        return values

    def compute(
        self,
        workers: Workers,
        block: Region,
        stored: Stored,
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

    def _item(self, item: Item, block: Region, stored: Stored, result: NDArray[Any]) -> Counts:
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
        padded = self._padded.get("padded", _padded_lines(shape, self._dtype), self._dtype)[..., :width]
        for i, (part, fill, scaling) in enumerate(self._parts):
            self._read_block(part(voxels), (d, h, w), padded[:, i], fill, scaling)
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

    def _span(self, stored: Stored, axis: int, start: int, stop: int) -> tuple[list[Run], int]:
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
            if params.kernel_size[axis] == 1:
                runs, high = every(runs, params.stride[axis]), low + stop - start
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
