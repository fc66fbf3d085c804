"""Results on their way into other dtypes: rounding, saturation, counts; against Python's own integers."""

from __future__ import annotations

import cmath
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import volconv
from command import make_nifti, noise, read
from command import volconv as command
from ends import FileSink, FileSource
from volconv.epilogue import ACTIVATIONS, Counts, Epilogue, check_output_dtype, count_non_finite, store
from volconv.errors import DtypeError, ParameterError
from volconv.io.volume import Scaling
from volconv.params import Conv3dParams
from volconv.pipeline import run
from volconv.plan import make_plan

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


# Activations and reductions.

TORCH_NAMES = (
    "relu",
    "leaky_relu",
    "elu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
    "abs",
    "square",
    "sqrt",
    "exp",
    "log",
)

FORMULAS = {
    "relu": lambda v: max(v, 0.0),
    "leaky_relu": lambda v: v if v >= 0 else 0.01 * v,
    "elu": lambda v: v if v >= 0 else math.expm1(v),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "silu": lambda v: v / (1 + math.exp(-v)),
    "softplus": lambda v: math.log1p(math.exp(v)),
    "tanh": math.tanh,
    "abs": abs,
    "square": lambda v: v * v,
    "sqrt": lambda v: math.sqrt(v) if v >= 0 else math.nan,
    "exp": math.exp,
    "log": lambda v: math.log(v) if v > 0 else -math.inf if v == 0 else math.nan,
}


@pytest.mark.parametrize("name", TORCH_NAMES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_activations_are_their_formulas(name, dtype):
    assert set(ACTIVATIONS) == set(TORCH_NAMES) == set(FORMULAS)
    values = np.concatenate([np.linspace(-9, 9, 145), [0.0]]).astype(dtype)
    with np.errstate(all="ignore"):
        got = Epilogue(name)(values.copy()[np.newaxis])[0]
    assert got.dtype == dtype
    expected = np.array([FORMULAS[name](float(v)) for v in values])
    assert np.allclose(got, expected, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps, equal_nan=True)


@pytest.mark.parametrize("name", TORCH_NAMES)
def test_activations_keep_nan_and_take_infinity(name):
    values = np.array([[math.nan, math.inf]], "f4")
    with np.errstate(all="ignore"):
        got = Epilogue(name)(values)[0]
    assert math.isnan(got[0])
    assert got[1] == (1 if name in ("sigmoid", "tanh") else math.inf)


@pytest.mark.parametrize("dtype", [*FLOATS, "complex64", "complex128"])
@pytest.mark.parametrize("reduce", ["norm", "sum", "max", "mean"])
def test_reductions_are_numpys(reduce, dtype):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 3, 4, 6)).astype(dtype)
    if values.dtype.kind == "c":
        values += 1j * rng.standard_normal(values.shape)
        if reduce == "max":
            return
    wide = values.astype(np.clongdouble if values.dtype.kind == "c" else np.longdouble)
    expected = {"norm": lambda v: np.sqrt((abs(v) ** 2).sum(0)), "sum": lambda v: v.sum(0),
                "max": lambda v: v.max(0), "mean": lambda v: v.mean(0)}[reduce](wide)  # fmt: skip
    epilogue = Epilogue(None, reduce)
    got = epilogue(values.copy())
    assert got.shape == (1, 3, 4, 6)
    assert got.dtype == epilogue.dtype(values.dtype)
    assert np.allclose(got[0], expected, rtol=16 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["tanh", "abs", "square", "sqrt", "exp", "log"])
def test_complex_activations(name):
    values = np.array([[1 + 2j, -3 + 0.5j, -1j]], "c16")
    got = Epilogue(name)(values.copy())[0]
    expected = [getattr(cmath, name)(v) if hasattr(cmath, name) else {"abs": abs, "square": lambda v: v * v}[name](v)
                for v in values[0].tolist()]  # fmt: skip
    assert np.allclose(got, expected, rtol=1e-14)
    assert got.dtype == Epilogue(name).dtype(values.dtype)


