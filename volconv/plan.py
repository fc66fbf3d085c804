"""What one convolution will do, decided from integers before a voxel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from volconv.budget import cut
from volconv.engines import Problem, get_engine
from volconv.engines.cpu.plan import choose
from volconv.engines.cpu.workers import thread_count
from volconv.engines.planar import planar_params
from volconv.epilogue import NO_EPILOGUE
from volconv.region import Region
from volconv.shapes import full_output_shape
from volconv.tiling import io_blocks, item_shape
from volconv.traffic import Traffic, traffic

if TYPE_CHECKING:
    from volconv.cuts import Ends, Memory
    from volconv.device_budget import DeviceMemory
    from volconv.engines.factors import Factors
    from volconv.epilogue import Epilogue
    from volconv.masking import Masking
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5
    from volconv.roi import Box


#: Where convolutions are computed.
Backend = Literal["numpy", "cupy"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before a voxel is read, as plain data.

    The bits of the result depend on the fields up to ``algorithm``, and on ``problem``, alone.

    Parameters
    ----------
    params : Conv3dParams
    input_shape, output_shape : tuple of 5 ints
        (N, C, D, H, W), of the source and of the sink.
    origin : tuple of 3 ints
        Where on the whole output's grid (D, H, W) the sink's first voxel lies.
    epilogue : Epilogue
    masking : Masking or None
    compute_dtype : numpy.dtype
    algorithm : str
    candidates : dict
        Predicted seconds on one thread by algorithm.
    problem : Problem
        What the algorithm is given to solve.
    backend : {"numpy", "cupy"}
        Where it is computed: on the CPU or a GPU.
    threads : int
    item_groups : int
    item_box : tuple of 3 ints
        Groups, and outputs along D, H, W, of one work item.
    blocks : tuple of Region
        I/O blocks of the output, in order.
    part : Region or None
        What is kept of them; None for all.
    copies : int
        I/O blocks that are held: 2 where the next one is read, and the last one written, while one is computed.
    memory : Memory or None
        What the process holds; None for arrays, which are there already.
    device_memory : DeviceMemory or None
        What is held on a GPU.
    traffic : Traffic or None
        What is read and written of files.
    """

    params: Conv3dParams
    input_shape: Index5
    output_shape: Index5
    origin: Triple
    epilogue: Epilogue
    masking: Masking | None
    compute_dtype: np.dtype[Any]
    algorithm: str
    candidates: dict[str, float]
    problem: Problem
    backend: Backend
    threads: int
    item_groups: int
    item_box: Triple
    blocks: tuple[Region, ...]
    part: Region | None = None
    copies: int = 1
    memory: Memory | None = None
    device_memory: DeviceMemory | None = None
    traffic: Traffic | None = None

    @property
    def is_complex(self) -> bool:
        """Whether real and imaginary parts are computed as channels of a real convolution."""
        return self.compute_dtype.kind == "c"

    def algorithm_facts(self) -> dict[str, Any]:
        """Which algorithm, and what each that could do it is predicted to take: for JSON."""
        return {"name": self.algorithm, "predicted_seconds": self.candidates}


def real_problem(
    params: Conv3dParams,
    output_shape: Index5,
    compute_dtype: np.dtype[Any],
    factors: Factors | None,
    *,
    sides: bool = True,
) -> Problem:
    """A convolution as algorithms see it: real, and of voxels that some output sees.

    Where a kernel has one tap along an axis, blocks hold every ``stride``-th voxel only. ``sides`` says that outputs
    reach both sides of each axis, and blocks hold the padding as it is; else algorithms are not told of it.
    """
    if not sides:
        params = replace(params, padding_low=(0, 0, 0), padding_high=(0, 0, 0))

    def where_several_taps(values: Triple, otherwise: int) -> Triple:
        d, h, w = (otherwise if k == 1 else v for k, v in zip(params.kernel_size, values, strict=True))
        return d, h, w

    params = replace(
        params,
        stride=where_several_taps(params.stride, 1),
        padding_low=where_several_taps(params.padding_low, 0),
        padding_high=where_several_taps(params.padding_high, 0),
    )
    if compute_dtype.kind == "c":
        params = planar_params(params)
        output_shape = (output_shape[0], params.out_channels, *output_shape[2:])
        compute_dtype = np.empty(0, compute_dtype).real.dtype
    return Problem(params, output_shape, compute_dtype, factors)


def computed_shape(input_shape: Index5, params: Conv3dParams, box: Box | None) -> Index5:
    """Shape (N, C_out, D, H, W) of the outputs that are computed: all, or those in a box.

    Raises
    ------
    ShapeError
    """
    shape = full_output_shape(input_shape, params)
    return shape if box is None else (*shape[:2], *box.size)


def reduced_shape(computed: Index5, epilogue: Epilogue) -> Index5:
    """Shape of what is left of them after the epilogue."""
    return computed if epilogue.reduce is None else (computed[0], 1, *computed[2:])


