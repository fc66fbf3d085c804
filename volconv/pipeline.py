"""One convolution from a source to a sink: planned as data, then carried out block by block."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import get_engine
from volconv.engines.cpu.plan import choose
from volconv.engines.cpu.workers import Workers, thread_count
from volconv.engines.planar import planar_bias, planar_params, planar_weight
from volconv.epilogue import Counts, store
from volconv.padding import FILL, Piece, padded_axes, read_block
from volconv.region import Region
from volconv.shapes import block_shape, full_output_shape, padded_interval
from volconv.tiling import Item, io_blocks, item_shape, work_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volconv.engines import Prepared
    from volconv.io.volume import Sink, Source
    from volconv.padding import PaddedAxis, Run
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Bytes that one I/O block of a file may take; two are held at a time, one read or written while one is computed.
BLOCK_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before a voxel is read, as plain data.

    The bits of the result depend on the first six fields alone.

    Parameters
    ----------
    params : Conv3dParams
    input_shape, output_shape : tuple of 5 ints
        (N, C, D, H, W).
    compute_dtype : numpy.dtype
    algorithm : str
    grid : tuple of 3 ints
        See :class:`volconv.engines.Needs`.
    candidates : dict
        Predicted seconds on one thread by algorithm.
    threads : int
    item_groups : int
    item_box : tuple of 3 ints
        Groups, and outputs along D, H, W, of one work item.
    blocks : tuple of Region
        I/O blocks of the output, in order.
    """

    params: Conv3dParams
    input_shape: Index5
    output_shape: Index5
    compute_dtype: np.dtype[Any]
    algorithm: str
    grid: Triple
    candidates: dict[str, float]
    threads: int
    item_groups: int
    item_box: Triple
    blocks: tuple[Region, ...]

    @property
    def is_complex(self) -> bool:
        """Whether real and imaginary parts are computed as channels of a real convolution."""
        return self.compute_dtype.kind == "c"


@dataclass(slots=True)
class Outcome:
    """What a run found: counts over all voxels, and seconds spent waiting for each part."""

    counts: Counts = field(default_factory=Counts)
    read_seconds: float = 0.0
    compute_seconds: float = 0.0
    write_seconds: float = 0.0


