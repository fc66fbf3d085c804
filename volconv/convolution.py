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
from volconv.epilogue import NO_EPILOGUE, NONE_LOST, Counts, count_non_finite, store
from volconv.normalised import Normalised, whole_labels
from volconv.padding import FILL, every, padded_axes, read_block
from volconv.shapes import padded_interval
from volconv.steps import steps
from volconv.tiling import work_items
from volconv.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from volconv.device_convolution import DeviceSeconds
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
    """Stored voxels that an I/O block needs, where in the volume they are from, and how items see them by axis.

    ``labels`` are those of the mask, of the same voxels.
    """

    values: NDArray[Any]
    labels: NDArray[Any] | None
    piece: Piece
    spans: dict[tuple[int, int, int], tuple[list[Run], int]] = field(default_factory=dict)


#: Padded blocks up to this size are kept by each thread from run to run.
KEPT_BYTES = 8 << 20
_kept = Buffers()


class Reads:
    """What one block after another needs of the files that are read, wherever it is computed.

    Parameters
    ----------
    plan : Plan
    read_ends : tuple of Source
        The volume and, if there is one, the mask.
    sink : Sink
    """

    def __init__(self, plan: Plan, read_ends: tuple[Source, ...], sink: Sink) -> None:
        self.plan, self.read_ends, self.sink = plan, read_ends, sink
        self.axes = padded_axes(plan.input_shape[2:], plan.params)
        #: What a GPU spent on each part.
        self.seconds: DeviceSeconds | None = None

    def reading(self, blocks: list[Region], copies: int) -> Callable[[int], Stored]:
        """How the input of each block is read, by its number, in order; a view where the source is memory."""
        plan, reads = self.plan, []
        for end in self.read_ends:
            wanted = list(steps(blocks, self.axes, plan.params, end.info.shape[:2], plan.origin))
            reads.append((_views(end) if end.info.access.in_memory else Window(end, wanted, copies).read, wanted))

        def stored(i: int) -> Stored:
            values, *labels = (read(wanted[i]) for read, wanted in reads)
            return Stored(values, labels[0] if labels else None, wanted[i].piece)

        return stored

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


