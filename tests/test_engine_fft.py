"""The fft algorithm: values, seams, errors that add up, memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import volconv
from cases import cases, values
from test_conv3d_values import tiny_blocks
from tolerances import allowed, assert_matches
from volconv.engines.cpu import fft_tiles
from volconv.engines.cpu.fft import Fft

FLOATS = ("float16", "float32", "float64", "complex64", "complex128")


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(volconv.engines.cpu.plan._ENGINES, "fft", Fft())


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that every axis has several."""

    def choose(problem):
        params, lanes = problem.params, fft_tiles.LINE // problem.dtype.itemsize
        box = tuple(-(-n // 3) for n in problem.output_shape[2:])
        seen = [(b - 1) * s + e for b, s, e in zip(box, params.stride, params.effective_kernel)]
        return fft_tiles.Tiles(box, tuple(map(fft_tiles.good_size, seen, (2, lanes, 2))), 1.0)

    monkeypatch.setattr("volconv.engines.cpu.fft.choose_tiles", choose)


@settings(max_examples=150, deadline=None)
@given(case=cases(), dtype=st.sampled_from(FLOATS))
def test_agrees_with_naive_sums(case, dtype):
    x, w, b = case.arrays(dtype)
    got = volconv.conv3d(x, w, b, algorithm="fft", threads=2, **case.parameters)
    assert got.dtype == np.dtype(dtype)
    expected = reference.conv3d(x, w, b, **case.reference_parameters)
    assert_matches(got, expected, allowed(got.dtype, x, w, b, **case.reference_parameters))


@settings(max_examples=100, deadline=None)
@given(case=cases(), dtype=st.sampled_from(["float32", "float64", "complex64"]))
def test_seams_change_no_bit(case, dtype):
    x, w, b = case.arrays(dtype)
    whole = volconv.conv3d(x, w, b, algorithm="fft", threads=1, **case.parameters)
    cut, _ = tiny_blocks(x, w, b, "fft", **case.parameters)
    assert cut.tobytes() == whole.tobytes()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), ((2, 1, 3), (1, 2, 1), 2), (1, (2, 3, 1), 4)])
@pytest.mark.usefixtures("small_tiles")
def test_at_least_three_tiles_an_axis(mode, stride, dilation, groups):
    rng = np.random.default_rng(7)
    x, w = values(rng, (1, 4, 17, 18, 37), "float32"), values(rng, (8, 4 // groups, 3, 2, 3), "float32")
    parameters = {"stride": stride, "padding": 3, "dilation": dilation, "groups": groups, "padding_mode": mode}
    got, plan = tiny_blocks(x, w, None, "fft", **parameters)
    assert all(-(-n // box) >= 3 for n, box in zip(plan.output_shape[2:], Fft().needs(plan.problem).grid))
    assert len(plan.blocks) >= 3
    whole = volconv.conv3d(x, w, algorithm="fft", threads=1, **parameters)
    assert got.tobytes() == whole.tobytes()
    triple = {
        key: (v, v, v) if isinstance(v, int) else v
        for key, v in parameters.items()
        if key in ("stride", "dilation", "padding")
    }
    expected = reference.conv3d(x, w, **triple, groups=groups, mode=mode)
    assert_matches(got, expected, allowed("float32", x, w, **triple, groups=groups, mode=mode))


def test_a_kernel_of_one_tap_along_a_long_axis():
    rng = np.random.default_rng(3)
    x, w = (
        rng.standard_normal((1, 1, 189, 30, 40), dtype=np.float32),
        rng.standard_normal((1, 1, 1, 7, 7), dtype=np.float32),
    )
    got = volconv.conv3d(x, w, padding="same", algorithm="fft")
    expected = volconv.conv3d(x, w, padding="same", algorithm="direct")
    np.testing.assert_allclose(got, expected, atol=1e-4)
