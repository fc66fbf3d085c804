"""How fast a nominal GPU is: what algorithms predict their cost from. Not measured yet; see docs/gpu.md."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from volconv.shapes import block_shape

if TYPE_CHECKING:
    import numpy as np

    from volconv.engines import Problem

#: Bytes a second of the device's memory, and of the bus, each way.
MEMORY = 1.5e12
BUS = 12e9

#: Multiply-adds a second in float32; float64 has a half of them at best.
FLOAT32 = 12e12

#: Of which the direct sum reaches this share, and BLAS that.
DIRECT_SHARE = 0.4
BLAS_SHARE = 0.7

#: Seconds of one launch.
LAUNCH = 10e-6


def multiply_adds(dtype: np.dtype[Any]) -> float:
    """How many a second."""
    return FLOAT32 if dtype.itemsize == 4 else FLOAT32 / 2


def through_memory(problem: Problem) -> float:
    """Seconds to read all voxels, and to write all outputs, once."""
    params, (volumes, channels, *size) = problem.params, problem.output_shape
    seen = math.prod(block_shape((size[0], size[1], size[2]), params))
    voxels = volumes * (params.in_channels * seen + channels * math.prod(size))
    return voxels * problem.dtype.itemsize / MEMORY


def floating(name: str, problem: Problem) -> str | None:
    """Why a problem is not of a floating-point dtype; None where it is."""
    return None if problem.dtype.kind == "f" else f"{name} needs a floating-point dtype on a GPU (got {problem.dtype})"
