"""What will be done to a volume: weights, parameters, dtypes and the output's geometry, from its header alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv import dtypes
from volconv.epilogue import Epilogue, check_output_dtype
from volconv.errors import DtypeError, ParameterError, ShapeError
from volconv.geometry import output_geometry
from volconv.kernels import Kernel, arranged, expand, load_bias, load_kernel
from volconv.masking import KEEP, check_outside, kernel_sums, resolve_masking
from volconv.params import Conv3dParams
from volconv.roi import outputs_in, parse_roi
from volconv.shapes import full_output_shape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from volconv.geometry import Geometry
    from volconv.io.volume import Scaling, VolumeInfo
    from volconv.masking import Masking
    from volconv.params import Padding, Size3
    from volconv.roi import Box


@dataclass(frozen=True, slots=True)
class Loaded:
    """Where numbers came from, and which they were.

    ``spec`` is None for an array; ``sha256`` is of the numbers as loaded, in C order and little-endian.
    """

    spec: str | None
    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a volume's header, a kernel and options decide.

    Parameters
    ----------
    params : Conv3dParams
    kernel : Loaded
        The weights before they knew the volume's channels.
    weight_layout : {"oidhw", "dhwio", None}
        Order of their axes, where there are five.
    flip_kernel : bool
    loaded_bias : Loaded or None
    weight : (C_out, C_in/groups, kD, kH, kW) array
    bias : (C_out,) array or None
    compute_dtype, output_dtype : numpy.dtype
    output_scaling : Scaling or None
        How output values are stored, where ``dtype="same"`` keeps the input's encoding.
    output_geometry : Geometry
    box : Box or None
        The outputs that are computed; None for all.
    epilogue : Epilogue
    masking : Masking or None
    mask : str or None
        Where the mask is from.
    notes : tuple of str
        One line each on what came from the kernel's file without being asked for.
    """

    params: Conv3dParams
    kernel: Loaded
    weight_layout: str | None
    flip_kernel: bool
    loaded_bias: Loaded | None
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    compute_dtype: np.dtype[Any]
    output_dtype: np.dtype[Any]
    output_scaling: Scaling | None
    output_geometry: Geometry
    box: Box | None
    epilogue: Epilogue
    masking: Masking | None
    mask: str | None
    notes: tuple[str, ...] = ()


