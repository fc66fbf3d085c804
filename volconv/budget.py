"""How a run is cut into blocks so that it stays below a bound on memory: what is held, by parts, counted beforehand."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from volconv.cuts import Cut, Memory
from volconv.engines import get_engine, item_voxels, prepared_bytes, weight_bytes, workspace
from volconv.epilogue import NO_EPILOGUE
from volconv.errors import OutOfMemoryError
from volconv.memory import LIBRARIES, default_memory, free_memory, in_words
from volconv.pieces import aligned, layer, times_unpacked
from volconv.shapes import block_shape
from volconv.tiling import item_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volconv.cuts import Ends
    from volconv.engines import Needs, Problem
    from volconv.params import Triple
    from volconv.plan import Plan
    from volconv.region import Index5

#: Input and output of one I/O block, where there is room for more (set by tests/benchmarks/large.py).
BLOCK_BYTES = 32 << 20

#: A slab is so many times as thick as its halo, or thicker, even if it then takes more.
HALOS = 4

#: Voxels that are computed in the time of one call that reads or writes a line of them.
CALL_VOXELS = 1000

#: Voxels that are read and computed in the time of one that is unpacked.
UNPACKING = 2.0

#: What the allocator keeps of memory that was given back, for the process and for each thread.
SLACK = 8 << 20
SLACK_OF_A_THREAD = 1 << 20

#: To save memory, planes of blocks are cut to these edges (D, H, W), and then to so many bytes; work items to so many.
LEAST_BOX: Triple = (1, 16, 64)
LEAST_BLOCK = 4 << 20
LEAST_ITEM = 1 << 18


def cut(problem: Problem, plan: Plan, ends: Ends, memory: int | None) -> Cut:
    """Blocks and work items that keep the process below a bound.

    Parameters
    ----------
    problem : Problem
        As the algorithm sees it: real.
    plan : Plan
        As for arrays; fewer of its threads are taken where there is no room for so many.
    ends : Ends
    memory : int or None
        The bound, in bytes. None is :func:`default_memory`, or more where that is too little and there is more.

    Raises
    ------
    OutOfMemoryError
        Nothing fits; the message says what would.
    """
    engine = get_engine(plan.algorithm)
    weights = 2 * weight_bytes(problem) + prepared_bytes(plan.algorithm, problem)
    budget = HostBudget(problem, plan, ends, engine.needs(problem), engine.cost(problem), weights)
    threads = plan.threads
    bound = default_memory() if memory is None else memory
    found = budget.within(bound, threads)
    if found is not None:
        return found
    least = budget.least()
    if memory is None:
        found = budget.within(least, threads) if least <= free_memory() else None
        if found is not None:
            return found
    error = OutOfMemoryError(
        f"memory must be at least {in_words(least)} for this volume and kernel (got {in_words(bound)})",
        hint=f"pass --memory {in_words(least)} (memory=)" if memory is not None else None,
    )
    error.least = least
    raise error


class HostBudget:
    """One convolution between two files, and what can be held of it.

    Parameters
    ----------
    problem : Problem
    plan : Plan
        Of one block, all that is computed.
    ends : Ends
    needs : Needs
        Of the algorithm.
    seconds : float
        Predicted for the whole output.
    weights : int
        Bytes, as they are given and as they are prepared.
    """

    libraries = LIBRARIES

    def __init__(self, problem: Problem, plan: Plan, ends: Ends, needs: Needs, seconds: float, weights: int) -> None:
        self._problem, self._plan, self._ends = problem, plan, ends
        self._params, self._algorithm = plan.params, plan.algorithm
        self._needs, self._seconds, self._weights = needs, seconds, weights
        self.block_bytes = BLOCK_BYTES
        self._held = sum(end.access.held_bytes for end in (*ends.read, ends.target))
        n, _, d, h, w = plan.blocks[0].shape if plan.blocks else plan.output_shape
        self._shape: Index5 = (n, problem.output_shape[1], d, h, w)
        self._size: Triple = (d, h, w)

    def within(self, bound: int, threads: int) -> Cut | None:
        """The best cut below a bound."""
        if bound < self.least():
            return None
        *others, last = self._tries(threads)
        for count, item_bytes in (*others, last):
            groups, box = self._item(self._shape, item_bytes, count)
            held = self._of_threads(count, groups, box)
            room = bound - self._fixed(count) - held
            # Work items are not to take what blocks need, unless they cannot be smaller.
            if held > room and (count, item_bytes) != last:
                continue
            for volumes, block, copies, keep in self._boxes(room):
                shape = volumes, self._shape[1], *block
                other = self._item(shape, item_bytes, count)
                if self._of_threads(count, *other) <= held:
                    groups, box = other
                return self._told(bound, count, groups, box, (volumes, block, copies, keep))
        return None

    def least(self) -> int:
        """The smallest bound that there is a cut for."""
        *_, (count, item_bytes) = self._tries(1)
        held = self._of_threads(count, *self._item(self._shape, item_bytes, count))
        return self._fixed(count) + held + min(self._of_block(1, box, 1, keep=False) for box in self._smallest())

    def _tries(self, threads: int) -> Iterator[tuple[int, int]]:
        """Threads and sizes of a padded block, the best first."""
        count = threads
        while count:
            item_bytes = self._needs.block_bytes
            while True:
                yield count, item_bytes
                if item_bytes // 2 < LEAST_ITEM:
                    break
                item_bytes //= 2
            count //= 2

    def _item(self, shape: Index5, item_bytes: int, threads: int) -> tuple[int, Triple]:
        problem, seconds = self._problem, None
        if item_bytes == self._needs.block_bytes:  # smaller ones are to save memory, whatever it costs
            seconds = self._seconds * math.prod(shape) / max(1, math.prod(problem.output_shape))
        together = self._plan.epilogue.reduce is not None
        return item_shape(
            shape,
            problem.params,
            self._needs.grid,
            problem.dtype.itemsize,
            item_bytes,
            threads,
            seconds,
            together=together,
        )

    def _fixed(self, threads: int) -> int:
        return self.libraries + self._weights + self._held + SLACK + threads * SLACK_OF_A_THREAD

    def _of_threads(self, threads: int, groups: int, box: Triple) -> int:
        """Padded blocks, results that are cast from, masks, and what the algorithm holds."""
        problem = self._problem
        voxels, outputs = item_voxels(problem, groups, box)
        item = problem.dtype.itemsize
        each = voxels * item * 17 // 16 + outputs * (item + 1)  # lines may be padded
        if self._ends.target.dtype.kind in "iu":
            each += outputs * 5
        if self._params != problem.params:  # complex values are put together
            each += outputs * item
        if self._plan.epilogue != NO_EPILOGUE:
            each += 2 * outputs * item
        if self._plan.masking is not None:
            # Labels, which voxels count, those voxels, their weights, and what is kept outside.
            each += voxels * (2 * 8 + 3 + item) + outputs * (4 * item + 8 + 2)
        return threads * (each + workspace(self._algorithm, problem, groups, box))

    def _of_block(self, volumes: int, box: Triple, copies: int, *, keep: bool = True) -> int:
        """Inputs and outputs, and the pieces of files that are kept."""
        return copies * sum(self._of_copy(volumes, box)) + sum(self._caches(volumes, box, keep=keep))

    def _of_copy(self, volumes: int, box: Triple) -> tuple[int, int]:
        target, voxels = self._ends.target, volumes * math.prod(self._seen(box))
        outputs = volumes * target.shape[1] * math.prod(box)
        return (
            sum(0 if end.access.in_memory else voxels * end.shape[1] * end.dtype.itemsize for end in self._ends.read),
            0 if target.access.in_memory else outputs * target.dtype.itemsize,
        )

    def _seen(self, box: Triple) -> list[int]:
        """Input (D, H, W) of a block, at most."""
        size = self._ends.source.shape[2:]
        return [min(n, s) for n, s in zip(block_shape(box, self._params), size, strict=True)]

    def _caches(self, volumes: int, box: Triple, *, keep: bool) -> tuple[int, ...]:
        target, seen = self._ends.target, self._seen(box)
        # What is read goes on where the last block ended, within a layer of pieces; what is read anew does not.
        reading = [
            layer(end.access.chunk, (volumes, end.shape[1], *seen), end.shape) * end.dtype.itemsize
            if keep and end.access.packed
            else 0
            for end in self._ends.read
        ]
        writing, chunk = 0, target.access.chunk
        if chunk is not None and not target.access.in_turn and not aligned(box, chunk, self._size):
            writing = layer(chunk, (volumes, target.shape[1], *box), target.shape) * target.dtype.itemsize
        return writing, *reading

    def _boxes(self, room: int) -> Iterator[tuple[int, Triple, int, bool]]:
        """Volumes, box and copies of blocks for which there is room, and whether pieces are kept; the best first."""
        _, height, width = self._size
        most = min(room, 2 * self.block_bytes)
        if self._of_block(1, self._size, 2) <= most:
            copy = max(1, self._of_block(1, self._size, 2))
            yield max(1, min(self._shape[0], most // copy)), self._size, 2, True
            return
        slab = self._deepest(height, width, 2, room, keep=True)
        if slab is not None and self._wasted(slab) <= 1 + 2 / HALOS:
            yield 1, slab, 2, True
            return
        units = [self._unit(axis) for axis in (1, 2)]
        edges = [_sizes(n, unit) for n, unit in zip((height, width), units, strict=True)]
        found = [(math.inf, box, 1, False) for box in self._smallest() if self._of_block(1, box, 1, keep=False) <= room]
        for h, w in itertools.product(*edges):
            for copies, keep in itertools.product((2, 1), self._choices):
                box = self._deepest(h, w, copies, room, keep=keep)
                if box is not None:
                    found.append((self._price(box, copies, keep=keep), box, copies, keep))
        for _, box, copies, keep in sorted(found):
            yield 1, box, copies, keep

    @property
    def _choices(self) -> tuple[bool, ...]:
        """Whether pieces may be kept: it makes a difference where they are packed, and hold several planes."""
        access = self._ends.source.access
        return (True, False) if access.packed and access.chunk is not None and access.chunk[2] > 1 else (True,)

    def _smallest(self) -> list[Triple]:
        """The smallest boxes that are worth their calls: of any edges, and of the target's pieces."""
        units = [self._unit(axis) for axis in range(3)]
        return [self._widened([unit[i] for unit in units]) for i in range(2)]

    def _widened(self, edges: list[int]) -> Triple:
        """A box of multiples of these edges, up to a few bytes: lines are kept whole before planes are."""
        d, h, w = (min(edge, n) for edge, n in zip(edges, self._size, strict=True))
        for axis in (2, 1):
            size, edge = self._size[axis], edges[axis]
            bytes_of_one = max(1, sum(self._of_copy(1, (d, h, w))))
            more = min(size, max(1, LEAST_BLOCK // bytes_of_one) * edge)
            h, w = (h, more) if axis == 2 else (more, w)
        return d, h, w

    def _unit(self, axis: int) -> tuple[int, int]:
        """What a block's edge is a multiple of: the algorithm's grid, and the target's pieces too where it can be."""
        cell, chunk = self._needs.grid[axis], self._ends.target.access.chunk
        least = max(cell, -(-LEAST_BOX[axis] // cell) * cell)
        return least, least if chunk is None else math.lcm(cell, chunk[2 + axis])

    def _deepest(self, height: int, width: int, copies: int, room: int, *, keep: bool) -> Triple | None:
        """The box with this plane that has most outputs along D, up to a block's size."""
        depth, (cell, together) = self._size[0], self._unit(0)

        thick = HALOS * (self._params.effective_kernel[0] - self._params.stride[0]) // self._params.stride[0]
        # The halo of a slab is kept, that of a box is not: the larger it is the better.
        share = self.block_bytes if keep and (height, width) == self._size[1:] else 4 * self.block_bytes

        def fits(d: int) -> bool:
            box = min(d, depth), height, width
            small = d <= thick or sum(self._of_copy(1, box)) <= share
            return (small or d == cell) and self._of_block(1, box, copies, keep=keep) <= room

        # Pieces of the target that are complete are not kept.
        for step in (together, cell):
            low, high = 0, -(-depth // step)
            while low < high:
                middle = -(-(low + high) // 2)
                if fits(middle * step):
                    low = middle
                else:
                    high = middle - 1
            if low:
                return min(low * step, depth), height, width
        return None

    def _wasted(self, box: Triple) -> float:
        """How much more is gathered along D than is computed."""
        (seen, *_), stride = block_shape(box, self._params), self._params.stride[0]
        return seen / (box[0] * stride)

    def _price(self, box: Triple, copies: int, *, keep: bool) -> float:
        """Time a voxel, in arbitrary units."""
        params, source = self._params, self._ends.source
        read = 1.0
        for axis in (1, 2):
            if box[axis] < self._size[axis]:
                read *= block_shape(box, params)[axis] / (box[axis] * params.stride[axis])
        price = read + 0.5 * (self._wasted(box) - 1) + (0.3 if copies == 1 else 0)
        if source.access.packed and source.access.chunk is not None:
            _, _, *size = source.shape
            sizes = (size[0], size[1], size[2]), self._size
            price += UNPACKING * (times_unpacked(box, source.access.chunk, sizes, params, kept=keep) - 1)
        if box[1:] != self._size[1:]:
            # What is read or written in turn would have to be spooled.
            price += 10 * sum(end.access.in_turn for end in (*self._ends.read, self._ends.target))
            chunk = self._ends.target.access.chunk
            price += 2 if chunk is not None and not aligned(box, chunk, self._size) else 0
        if box[2] < self._size[2]:
            price += CALL_VOXELS / box[2]
        return price + (4 << 20) / max(1, sum(self._of_copy(1, box))) * 0.1

    def _told(self, bound: int, threads: int, groups: int, item: Triple, blocks: tuple[int, Triple, int, bool]) -> Cut:
        volumes, box, copies, keep = blocks
        caches = self._caches(volumes, box, keep=keep)
        memory = Memory(
            bound=bound,
            libraries=self.libraries,
            weights=self._weights,
            threads=self._of_threads(threads, groups, item) + SLACK + threads * SLACK_OF_A_THREAD,
            files=self._held + sum(caches),
            blocks=copies * sum(self._of_copy(volumes, box)),
        )
        return Cut(threads, groups, item, volumes, box, copies, caches, memory)


def _sizes(size: int, unit: tuple[int, int]) -> list[int]:
    """Edges worth trying: an axis in a few nearly equal parts, as multiples of a unit."""
    found = {size}
    for count in (2, 3, 4, 6, *(1 << k for k in range(3, max(4, size.bit_length())))):
        for u in set(unit):
            if u < size:
                found.add(min(size, max(u, -(-size // count) // u * u)))
    return sorted(found)
