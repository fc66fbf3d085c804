"""The one table of tolerances: how far a result may lie from a reference in higher precision."""

from __future__ import annotations

import numpy as np

import reference

#: The bound of every algorithm, in units of eps times max(|weight| ⋆ |input| + |bias|); eps of the compute dtype.
BOUND = 16

COMPUTE = {
    np.dtype(np.float16): np.dtype(np.float32),
    np.dtype(np.float32): np.dtype(np.float32),
    np.dtype(np.float64): np.dtype(np.float64),
    np.dtype(np.complex64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.float64),
}


def allowed(dtype, x, w, bias=None, **parameters):
    """Largest error allowed for a result of this dtype."""
    if np.dtype(dtype).kind == "i":
        return 0
    value = abs(parameters.pop("value", 0))
    magnitude = reference.conv3d(
        abs(x), abs(w), None if bias is None else abs(np.asarray(bias)), value=value, **parameters
    )
    largest = float(magnitude.max()) if magnitude.size else 0.0
    bound = BOUND * float(np.finfo(COMPUTE[np.dtype(dtype)]).eps) * largest
    if np.dtype(dtype) == np.float16:  # the result is rounded once more
        bound += float(np.finfo(np.float16).eps) * largest + float(np.finfo(np.float16).smallest_subnormal)
    # Products below the smallest normal number are rounded to a multiple of the smallest one.
    return bound + float(np.finfo(COMPUTE[np.dtype(dtype)]).smallest_normal)


def assert_matches(got, expected, tolerance):
    """Compare shape, then dtype's kind, then values."""
    assert got.shape == expected.shape
    difference = abs(got.astype(expected.dtype) - expected)
    worst = float(difference.max()) if difference.size else 0.0
    assert worst <= tolerance, f"largest error {worst} above {tolerance}"
