"""What a kernel is given: a padded block as it is seen through tables, and values that are passed as C has them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.engines.gpu.device import Array
    from volconv.params import Triple

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
NONE = np.uintp(0)


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

    def part(self, first: Triple, size: Triple) -> Source:
        """What begins at an index along each axis, and is of this size at most."""
        values, where = self.values, [slice(a, a + n) for a, n in zip(first, size, strict=True)]
        for axis, (place, table) in enumerate(zip(where, self.tables, strict=True), start=1):
            if table is None:
                values = values[(slice(None),) * axis + (place,)]
        d, h, w = (table if table is None else table[place] for place, table in zip(where, self.tables, strict=True))
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
        tables = [NONE if table is None else table for table in self.tables]
        return [self.values, *tables, void(np.array([layout], _layout(dtype)))]

    @property
    def flat(self) -> bool:
        """Whether places in a plane of ``values`` fit 32 bits: ``small`` and ``channels`` take no others."""
        _, _, high, wide = self.values.shape
        _, _, row, voxel = self.values.strides
        return bool(((high - 1) * row + (wide - 1) * voxel) // self.values.dtype.itemsize * self._parts < 2**31)


def _layout(dtype: np.dtype[Any]) -> np.dtype[Any]:
    strides = [(name, np.int64) for name in ("channel", "depth", "row", "voxel")]
    values = [("fill", dtype, 2), ("slope", dtype), ("intercept", dtype)]
    return np.dtype([*strides, *values, ("parts", np.int32), ("scaling", np.int32)], align=True)


def struct(**fields: int | Sequence[int]) -> np.void:
    """Integers, and arrays of them, as a struct that is passed by value."""
    dtype = np.dtype([(name, np.int32, np.shape(value)) for name, value in fields.items()])
    return void(np.array([tuple(fields.values())], dtype))


def void(values: NDArray[np.void]) -> np.void:
    """The one struct of an array, to be passed by value."""
    first: np.void = values[0]
    return first


def number(dtype: np.dtype[Any]) -> str:
    """C++ type that is computed in."""
    return {"float32": "float", "float64": "double"}[dtype.name]


def vector(dtype: np.dtype[Any]) -> int:
    """Neighbouring outputs of a thread."""
    return 16 // dtype.itemsize


def aligned(out: Array) -> bool:
    """Whether every line begins at a multiple of 16 bytes."""
    known = getattr(out, "__cuda_array_interface__", None) or out.__array_interface__
    return bool(out.shape[-1] * out.dtype.itemsize % 16 == 0 and known["data"][0] % 16 == 0)


def taps_by_value(weight: NDArray[Any], dtype: np.dtype[Any]) -> np.void:
    """Weights by value: they are read as constants, like no memory is."""
    return void(np.array([(weight.reshape(-1),)], np.dtype([("at", dtype, (weight.size,))])))
