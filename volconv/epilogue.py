"""From sums to what is stored: activation, reduction of channels, rounding, saturation, counts of what was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import DtypeError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.io.volume import Scaling


def _abs(values: NDArray[Any]) -> NDArray[Any]:
    # Of complex values NumPy's own rounds in one way or another, by where in memory they are.
    result: NDArray[Any] = (
        np.hypot(values.real, values.imag) if values.dtype.kind == "c" else np.abs(values, out=values)
    )
    return result


def _square(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind != "c":
        values *= values
        return values
    real, imag = values.real.copy(), values.imag.copy()
    values.real, values.imag = real * real - imag * imag, 2 * (real * imag)
    return values


def _leaky_relu(values: NDArray[Any]) -> NDArray[Any]:
    np.maximum(values, values * values.dtype.type(0.01), out=values)
    return values


def _elu(values: NDArray[Any]) -> NDArray[Any]:
    below = np.minimum(values, 0)
    np.maximum(values, np.expm1(below, out=below), out=values)  # exp(v) - 1 is no less than v
    return values


def _sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    np.exp(np.negative(values, out=values), out=values)
    values += 1
    np.reciprocal(values, out=values)
    return values


#: By name, as PyTorch's functions: what is done to every value, mostly in place. Arrays may be CuPy's, whose functions
#: NumPy's then are; they know no ``where``. ``leaky_relu`` has slope 0.01, ``elu``
#: alpha 1.
ACTIVATIONS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "relu": lambda v: np.maximum(v, 0, out=v),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "sigmoid": _sigmoid,
    "silu": lambda v: np.multiply(v, _sigmoid(v.copy()), out=v),
    "softplus": lambda v: np.logaddexp(0, v, out=v),
    "tanh": lambda v: np.tanh(v, out=v),
    "abs": _abs,
    "square": _square,
    "sqrt": lambda v: np.sqrt(v, out=v),
    "exp": lambda v: np.exp(v, out=v),
    "log": lambda v: np.log(v, out=v),
}

#: Those that complex numbers have.
_COMPLEX_ACTIVATIONS = ("tanh", "abs", "square", "sqrt", "exp", "log")

#: What output channels become one by.
REDUCTIONS = ("norm", "sum", "max", "mean")


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is done to results before they are stored: first the activation of each, then the reduction.

    Parameters
    ----------
    activation : str or None
        One of :data:`ACTIVATIONS`.
    reduce : str or None
        One of :data:`REDUCTIONS`, over output channels: ``norm`` is the square root of the sum of squares.

    Examples
    --------
    >>> Epilogue("relu", "sum")(np.array([[3.0, -4.0], [2.0, 1.0]]))
    array([[5., 1.]])
    """

    activation: str | None = None
    reduce: str | None = None

    def check(self, compute_dtype: np.dtype[Any]) -> None:
        """Refuse names that there are not, and what complex numbers do not have.

        Raises
        ------
        ParameterError
        DtypeError
        """
        for name, value, known in (
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("reduce", self.reduce, REDUCTIONS),
        ):
            if value is not None and value not in known:
                raise ParameterError(f"{name} must be one of {', '.join(known)} (got {value!r})")
        if compute_dtype.kind == "c":
            if self.activation is not None and self.activation not in _COMPLEX_ACTIVATIONS:
                raise DtypeError(
                    f"activation must be one of {', '.join(_COMPLEX_ACTIVATIONS)} where results are complex "
                    f"(got {self.activation!r})"
                )
            if self.reduce == "max" and self.activation != "abs":
                raise DtypeError(
                    "reduce must be norm, sum or mean where results are complex (got 'max')",
                    hint="--activation abs makes them real",
                )

    def dtype(self, compute_dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Dtype of what comes out: real where it is a magnitude."""
        real = self.activation == "abs" or self.reduce == "norm"
        return np.empty(0, compute_dtype).real.dtype if real else compute_dtype

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Apply it.

        Parameters
        ----------
        values : (C_out, ...) array
            Used as scratch, and contiguous: some of NumPy's functions round otherwise where values lie apart.
        """
        if self.activation is not None:
            values = ACTIVATIONS[self.activation](values)
        return values if self.reduce is None else _REDUCERS[self.reduce](values)[np.newaxis]


#: Results as they are.
NO_EPILOGUE = Epilogue()


def _sum(values: NDArray[Any]) -> NDArray[Any]:
    """Channel after channel: a sum along an axis goes in an order that depends on the others' sizes."""
    total: NDArray[Any] = values[0]
    for channel in values[1:]:
        total += channel
    return total


def _norm(values: NDArray[Any]) -> NDArray[Any]:
    parts = np.concatenate([values.real, values.imag]) if values.dtype.kind == "c" else values
    total = _sum(np.square(parts, out=parts))
    np.sqrt(total, out=total)
    return total


def _max(values: NDArray[Any]) -> NDArray[Any]:
    most: NDArray[Any] = values[0]
    for channel in values[1:]:
        np.maximum(most, channel, out=most)
    return most


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    total = _sum(values)
    total /= len(values)
    return total


_REDUCERS = {"norm": _norm, "sum": _sum, "max": _max, "mean": _mean}


@dataclass(frozen=True, slots=True)
class Counts:
    """Output voxels that are worth a word.

    ``saturated`` and ``not_a_number`` (stored as 0) could not be held by an integer output; ``non_finite`` are NaN or
    infinite in a float one.
    """

    saturated: int = 0
    not_a_number: int = 0
    non_finite: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.saturated + other.saturated,
            self.not_a_number + other.not_a_number,
            self.non_finite + other.non_finite,
        )


