"""conv3d on a GPU: against naive sums, and against the CPU where those would take too long."""

from __future__ import annotations

import numpy as np
import pytest

import reference
import volconv
from cases import FLOATS, random_case, values
from tolerances import BOUND, COMPUTE, allowed, assert_matches
from volconv.errors import ParameterError

pytestmark = pytest.mark.gpu

ALGORITHMS = ("auto", "direct", "separable", "fft", "gemm")

#: Random cases of each algorithm and dtype.
CASES = 30


def on_gpu(x, w, b=None, **parameters):
    return volconv.conv3d(x, w, b, backend="cupy", **parameters)


def on_cpu(x, w, b=None, **parameters):
    return volconv.conv3d(x, w, b, backend="numpy", **parameters)


def near(x, w, b=None, **parameters):
    """How far two results may be from each other: both are within the bound of the exact one."""
    dtype = np.result_type(x, w)
    double = np.float64
    largest = on_cpu(
        abs(x).astype(double), abs(w).astype(double), None if b is None else abs(b).astype(double), **parameters
    ).max()
    return 2 * BOUND * float(np.finfo(COMPUTE[dtype]).eps) * float(largest)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agrees_with_naive_sums(algorithm, dtype, monkeypatch):
    monkeypatch.setattr("volconv.engines.factors.LEAST_TAPS", 1)  # kernels of a few taps count as products, too
    rng = np.random.default_rng(FLOATS.index(dtype))
    refused = 0
    for _ in range(CASES):
        case = random_case(rng, "separable" if algorithm == "separable" else "direct")
        x, w, b = case.arrays(dtype)
        try:
            got = on_gpu(x, w, b, algorithm=algorithm, **case.parameters)
        except ParameterError as error:
            if algorithm == "auto" or "cannot do this" not in str(error):
                raise
            refused += 1
            continue
        assert got.dtype == dtype
        expected = reference.conv3d(x, w, b, **case.reference_parameters)
        try:
            assert_matches(got, expected, allowed(dtype, x, w, b, **case.reference_parameters))
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error
    # Complex kernels are no products, and those that were rounded to halves are none any more.
    assert refused < CASES or (algorithm == "separable" and dtype not in ("float32", "float64"))


