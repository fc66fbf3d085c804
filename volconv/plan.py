"""What one convolution will do, decided from integers before a voxel is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines import get_engine
from volconv.engines.cpu.plan import choose
from volconv.engines.cpu.workers import thread_count
from volconv.engines.planar import planar_params
from volconv.region import Region
from volconv.shapes import full_output_shape
from volconv.tiling import io_blocks, item_shape

if TYPE_CHECKING:
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Bytes that one I/O block of a file may take; two are held at a time, one read or written while one is computed.
BLOCK_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before a voxel is read, as plain data.

    The bits of the result depend on the first five fields alone.

    Parameters
    ----------
    params : Conv3dParams
    input_shape, output_shape : tuple of 5 ints
        (N, C, D, H, W).
    compute_dtype : numpy.dtype
    algorithm : str
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
    candidates: dict[str, float]
    threads: int
    item_groups: int
    item_box: Triple
    blocks: tuple[Region, ...]

    @property
    def is_complex(self) -> bool:
        """Whether real and imaginary parts are computed as channels of a real convolution."""
        return self.compute_dtype.kind == "c"


def make_plan(
    params: Conv3dParams,
    input_shape: Index5,
    compute_dtype: np.dtype[Any],
    *,
    algorithm: str = "auto",
    threads: int | None = None,
    voxel_bytes: tuple[int, int] = (0, 0),
    chunk_depth: int = 1,
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
    chunk_depth : int
        Planes that the target packs together.
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
        blocks = io_blocks(output_shape, params, needs.grid, per_output + voxel_bytes[1], block_bytes, chunk_depth)
    return Plan(
        params=params,
        input_shape=input_shape,
        output_shape=output_shape,
        compute_dtype=compute_dtype,
        algorithm=choice.algorithm,
        candidates=choice.candidates,
        threads=count,
        item_groups=groups,
        item_box=box,
        blocks=tuple(blocks),
    )
