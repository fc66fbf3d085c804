"""What one convolution will do, decided from integers before a voxel is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import Problem, get_engine
from volconv.engines.cpu.plan import choose
from volconv.engines.cpu.workers import thread_count
from volconv.engines.planar import planar_params
from volconv.memory import LIBRARIES
from volconv.region import Region
from volconv.shapes import full_output_shape
from volconv.tiling import io_blocks, item_shape

if TYPE_CHECKING:
    from volconv.engines.factors import Factors
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Bytes that one I/O block of a file may take; two are held at a time, one read or written while one is computed.
BLOCK_BYTES = 32 << 20


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
    factors : Factors or None
        What the weights are a product of, if they are.
    algorithm : str
    candidates : dict
        Predicted seconds on one thread by algorithm.
    threads : int
    memory : int or None
        Bytes that the process may have resident; None for arrays, which are there already.
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
    factors: Factors | None
    algorithm: str
    candidates: dict[str, float]
    threads: int
    memory: int | None
    item_groups: int
    item_box: Triple
    blocks: tuple[Region, ...]

    @property
    def is_complex(self) -> bool:
        """Whether real and imaginary parts are computed as channels of a real convolution."""
        return self.compute_dtype.kind == "c"

    def algorithm_facts(self) -> dict[str, Any]:
        """Which algorithm, and what each that could do it is predicted to take: for JSON."""
        return {"name": self.algorithm, "predicted_seconds": self.candidates}

    @property
    def problem(self) -> Problem:
        """What the algorithm is given to solve."""
        return real_problem(self.params, self.output_shape, self.compute_dtype, self.factors)


def real_problem(
    params: Conv3dParams, output_shape: Index5, compute_dtype: np.dtype[Any], factors: Factors | None
) -> Problem:
    """A convolution as algorithms see it: real."""
    if compute_dtype.kind == "c":
        params = planar_params(params)
        output_shape = (output_shape[0], params.out_channels, *output_shape[2:])
        compute_dtype = np.empty(0, compute_dtype).real.dtype
    return Problem(params, output_shape, compute_dtype, factors)


def make_plan(
    params: Conv3dParams,
    input_shape: Index5,
    compute_dtype: np.dtype[Any],
    *,
    algorithm: str = "auto",
    factors: Factors | None = None,
    threads: int | None = None,
    memory: int | None = None,
    voxel_bytes: tuple[int, int] = (0, 0),
    chunk_depth: int = 1,
    block_bytes: int | None = None,
    item_bytes: int | None = None,
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
    threads : int, optional
        One for each core by default.
    memory : int, optional
        Bytes that the process may have resident: blocks of files are so large that it has not more.
    voxel_bytes : tuple of 2 ints
        Bytes of a stored input voxel and of an output voxel that an I/O block holds; 0 for those that are views of
        memory. Two zeros: the whole volume is one block.
    chunk_depth : int
        Planes that the target packs together.
    block_bytes, item_bytes : int, optional
        Sizes to aim at for I/O blocks and for the padded blocks of work items. They change no bits.

    Raises
    ------
    ShapeError, ParameterError
    """
    output_shape = full_output_shape(input_shape, params)
    problem = real_problem(params, output_shape, compute_dtype, factors)
    choice = choose(algorithm, problem)
    needs = get_engine(choice.algorithm).needs(problem)
    count = thread_count(threads)
    groups, box = item_shape(
        problem.output_shape,
        problem.params,
        needs.grid,
        problem.dtype.itemsize,
        item_bytes or needs.block_bytes,
        count,
    )
    if voxel_bytes == (0, 0):
        blocks = [Region.whole(output_shape)] if output_shape[0] else []
    else:
        per_output = voxel_bytes[0] * params.in_channels / params.out_channels * float(np.prod(params.stride))
        if block_bytes is None:  # three are held at a time: read, computed, written
            block_bytes = BLOCK_BYTES if memory is None else min(BLOCK_BYTES, max(0, memory - LIBRARIES) // 3)
        blocks = io_blocks(output_shape, params, needs.grid, per_output + voxel_bytes[1], block_bytes, chunk_depth)
    return Plan(
        params=params,
        input_shape=input_shape,
        output_shape=output_shape,
        compute_dtype=compute_dtype,
        factors=factors,
        algorithm=choice.algorithm,
        candidates=choice.candidates,
        threads=count,
        memory=memory,
        item_groups=groups,
        item_box=box,
        blocks=tuple(blocks),
    )
