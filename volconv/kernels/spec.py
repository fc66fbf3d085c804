"""What ``--kernel`` and ``--bias`` say, as arrays."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError, ShapeError
from volconv.kernels.attributes import stated_parameters
from volconv.kernels.files import KINDS, is_file_spec, load_array, load_layer, other_file_hint
from volconv.kernels.named import build_kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from volconv.geometry import Geometry


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Weights as loaded, before they know the volume's channels.

    Parameters
    ----------
    weight : ndarray of 3, 4 or 5 axes
        ``(kD, kH, kW)``, a bank ``(C_out, kD, kH, kW)``, or ``(C_out, C_in/groups, kD, kH, kW)``.
        Five axes may be in another order: see :mod:`volconv.kernels.layout`.
    name : str
        The spec that it came from.
    bias : ndarray or None
        What the file has for the same layer.
    bias_name : str or None
        The spec of that.
    layout : {"oidhw", "dhwio", None}
        Order of five axes, where it is known.
    parameters : dict
        Parameters of a Conv3d that the file states; "padding" may be an error to raise where it is used.
    notes : tuple of str
        One line each on what to know about it.
    """

    weight: NDArray[Any]
    name: str
    bias: NDArray[Any] | None = None
    bias_name: str | None = None
    layout: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_kernel(spec: str, geometry: Geometry, source_name: str = "volume") -> Kernel:
    """The kernel that a spec names.

    Parameters
    ----------
    spec : str
        ``FILE[:KEY]`` (KEY an array's name, or a layer's for weight and bias together), or ``NAME[:param=value,...]``
        with a name of :data:`volconv.kernels.NAMES`. See :func:`volconv.kernels.split_file_spec` for which it is.
    geometry : Geometry
        Of the volume that the kernel is for; named kernels in physical units need its spacing.
    source_name : str
        What errors call that volume.

    Returns
    -------
    Kernel
        Weights of a file keep their dtype (bool and integers too); named ones are float64. Nothing is flipped.

    Raises
    ------
    ParameterError
        An unknown name, or parameters that it does not take.
    ReadError
        The file is missing, damaged, holds Python objects or has no such key.
    ShapeError
        The array is not numeric, is empty, or has not 3, 4 or 5 axes.

    Examples
    --------
    >>> from volconv.geometry import Geometry
    >>> load_kernel("sobel", Geometry()).weight.shape
    (3, 3, 3, 3)
    """
    if not is_file_spec(spec):
        return Kernel(build_kernel(spec, geometry, source_name), spec)
    layer = load_layer(spec)
    if not layer.weight.size:
        raise ShapeError(f"kernel must have no axis of size 0 (got shape {layer.weight.shape} in {spec})")
    parameters, notes = stated_parameters(layer, geometry)
    return Kernel(layer.weight, spec, layer.bias, layer.bias_name, layer.layout, parameters, notes)


def load_bias(spec: str, out_channels: int) -> NDArray[Any]:
    """The bias that a spec names.

    Parameters
    ----------
    spec : str
        A number, real ("0.5") or complex ("1+2j"), for every output channel; or ``FILE[:KEY]``, an array of one axis.
    out_channels : int
        How many values are needed.

    Returns
    -------
    ndarray of shape (out_channels,)
        A number gives int64, float64 or complex128, whichever holds it as written.

    Raises
    ------
    ParameterError
        Neither a finite number nor a file.
    ReadError
        As :func:`load_kernel`.
    ShapeError
        The array is not numeric, or not of ``out_channels`` values.

    Examples
    --------
    >>> load_bias("0.5", 3).tolist()
    [0.5, 0.5, 0.5]
    """
    if _could_be_number(spec) or not is_file_spec(spec):
        return np.full(out_channels, _number(spec))
    bias = load_array(spec, "bias", (1,))
    if bias.size != out_channels:
        raise ShapeError(
            f"bias must have one value for each output channel (got {bias.size} values in {spec}, "
            f"out_channels={out_channels})"
        )
    return bias


def expand(kernel_weight: NDArray[Any], in_channels: int, groups: int | None = None) -> tuple[NDArray[Any], int]:
    """Weights as Conv3d wants them, for a volume of ``in_channels`` channels.

    Parameters
    ----------
    kernel_weight : ndarray of 3, 4 or 5 axes
        3: ``(kD, kH, kW)``, applied to every channel by itself. 4: a bank ``(C_out, kD, kH, kW)`` for one channel.
        5: ``(C_out, C_in/groups, kD, kH, kW)``, as it is.
    in_channels : int
        Channels of the volume.
    groups : int, optional
        What the user asked for; None is the only choice that always fits (1 for 5 axes).

    Returns
    -------
    weight : ndarray, (C_out, C_in/groups, kD, kH, kW)
    groups : int

    Raises
    ------
    ParameterError
        Groups that contradict a kernel of 3 or 4 axes.
    ShapeError
        A bank for a volume of several channels, or another number of axes.

    Examples
    --------
    >>> import numpy as np
    >>> weight, groups = expand(np.ones((3, 3, 3)), in_channels=2)
    >>> weight.shape, groups
    ((2, 1, 3, 3, 3), 2)
    """
    if kernel_weight.ndim == 3:
        if groups not in (None, in_channels):
            raise ParameterError(
                f"groups must be in_channels with a kernel of 3 axes, applied to each channel by itself "
                f"(got groups={groups}, in_channels={in_channels})",
                hint="leave groups out",
            )
        return np.repeat(kernel_weight[np.newaxis, np.newaxis], in_channels, axis=0), in_channels
    if kernel_weight.ndim == 4:
        if in_channels != 1:
            raise ShapeError(
                f"input must have one channel with a kernel bank of 4 axes (C_out, kD, kH, kW) "
                f"(got in_channels={in_channels}, kernel shape {kernel_weight.shape})",
                hint="give 5 axes (C_out, C_in/groups, kD, kH, kW) for several channels",
            )
        if groups not in (None, 1):
            raise ParameterError(f"groups must be 1 with a kernel bank of 4 axes (got groups={groups})")
        return kernel_weight[:, np.newaxis], 1
    if kernel_weight.ndim != 5:
        raise ShapeError(f"kernel must have 3, 4 or 5 axes (got shape {kernel_weight.shape})")
    return kernel_weight, 1 if groups is None else groups


def _could_be_number(spec: str) -> bool:
    return re.fullmatch(r"[-+.0-9eEjJ()]+", spec.strip()) is not None


def _number(spec: str) -> int | float | complex:
    """A finite number as Python writes it, an integer staying one."""
    text = spec.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    try:
        value = complex(text) if _could_be_number(text) else math.nan
    except ValueError:
        value = complex(math.nan)
    value = complex(value)
    if not (math.isfinite(value.real) and math.isfinite(value.imag)):
        raise ParameterError(
            f"bias must be a finite number or a file ({KINDS}) (got {spec!r})", hint=other_file_hint(spec)
        )
    return value if "j" in text.lower() else value.real