def resolve_job(
    info: VolumeInfo,
    kernel: str | ArrayLike,
    *,
    source_name: str = "volume",
    bias: str | ArrayLike | None = None,
    weight_layout: str | None = None,
    stride: Size3 | None = None,
    padding: Padding | None = None,
    dilation: Size3 | None = None,
    groups: int | None = None,
    padding_mode: str = "zeros",
    padding_value: complex = 0,
    flip_kernel: bool = False,
    dtype: str | None = None,
    compute_dtype: str | None = None,
    roi: str | None = None,
    activation: str | None = None,
    reduce: str | None = None,
    mask: tuple[str, VolumeInfo] | None = None,
    outside: str | complex = KEEP,
    nan: str = "spread",
) -> Job:
    """Load the weights and resolve the options of :func:`volconv.apply` for one volume.

    ``mask`` is the mask's name and what its header says.

    Raises
    ------
    ParameterError, ShapeError, DtypeError, ReadError
    """
    if isinstance(kernel, str):
        loaded = load_kernel(kernel, info.geometry, source_name)
    else:
        loaded = Kernel(np.asarray(kernel), "an array", layout="oidhw")
    # What is asked for goes before what the kernel's file says.
    asked = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    stated = {name: value for name, value in loaded.parameters.items() if asked[name] is None}
    for value in stated.values():
        if isinstance(value, ParameterError):
            raise value
    chosen = {"stride": 1, "padding": 0, "dilation": 1, "groups": None} | stated
    chosen |= {name: value for name, value in asked.items() if value is not None}
    own_bias = loaded.bias if bias is None else None
    maybe_channels = info.shape[1] == 1 and info.axes[-1:] in ("T", "N")
    oriented, layout = arranged(
        loaded.weight,
        weight_layout,
        loaded.layout,
        info.shape[1],
        chosen["groups"],
        None if loaded.bias is None else loaded.bias.size,
        info.shape[0] if maybe_channels else None,
        loaded.name,
    )
    weight, group_count = expand(oriented, info.shape[1], chosen["groups"])
    if flip_kernel:
        weight = weight[:, :, ::-1, ::-1, ::-1]
    params = Conv3dParams.parse(
        weight.shape,
        stride=chosen["stride"],
        padding=chosen["padding"],
        dilation=chosen["dilation"],
        groups=group_count,
        padding_mode=padding_mode,
        padding_value=padding_value,
    )
    try:
        shape = full_output_shape(info.shape, params)
    except ShapeError as error:
        if error.hint is None and info.shape[0] == params.in_channels and maybe_channels:
            letters = f"{info.axes[:-1]}C"
            raise ShapeError(error.message, hint=f"its volumes in time may be channels: --axes {letters}") from error
        raise
    if own_bias is None:
        biases = load_bias(bias, params.out_channels) if isinstance(bias, str) else check_bias(bias, params)
    else:
        biases = check_bias(own_bias, params, str(loaded.bias_name))

    compute = _compute_dtype(info, weight, biases, compute_dtype)
    dtypes.check_scalar("padding_value", padding_value, compute)
    box = None if roi is None else outputs_in(parse_roi(roi), shape, params, info.geometry, source_name)
    epilogue = Epilogue(activation, reduce)
    epilogue.check(compute)
    result = epilogue.dtype(compute)
    masking = resolve_masking(info, source_name, mask, outside, nan)
    if masking is not None:
        kernel_sums(weight)
        check_outside(masking, info, 1 if reduce is not None else params.out_channels, result)
    output = info.dtype if dtype == "same" else result if dtype is None else parse_dtype("dtype", dtype)
    check_output_dtype(output, result)
    return Job(
        params=params,
        kernel=_loaded(kernel, loaded.weight),
        weight_layout=layout,
        flip_kernel=flip_kernel,
        loaded_bias=None if biases is None else _loaded(loaded.bias_name if own_bias is not None else bias, biases),
        weight=weight,
        bias=biases,
        compute_dtype=compute,
        output_dtype=output,
        output_scaling=info.scaling if dtype == "same" else None,
        output_geometry=output_geometry(info.geometry, params, (0, 0, 0) if box is None else box.origin),
        box=box,
        epilogue=epilogue,
        masking=masking,
        mask=mask[0] if mask is not None else None,
        notes=(*_stated_note(stated, loaded.name), *_layout_note(layout, weight_layout, loaded), *loaded.notes),
    )


def _layout_note(layout: str | None, asked: str | None, loaded: Kernel) -> tuple[str, ...]:
    """Tell of an order of axes that neither the user nor the file's kind says."""
    if layout != "dhwio" or asked or loaded.layout:
        return ()
    return (f"{loaded.name} is taken as (kD, kH, kW, C_in, C_out), the only order in which it fits the volume",)


def _stated_note(stated: dict[str, Any], name: str) -> tuple[str, ...]:
    """Tell which parameters come from the kernel's file."""
    if not stated:
        return ()
    values = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in stated.items()}
    return (f"{', '.join(f'{key} {value}' for key, value in values.items())} as {name} says",)


def _loaded(spec: object, values: NDArray[Any]) -> Loaded:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()
    return Loaded(spec if isinstance(spec, str) else None, values.shape, values.dtype.name, digest)


def parse_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """A dtype by its NumPy name.

    Raises
    ------
    ParameterError
        There is none of this name.
    """
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biufc":
        raise ParameterError(f"{name} must be a NumPy dtype such as uint8, int16 or float32 (got {value!r})")
    return dtype


def check_bias(bias: ArrayLike | None, params: Conv3dParams, source: str | None = None) -> NDArray[Any] | None:
    """The bias as an array with one value for each output channel; ``source`` is where it was found beside the kernel.

    Raises
    ------
    ShapeError
    """
    if bias is None:
        return None
    values = np.asarray(bias)
    if values.shape != (params.out_channels,):
        raise ShapeError(
            f"bias must have shape ({params.out_channels},), one value an output channel (got {values.shape}"
            + (f" in {source})" if source else ")"),
            hint="-b 0 leaves out a bias that comes with a kernel" if source else None,
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
        raise ParameterError(f"compute_dtype must be one of {', '.join(dtypes.COMPUTE_DTYPES)} (got {asked!r})")
    if natural.kind == "c" and compute.kind != "c":
        raise DtypeError(f"compute_dtype must be complex where volume, weights or bias are (got {asked!r})")
    return compute
