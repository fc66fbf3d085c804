"""conv3d's values, each algorithm forced, against naive sums in higher precision."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import volconv
from cases import DTYPES, MODES, cases, few, values
from ends import FileSink, FileSource
from tolerances import BOUND, allowed, assert_matches
from volconv.dtypes import compute_dtype
from volconv.engines.cpu.gemm import panel_box
from volconv.engines.factors import find_factors
from volconv.errors import ParameterError
from volconv.params import Conv3dParams
from volconv.pipeline import run
from volconv.plan import make_plan
from volconv.shapes import full_output_shape
from volconv.tiling import work_items

ALGORITHMS = ("direct", "separable", "winograd", "fft", "gemm")


@pytest.fixture(autouse=True, scope="module")
def factors_of_small_kernels():
    """Kernels of a few taps count as products, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volconv.engines.factors.LEAST_TAPS", 1)
        yield


def no_factors(case, weight, dtype):
    """Whether weights are no products after all: complex ones, or values rounded too much."""
    params = Conv3dParams.parse(weight.shape, groups=case.groups)
    return find_factors(params, weight, compute_dtype(np.dtype(dtype))) is None


def tiny_blocks(x, w, b, algorithm, threads=2, block_box=None, item_bytes=1, copies=2, **parameters):
    """conv3d as between files, in the smallest work items that the algorithm allows; blocks of a third of each axis."""
    params = Conv3dParams.parse(w.shape, **parameters)
    compute = np.result_type(x, w)
    size = full_output_shape(x.shape, params)[2:]
    plan = make_plan(
        params,
        x.shape,
        compute,
        algorithm=algorithm,
        factors=find_factors(params, w, compute),
        threads=threads,
        block_box=block_box or tuple(-(-n // 3) for n in size),
        item_bytes=item_bytes,
    )
    out = np.full(plan.output_shape, 77, compute)
    run(replace(plan, copies=copies), FileSource(x), FileSink(out), w, b)
    return out, plan


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=100, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_agrees_with_naive_sums(algorithm, data, dtype):
    case = data.draw(cases(algorithm))
    if np.dtype(dtype).kind in "iu" and algorithm not in ("direct", "gemm"):
        return  # the others refuse integers: test_conv3d_errors
    x, w, b = case.arrays(dtype)
    if algorithm == "separable" and no_factors(case, w, x.dtype):
        return
    got = volconv.conv3d(x, w, b, algorithm=algorithm, threads=2, **case.parameters)
    assert got.dtype == (np.int64 if np.dtype(dtype).kind in "iu" else np.dtype(dtype))
    expected = reference.conv3d(x, w, b, **case.reference_parameters)
    assert_matches(got, expected, allowed(got.dtype, x, w, b, **case.reference_parameters))


@pytest.mark.parametrize("algorithm", few(ALGORITHMS, "direct", "fft"))
@settings(max_examples=50, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64", "complex64"]))
def test_seams_change_no_bit(algorithm, data, dtype):
    case = data.draw(cases(algorithm))
    x, w, b = case.arrays(dtype)
    if algorithm == "separable" and no_factors(case, w, x.dtype):
        return
    whole = volconv.conv3d(x, w, b, algorithm=algorithm, threads=1, **case.parameters)
    cut, _ = tiny_blocks(x, w, b, algorithm, **case.parameters)
    assert cut.tobytes() == whole.tobytes()


@pytest.mark.parametrize("algorithm", ["direct", "channels", "winograd", "gemm"])
@pytest.mark.parametrize("mode", few(MODES, "zeros", "reflect"))
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), ((2, 1, 3), (1, 2, 1), 2), (1, (2, 3, 1), 4)])
def test_at_least_three_blocks_and_items_an_axis(algorithm, mode, stride, dilation, groups, monkeypatch):
    if algorithm == "winograd" and stride != 1:
        return
    monkeypatch.setattr("volconv.tiling.VECTORS", 4)  # lines are cut as gladly as anything
    monkeypatch.setattr("volconv.tiling.CUT", 1.0)
    monkeypatch.setattr("volconv.engines.cpu.gemm.COLUMNS", 4)  # panels small enough for three an axis
    rng = np.random.default_rng(7)
    x, w, b = values(rng, (1, 4, 17, 18, 37), "float32"), values(rng, (8, 4 // groups, 3, 3, 3), "float32"), None
    parameters = {"stride": stride, "padding": 3, "dilation": dilation, "groups": groups, "padding_mode": mode}
    got, plan = tiny_blocks(x, w, b, algorithm, item_bytes=600, **parameters)
    assert all(len({block.start[axis] for block in plan.blocks}) >= 3 for axis in (2, 3, 4))
    assert all(-(-n // i) >= 3 for n, i in zip(plan.output_shape[3:], plan.item_box[1:], strict=True))
    whole = volconv.conv3d(x, w, b, algorithm=algorithm, threads=1, **parameters)
    assert got.tobytes() == whole.tobytes()
    triple = {
        key: (v, v, v) if isinstance(v, int) else v
        for key, v in parameters.items()
        if key in ("stride", "dilation", "padding")
    }
    expected = reference.conv3d(x, w, b, **triple, groups=groups, mode=mode)
    assert_matches(got, expected, allowed("float32", x, w, b, **triple, groups=groups, mode=mode))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("threads", few([1, 2, 3, 8], 3))
@pytest.mark.parametrize("item_bytes", few([1, 3000, 100_000, 1 << 30], 1, 1 << 30))
@pytest.mark.parametrize(
    ("block_box", "copies"),
    [((1, 99, 99), 2), ((5, 4, 7), 1), pytest.param((99, 99, 99), 1, marks=pytest.mark.slow)],
)
def test_bits_do_not_depend_on_threads_or_blocks(algorithm, threads, item_bytes, block_box, copies):
    rng = np.random.default_rng(3)
    weight_shape, stride = ((10, 3, 3, 3, 3), 1) if algorithm == "winograd" else ((10, 3, 3, 2, 3), (1, 2, 1))
    x, w, b = (values(rng, s, "float32") for s in [(2, 6, 14, 15, 33), weight_shape, (10,)])
    parameters = {"stride": stride, "padding": 1, "groups": 2, "padding_mode": "circular"}
    if algorithm == "separable":
        x, w = x[:, :2], np.ones_like(w[:, :1]) * w[:, :1, :1, :1, :1]
    once = volconv.conv3d(x, w, b, algorithm=algorithm, threads=1, **parameters)
    again, _ = tiny_blocks(x, w, b, algorithm, threads, block_box, item_bytes, copies, **parameters)
    assert again.tobytes() == once.tobytes()


def test_gemm_computes_whole_panels_counted_from_output_0(monkeypatch):
    # BLAS promises the same bits only for the same place in a panel of the same shape.
    monkeypatch.setattr("volconv.engines.cpu.gemm.COLUMNS", 16)
    rng = np.random.default_rng(5)
    x, w = values(rng, (1, 3, 12, 13, 40), "float32"), values(rng, (4, 3, 2, 3, 3), "float32")
    _, plan = tiny_blocks(x, w, None, "gemm")
    box = panel_box(plan.output_shape, plan.params)
    assert box[2] > 1
    for block in plan.blocks:
        for item in work_items(block, 1, plan.item_groups, plan.item_box):
            first = [b + i for b, i in zip(block.start[2:], item.start, strict=True)]
            assert [f % edge for f, edge in zip(first, box, strict=True)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("algorithm", "channels", "kernel"),
    [
        *itertools.product(["direct", "fft", "gemm"], [1, 5, 40, 300], [5]),
        *itertools.product(["winograd"], [1, 5, 40, 300], [3]),
        *itertools.product(["separable"], [1], [3, 5, 17, 33]),
    ],
)
@pytest.mark.parametrize("weight", [0.1, 1.2345, 1 / 3, 1.9999])
def test_error_bound_where_rounding_errors_add_up(algorithm, channels, kernel, weight):
    # The same product over and over: each addition errs to the same side.
    size = max(6, kernel + 1)
    x = np.full((1, channels, size, size, size), 1, np.float32)
    w = np.full((2, channels, kernel, kernel, kernel), weight, np.float32)
    got = volconv.conv3d(x, w, algorithm=algorithm)
    expected = channels * kernel**3 * np.float64(np.float32(weight))
    assert_matches(got, np.full(got.shape, expected), BOUND * np.finfo(np.float32).eps * expected)


@pytest.mark.parametrize(
    ("algorithm", "channels", "kernel"),
    [
        *[
            (a, c, k)
            for a in ("direct", "fft", "gemm")
            for c, k in [(63, 1), (96, 1), (1000, 1), (1, 4), (1, 9), (40, 3)]
        ],
        ("winograd", 1, 3),
        ("winograd", 40, 3),
        *[("separable", 1, k) for k in (4, 9, 17, 33)],
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_error_bound_where_one_voxel_swallows_the_others(algorithm, channels, kernel, place):
    # Each addition loses half of what the first product leaves room for: the worst that plain summation can do.
    x = np.ones((1, channels, kernel, kernel, kernel), np.float32)
    c, k = {"first": (0, 0), "middle": (channels // 2, kernel // 2), "last": (-1, -1)}[place]
    x[0, c, k, k, k] = 2**24
    w = np.ones((2, channels, kernel, kernel, kernel), np.float32)
    got = volconv.conv3d(x, w, algorithm=algorithm)
    expected = 2.0**24 + channels * kernel**3 - 1
    assert_matches(got, np.full(got.shape, expected), BOUND * np.finfo(np.float32).eps * expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_padding_value_fills_what_is_outside(algorithm):
    rng = np.random.default_rng(0)
    x, w = values(rng, (1, 2, 4, 5, 6), "float32"), values(rng, (3, 2, 3, 3, 3), "float32")
    if algorithm == "separable":
        x, w = x[:, :1], w[:, :1, :1, :1, :1] * np.ones((3, 1, 3, 3, 3), np.float32)
    got = volconv.conv3d(x, w, padding=2, padding_value=-1000, algorithm=algorithm)
    expected = reference.conv3d(x, w, padding=(2, 2, 2), value=-1000)
    assert_matches(got, expected, allowed("float32", x, w, padding=(2, 2, 2), value=-1000))


@pytest.mark.parametrize("value", [2 + 0j, np.complex64(2), np.float32(2), 2])
@pytest.mark.parametrize("dtype", ["float32", "int16", "complex64"])
def test_a_padding_value_may_be_any_number_that_is_real(value, dtype):
    x, w = np.ones((1, 1, 3, 3, 3), dtype), np.ones((1, 1, 3, 3, 3), dtype)
    got = volconv.conv3d(x, w, padding=1, padding_value=value)
    assert (got == reference.conv3d(x, w, padding=(1, 1, 1), value=2)).all()


def test_a_block_that_is_all_padding():
    x, w = np.ones((1, 1, 2, 2, 2), np.float32), np.ones((1, 1, 1, 1, 1), np.float32)
    got, _ = tiny_blocks(x, w, None, "direct", padding=5, padding_value=3)
    assert (got == reference.conv3d(x, w, padding=(5, 5, 5), value=3)).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 80])
def test_non_finite_values_spread_as_in_the_direct_sum(algorithm, bad, channels):
    rng = np.random.default_rng(1)
    if algorithm == "separable":
        channels = 1
    x, w = values(rng, (1, channels, 7, 8, 9), "float32"), values(rng, (5, channels, 3, 3, 2), "float32")
    w[0, :, 0, 0, 0] = 0  # a zero tap times infinity is NaN
    if algorithm == "separable":
        w = w[:, :, :, :1, :1] * w[:, :, :1, 1:2, :1] * w[:, :, :1, 1:2, :]
    x[0, 0, 3, 4, 5] = bad
    got = volconv.conv3d(x, w, padding=1, algorithm=algorithm)
    with np.errstate(invalid="ignore"):
        expected = reference.conv3d(x, w, padding=(1, 1, 1))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected.astype(float)))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected.astype(float)))
    assert (np.signbit(got) == np.signbit(expected.astype(float)))[np.isinf(got)].all()
    finite = np.isfinite(got)
    x[0, 0, 3, 4, 5] = 0
    assert_matches(
        got[finite], reference.conv3d(x, w, padding=(1, 1, 1))[finite], allowed("float32", x, w, padding=(1, 1, 1))
    )


def test_example_of_the_module_page():
    rng = np.random.default_rng(2)
    x, w, b = (values(rng, s, "float32") for s in [(2, 16, 10, 50, 100), (33, 16, 3, 5, 2), (33,)])
    parameters = {"stride": (2, 1, 1), "padding": (4, 2, 0)}
    results = {a: volconv.conv3d(x, w, b, algorithm=a, **parameters) for a in ("direct", "fft", "gemm")}
    assert results["direct"].shape == (2, 33, 8, 50, 99)
    crop = (slice(1, 2), slice(None), slice(2, 4), slice(20, 24), slice(30, 40))
    window = x[1:2, :, 0:5, 18:26, 30:41]  # what these outputs see
    expected = reference.conv3d(window, w, b, stride=(2, 1, 1))
    for result in results.values():
        assert_matches(result[crop], expected, allowed("float32", window, w, b, stride=(2, 1, 1)))


@pytest.mark.parametrize("algorithm", ["separable", "winograd", "fft"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bits_do_not_depend_on_blocks_where_values_are_not_finite(algorithm, bad):
    rng = np.random.default_rng(8)
    x, w = values(rng, (1, 1, 20, 21, 22), "float32"), np.ones((1, 1, 3, 3, 3), np.float32)
    x[0, 0, 3, 4, 5] = x[0, 0, 12, 20, 21] = bad
    x[0, 0, 15:, :9] = np.nan
    whole = volconv.conv3d(x, w, algorithm=algorithm, threads=1, padding=1)
    cut, _ = tiny_blocks(x, w, None, algorithm, padding=1)
    assert cut.tobytes() == whole.tobytes()


@pytest.mark.parametrize("algorithm", ["separable", "winograd", "fft"])
def test_values_that_overflow_in_a_transform_alone_are_summed_directly(algorithm):
    x, w = np.full((1, 1, 9, 9, 9), 3e38, np.float32), np.zeros((1, 1, 3, 3, 3), np.float32)
    w[0, 0, 1, 1, 1], x[0, 0, 4, 4, 4] = 1, -3e38
    got = volconv.conv3d(x, w, algorithm=algorithm, padding=1)
    np.testing.assert_allclose(got, x, rtol=1e-5)


def test_zero_taps_are_left_out_only_where_all_is_finite():
    rng = np.random.default_rng(9)
    x, w = values(rng, (1, 1, 9, 10, 11), "float32"), np.zeros((1, 1, 5, 5, 5), np.float32)
    w[0, 0, 2, 2, 2], w[0, 0, 0, 0, 0], w[0, 0, 4, 1, 3] = -6, 1, 2
    expected = reference.conv3d(x, w, padding=(2, 2, 2))
    assert_matches(
        volconv.conv3d(x, w, padding=2, algorithm="direct"), expected, allowed("float32", x, w, padding=(2,) * 3)
    )
    x[0, 0, 4, 5, 6] = np.inf
    got = volconv.conv3d(x, w, padding=2, algorithm="direct")
    with np.errstate(invalid="ignore"):
        expected = reference.conv3d(x, w, padding=(2, 2, 2)).astype(float)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert np.isnan(got).sum() > 100


@pytest.mark.parametrize("dtype", few(["complex64", "complex128"], "complex64"))
def test_complex_volumes_with_real_products(dtype):
    rng = np.random.default_rng(10)
    x, w = values(rng, (1, 1, 30, 31, 32), dtype), np.ones((1, 1, 9, 9, 9), np.float32)
    for algorithm in ("auto", "direct", "fft"):  # none of them by factors
        got = volconv.conv3d(x, w, algorithm=algorithm)
        assert got.dtype == dtype
        assert_matches(got, reference.conv3d(x, w), allowed(dtype, x, w))
    with pytest.raises(ParameterError, match="separable needs"):
        volconv.conv3d(x, w, algorithm="separable")