#: What most blocks lose.
NONE_LOST = Counts()


def check_output_dtype(dtype: np.dtype[Any], compute_dtype: np.dtype[Any]) -> None:
    """Refuse an output dtype that cannot hold what is computed.

    Raises
    ------
    DtypeError
        Not a number, or real where results are complex.
    """
    if dtype.kind not in "iufc":
        raise DtypeError(f"output dtype must be an integer, float or complex one (got {dtype})")
    if compute_dtype.kind == "c" and dtype.kind != "c":
        raise DtypeError(f"output dtype must be complex, as the results are (got {dtype})")


def count_non_finite(values: NDArray[Any]) -> Counts:
    """Count NaN and infinite values of a float or complex array.

    Examples
    --------
    >>> count_non_finite(np.array([1.0, np.nan, -np.inf]))
    Counts(saturated=0, not_a_number=0, non_finite=2)
    """
    if values.dtype.kind not in "fc":
        return NONE_LOST
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # a sum is quick, and NaN and infinity stay in it
            return NONE_LOST
    return Counts(non_finite=values.size - int(np.count_nonzero(np.isfinite(values))))


def store(values: NDArray[Any], target: NDArray[Any], scaling: Scaling | None = None) -> Counts:
    """Store results in another dtype.

    Integers are rounded to nearest even and saturate; NaN becomes 0. Both are counted.

    Parameters
    ----------
    values : array
        Results in the compute dtype; used as scratch.
    target : array
        Receives them; of the same shape.
    scaling : Scaling, optional
        Of the stored values: ``stored = (value - intercept) / slope``.

    Examples
    --------
    >>> out = np.empty(4, np.uint8)
    >>> store(np.array([0.5, 1.5, 300.0, -2.0]), out)
    Counts(saturated=2, not_a_number=0, non_finite=0)
    >>> out
    array([  0,   2, 255,   0], dtype=uint8)
    """
    if scaling is not None:
        values -= scaling.intercept
        values /= scaling.slope
    if target.dtype.kind not in "iu" or values.dtype.kind not in "fc":
        np.copyto(target, values, casting="unsafe")
        return NONE_LOST
    limits = np.iinfo(target.dtype)
    np.rint(values, out=values)
    nan = np.isnan(values)
    low = values < limits.min
    # The largest integer may not be a float, but the next one, a power of two, always is.
    high = values >= float(limits.max + 1)
    counts = Counts(int(np.count_nonzero(low) + np.count_nonzero(high)), int(np.count_nonzero(nan)))
    if counts != NONE_LOST:
        values[nan | low | high] = 0
    np.copyto(target, values, casting="unsafe")
    if counts.saturated:
        target[low] = limits.min
        target[high] = limits.max
    return counts