@pytest.mark.parametrize(
    ("epilogue", "dtype", "message"),
    [
        (Epilogue("gelu"), "f4", "activation must be one of relu, leaky_relu, elu,"),
        (Epilogue(None, "min"), "f4", "reduce must be one of norm, sum, max, mean (got 'min')"),
        (Epilogue("relu"), "c8", "activation must be one of tanh, abs, square, sqrt, exp, log where results are"),
        (Epilogue("exp", "max"), "c8", "reduce must be norm, sum or mean where results are complex (got 'max')"),
    ],
)  # fmt: skip
def test_what_there_is_not(epilogue, dtype, message):
    with pytest.raises((ParameterError, DtypeError)) as error:
        epilogue.check(np.dtype(dtype))
    assert message in error.value.message


def test_the_largest_magnitude():
    Epilogue("abs", "max").check(np.dtype("c8"))
    assert Epilogue("abs", "max")(np.array([[3 + 4j], [1j]], "c8")).tolist() == [[5]]


@pytest.mark.parametrize("activation", [None, *TORCH_NAMES])
@pytest.mark.parametrize("reduce", [None, "norm", "mean"])
def test_seams_change_no_bit(activation, reduce):
    """Of work items and blocks of any size, aligned in memory or not."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 9, 10, 37)).astype("f4"), rng.standard_normal((6, 1, 3, 3, 3)).astype("f4")
    params, epilogue = Conv3dParams.parse(w.shape, padding=1, groups=2), Epilogue(activation, reduce)
    results = []
    for cut in ({}, {"block_box": (3, 4, 11), "item_bytes": 1}):
        plan = make_plan(params, x.shape, x.dtype, algorithm="direct", epilogue=epilogue, threads=2, **cut)
        assert plan.output_shape == (1, 6 if reduce is None else 1, 9, 10, 37)
        results.append(np.empty(plan.output_shape, "f4"))
        run(plan, FileSource(x), FileSink(results[-1]), w, None)
    assert results[0].tobytes() == results[1].tobytes()
    with np.errstate(all="ignore"):
        assert np.allclose(results[0], epilogue(volconv.conv3d(x, w, padding=1, groups=2)[0])[np.newaxis],
                           rtol=1e-6, atol=1e-6, equal_nan=True)  # fmt: skip


def test_the_gradients_magnitude(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_nifti("in.nii", noise((9, 10, 11)))
    command("apply", "in.nii", "-k", "sobel", "--padding", 1, "-o", "three.nii")
    command("apply", "in.nii", "-k", "sobel", "--padding", 1, "--reduce", "norm", "-o", "one.nii", "--json")
    run_ = json.loads(capfd.readouterr().out)["runs"][0]
    assert (run_["activation"], run_["reduce"], run_["target"]["shape"]) == (None, "norm", [1, 1, 9, 10, 11])
    three, one = read("three.nii"), read("one.nii")
    assert np.allclose(one, np.sqrt((three**2).sum(1, keepdims=True)), rtol=1e-5)
    told = []
    volconv.apply("in.nii", "again.nii", "sobel", padding=1, reduce="norm", progress=lambda *done: told.append(done))
    assert told[-1] == (4 * 990, 4 * 990)
    command("apply", "in.nii", "-k", "sobel", "--reduce", "median", "-o", "no.nii", code=2)
    assert "reduce must be one of norm, sum, max, mean (got 'median')" in capfd.readouterr().err


def test_a_complex_volume_as_magnitudes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = (noise((9, 10, 11)) + 1j * noise((9, 10, 11), seed=1)).astype("c8")
    make_nifti("in.nii", x)
    command("apply", "in.nii", "-k", "box:size=3", "--padding", 1, "-o", "complex.nii")
    command("apply", "in.nii", "-k", "box:size=3", "--padding", 1, "--activation", "abs", "-o", "real.nii")
    assert read("real.nii").dtype == np.float32
    assert np.allclose(read("real.nii"), abs(read("complex.nii")), rtol=1e-6)