def make_plan(
    params: Conv3dParams,
    input_shape: Index5,
    compute_dtype: np.dtype[Any],
    *,
    algorithm: str = "auto",
    threads: int | None = None,
    voxel_bytes: tuple[int, int] = (0, 0),
    block_bytes: int = BLOCK_BYTES,
    item_bytes: int | None = None,
) -> Plan:
    """Decide on algorithm, blocks and work items.

    Parameters
    ----------
    params : Conv3dParams
    input_shape : tuple of 5 ints
    compute_dtype : numpy.dtype
    algorithm : str
    threads : int, optional
        One for each core by default.
    voxel_bytes : tuple of 2 ints
        Bytes of a stored input voxel and of an output voxel that an I/O block holds; 0 for those that are views of
        memory. Two zeros: the whole volume is one block.
    block_bytes, item_bytes : int, optional
        Sizes to aim at for I/O blocks and for the padded blocks of work items. They change no bits.

    Raises
    ------
    ShapeError, ParameterError
    """
    output_shape = full_output_shape(input_shape, params)
    real_params, real_dtype = params, compute_dtype
    if compute_dtype.kind == "c":
        real_params, real_dtype = planar_params(params), np.empty(0, compute_dtype).real.dtype
    real_output = (output_shape[0], real_params.out_channels, *output_shape[2:])
    choice = choose(algorithm, real_params, real_output, real_dtype)
    needs = get_engine(choice.algorithm).needs(real_params, real_output, real_dtype)
    count = thread_count(threads)
    groups, box = item_shape(
        real_output, real_params, needs.grid, real_dtype.itemsize, item_bytes or needs.block_bytes, count
    )
    if voxel_bytes == (0, 0):
        blocks = [Region.whole(output_shape)] if output_shape[0] else []
    else:
        per_output = voxel_bytes[0] * params.in_channels / params.out_channels * float(np.prod(params.stride))
        blocks = io_blocks(output_shape, params, needs.grid, per_output + voxel_bytes[1], block_bytes)
    return Plan(
        params=params,
        input_shape=input_shape,
        output_shape=output_shape,
        compute_dtype=compute_dtype,
        algorithm=choice.algorithm,
        grid=needs.grid,
        candidates=choice.candidates,
        threads=count,
        item_groups=groups,
        item_box=box,
        blocks=tuple(blocks),
    )


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
        Called with (output voxels done, output voxels in all) after each block.
    """
    outcome = Outcome()
    convolution = _Convolution(plan, weight, bias, source, sink)
    total = sum(int(np.prod(block.shape)) for block in plan.blocks)
    done = 0
    with (
        convolution.engine.session(),
        Workers(plan.threads) as workers,
        ThreadPoolExecutor(1, "volconv-read") as reader,
        ThreadPoolExecutor(1, "volconv-write") as writer,
    ):
        coming = None if source.info.in_memory else _ahead(reader, convolution.read, plan.blocks)
        written = None
        for block in plan.blocks:
            started = perf_counter()
            piece = next(coming) if coming else convolution.read(block)
            outcome.read_seconds += perf_counter() - started

            started = perf_counter()
            view = sink.view(block)
            result = np.empty(block.shape, sink.info.dtype) if view is None else view
            outcome.counts += convolution.compute(workers, block, piece, result)
            outcome.compute_seconds += perf_counter() - started
            del piece

            if view is None:
                started = perf_counter()
                if written is not None:
                    written.result()
                written = writer.submit(sink.write, block, result)
                outcome.write_seconds += perf_counter() - started
            done += result.size
            if progress is not None:
                progress(done, total)
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
    """Stored voxels that an I/O block needs, and where in the volume they are from."""

    values: NDArray[Any]
    piece: Piece


class _Convolution:
    """A plan bound to its ends and weights: how one block, and one work item in it, is done."""

    def __init__(self, plan: Plan, weight: NDArray[Any], bias: NDArray[Any] | None, source: Source, sink: Sink) -> None:
        self.plan = plan
        self.source = source
        self.sink = sink
        self.engine = get_engine(plan.algorithm)
        self._known_runs: dict[tuple[int, int, int, Piece], list[Run]] = {}
        self.axes: list[PaddedAxis] = padded_axes(plan.input_shape[2:], plan.params)
        weight = weight.astype(plan.compute_dtype)
        bias = (
            np.zeros(plan.params.out_channels, plan.compute_dtype) if bias is None else bias.astype(plan.compute_dtype)
        )
        params, shape = plan.params, plan.output_shape
        if plan.is_complex:
            params, weight, bias = planar_params(params), planar_weight(weight), planar_bias(bias)
            shape = (shape[0], params.out_channels, *shape[2:])
        self.prepared: Prepared = self.engine.prepare(params, weight, bias, shape)

    def read(self, block: Region) -> _Stored:
        """Read what a block of outputs needs; a view where the source is memory."""
        intervals = [
            padded_interval(start, stop, stride, effective)
            for start, stop, stride, effective in zip(
                block.start[2:], block.stop[2:], self.plan.params.stride, self.plan.params.effective_kernel, strict=True
            )
        ]
        piece = Piece(tuple(tuple(axis.extents(*i)) for axis, i in zip(self.axes, intervals, strict=True)))
        volumes = block.start[0], block.stop[0]
        parts = list(itertools.product(*piece.extents))
        if len(parts) == 1:
            return _Stored(self.source.read(self._region(volumes, parts[0])), piece)
        shape = (block.shape[0], self.plan.params.in_channels, *piece.size)
        values = np.empty(shape, self.source.info.dtype)
        for part in parts:
            place = tuple(
                slice(piece.place(i, low), piece.place(i, high - 1) + 1) for i, (low, high) in enumerate(part)
            )
            values[(slice(None), slice(None), *place)] = self.source.read(self._region(volumes, part))
        return _Stored(values, piece)

    def _region(self, volumes: tuple[int, int], extents: tuple[tuple[int, int], ...]) -> Region:
        d, h, w = extents
        return Region((volumes[0], 0, d[0], h[0], w[0]), (volumes[1], self.plan.params.in_channels, d[1], h[1], w[1]))

    def compute(self, workers: Workers, block: Region, stored: _Stored, result: NDArray[Any]) -> Counts:
        """Compute one I/O block on all threads."""
        items = work_items(block, self.plan.params.groups, self.plan.item_groups, self.plan.item_box)
        counts: list[Counts] = []
        lock = threading.Lock()

        def work(items: Iterator[Item]) -> None:
            scratch = _Scratch()
            found = Counts()
            # Casts may overflow to infinity, as in NumPy; a warning from a worker thread would help nobody.
            with np.errstate(all="ignore"):
                for item in items:
                    found += self._item(item, block, stored, result, scratch)
            with lock:
                counts.append(found)

        workers.run(work, items)
        return sum(counts, Counts())

    def _item(self, item: Item, block: Region, stored: _Stored, result: NDArray[Any], scratch: _Scratch) -> Counts:
        """Padded read, valid convolution, epilogue: all in one core's cache."""
        plan, params = self.plan, self.plan.params
        parts = 2 if plan.is_complex else 1
        real_dtype = self.prepared_dtype
        size = tuple(b - a for a, b in zip(item.start, item.stop, strict=True))
        per_in, per_out = params.in_channels // params.groups, params.out_channels // params.groups
        first, last = item.groups

        runs = [
            self._runs(i, block.start[2 + i] + item.start[i], block.start[2 + i] + item.stop[i], stored.piece)
            for i in range(3)
        ]
        voxels = stored.values[item.volume, first * per_in : last * per_in]
        channels = (last - first) * per_in
        padded = scratch.get("padded", (channels, parts, *block_shape(size, params)), real_dtype)
        fill = complex(params.padding_value)
        scaling = self.source.info.scaling
        if parts == 1:
            read_block(
                voxels, runs, padded[:, 0], fill.real if real_dtype.kind == "f" else params.padding_value, scaling
            )
        else:
            read_block(voxels.real, runs, padded[:, 0], fill.real, scaling)
            read_block(
                voxels.imag, runs, padded[:, 1], fill.imag, None if scaling is None else scaling.without_intercept()
            )
        padded = padded.reshape(channels * parts, *padded.shape[2:])

        box = tuple(slice(a, b) for a, b in zip(item.start, item.stop, strict=True))
        target = result[(item.volume, slice(first * per_out, last * per_out), *box)]
        direct = parts == 1 and target.dtype == plan.compute_dtype and self.sink.info.scaling is None
        if direct:
            self.prepared(padded, target, first)
            return Counts()
        sums = scratch.get("sums", ((last - first) * per_out * parts, *size), real_dtype)
        self.prepared(padded, sums, first)
        if parts == 2:
            both = sums.reshape(-1, 2, *size)
            sums = scratch.get("complex", target.shape, plan.compute_dtype)
            sums.real, sums.imag = both[:, 0], both[:, 1]
        return store(sums, target, self.sink.info.scaling)

    def _runs(self, axis: int, start: int, stop: int, piece: Piece) -> list[Run]:
        """What the padded block of outputs ``start`` to ``stop`` holds along one axis, in indices of what was read."""
        key = axis, start, stop, piece
        runs = self._known_runs.get(key)
        if runs is None:
            params = self.plan.params
            interval = padded_interval(start, stop, params.stride[axis], params.effective_kernel[axis])
            runs = self._known_runs[key] = [
                run if run.first == FILL else run._replace(first=piece.place(axis, run.first))
                for run in self.axes[axis].runs(*interval)
            ]
        return runs

    @property
    def prepared_dtype(self) -> np.dtype[Any]:
        """The real dtype that blocks are computed in."""
        return np.empty(0, self.plan.compute_dtype).real.dtype


class _Scratch:
    """Buffers of one thread, kept from item to item."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of this shape, with whatever it held before."""
        size = int(np.prod(shape))
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size or buffer.dtype != dtype:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)
