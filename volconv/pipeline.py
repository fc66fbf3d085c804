"""One convolution from a source to a sink, carried out block by block as planned."""

from __future__ import annotations

import math
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.convolution import Convolution
from volconv.engines.cpu.workers import Workers
from volconv.epilogue import NONE_LOST, Counts
from volconv.errors import OutOfMemoryError
from volconv.memory import give_back
from volconv.tiling import halved
from volconv.window import Room

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from volconv.device_convolution import DeviceConvolution, DeviceSeconds
    from volconv.engines.gpu.device import Device
    from volconv.io.volume import Sink, Source
    from volconv.params import Triple
    from volconv.plan import Plan
    from volconv.region import Region


@dataclass(slots=True)
class Outcome:
    """What a run found: counts over all voxels, seconds spent waiting for each part, how often blocks were halved.

    ``device_seconds`` is what a GPU spent on each part, ``fell_back`` whether the CPU did what was left.
    """

    counts: Counts = NONE_LOST
    read_seconds: float = 0.0
    compute_seconds: float = 0.0
    write_seconds: float = 0.0
    halvings: int = 0
    device_seconds: DeviceSeconds | None = None
    fell_back: bool = False


def run(
    plan: Plan,
    source: Source,
    sink: Sink,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    mask: Source | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: Device | None = None,
    fallback: Plan | None = None,
) -> Outcome:
    """Carry out a plan. The next block is read, and the last one written, while one is computed.

    Where memory runs out, blocks are halved, and it goes on from the first that is not written; bits do not change.

    Parameters
    ----------
    plan : Plan
    source : Source
        Of ``plan.input_shape``.
    sink : Sink
        Of ``plan.output_shape``; neither committed nor aborted here.
    weight : (C_out, C_in/groups, kD, kH, kW) array
    bias : (C_out,) array, optional
    mask : Source, optional
        Labels, of the source's size and of its volumes or one; there is one where the plan says so.
    progress : callable, optional
        Called with (bytes of output voxels done, bytes in all) after each work item, from any thread, one at a time.
    device : Device, optional
        The GPU that the plan is for.
    fallback : Plan, optional
        By which the CPU does what is left when the GPU's memory does not do for the smallest blocks.
    """
    outcome = Outcome()
    total = math.prod(plan.output_shape)
    convolution: Convolution | DeviceConvolution
    if device is None:
        convolution = Convolution(plan, weight, bias, source, sink, mask)
    else:
        from volconv.device_convolution import DeviceConvolution

        convolution = DeviceConvolution(plan, weight, bias, source, sink, device)
    blocks, threads = list(plan.blocks), plan.threads
    with convolution.session():
        while blocks:
            done = total - sum(math.prod(block.shape) for block in blocks)
            passed = _Pass(
                plan, convolution, blocks, _progress(progress, done, total, sink.info.dtype.itemsize), outcome
            )
            try:
                passed.run(threads)
            except (MemoryError, RuntimeError) as error:
                try:
                    blocks, threads = _smaller(passed.left(), convolution.grid, threads, error)
                    outcome.halvings += 1
                except MemoryError:
                    if fallback is None or outcome.fell_back:
                        raise
                    blocks, threads, outcome.fell_back = passed.left(), fallback.threads, True
                    outcome.device_seconds = convolution.seconds
                    convolution.drop_memory()
                    convolution = Convolution(fallback, weight, bias, source, sink, mask)
            else:
                blocks = []
            del passed
            if blocks:
                convolution.drop_memory()
    for end in convolution.read_ends:
        end.finish()
    outcome.device_seconds = outcome.device_seconds or convolution.seconds
    return outcome


def _progress(
    told: Callable[[int, int], None] | None, done: int, total: int, voxel_bytes: int
) -> Callable[[int], None] | None:
    """Add up voxels that are done, and tell of them."""
    if told is None:
        return None
    lock = threading.Lock()

    def advance(voxels: int) -> None:
        nonlocal done
        with lock:
            done += voxels
            told(done * voxel_bytes, total * voxel_bytes)

    return advance


def _smaller(
    blocks: list[Region], grid: Triple, threads: int, error: MemoryError | RuntimeError
) -> tuple[list[Region], int]:
    """Blocks of half the size; with half the threads where blocks are as small as they can be."""
    if isinstance(error, OutOfMemoryError) or not _is_of_memory(error):
        raise error
    parts = [
        part
        for block in blocks
        for part in ([block] if math.prod(block.shape) <= LEAST_HALVED else halved(block, grid))
    ]
    if len(parts) == len(blocks):
        if threads == 1:
            raise MemoryError from error
        threads //= 2
    return parts, threads


