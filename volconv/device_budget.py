"""How a run on a GPU is cut into blocks: what is held there, and what is held beside it in the host's memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volconv.budget import HostBudget
from volconv.engines import weight_bytes
from volconv.engines.gpu.plan import get_engine
from volconv.epilogue import NO_EPILOGUE
from volconv.errors import OutOfMemoryError
from volconv.memory import default_memory, free_memory, in_words
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volconv.cuts import Cut, Ends
    from volconv.engines import Problem
    from volconv.params import Triple
    from volconv.plan import Plan
    from volconv.region import Index5

#: Blocks that are under way at a time: one on its way there, one computed, one on its way back.
IN_FLIGHT = 3

#: Input and output of one block, where there is room for more. Not measured yet.
BLOCK_BYTES = 128 << 20

#: What CUDA's libraries take of the host's memory. Not measured yet.
CUDA_LIBRARIES = 1 << 30


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What is held on a GPU at most, in bytes.

    Parameters
    ----------
    bound : int
        What may be held.
    weights : int
        As they are prepared.
    blocks : int
        Input and output of blocks that are under way.
    workspace : int
        Results before they are cast, and what the algorithm holds.
    """

    bound: int
    weights: int
    blocks: int
    workspace: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.weights + self.blocks + self.workspace


def device_cut(problem: Problem, plan: Plan, ends: Ends, memory: int | None, bound: int) -> tuple[Cut, DeviceMemory]:
    """Blocks that keep both below their bounds.

    Parameters
    ----------
    problem : Problem
    plan : Plan
    ends : Ends
        Files, or arrays: of these the host's memory is not counted.
    memory : int or None
        Bytes for the process; by default as on the CPU.
    bound : int
        Bytes on the GPU.

    Raises
    ------
    OutOfMemoryError
        Nothing fits; the message says what would.
    """
    budget = _DeviceBudget(problem, plan, ends, bound)
    least = budget.least_on_device()
    if least > bound:
        raise OutOfMemoryError(
            f"gpu_memory must be at least {in_words(least)} for this volume and kernel (got {in_words(bound)})",
            hint=f"pass --gpu-memory {in_words(least)} (gpu_memory=), or --backend numpy (backend=)",
        )
    if ends.source.access.in_memory:
        memory = 1 << 62
    host = max(default_memory(), min(free_memory(), budget.least())) if memory is None else memory
    found = budget.within(host, plan.threads)
    if found is None:
        raise OutOfMemoryError(
            f"memory must be at least {in_words(budget.least())} for this volume and kernel on a GPU "
            f"(got {in_words(host)})",
            hint=f"pass --memory {in_words(budget.least())} (memory=), or --backend numpy (backend=)",
        )
    return found, budget.on_device(found.volumes, found.box)


class _DeviceBudget(HostBudget):
    """Blocks whose input and output are pinned and on a GPU, too."""

    libraries = HostBudget.libraries + CUDA_LIBRARIES

    def __init__(self, problem: Problem, plan: Plan, ends: Ends, bound: int) -> None:
        engine = get_engine(plan.algorithm)
        super().__init__(problem, plan, ends, engine.needs(problem), engine.cost(problem), 2 * weight_bytes(problem))
        self._engine, self._bound = engine, bound
        self.block_bytes = BLOCK_BYTES

    def on_device(self, volumes: int, box: Triple) -> DeviceMemory:
        """What is held on the GPU for blocks of so many volumes and a box of outputs."""
        problem, plan = self._problem, self._plan
        inside, outside = self._end_bytes(volumes, box)
        outputs = problem.params.out_channels * math.prod(box) * problem.dtype.itemsize
        # Complex results are put together, the epilogue and casts have some arrays of their own; NaN and infinity too.
        copies = 2 + 2 * (plan.epilogue != NO_EPILOGUE) + 2 * plan.is_complex
        copies += 4 if self._ends.target.dtype != plan.compute_dtype else 0
        guarded = problem.params.in_channels * math.prod(block_shape(box, problem.params)) * problem.dtype.itemsize
        return DeviceMemory(
            self._bound,
            self._needs.prepared_bytes,
            IN_FLIGHT * (inside + outside),
            copies * outputs + 2 * guarded + self._engine.workspace(problem, box),
        )

    def least_on_device(self) -> int:
        """What the smallest blocks hold there."""
        return min(self.on_device(1, box).peak for box in self._smallest())

    def _of_block(self, volumes: int, box: Triple, copies: int, *, keep: bool = True) -> int:
        """As on the CPU; more than there is where it does not fit on the GPU."""
        if self.on_device(volumes, box).peak > self._bound:
            return 1 << 63
        return super()._of_block(volumes, box, copies, keep=keep)

    def _of_copy(self, volumes: int, box: Triple) -> tuple[int, int]:
        """Input and output, with what is pinned, and outputs that wait to be written, shared out among two copies."""
        held_in, held_out = super()._of_copy(volumes, box)
        inside, outside = self._end_bytes(volumes, box)
        waiting = (IN_FLIGHT - 1) * held_out
        return held_in + IN_FLIGHT * inside // 2, held_out + (IN_FLIGHT * outside + waiting) // 2

    def _end_bytes(self, volumes: int, box: Triple) -> tuple[int, int]:
        """Stored input and output of a block."""
        source, target = self._ends.source, self._ends.target
        voxels, outputs = volumes * math.prod(self._seen(box)), volumes * math.prod(box)
        return voxels * source.shape[1] * source.dtype.itemsize, outputs * target.shape[1] * target.dtype.itemsize

    def _tries(self, threads: int) -> Iterator[tuple[int, int]]:
        """Threads copy, and no more."""
        yield threads, 0

    def _item(self, shape: Index5, item_bytes: int, threads: int) -> tuple[int, Triple]:  # noqa: ARG002
        """There are none: a block is computed at once."""
        return self._problem.params.groups, self._size

    def _of_threads(self, threads: int, groups: int, box: Triple) -> int:  # noqa: ARG002
        return 0
