"""How each kernel of ``kernels.cu`` is launched: its blocks and arguments, and no more than that.

Outputs are (C_out, d, h, w) in C order; their dtype, float32 or float64, is what is computed in, and that of weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.gpu.source import NONE, aligned, number, struct, taps_by_value, vector, void

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.engines.gpu.source import Source
    from volconv.params import Triple

#: The source of all kernels.
SOURCE = Path(__file__).with_name("kernels.cu")


def gather(device: Device, stream: Stream, source: Source, out: Array, step: Triple = (0, 0, 0)) -> None:
    """Write a padded block, or tiles of it, as arrays.

    Parameters
    ----------
    device : Device
    stream : Stream
    source : Source
    out : (C, d, h, w) or (nD, nH, nW, C, d, h, w) device array
        One tile that begins where the block does, or so many. Zero where a tile reaches beyond the block.
    step : tuple of 3 ints
        From the beginning of one tile to that of the next.
    """
    if out.size == 0:
        return
    *tiled, channels, d, h, w = (1, 1, 1, *out.shape)[-7:]
    tiles = struct(number=tiled, step=step, size=(d, h, w), padded=source.size, channels=channels)
    function = device.function(f"gather<{source.stored}, {number(out.dtype)}>")
    lines = out.size // w
    block = (32, 8, 1) if w <= 64 else (128, 2, 1)
    function(stream, (-(-lines // block[1]), 1, 1), block, [*source.arguments(out.dtype), tiles, out])


def generic(
    device: Device,
    stream: Stream,
    source: Source,
    weight: Array,
    bias: Array | None,
    out: Array,
    *,
    stride: Triple = (1, 1, 1),
    dilation: Triple = (1, 1, 1),
    groups: int = 1,
) -> None:
    """Any valid correlation of any size.

    Parameters
    ----------
    device : Device
    stream : Stream
    source : Source
        Channels: ``groups`` times those of a weight.
    weight : (C_out, C_in/groups, kD, kH, kW) device array
    bias : (C_out,) device array, optional
    out : (C_out, d, h, w) device array
        Receives outputs of which the first lies at the padded block's first voxel.
    stride, dilation : tuple of 3 ints
    groups : int
    """
    if out.size == 0:
        return
    outputs, per_in, *kernel = weight.shape
    d, h, w = out.shape[1:]
    problem = struct(
        per_in=per_in,
        per_out=outputs // groups,
        groups=groups,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        size=(d, h, w),
    )
    share = 4 if outputs > groups else 1
    function = device.function(f"generic<{source.stored}, {number(out.dtype)}, {share}>")
    lines = groups * -(-(outputs // groups) // share) * d * h
    grid = (-(-w // 32) * -(-lines // 8), 1, 1)
    args = [*source.arguments(out.dtype), problem, weight, NONE if bias is None else bias, out]
    function(stream, grid, (32, 8, 1), args)


def small(
    device: Device,
    stream: Stream,
    source: Source,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    out: Array,
) -> None:
    """Correlate each channel by itself with kernels of up to 7 along each axis; stride and dilation 1.

    Parameters
    ----------
    device : Device
    stream : Stream
    source : Source
        That is ``flat``.
    weight : (C_out, 1, kD, kH, kW) array, on the host
        ``C_out / C_in`` for each channel.
    bias : (C_out,) array, on the host, optional
    out : (C_out, d, h, w) device array
    """
    if out.size == 0:
        return
    outputs, _, kd, kh, kw = weight.shape
    d, h, w = out.shape[1:]
    tiles = -(-w // (16 * vector(out.dtype))), -(-h // 16)
    # Enough blocks for all multiprocessors, some times over; each sees kd - 1 planes that its neighbour sees, too.
    wanted = -(-16 * device.multiprocessors // (tiles[0] * tiles[1]))
    depth = -(-d // max(1, min(wanted, d // max(8, 4 * (kd - 1)))))
    function = device.function(f"small<{source.stored}, {number(out.dtype)}, {kd}, {kh}, {kw}>")
    shared, whole = source.arguments(out.dtype), aligned(out)
    for o in range(outputs):
        march = struct(channel=o // (outputs // source.channels), size=(d, h, w), depth=depth, aligned=whole)
        more = out.dtype.type(0 if bias is None else bias[o])
        args = [*shared, march, taps_by_value(weight[o], out.dtype), more, out[o]]
        function(stream, (*tiles, -(-d // depth)), (256, 1, 1), args)


def along(
    device: Device,
    stream: Stream,
    source: Source,
    axis: int,
    taps: NDArray[Any],
    out: Array,
    *,
    stride: int = 1,
    bias: Array | None = None,
    accumulate: bool = False,
) -> None:
    """Correlate all channels along one axis: a pass of a separable kernel.

    Parameters
    ----------
    device : Device
    stream : Stream
    source : Source
        Of the output's size along the other axes.
    axis : int
        0, 1, 2 for D, H, W.
    taps : 1-D array, on the host
        At most 127.
    out : (C, d, h, w) device array
    stride : int
        1 or 2.
    bias : (C,) device array, optional
        Added last.
    accumulate : bool
        Add to what ``out`` holds.
    """
    if out.size == 0:
        return
    channels, d, h, w = out.shape
    dtype, number_of_taps = number(out.dtype), len(taps)
    if axis == 2:
        across, every = -(-w // (32 * vector(out.dtype))), channels * d * h
        lines = min(max(8, -(-every * across // (16 * device.multiprocessors) // 8) * 8), 1024)
        blocks = across * -(-every // lines)
        expression = f"along_voxels<{source.stored}, {dtype}, {number_of_taps}, {stride}>"
    else:
        lines, length = 0, (d, h)[axis]
        blocks = -(-w // 32) * -(-length // (64 * 4 // out.dtype.itemsize)) * (h, d)[axis] * channels
        expression = f"along_lines<{source.stored}, {dtype}, {axis}, {number_of_taps}, {stride}>"
    a_pass = struct(channels=channels, size=(d, h, w), lines=lines, accumulate=accumulate)
    args = [*source.arguments(out.dtype), a_pass, taps_by_value(taps, out.dtype), NONE if bias is None else bias, out]
    device.function(expression)(stream, (blocks, 1, 1), (256, 1, 1), args)


def columns(
    device: Device,
    stream: Stream,
    source: Source,
    kernel: Triple,
    out: Array,
    *,
    size: Triple,
    first: int = 0,
    begin: int = 0,
    stride: Triple = (1, 1, 1),
    dilation: Triple = (1, 1, 1),
) -> None:
    """Write what each tap meets at some outputs as a matrix (im2col): weights times it are those outputs.

    Parameters
    ----------
    device : Device
    stream : Stream
    source : Source
    kernel : tuple of 3 ints
        (kD, kH, kW).
    out : (C * kD * kH * kW, n) device array
        For channels ``first``, ``first + 1``, ... of the source, taps in order: a weight's own. May be float16, too.
    size : tuple of 3 ints
        (d, h, w) of all outputs.
    first : int
    begin : int
        The first of ``n`` neighbouring outputs, in C order.
    stride, dilation : tuple of 3 ints
    """
    if out.size == 0:
        return
    channels, count = out.shape[0] // math.prod(kernel), out.shape[1]
    problem = struct(per_in=channels, per_out=0, groups=1, kernel=kernel, stride=stride, dilation=dilation, size=size)
    dtype = np.result_type(out.dtype, np.float32)
    written = "Half" if out.dtype == np.float16 else number(dtype)
    function = device.function(f"columns<{source.stored}, {number(dtype)}, {written}>")
    grid = (-(-count // 256), min(channels * kernel[0], 65535), 1)
    args = [*source.arguments(dtype), problem, np.int32(first), np.int64(begin), np.int64(count), out]
    function(stream, grid, (256, 1, 1), args)


#: CHAIN of ``kernels.cu``.
_CHAIN = 28


def _deep(per_out: int) -> tuple[int, int]:
    """Output channels of a thread of ``channels``, and how many threads of a block are there for others.

    As few of them idle as can be, then as many as can be.

    >>> [_deep(n) for n in (1, 8, 9, 24, 64)]
    [(4, 1), (8, 1), (8, 2), (8, 1), (8, 4)]
    """
    if per_out <= 4:
        return 4, 1
    return 8, min((1, 2, 4), key=lambda threads: (-(-per_out // (8 * threads)) * threads, -threads))


def pack_channels(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """Weights in the order in which ``channels`` reads them.

    Parameters
    ----------
    weight : (C_out, C_in/groups, kD, kH, kW) array
    groups : int

    Returns
    -------
    packed : (groups, parts, C_in/groups, kD, kH * kW, n) array
        Output channels n at a time, zeros behind the last.
    """
    outputs, per_in, kd, kh, kw = weight.shape
    per_out = outputs // groups
    deep = math.prod(_deep(per_out))
    parts = -(-per_out // deep)
    packed = np.zeros((groups, parts * deep, per_in, kd, kh * kw), weight.dtype)
    packed[:, :per_out] = weight.reshape(groups, per_out, per_in, kd, kh * kw)
    return np.ascontiguousarray(np.moveaxis(packed.reshape(groups, parts, deep, per_in, kd, kh * kw), 2, -1))


def channels(
    device: Device,
    stream: Stream,
    source: Source,
    packed: Array,
    bias: Array | None,
    out: Array,
    *,
    kernel: Triple,
    stride: Triple = (1, 1, 1),
    dilation: int = 1,
    groups: int = 1,
) -> None:
    """Correlate several channels with kernels of up to 7 along H and W.

    Parameters
    ----------
    device : Device
    stream : Stream
    source : Source
        That is ``flat``.
    packed : device array
        Of :func:`pack_channels`.
    bias : (C_out,) device array, optional
    out : (C_out, d, h, w) device array
    kernel : tuple of 3 ints
        (kD, kH, kW).
    stride : tuple of 3 ints
        1 or 2 along H and W.
    dilation : int
        Along D; it is 1 along H and W.
    groups : int
    """
    if out.size == 0:
        return
    outputs, d, h, w = out.shape
    (kd, kh, kw), (sd, sh, sw) = kernel, stride
    per_in, per_out = source.channels // groups, outputs // groups
    deep, threads = _deep(per_out)
    problem = struct(
        per_in=per_in,
        per_out=per_out,
        groups=groups,
        depth=kd,
        stride=sd,
        dilation=dilation,
        size=(d, h, w),
        chained=max(1, _CHAIN // (kh * kw)),
        aligned=aligned(out),
    )
    tiles = -(-w // (16 * vector(out.dtype))) * -(-h // (16 // threads)) * d
    dtype = number(out.dtype)
    function = device.function(f"channels<{source.stored}, {dtype}, {kh}, {kw}, {sh}, {sw}, {deep}, {threads}>")
    args = [*source.arguments(out.dtype), problem, packed, NONE if bias is None else bias, out]
    function(stream, (tiles * groups * -(-per_out // (deep * threads)), 1, 1), (256, 1, 1), args)


def products(device: Device, stream: Stream, tiles: Array, kernels: Array, out: Array, *, groups: int = 1) -> None:
    """Multiply spectra and sum over input channels: overlap-save's middle part.

    Parameters
    ----------
    device : Device
    stream : Stream
    tiles : (n, C_in, f) device array
        Complex spectra of n tiles, C-contiguous.
    kernels : (C_out, C_in/groups, f) device array
        Of kernels, whose conjugates they are where a correlation is wanted.
    out : (n, C_out, f) device array
    groups : int
    """
    if out.size == 0:
        return
    count, outputs, frequencies = out.shape
    dtype = np.dtype([("frequencies", np.int64), *((name, np.int32) for name in ("n", "groups", "in", "out"))])
    spectra = void(np.array([(frequencies, count, groups, kernels.shape[1], outputs // groups)], dtype))
    real = {"complex64": "float", "complex128": "double"}[out.dtype.name]
    grid = (-(-frequencies // 256), groups * -(-(outputs // groups) // 4), min(-(-count // 2), 65535))
    device.function(f"products<{real}>")(stream, grid, (256, 1, 1), [tiles, kernels, spectra, out])