#: Outputs of a block that is not worth halving: it takes less than a thread's stack does.
LEAST_HALVED = 1 << 10


def _is_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; where that was for the stack of a thread, Python calls it something else."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


class _Pass:
    """One go through blocks: ahead of those that are computed one is read, behind them one is written."""

    def __init__(
        self,
        plan: Plan,
        convolution: Convolution | DeviceConvolution,
        blocks: list[Region],
        advance: Callable[[int], None] | None,
        outcome: Outcome,
    ) -> None:
        self._convolution, self._blocks = convolution, blocks
        self._advance, self._outcome = advance, outcome
        self._copies, self._memory = min(plan.copies, len(blocks)), plan.memory
        self._computing: deque[_Computing] = deque()
        self._writes: deque[tuple[Future[None], Counts]] = deque()
        self._done = 0

    def left(self) -> list[Region]:
        """Blocks that are not written, when nothing runs any more."""
        while self._writes and self._writes[0][0].done() and self._writes[0][0].exception() is None:
            self._written()
        return self._blocks[self._done :]

    def run(self, threads: int) -> None:
        """Go through all blocks."""
        convolution, sink, outcome = self._convolution, self._convolution.sink, self._outcome
        read = convolution.reading(self._blocks, self._copies)
        rooms: list[Room] = []
        if not sink.info.access.in_memory:
            most = [max(block.shape[axis] for block in self._blocks) for axis in range(5)]
            count = self._copies + convolution.ahead
            rooms = [Room(most, sink.info.dtype, sink.info.access.order) for _ in range(count)]
        with (
            Workers(threads) as workers,
            ThreadPoolExecutor(1, "volconv-read") as reader,
            ThreadPoolExecutor(1, "volconv-write") as writer,
        ):
            coming = reader.submit(read, 0) if rooms or len(self._blocks) > 1 else None
            for i, block in enumerate(self._blocks):
                more = i + 1 < len(self._blocks)
                started = perf_counter()
                stored = coming.result() if coming is not None else read(i)
                coming = reader.submit(read, i + 1) if more and self._copies > 1 else None
                now = perf_counter()
                outcome.read_seconds += now - started

                while len(self._writes) >= self._copies:
                    self._written()
                started = perf_counter()
                outcome.write_seconds += started - now
                result = rooms[i % len(rooms)].of(block.shape) if rooms else sink.view(block)
                assert result is not None  # noqa: S101  # the sink is memory, as it says
                collect = convolution.submit(workers, block, stored, result, self._advance)
                self._computing.append(_Computing(block, result, collect))
                del stored
                if self._memory is not None:
                    give_back(self._memory.bound)
                if more and coming is None:
                    coming = reader.submit(read, i + 1)
                while len(self._computing) > (convolution.ahead if more else 0):
                    self._computed(writer if rooms else None)
                outcome.compute_seconds += perf_counter() - started
            started = perf_counter()
            while self._writes:
                self._written()
            outcome.write_seconds += perf_counter() - started

    def _computed(self, writer: ThreadPoolExecutor | None) -> None:
        """Wait for the first of the blocks that are being computed, and have it written."""
        block, result, collect = self._computing.popleft()
        counts = collect()
        if writer is not None:
            part = self._convolution.plan.part
            kept = block if part is None else block & part
            values = result[kept.within(block).slices]
            self._writes.append((writer.submit(_write, self._convolution.sink, kept, values), counts))
        else:
            self._outcome.counts += counts
            self._done += 1

    def _written(self) -> None:
        """Wait for the first of the blocks that are being written."""
        write, counts = self._writes[0]
        write.result()
        self._writes.popleft()
        self._outcome.counts += counts
        self._done += 1


class _Computing(NamedTuple):
    """A block that is being computed, where its result goes, and what waits for it."""

    block: Region
    result: NDArray[Any]
    collect: Callable[[], Counts]


def _write(sink: Sink, block: Region, values: NDArray[Any]) -> None:
    try:
        sink.write(block, values)
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        # A part may be written, and what is packed in turn cannot be begun anew.
        raise OutOfMemoryError("memory ran out while the output was written") from error
