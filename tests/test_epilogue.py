"""Results on their way into other dtypes: rounding, saturation, counts; against Python's own integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.epilogue import Counts, check_output_dtype, count_non_finite, store
from volconv.errors import DtypeError
from volconv.io.volume import Scaling

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float32", "float64")


def expected_integer(value, dtype):
    """What one value is stored as, and whether it is saturated or no number: exact, with Python's integers."""
    info = np.iinfo(dtype)
    if math.isnan(value):
        return 0, 0, 1
    if math.isinf(value):
        return int(info.max if value > 0 else info.min), 1, 0
    rounded = round(value)  # to nearest even, of any size
    clipped = min(max(rounded, int(info.min)), int(info.max))
    return clipped, int(clipped != rounded), 0


def check(values, dtype, scaling=None, real=None):
    expected = [expected_integer(float(v), dtype) for v in (values if real is None else real)]
    target = np.full(values.shape, 99, dtype)
    counts = store(values.copy(), target, scaling)
    assert target.tolist() == [e[0] for e in expected]
    assert counts == Counts(sum(e[1] for e in expected), sum(e[2] for e in expected))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("compute", FLOATS)
def test_the_neighbours_of_every_limit(dtype, compute):
    info, kind = np.iinfo(dtype), np.dtype(compute).type
    values = []
    for limit in (int(info.min), int(info.max), int(info.max) + 1, 0):
        near = kind(limit)
        values += [near, np.nextafter(near, kind(np.inf)), np.nextafter(near, kind(-np.inf))]
        values += [kind(limit + d) for d in (-2, -1.5, -1, -0.5, -0.25, 0.25, 0.5, 1, 1.5, 2)]
    values += [kind(v) for v in (np.nan, np.inf, -np.inf, 1e30, -1e30)]
    check(np.array(values, compute), dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("compute", FLOATS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_rounds_to_nearest_even_and_saturates(dtype, compute, data):
    info = np.iinfo(dtype)
    width = 32 if compute == "float32" else 64
    anything = st.floats(width=width)
    halves = st.integers(-600, 600).map(lambda n: n / 2)
    inside = st.integers(int(info.min), int(info.max)).map(lambda n: float(np.dtype(compute).type(n)))
    values = np.array(data.draw(st.lists(st.one_of(anything, halves, inside), min_size=1)), compute)
    check(values, dtype)


def test_halves_go_to_the_even_neighbour():
    target = np.empty(6, np.int8)
    assert store(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]), target) == Counts()
    assert target.tolist() == [-2, -2, 0, 0, 2, 2]


def test_a_half_past_the_limit_rounds_back_in_or_saturates():
    target = np.empty(4, np.uint8)
    assert store(np.array([255.4, 255.5, -0.5, -0.6]), target) == Counts(saturated=2)
    assert target.tolist() == [255, 255, 0, 0]


@pytest.mark.parametrize("target", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_floats_are_cast_as_numpy_casts(target, compute):
    values = np.array([0, -0.0, 1 / 3, -1e-30, 70000, np.nan, np.inf], compute)
    out = np.empty(values.shape, target)
    with np.errstate(over="ignore"):
        assert store(values.copy(), out) == Counts()
        assert out.tobytes() == values.astype(target).tobytes()


def test_complex_values_stay_complex():
    values = np.array([1 + 2j, -1j], np.complex128)
    out = np.empty(2, np.complex64)
    assert store(values.copy(), out) == Counts()
    assert out.tolist() == [1 + 2j, -1j]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=20),
    slope=st.sampled_from([1.0, 0.5, 2.0, -0.25, 0.1, 3.7]),
    intercept=st.sampled_from([0.0, -1024.0, 0.3, 1e4]),
)
def test_scaling_is_undone_before_rounding(dtype, values, slope, intercept):
    values = np.array(values)
    check(values, dtype, Scaling(slope, intercept), real=(values - intercept) / slope)


def test_scaling_of_floats():
    out = np.empty(2, np.float32)
    assert store(np.array([10.0, 12.0]), out, Scaling(4, 2)) == Counts()
    assert out.tolist() == [2, 2.5]


def test_stored_values_survive_a_round_trip_through_their_scaling():
    stored = np.arange(-3000, 3000, 7, dtype=np.int16)
    scaling = Scaling(0.0123, -77.7)
    again = np.empty_like(stored)
    assert store(stored * scaling.slope + scaling.intercept, again, scaling) == Counts()
    np.testing.assert_array_equal(again, stored)


def test_a_target_of_any_strides():
    room = np.full((6, 6), 77, np.uint8)
    assert store(np.array([[1.2, 300.0], [np.nan, -4.0]]), room[1::3, ::-4]) == Counts(saturated=2, not_a_number=1)
    assert room[1::3, ::-4].tolist() == [[1, 255], [0, 0]]
    assert (room == 77).sum() == 32


def test_no_values():
    assert store(np.empty((0, 3)), np.empty((0, 3), np.uint8)) == Counts()


def test_counts_add_up():
    assert sum([Counts(1, 2, 3), Counts(3, 4, 5)], Counts()) == Counts(4, 6, 8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_values_that_are_not_finite_are_counted(dtype):
    values = np.full((3, 4), np.finfo(dtype).max, dtype)  # their sum is infinite, they are not
    assert count_non_finite(values) == Counts()
    values[1, 2], values[0, 0], values[2, 3] = np.nan, np.inf, -np.inf
    assert count_non_finite(values) == Counts(non_finite=3)
    assert count_non_finite(values[:, ::-2]) == Counts(non_finite=1)
    assert count_non_finite(np.empty((0, 3), dtype)) == Counts()


def test_integers_are_finite():
    assert count_non_finite(np.ones((2, 2), np.int64)) == Counts()


@pytest.mark.parametrize("dtype", [*INTEGERS, "float16", *FLOATS])
def test_real_outputs_hold_real_results_only(dtype):
    check_output_dtype(np.dtype(dtype), np.dtype("float32"))
    with pytest.raises(DtypeError, match=rf"^output dtype must be complex, as the results are \(got {dtype}\)$"):
        check_output_dtype(np.dtype(dtype), np.dtype("complex64"))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_outputs_hold_everything(dtype):
    for compute in ("float32", "float64", "complex64", "complex128"):
        check_output_dtype(np.dtype(dtype), np.dtype(compute))


@pytest.mark.parametrize("dtype", ["bool", "U3", "object", "M8[s]", "V3"])
def test_outputs_that_are_no_numbers(dtype):
    with pytest.raises(DtypeError, match=r"^output dtype must be an integer, float or complex one \(got "):
        check_output_dtype(np.dtype(dtype), np.dtype("float32"))
