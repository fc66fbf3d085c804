"""How each kernel of ``kernels.cu`` is launched: its blocks and arguments, and no more than that.

Outputs are (C_out, d, h, w) in C order; their dtype, float32 or float64, is what is computed in, and that of weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.engines.gpu.device import Array, Device, Stream
    from volconv.params import Triple

#: The source of all kernels.
SOURCE = Path(__file__).with_name("kernels.cu")

#: C++ types of stored voxels.
_STORED = {
    "bool": "unsigned char",
    "uint8": "unsigned char",
    "int8": "signed char",
    "uint16": "unsigned short",
    "int16": "short",
    "uint32": "unsigned int",
    "int32": "int",
    "uint64": "unsigned long long",
    "int64": "long long",
    "float16": "Half",
    "float32": "float",
    "float64": "double",
    "complex64": "float",
    "complex128": "double",
}

#: A pointer to nothing.
_NONE = np.uintp(0)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A padded block on the device, as it is seen through tables: no copy of it is ever made.

    Parameters
    ----------
    values : (C, D, H, W) device array
        Stored voxels: any dtype but big-endian ones, any strides that are not negative. A complex voxel is two
        channels, real part first.
    tables : 3 device arrays of int32, or None
        For each index of the padded block along D, H, W that of a voxel in ``values``, or -1 for ``fill``. None where
        an index is its own.
    fill : number
        ``padding_value``, to which scaling does not apply.
    scaling : (slope, intercept), optional
        Applied to stored voxels; the intercept to real parts only.
    """

    values: Array
    tables: tuple[Array | None, Array | None, Array | None] = (None, None, None)
    fill: complex = 0
    scaling: tuple[float, float] | None = None

    @property
    def size(self) -> Triple:
        """Size (D, H, W) of the padded block."""
        d, h, w = (
            size if table is None else len(table)
            for size, table in zip(self.values.shape[1:], self.tables, strict=True)
        )
        return d, h, w

    def beginning(self, first: Triple) -> Source:
        """The same block without what comes before an index along each axis."""
        values = self.values
        for axis, (index, table) in enumerate(zip(first, self.tables, strict=True), start=1):
            if table is None:
                values = values[(slice(None),) * axis + (slice(index, None),)]
        d, h, w = (table if table is None else table[index:] for index, table in zip(first, self.tables, strict=True))
        return replace(self, values=values, tables=(d, h, w))

    @property
    def channels(self) -> int:
        """Channels of real numbers."""
        return int(self.values.shape[0]) * self._parts

    @property
    def _parts(self) -> int:
        return 2 if self.values.dtype.kind == "c" else 1

    @property
    def stored(self) -> str:
        """C++ type of its numbers."""
        return _STORED[self.values.dtype.name]

    def arguments(self, dtype: np.dtype[Any]) -> list[Array | np.generic]:
        """The five that every kernel begins with."""
        strides = [stride // (self.values.dtype.itemsize // self._parts) for stride in self.values.strides]
        slope, intercept = self.scaling or (1.0, 0.0)
        fill = (complex(self.fill).real, complex(self.fill).imag)
        layout = (*strides, fill, slope, intercept, self._parts, self.scaling is not None)
        tables = [_NONE if table is None else table for table in self.tables]
        return [self.values, *tables, _void(np.array([layout], _layout(dtype)))]


def _layout(dtype: np.dtype[Any]) -> np.dtype[Any]:
    strides = [(name, np.int64) for name in ("channel", "depth", "row", "voxel")]
    values = [("fill", dtype, 2), ("slope", dtype), ("intercept", dtype)]
    return np.dtype([*strides, *values, ("parts", np.int32), ("scaling", np.int32)], align=True)


def _struct(**fields: int | Sequence[int]) -> np.void:
    """Integers, and arrays of them, as a struct that is passed by value."""
    dtype = np.dtype([(name, np.int32, np.shape(value)) for name, value in fields.items()])
    return _void(np.array([tuple(fields.values())], dtype))


def _void(values: NDArray[np.void]) -> np.void:
    first: np.void = values[0]
    return first


def _number(dtype: np.dtype[Any]) -> str:
    """C++ type that is computed in."""
    return {"float32": "float", "float64": "double"}[dtype.name]


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
    *number, channels, d, h, w = (1, 1, 1, *out.shape)[-7:]
    tiles = _struct(number=number, step=step, size=(d, h, w), padded=source.size, channels=channels)
    function = device.function(f"gather<{source.stored}, {_number(out.dtype)}>")
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
    problem = _struct(
        per_in=per_in,
        per_out=outputs // groups,
        groups=groups,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        size=(d, h, w),
    )
    function = device.function(f"generic<{source.stored}, {_number(out.dtype)}>")
    lines = groups * -(-(outputs // groups) // 4) * d * h
    grid = (-(-w // 32) * -(-lines // 8), 1, 1)
    args = [*source.arguments(out.dtype), problem, weight, _NONE if bias is None else bias, out]
    function(stream, grid, (32, 8, 1), args)
