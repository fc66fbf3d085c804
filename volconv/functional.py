"""The functions that people call: ``conv3d`` on arrays, ``apply`` on files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volconv import dtypes
from volconv.errors import DtypeError, ShapeError
from volconv.io.array import ArraySink, ArraySource
from volconv.params import Conv3dParams
from volconv.pipeline import make_plan, run
from volconv.shapes import batched_shape

if TYPE_CHECKING:
    from typing import SupportsIndex

    from numpy.typing import ArrayLike, NDArray

    from volconv.params import Padding, Size3


def conv3d(
    input: ArrayLike,  # noqa: A002  # the name that torch.nn.functional.conv3d gives it
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size3 = 1,
    padding: Padding = 0,
    dilation: Size3 = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: complex = 0,
    algorithm: str = "auto",
    threads: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """3-D convolution as ``torch.nn.functional.conv3d`` does it: a cross-correlation, without flip or conjugation.

    Parameters
    ----------
    input : (N, C_in, D, H, W) or (C_in, D, H, W) array
        Any numeric dtype, byte order and strides. Never modified.
    weight : (C_out, C_in/groups, kD, kH, kW) array
    bias : (C_out,) array, optional
    stride, dilation : int or 3 ints
        At least 1; three are D, H, W.
    padding : int, 3 ints, "valid" or "same"
        Voxels added on both sides of each axis; "same" keeps the input's size and needs stride 1.
    groups : int
        Divides C_in and C_out.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        "reflect" does not repeat the edge voxel, "symmetric" does.
    padding_value : number
        What "zeros" pads with; -1000 is air in a CT.
    algorithm : {"auto", "direct", "gemm"}
        "auto" picks by predicted cost, from shapes and dtype alone.
    threads : int, optional
        One for each core by default. The result's bits do not depend on it.
    out : array, optional
        Receives the result; of its shape and dtype. It may overlap the input.

    Returns
    -------
    array
        Of the input's rank; dtype ``numpy.result_type(input, weight)``. Integers are computed exactly, as int64;
        float16 is computed in float32.

    Raises
    ------
    ParameterError
        A parameter breaks a rule of its own.
    ShapeError
        Input, weight, bias, out and parameters do not fit together.
    DtypeError
        Not numbers; or integers whose sums might not fit in int64.

    Notes
    -----
    The error is at most ``16 * eps * max(|weight| ⋆ |input| + |bias|)``, eps that of the compute dtype.

    Examples
    --------
    >>> import numpy as np
    >>> conv3d(np.ones((1, 4, 4, 4)), np.ones((1, 1, 3, 3, 3)), padding="same")[0, 0]
    array([[ 8., 12., 12.,  8.],
           [12., 18., 18., 12.],
           [12., 18., 18., 12.],
           [ 8., 12., 12.,  8.]])
    """
    volume, weights = np.asarray(input), np.asarray(weight)
    params = Conv3dParams.parse(
        weights.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        padding_value=padding_value,
    )
    shape = batched_shape(volume.shape)
    dtype = dtypes.result_dtype(volume.dtype, weights.dtype)
    compute_dtype = dtypes.compute_dtype(dtype)
    plan = make_plan(params, shape, compute_dtype, algorithm=algorithm, threads=threads)
    biases = check_bias(bias, params, compute_dtype)
    dtypes.check_scalar("padding_value", params.padding_value, compute_dtype)
    if compute_dtype.kind == "i":
        dtypes.check_integer_sums(volume, weights, biases, int(params.padding_value.real))

    result_shape = plan.output_shape if volume.ndim == 5 else plan.output_shape[1:]
    if out is None:
        out = np.empty(result_shape, dtype)
    elif not isinstance(out, np.ndarray) or out.shape != result_shape or out.dtype != dtype:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"out must be an array of dtype {dtype} and shape {result_shape} (got {got})")
    elif not out.flags.writeable:
        raise ShapeError("out must be writable (got a read-only array)")
    overlaps = any(np.may_share_memory(out, a) for a in (volume, weights, biases) if a is not None)
    target = np.empty(result_shape, dtype) if overlaps else out
    run(plan, ArraySource(volume.reshape(shape)), ArraySink(target.reshape(plan.output_shape)), weights, biases)
    if overlaps:
        out[...] = target
    return out


def check_bias(bias: ArrayLike | None, params: Conv3dParams, compute_dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The bias as an array that fits the output channels and the compute dtype.

    Raises
    ------
    ShapeError, DtypeError
    """
    if bias is None:
        return None
    values = np.asarray(bias)
    if values.shape != (params.out_channels,):
        raise ShapeError(
            f"bias must have shape ({params.out_channels},), one value an output channel (got {values.shape})"
        )
    if not np.can_cast(values.dtype, compute_dtype, "same_kind"):
        raise DtypeError(f"bias must be of a dtype that {compute_dtype} results can take (got {values.dtype})")
    return values