#: Shapes with seams of every kernel: edges of thread blocks, ragged ends, many channels, groups, large kernels.
LARGE = {
    "3^3": ((1, 1, 65, 130, 259), (1, 1, 3, 3, 3), {"padding": "same"}),
    "5^3 replicate": ((1, 1, 70, 97, 131), (1, 1, 5, 5, 5), {"padding": 2, "padding_mode": "replicate"}),
    "7^3 reflect": ((1, 1, 70, 97, 131), (1, 1, 7, 7, 7), {"padding": 3, "padding_mode": "reflect"}),
    "even sizes": ((1, 1, 40, 61, 129), (3, 1, 2, 4, 6), {"padding": (1, 2, 3), "padding_mode": "symmetric"}),
    "31^3": ((1, 1, 64, 65, 66), (1, 1, 31, 31, 31), {"padding": "same"}),
    "long lines": ((1, 1, 3, 5, 100_003), (1, 1, 3, 3, 3), {"padding": 1}),
    "one column": ((1, 1, 100_003, 3, 1), (1, 1, 3, 3, 1), {"padding": (1, 1, 0)}),
    "a bank": ((2, 1, 33, 34, 35), (32, 1, 3, 3, 3), {"padding": 1, "padding_mode": "circular"}),
    "32->32": ((1, 32, 30, 31, 33), (32, 32, 3, 3, 3), {"padding": 1}),
    "64->48": ((1, 64, 17, 18, 19), (48, 64, 3, 3, 3), {"padding": 1}),
    "1^3": ((1, 64, 17, 18, 19), (64, 64, 1, 1, 1), {}),
    "strides": ((2, 6, 31, 32, 33), (9, 2, 3, 2, 3), {"stride": (2, 1, 3), "dilation": (1, 4, 2), "groups": 3}),
    "depthwise": ((1, 32, 33, 34, 65), (64, 1, 3, 3, 3), {"padding": 1, "groups": 32}),
    "fill": ((1, 1, 20, 21, 22), (1, 1, 5, 5, 5), {"padding": 4, "padding_value": -1000}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("name", LARGE)
def test_agrees_with_the_cpu(name, dtype):
    input_shape, weight_shape, parameters = LARGE[name]
    if dtype != "float32" and parameters.get("padding_value"):
        return
    rng = np.random.default_rng(1)
    x, w, b = (values(rng, shape, dtype) for shape in (input_shape, weight_shape, weight_shape[:1]))
    got = on_gpu(x, w, b, **parameters)
    assert_matches(got, on_cpu(x, w, b, **parameters), near(x, w, b, **parameters))


def test_the_same_bits_every_time():
    rng = np.random.default_rng(2)
    for input_shape, weight_shape, parameters in LARGE.values():
        x, w = values(rng, input_shape, "float32"), values(rng, weight_shape, "float32")
        first = on_gpu(x, w, **parameters).tobytes()
        assert all(on_gpu(x, w, **parameters).tobytes() == first for _ in range(3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_spread_as_in_the_direct_sum(algorithm, bad):
    rng = np.random.default_rng(3)
    x, w = values(rng, (1, 1, 17, 18, 39), "float32"), np.ones((1, 1, 5, 5, 5), np.float32)
    if algorithm != "separable":
        w[0, 0, 0, 0, 0] = 0  # a zero tap times infinity is NaN
    x[0, 0, 3, 4, 5] = bad
    x[0, 0, 12, 13, 30] = -bad
    got = on_gpu(x, w, padding=2, algorithm=algorithm)
    with np.errstate(invalid="ignore"):
        expected = reference.conv3d(x, w, padding=(2, 2, 2)).astype(float)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
    np.testing.assert_array_equal(np.sign(got[np.isinf(got)]), np.sign(expected[np.isinf(expected)]))


@pytest.mark.parametrize("algorithm", ["auto", "direct", "gemm"])
def test_subnormal_numbers_are_kept(algorithm):
    x = np.float32(1e-41) * np.arange(1, 1 + 9 * 10 * 11, dtype=np.float32).reshape(1, 1, 9, 10, 11)
    w = np.zeros((1, 1, 3, 3, 3), np.float32)
    w[0, 0, 1, 1, 1] = 1
    assert (on_gpu(x, w, padding=1, algorithm=algorithm) == x).all()


def test_no_tensorfloat32_unless_asked_for():
    x = np.full((1, 64, 8, 8, 8), 1 + 2**-20, np.float32)
    w = np.full((64, 64, 3, 3, 3), 1 + 2**-20, np.float32)
    for algorithm in ("auto", "direct", "gemm"):
        got = on_gpu(x, w, algorithm=algorithm)
        exact = 64 * 27 * (1 + 2.0**-20) ** 2
        assert_matches(got, np.full(got.shape, exact), BOUND * float(np.finfo(np.float32).eps) * exact)


@pytest.mark.parametrize(
    ("algorithm", "channels", "kernel"),
    [(a, c, k) for a in ("direct", "gemm", "fft") for c, k in [(1, 9), (40, 3), (300, 1)]]
    + [("separable", 1, k) for k in (5, 9, 33)],
)
@pytest.mark.parametrize("kind", ["errors of one sign", "one voxel swallows the others"])
def test_error_bound_at_its_worst(algorithm, channels, kernel, kind):
    x = np.ones((1, channels, kernel, kernel, kernel), np.float32)
    w = np.ones((2, channels, kernel, kernel, kernel), np.float32)
    if kind == "errors of one sign":
        w *= np.float32(1 / 3)
    else:
        x[0, 0, 0, 0, 0] = 2**24
    exact = float((x.astype(float) * w[:1].astype(float)).sum())
    got = on_gpu(x, w, algorithm=algorithm)
    assert_matches(got, np.full(got.shape, exact), BOUND * float(np.finfo(np.float32).eps) * exact)
