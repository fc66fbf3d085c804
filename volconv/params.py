"""The parameters of a Conv3d, parsed once.

This is the only place that sees an int where three are meant, ``'same'``, or any other raw value of a user's;
everything below works on :class:`Conv3dParams`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Complex, Real
from typing import Literal, Self, SupportsIndex, cast, get_args

from volconv.errors import ParameterError, ShapeError

Triple = tuple[int, int, int]
Size3 = SupportsIndex | Sequence[SupportsIndex]
Padding = Size3 | Literal["same", "valid"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular", "symmetric"]

PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)
AXES = ("D", "H", "W")

#: No volume is so large that more would be meant.
LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Conv3dParams:
    """Everything about a Conv3d but its weights and its input. Triples are in D, H, W order.

    Make one with :meth:`parse`, which checks and resolves; the constructor does neither.

    Examples
    --------
    >>> params = Conv3dParams.parse((33, 16, 3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0))
    >>> params.effective_kernel, params.padding_low, params.groups
    ((3, 5, 2), (4, 2, 0), 1)
    >>> Conv3dParams.parse((1, 1, 4, 4, 4), padding="same").padding_high
    (2, 2, 2)
    """

    in_channels: int
    out_channels: int
    kernel_size: Triple
    stride: Triple = (1, 1, 1)
    padding_low: Triple = (0, 0, 0)
    padding_high: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1
    padding_mode: PaddingMode = "zeros"
    padding_value: complex = 0.0

    @classmethod
    def parse(
        cls,
        weight_shape: Sequence[int],
        *,
        stride: Size3 = 1,
        padding: Padding = 0,
        dilation: Size3 = 1,
        groups: SupportsIndex = 1,
        padding_mode: str = "zeros",
        padding_value: complex = 0,
    ) -> Self:
        """Check raw values and resolve them.

        Parameters
        ----------
        weight_shape : sequence of 5 ints
            ``(C_out, C_in/groups, kD, kH, kW)``.
        stride, dilation : int or 3 ints
            At least 1. One int means all three axes.
        padding : int, 3 ints, "valid" or "same"
            Voxels added on both sides of an axis; "same" keeps the input's size, and adds ``t//2`` before and
            ``t - t//2`` after, ``t = dilation*(kernel - 1)`` (the rule of ``torch.nn.Conv3d``).
        groups : int
            Divides C_out (and C_in, which is ``weight_shape[1]*groups``).
        padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        padding_value : number
            What "zeros" pads with.

        Raises
        ------
        ParameterError
            A value breaks a rule of its own.
        ShapeError
            The weight's shape and groups do not fit together.
        """
        shape = tuple(operator.index(v) for v in weight_shape)
        if len(shape) != 5:
            raise ShapeError(f"weight must have 5 axes (C_out, C_in/groups, kD, kH, kW) (got shape {shape})")
        if min(shape) < 1:
            raise ShapeError(f"weight must have no axis of size 0 (got shape {shape})")
        group_count = parse_integer("groups", groups, at_least=1)
        if shape[0] % group_count:
            raise ShapeError(f"groups must divide out_channels (got groups={group_count}, out_channels={shape[0]})")
        kernel_size = shape[2], shape[3], shape[4]
        stride3 = parse_triple("stride", stride, at_least=1)
        dilation3 = parse_triple("dilation", dilation, at_least=1)
        low, high = _resolve_padding(padding, kernel_size, stride3, dilation3)
        if padding_mode not in PADDING_MODES:
            raise ParameterError(f"padding_mode must be one of {', '.join(PADDING_MODES)} (got {padding_mode!r})")
        if padding_mode != "zeros" and padding_value != 0:
            raise ParameterError(
                f"padding_value needs padding_mode='zeros' "
                f"(got padding_value={padding_value}, padding_mode={padding_mode!r})"
            )
        if isinstance(padding_value, Complex) and not isinstance(padding_value, Real) and not padding_value.imag:
            padding_value = padding_value.real
        return cls(
            in_channels=shape[1] * group_count,
            out_channels=shape[0],
            kernel_size=kernel_size,
            stride=stride3,
            padding_low=low,
            padding_high=high,
            dilation=dilation3,
            groups=group_count,
            padding_mode=padding_mode,
            padding_value=padding_value,
        )

    @property
    def effective_kernel(self) -> Triple:
        """Extent of the dilated kernel in voxels: ``dilation*(kernel - 1) + 1``."""
        d, h, w = (dil * (k - 1) + 1 for dil, k in zip(self.dilation, self.kernel_size, strict=True))
        return d, h, w

    @property
    def weight_shape(self) -> tuple[int, int, int, int, int]:
        """``(C_out, C_in/groups, kD, kH, kW)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)


def parse_triple(name: str, value: Size3, *, at_least: int) -> Triple:
    """One int or three, as three.

    Raises
    ------
    ParameterError
        Not 1 or 3 integers, or one below ``at_least``.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        values = list(value)
        if len(values) == 1:
            values *= 3
        if len(values) != 3:
            raise ParameterError(f"{name} must be one integer or three (D, H, W) (got {value!r})")
    elif hasattr(value, "tolist"):  # a NumPy array or scalar
        return parse_triple(name, value.tolist(), at_least=at_least)
    else:
        values = [cast("SupportsIndex", value)] * 3
    d, h, w = (parse_integer(name, v, at_least=at_least) for v in values)
    return d, h, w


def parse_integer(name: str, value: SupportsIndex, *, at_least: int) -> int:
    """One integer within bounds.

    Raises
    ------
    ParameterError
        Not an integer (booleans are none), below ``at_least``, or beyond 31 bits.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ParameterError(f"{name} must be an integer (got {value!r})") from None
    if isinstance(value, bool) or number < at_least:
        raise ParameterError(f"{name} must be an integer of at least {at_least} (got {value!r})")
    if number > LARGEST:
        raise ParameterError(f"{name} must be at most {LARGEST} (got {value!r})")
    return number


def _resolve_padding(padding: Padding, kernel_size: Triple, stride: Triple, dilation: Triple) -> tuple[Triple, Triple]:
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0, 0), (0, 0, 0)
        if padding != "same":
            raise ParameterError(f"padding must be integers, 'valid' or 'same' (got {padding!r})")
        if stride != (1, 1, 1):
            raise ParameterError(f"padding='same' needs stride 1 (got stride={stride})")
        totals = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        low = cast("Triple", tuple(t // 2 for t in totals))
        high = cast("Triple", tuple(t - t // 2 for t in totals))
        return low, high
    both = parse_triple("padding", padding, at_least=0)
    return both, both
