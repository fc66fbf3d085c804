"""The integer arithmetic of a Conv3d: sizes, intervals, counts. No arrays, no files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, SupportsIndex

from volconv.errors import ShapeError
from volconv.params import AXES, Conv3dParams, Padding, Size3, Triple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.region import Index5


#: More voxels than this have byte offsets that no 64-bit integer holds.
MOST_VOXELS = 2**60


def output_shape(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Size3 = 1,
    padding: Padding = 0,
    dilation: Size3 = 1,
    groups: SupportsIndex = 1,
) -> tuple[int, ...]:
    """Shape of ``conv3d``'s output.

    Parameters
    ----------
    input_shape : sequence of 4 or 5 ints
        ``(N, C_in, D, H, W)``, or ``(C_in, D, H, W)``.
    weight_shape : sequence of 5 ints
        ``(C_out, C_in/groups, kD, kH, kW)``.
    stride, padding, dilation, groups
        As in :func:`volconv.conv3d`.

    Returns
    -------
    tuple of ints
        Of the rank of ``input_shape``.

    Raises
    ------
    ParameterError, ShapeError
        As :func:`volconv.conv3d` would.

    Examples
    --------
    >>> output_shape((20, 16, 10, 50, 100), (33, 16, 3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0))
    (20, 33, 8, 50, 99)
    """
    params = Conv3dParams.parse(weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    batched = batched_shape(input_shape)
    full = full_output_shape(batched, params)
    return full if len(input_shape) == 5 else full[1:]


def batched_shape(input_shape: Sequence[int]) -> Index5:
    """An input's shape with N in front.

    Raises
    ------
    ShapeError
        Not of 4 or 5 axes.
    """
    if len(input_shape) not in (4, 5):
        raise ShapeError(f"input must have 4 axes (C, D, H, W) or 5 (N, C, D, H, W) (got shape {tuple(input_shape)})")
    n, c, d, h, w = (1, *input_shape) if len(input_shape) == 4 else tuple(input_shape)
    return n, c, d, h, w


def full_output_shape(input_shape: Index5, params: Conv3dParams) -> Index5:
    """Shape (N, C_out, D, H, W) of the output, after checking that input and parameters fit together.

    ``D_out = floor((D + pads - effective_kernel) / stride) + 1``, likewise H and W (``torch.nn.Conv3d``).

    Raises
    ------
    ShapeError
        Wrong channels, an empty axis, a kernel larger than the padded input, or a padding too wide for its mode.
    """
    n, channels, *size = input_shape
    if channels % params.groups:
        raise ShapeError(f"groups must divide in_channels (got groups={params.groups}, in_channels={channels})")
    if channels != params.in_channels:
        per_group = params.in_channels // params.groups
        raise ShapeError(
            f"input must have as many channels as the weights expect (got in_channels={channels}, weights for "
            f"{params.in_channels} = {per_group}*groups with groups={params.groups})"
        )
    if n < 0:
        raise ShapeError(f"input must have no negative number of volumes (got N={n})")
    _check_pads(tuple(size), params)
    out = [
        output_size(s, low + high, eff, stride)
        for s, low, high, eff, stride in zip(
            size, params.padding_low, params.padding_high, params.effective_kernel, params.stride, strict=True
        )
    ]
    shape = n, params.out_channels, out[0], out[1], out[2]
    if math.prod(shape) > MOST_VOXELS:
        raise ShapeError(f"output must have at most 2^60 voxels (got shape {shape})")
    return shape


def output_size(size: int, pads: int, effective_kernel: int, stride: int) -> int:
    """Output voxels along one axis; below 1 where the kernel does not fit."""
    return (size + pads - effective_kernel) // stride + 1


def padded_interval(start: int, stop: int, stride: int, effective_kernel: int) -> tuple[int, int]:
    """Half-open interval of *padded* input that outputs ``start`` to ``stop`` see along one axis.

    >>> padded_interval(2, 5, stride=2, effective_kernel=3)
    (4, 11)
    """
    if stop <= start:
        return start * stride, start * stride
    return start * stride, (stop - 1) * stride + effective_kernel


def block_shape(out: Triple, params: Conv3dParams) -> Triple:
    """Size (D, H, W) of the padded block that a block of outputs needs."""
    d, h, w = (
        (o - 1) * s + eff if o > 0 else 0 for o, s, eff in zip(out, params.stride, params.effective_kernel, strict=True)
    )
    return d, h, w


def voxels_read(output: Index5, params: Conv3dParams, block_voxels: int) -> int:
    """About how many voxels are read in all, halos included, in blocks of at most so many of each channel.

    >>> from volconv.params import Conv3dParams
    >>> voxels_read((1, 1, 64, 64, 64), Conv3dParams.parse((1, 1, 3, 3, 3)), 10**6), 66**3
    (287496, 287496)
    """
    depth, height, width = block_shape(output[2:], params)
    (kd, kh, _), (sd, sh, _) = params.effective_kernel, params.stride
    rows = block_voxels // width
    d = min(depth, max(kd, math.isqrt(max(0, rows))))
    h = min(height, max(kh, rows // d))
    d = min(depth, max(d, rows // h))
    blocks = -(-output[2] // ((d - kd) // sd + 1)) * -(-output[3] // ((h - kh) // sh + 1))
    return output[0] * params.in_channels * blocks * d * h * width


def multiply_adds(output: Index5, params: Conv3dParams) -> int:
    """Multiply-adds of the direct sum, padding counted like any voxel."""
    return math.prod(output) * taps(params)


def taps(params: Conv3dParams) -> int:
    """Input values that one output value is a sum of: ``C_in/groups * kD*kH*kW``."""
    return math.prod(params.weight_shape[1:])


def _check_pads(size: tuple[int, ...], params: Conv3dParams) -> None:
    for axis, s, low, high, eff in zip(
        AXES, size, params.padding_low, params.padding_high, params.effective_kernel, strict=True
    ):
        if s < 1:
            raise ShapeError(f"input must have no spatial axis of size 0 (got {axis}={s})")
        pad, mode = max(low, high), params.padding_mode
        if mode == "reflect" and pad >= s:
            raise ShapeError(
                f"padding must be smaller than the axis with padding_mode='reflect' (got {pad}, {axis}={s})"
            )
        if mode in ("circular", "symmetric") and pad > s:
            raise ShapeError(
                f"padding must be at most the axis' size with padding_mode={mode!r} (got {pad}, {axis}={s})"
            )
        if s + low + high < eff:
            raise ShapeError(
                f"kernel must fit into the padded input (got {axis}={s} with padding {low}+{high}, "
                f"effective kernel {eff})"
            )
