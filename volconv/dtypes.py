"""Which dtypes go in, what is computed in, what comes out."""

from __future__ import annotations

from numbers import Number, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import DtypeError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Compute dtype of each result dtype: float16 is summed in float32, integers exactly.
_COMPUTE = {"float16": "float32", "float32": "float32", "float64": "float64", "int64": "int64"} | {
    "complex64": "complex64",
    "complex128": "complex128",
}

#: What ``--compute-dtype`` may say.
COMPUTE_DTYPES = ("float32", "float64", "complex64", "complex128")


def result_dtype(volume: np.dtype[Any], weight: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype of ``conv3d``'s result: NumPy's ``result_type``, and int64 for integers.

    Raises
    ------
    DtypeError
        Not numbers, or wider than float64 or complex128.

    Examples
    --------
    >>> result_dtype(np.dtype("int16"), np.dtype("float32"))
    dtype('float32')
    >>> result_dtype(np.dtype("uint8"), np.dtype("bool"))
    dtype('int64')
    """
    for name, dtype in (("input", volume), ("weight", weight)):
        if dtype.kind not in "biufc":
            raise DtypeError(f"{name} must hold numbers (got dtype {dtype})")
    if volume.kind in "biu" and weight.kind in "biu":
        return np.dtype(np.int64)
    promoted = np.result_type(volume, weight).newbyteorder("=")
    if promoted.name not in _COMPUTE:
        raise DtypeError(f"input and weight must be at most float64 or complex128 (got {volume}, {weight})")
    return promoted


def compute_dtype(result: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype that results of this dtype are summed in."""
    return np.dtype(_COMPUTE[result.name])


def volume_compute_dtype(stored: np.dtype[Any], weight: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype that a file's voxels are computed in: the weights follow the volume.

    float32 for integers of up to 16 bits and floats of up to 32; float64 for larger ones; complex stays complex, and
    complex weights make it so.

    Raises
    ------
    DtypeError
        Not numbers.
    """
    if stored.kind not in "biufc" or weight.kind not in "biufc":
        raise DtypeError(f"volume and weights must hold numbers (got {stored}, {weight})")
    wide = stored.itemsize > (2 if stored.kind in "biu" else 8 if stored.kind == "c" else 4)
    if "c" in (stored.kind, weight.kind):
        return np.dtype(np.complex128 if wide else np.complex64)
    return np.dtype(np.float64 if wide else np.float32)


def check_scalar(name: str, value: complex, dtype: np.dtype[Any]) -> None:
    """Refuse what is no number, or one that the compute dtype cannot hold.

    Raises
    ------
    ParameterError, DtypeError
    """
    if not isinstance(value, Number):
        raise ParameterError(f"{name} must be a number (got {value!r})")
    try:
        number = complex(value)
    except OverflowError:
        raise DtypeError(f"{name} must be a number that {dtype} can hold (got an integer beyond 1e308)") from None
    whole = isinstance(value, Real) and number.real.is_integer()
    too_large = dtype.kind != "i" and float(np.finfo(dtype).max) < abs(number) < np.inf
    if (dtype.kind != "c" and number.imag) or (dtype.kind == "i" and not whole) or too_large:
        raise DtypeError(f"{name} must be a number that {dtype} can hold (got {value})")


def convert(name: str, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Cast weights or the like to the compute dtype.

    Raises
    ------
    DtypeError
        A finite value would become infinite.
    """
    if np.can_cast(values.dtype, dtype, "safe"):
        return values.astype(dtype, copy=False)
    with np.errstate(over="ignore"):
        real = values.real if dtype.kind != "c" else values
        result = real.astype(dtype)
    if (np.isfinite(values) & ~np.isfinite(result)).any():
        raise DtypeError(f"{name} must hold values that {dtype} can hold (got up to {np.abs(values).max():.3g})")
    return result


def check_integer_sums(
    volume: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, padding_value: int
) -> None:
    """Refuse integers whose sums might leave int64: nothing wraps silently.

    Bounded first by the dtypes, and by the values only where that is not enough.

    Raises
    ------
    DtypeError
    """
    limit = 2**63 - 1
    rows = weight.reshape(weight.shape[0], -1)
    # Far from the limit rounding does not matter, and this is all there is to do for most.
    small = volume.dtype.itemsize <= 4 and bias is None and abs(padding_value) < 2**32
    if small and float(np.abs(rows.astype(np.float64)).sum(axis=1).max()) < 2.0**30:
        return
    magnitudes = [sum(abs(int(v)) for v in row) for row in rows]
    per_voxel = max(magnitudes)
    offset = 0 if bias is None or not bias.size else max(abs(int(v)) for v in bias.ravel())

    def fits(largest: int) -> bool:
        largest = max(largest, abs(padding_value))
        return largest <= limit and largest * per_voxel + offset <= limit

    if not volume.size:
        return
    if volume.dtype.kind == "b":
        bound = 1
    else:
        info = np.iinfo(volume.dtype)
        bound = max(-int(info.min), int(info.max))
    if fits(bound):
        return
    largest = max(-int(volume.min()), int(volume.max()))
    if fits(largest):
        return
    raise DtypeError(
        f"integer sums must fit in int64 (got values up to {max(largest, abs(padding_value))} "
        f"and weights that sum to {per_voxel})",
        hint="convert input or weight to float64",
    )