class Convolution(Reads):
    """A plan bound to its ends and weights: how one block, and one work item in it, is done.

    ``ahead`` is how many blocks may be submitted before the first of them is collected: none, as all threads work on
    each.
    """

    ahead = 0

    def __init__(
        self,
        plan: Plan,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        source: Source,
        sink: Sink,
        mask: Source | None = None,
    ) -> None:
        super().__init__(plan, (source,) if mask is None else (source, mask), sink)
        weight = convert("weight", weight, plan.compute_dtype)
        bias = convert("bias", np.zeros(plan.params.out_channels) if bias is None else bias, plan.compute_dtype)
        self._normalised: Normalised | None = None
        if plan.masking is not None:
            self._normalised = Normalised(
                self._convolved, weight, bias, plan.params.groups, plan.masking, plan.epilogue
            )
            bias = np.zeros_like(bias)
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
        # Results go right where they are stored, if that is of their dtype.
        self._as_it_is = (
            len(self._parts) == 1
            and sink.info.scaling is None
            and plan.epilogue == NO_EPILOGUE
            and plan.masking is None
        )

    def session(self) -> AbstractContextManager[None]:
        """What must be held while blocks are computed."""
        return self.engine.session()

    @property
    def grid(self) -> Triple:
        """What blocks start at multiples of."""
        return self.engine.needs(self.plan.problem).grid

    def drop_memory(self) -> None:
        """Let go of what this thread holds for work items, and of what a failure still refers to."""
        self._buffers = self._padded = Buffers()
        gc.collect()

    def submit(
        self,
        workers: Workers,
        block: Region,
        stored: Stored,
        result: NDArray[Any],
        advance: Callable[[int], None] | None,
    ) -> Callable[[], Counts]:
        """Compute one I/O block on all threads; ``advance`` is told of the output voxels of each item."""
        reduced = self.plan.epilogue.reduce is not None
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
                        channels = 1 if reduced else (item.groups[1] - item.groups[0]) * per_group
                        advance(channels * math.prod(size))
            counts.append(lost)

        workers.run(work, work_items(block, self.plan.params.groups, self.plan.item_groups, self.plan.item_box))
        return lambda: sum(counts, NONE_LOST)

    def _item(self, item: Item, block: Region, stored: Stored, result: NDArray[Any]) -> Counts:
        """Padded read, valid convolution, epilogue: all in one core's cache."""
        params, parts = self.plan.params, len(self._parts)
        first, last = item.groups
        per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
        (z0, y0, x0), (z1, y1, x1) = item.start, item.stop
        size = z1 - z0, y1 - y0, x1 - x0

        z, y, x = (a + o for a, o in zip(block.start[2:], self.plan.origin, strict=True))
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

        reduced = self.plan.epilogue.reduce is not None
        target = result[item.volume, slice(None) if reduced else slice(first * per_out, last * per_out)]
        target = target[:, z0:z1, y0:y1, x0:x1]
        kept = self._kept(item, block)
        if self._as_it_is and target.dtype == self._dtype:
            self._prepared(padded.reshape(-1, depth, height, width), target, first)
            return self._counted(target[kept])
        if self._normalised is None:
            values = self.plan.epilogue(self._convolved(padded, first))
        else:
            labels = None if stored.labels is None else self._labels(stored.labels, item, (d, h, w), padded.shape[2:])
            values = self._normalised(padded, self._room(padded), labels, self._centres(size), first)
        lost = store(values[kept], target[kept], self.sink.info.scaling)
        return lost if lost is not NONE_LOST else self._counted(target[kept])

    def _kept(self, item: Item, block: Region) -> tuple[slice, ...]:
        """What of an item's outputs is kept; what is not may be computed by another process, which counts it."""
        part = self.plan.part
        if part is None:
            return (slice(None),)
        spans = zip(block.start[2:], item.start, item.stop, part.start[2:], part.stop[2:], strict=True)
        return (
            slice(None),
            *(slice(max(0, low - origin - a), min(b, high - origin) - a) for origin, a, b, low, high in spans),
        )

    def _convolved(self, padded: NDArray[Any], first: int, name: str = "values") -> NDArray[Any]:
        """Results (C_out, d, h, w) of a padded block (C, parts, D, H, W), in this thread's memory."""
        params, parts, block_params = self.plan.params, padded.shape[1], self.plan.problem.params
        channels = len(padded) * params.out_channels // params.in_channels
        size = tuple(
            (n - effective) // stride + 1
            for n, effective, stride in zip(
                padded.shape[2:], block_params.effective_kernel, block_params.stride, strict=True
            )
        )
        sums = self._buffers.get("sums" if parts == 2 else name, (channels, parts, *size), self._dtype)
        self._prepared(padded.reshape(-1, *padded.shape[2:]), sums.reshape(-1, *size), first)
        if parts == 1:
            return sums[:, 0]
        values = self._buffers.get(name, (channels, *size), self.plan.compute_dtype)
        values.real, values.imag = sums[:, 0], sums[:, 1]
        return values

    def _centres(self, size: Triple) -> tuple[slice, ...]:
        """Where in a padded block outputs are centred; before that where it is between two voxels."""
        params = self.plan.problem.params
        middles = [(effective - 1) // 2 for effective in params.effective_kernel]
        return tuple(
            slice(middle, middle + (n - 1) * stride + 1, stride)
            for middle, n, stride in zip(middles, size, params.stride, strict=True)
        )

    def _labels(
        self, stored: NDArray[Any], item: Item, runs: tuple[list[Run], ...], size: tuple[int, ...]
    ) -> NDArray[Any]:
        """Labels of a padded block's voxels; padded as they are, and 0 where that is with a value."""
        mask = self.read_ends[-1].info
        as_they_are = mask.scaling is None and mask.dtype.kind in "biu"
        labels = self._buffers.get("labels", (1, *size), mask.dtype if as_they_are else np.dtype(np.float64))
        read_block(stored[min(item.volume, len(stored) - 1)], runs, labels, 0, mask.scaling)
        return labels[0] if as_they_are else whole_labels(labels[0])

    def _room(self, padded: NDArray[Any]) -> NDArray[Any]:
        """Room for another block of this shape."""
        return self._buffers.get("some", _padded_lines(padded.shape, self._dtype), self._dtype)[..., : padded.shape[-1]]

    def _counted(self, target: NDArray[Any]) -> Counts:
        """Values that are not finite, counted while they are in cache; nobody asks for those of an array in memory."""
        return NONE_LOST if self.sink.info.access.in_memory else count_non_finite(target)


def _views(source: Source) -> Callable[[Step], NDArray[Any]]:
    """How steps are read of a source that is memory."""

    def read(step: Step) -> NDArray[Any]:
        parts = list(replace(step, kept=0).fresh())
        if len(parts) == 1:
            return source.read(parts[0][0])
        values = np.empty(step.shape, source.info.dtype)
        for region, place in parts:
            source.read_into(region, values[place.slices])
        return values

    return read


def _imaginary(voxels: NDArray[Any]) -> NDArray[Any]:
    """Imaginary parts; those of real voxels without an array of zeros."""
    return voxels.imag if voxels.dtype.kind == "c" else np.broadcast_to(voxels.dtype.type(0), voxels.shape)


def _padded_lines(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The shape with lines that begin in step with cache lines, as most vectors that are read from them then do.

    Short lines stay as they are: what lies between them would cost more.
    """
    line = LINE // dtype.itemsize
    return (*shape[:-1], -(-shape[-1] // line) * line) if shape[-1] >= 8 * line else shape