def make_plan(
    params: Conv3dParams,
    input_shape: Index5,
    compute_dtype: np.dtype[Any],
    *,
    algorithm: str = "auto",
    factors: Factors | None = None,
    box: Box | None = None,
    epilogue: Epilogue = NO_EPILOGUE,
    masking: Masking | None = None,
    threads: int | None = None,
    ends: Ends | None = None,
    memory: int | None = None,
    backend: Backend = "numpy",
    device_memory: int = 0,
    block_box: Triple | None = None,
    item_bytes: int | None = None,
    part: Region | None = None,
) -> Plan:
    """Decide on algorithm, blocks and work items.

    Parameters
    ----------
    params : Conv3dParams
    input_shape : tuple of 5 ints
    compute_dtype : numpy.dtype
    algorithm : str
    factors : Factors, optional
        What the weights are a product of.
    box : Box, optional
        The outputs that are computed; all of them by default.
    epilogue : Epilogue
    masking : Masking, optional
    threads : int, optional
        One for each core by default.
    ends : Ends, optional
        The files that the run is between. Without them all is in memory, and the whole volume is one block.
    memory : int, optional
        Bytes that the process may hold, for files; by default :func:`volconv.memory.default_memory`, or what is needed.
    backend : {"numpy", "cupy"}
    device_memory : int
        Bytes that a GPU's memory has for it.
    block_box : tuple of 3 ints, optional
        Outputs (D, H, W) of an I/O block, in place of those that fit; the algorithm's grid may make it larger.
    item_bytes : int, optional
        Size to aim at for the padded block of a work item. Like the others it changes no bits.
    part : Region, optional
        The outputs that are kept, of all channels: blocks cover them on the algorithm's grid. All by default.

    Raises
    ------
    ShapeError, ParameterError
    OutOfMemoryError
        Nothing fits into ``memory``; the message says what would.
    """
    computed = computed_shape(input_shape, params, box)
    output_shape = reduced_shape(computed, epilogue)
    sides = box is None and masking is None
    problem = real_problem(params, computed, compute_dtype, factors, sides=sides)
    if backend == "cupy":
        from volconv.engines.gpu import plan as gpu  # the CPU does without

        choice = gpu.choose(algorithm, problem)
        needs = gpu.get_engine(choice.algorithm).needs(problem)
    else:
        choice = choose(algorithm, problem)
        needs = get_engine(choice.algorithm).needs(problem)
    count = thread_count(threads)
    outputs = Region.whole(output_shape) if part is None else _covering(part, needs.grid, output_shape)
    n, _, d, h, w = outputs.shape
    share = math.prod(outputs.shape) / max(1, math.prod(output_shape))
    groups, item_box = item_shape(
        (n, problem.output_shape[1], d, h, w),
        problem.params,
        needs.grid,
        problem.dtype.itemsize,
        item_bytes or needs.block_bytes,
        count,
        choice.candidates[choice.algorithm] * share if item_bytes is None else None,
        together=epilogue.reduce is not None,
    )
    plan = Plan(
        params=params,
        input_shape=input_shape,
        output_shape=output_shape,
        origin=box.origin if box is not None else (0, 0, 0),
        epilogue=epilogue,
        masking=masking,
        compute_dtype=compute_dtype,
        algorithm=choice.algorithm,
        candidates=choice.candidates,
        problem=problem,
        backend=backend,
        threads=count,
        item_groups=groups,
        item_box=item_box,
        blocks=(outputs,) if n else (),
        part=part,
    )
    if block_box is not None:
        on_grid = [max(cell, n // cell * cell) for n, cell in zip(block_box, needs.grid, strict=True)]
        return replace(plan, blocks=tuple(io_blocks(outputs, 1, (on_grid[0], on_grid[1], on_grid[2]))))
    if ends is None:
        return plan
    if backend == "cupy":
        from volconv.device_budget import device_cut

        found, held = device_cut(problem, plan, ends, memory, device_memory)
    else:
        found, held = cut(problem, plan, ends, memory), None
    blocks = tuple(io_blocks(outputs, found.volumes, found.box))
    return replace(
        plan,
        threads=found.threads,
        item_groups=found.item_groups,
        item_box=found.item_box,
        blocks=blocks,
        copies=found.copies,
        memory=None if ends.source.access.in_memory else found.memory,
        device_memory=held,
        traffic=traffic(plan, ends, blocks, found),
    )


def _covering(part: Region, grid: Triple, output_shape: Index5) -> Region:
    """The smallest box around a part of the output that begins on a grid, and ends on it or where the output does."""
    for axis, cell in enumerate(grid, 2):
        stop = min(-(-part.stop[axis] // cell) * cell, output_shape[axis])
        part = part.along(axis, part.start[axis] // cell * cell, stop)
    return part
