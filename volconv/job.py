"""What will be done to a volume: weights, parameters, dtypes and the output's geometry, from its header alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv import dtypes
from volconv.epilogue import check_output_dtype
from volconv.errors import DtypeError, ShapeError
from volconv.geometry import output_geometry
from volconv.kernels import expand, load_bias, load_kernel
from volconv.params import Conv3dParams
from volconv.shapes import full_output_shape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from volconv.geometry import Geometry
    from volconv.io.volume import Scaling, VolumeInfo
    from volconv.params import Padding, Size3


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a volume's header, a kernel and options decide.

    Parameters
    ----------
    params : Conv3dParams
    weight : (C_out, C_in/groups, kD, kH, kW) array
    bias : (C_out,) array or None
    compute_dtype, output_dtype : numpy.dtype
    output_scaling : Scaling or None
        How output values are stored, where ``dtype="same"`` keeps the input's encoding.
    output_geometry : Geometry
    """

    params: Conv3dParams
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    compute_dtype: np.dtype[Any]
    output_dtype: np.dtype[Any]
    output_scaling: Scaling | None
    output_geometry: Geometry


def resolve_job(
    info: VolumeInfo,
    kernel: str | ArrayLike,
    *,
    source_name: str = "volume",
    bias: str | ArrayLike | None = None,
    stride: Size3 = 1,
    padding: Padding = 0,
    dilation: Size3 = 1,
    groups: int | None = None,
    padding_mode: str = "zeros",
    padding_value: complex = 0,
    flip_kernel: bool = False,
    dtype: str | None = None,
    compute_dtype: str | None = None,
) -> Job:
    """Load the weights and resolve the options of :func:`volconv.apply` for one volume.

    Raises
    ------
    ParameterError, ShapeError, DtypeError, ReadError
    """
    given = load_kernel(kernel, info.geometry, source_name).weight if isinstance(kernel, str) else np.asarray(kernel)
    weight, group_count = expand(given, info.shape[1], groups)
    if flip_kernel:
        weight = weight[:, :, ::-1, ::-1, ::-1]
    params = Conv3dParams.parse(
        weight.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=group_count,
        padding_mode=padding_mode,
        padding_value=padding_value,
    )
    full_output_shape(info.shape, params)
    biases = load_bias(bias, params.out_channels) if isinstance(bias, str) else check_bias(bias, params)

    compute = _compute_dtype(info, weight, biases, compute_dtype)
    dtypes.check_scalar("padding_value", padding_value, compute)
    output = info.dtype if dtype == "same" else compute if dtype is None else parse_dtype("dtype", dtype)
    check_output_dtype(output, compute)
    return Job(
        params=params,
        weight=weight,
        bias=biases,
        compute_dtype=compute,
        output_dtype=output,
        output_scaling=info.scaling if dtype == "same" else None,
        output_geometry=output_geometry(info.geometry, params),
    )


def parse_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """A dtype by its NumPy name.

    Raises
    ------
    DtypeError
        There is none of this name.
    """
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biufc":
        raise DtypeError(f"{name} must be a NumPy dtype such as uint8, int16 or float32 (got {value!r})")
    return dtype


def check_bias(bias: ArrayLike | None, params: Conv3dParams) -> NDArray[Any] | None:
    """The bias as an array with one value for each output channel.

    Raises
    ------
    ShapeError
    """
    if bias is None:
        return None
    values = np.asarray(bias)
    if values.shape != (params.out_channels,):
        raise ShapeError(
            f"bias must have shape ({params.out_channels},), one value an output channel (got {values.shape})"
        )
    return values


def _compute_dtype(
    info: VolumeInfo, weight: NDArray[Any], bias: NDArray[Any] | None, asked: str | None
) -> np.dtype[Any]:
    natural = dtypes.volume_compute_dtype(info.dtype, weight.dtype)
    if bias is not None and bias.dtype.kind == "c":
        natural = np.result_type(natural, np.complex64)
    if asked is None:
        return natural
    compute = parse_dtype("compute_dtype", asked)
    if compute.name not in dtypes.COMPUTE_DTYPES:
        raise DtypeError(f"compute_dtype must be one of {', '.join(dtypes.COMPUTE_DTYPES)} (got {asked!r})")
    if natural.kind == "c" and compute.kind != "c":
        raise DtypeError(f"compute_dtype must be complex where volume, weights or bias are (got {asked!r})")
    return compute
