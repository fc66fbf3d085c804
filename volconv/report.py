"""What will be done, and what was done, as data; tables for people are drawn from it elsewhere."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from volconv.geometry import output_geometry
from volconv.shapes import full_output_shape, multiply_adds

if TYPE_CHECKING:
    import numpy as np

    from volconv.geometry import Geometry
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """The shapes of one convolution. Triples are in D, H, W order; shapes are (N, C, D, H, W).

    ``macs`` are multiply-adds of the direct sum, ``parameters`` counts weights and bias, ``output_bytes`` is the
    uncompressed size; spacings are None where the input states none.
    """

    input_shape: Index5
    output_shape: Index5
    kernel_size: Triple
    effective_kernel: Triple
    padding_low: Triple
    padding_high: Triple
    padding_mode: str
    stride: Triple
    dilation: Triple
    groups: int
    macs: int
    parameters: int
    output_dtype: str
    output_bytes: int
    input_spacing: Spacing | None
    output_spacing: Spacing | None
    unit: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was done to one volume.

    ``candidates`` are the predicted seconds of each algorithm on one thread; the seconds of reading and writing are
    those that computing had to wait; ``saturated`` and ``not_a_number`` count voxels that an integer output could not
    hold; ``notes`` say what was assumed or left out.
    """

    source: str
    destination: str
    shape: ShapeReport
    algorithm: str
    candidates: dict[str, float]
    compute_dtype: str
    output_dtype: str
    threads: int
    blocks: int
    seconds: float
    read_seconds: float
    compute_seconds: float
    write_seconds: float
    saturated: int
    not_a_number: int
    notes: tuple[str, ...]


def shape_report(
    input_shape: Index5,
    params: Conv3dParams,
    output_dtype: np.dtype[Any],
    has_bias: bool,
    geometry: Geometry | None = None,
) -> ShapeReport:
    """Report the shapes of a convolution.

    Raises
    ------
    ShapeError
        Input and parameters do not fit together.
    """
    shape = full_output_shape(input_shape, params)
    known = geometry is not None and geometry.unit is not None
    return ShapeReport(
        input_shape=input_shape,
        output_shape=shape,
        kernel_size=params.kernel_size,
        effective_kernel=params.effective_kernel,
        padding_low=params.padding_low,
        padding_high=params.padding_high,
        padding_mode=params.padding_mode,
        stride=params.stride,
        dilation=params.dilation,
        groups=params.groups,
        macs=multiply_adds(shape, params),
        parameters=math.prod(params.weight_shape) + (params.out_channels if has_bias else 0),
        output_dtype=output_dtype.name,
        output_bytes=math.prod(shape) * output_dtype.itemsize,
        input_spacing=geometry.spacing if geometry is not None and known else None,
        output_spacing=output_geometry(geometry, params).spacing if geometry is not None and known else None,
        unit=geometry.unit if geometry is not None else None,
    )
