"""The fft algorithm: values, seams, errors that add up, memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import volconv
from cases import cases, few, values
from test_conv3d_values import tiny_blocks
from tolerances import BOUND, allowed, assert_matches
from volconv.engines import Problem
from volconv.engines.cpu import fft_tiles
from volconv.engines.cpu.fft import Axis, Fft, radices, spectra_bytes
from volconv.params import Conv3dParams

FLOATS = ("float16", "float32", "float64", "complex64", "complex128")


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


def assert_within_bound(x, w, **parameters):
    """Against the direct sum in float64: naive loops would take minutes."""
    got = volconv.conv3d(x, w, algorithm="fft", threads=2, **parameters)
    x, w = x.astype(np.float64), w.astype(np.float64)
    expected = volconv.conv3d(x, w, algorithm="direct", **parameters)
    largest = volconv.conv3d(abs(x), abs(w), algorithm="direct", **parameters).max()
    assert abs(got - expected).max() <= BOUND * np.finfo(got.dtype).eps * largest


@pytest.mark.parametrize(
    ("shape", "kernel", "parameters"),
    [
        ((1, 1, 40, 41, 42), (31, 31, 31), {"padding": "same"}),
        ((1, 1, 33, 34, 35), (32, 30, 12), {"padding": (16, 15, 6)}),
        ((1, 1, 20, 21, 130), (9, 9, 101), {"padding": (8, 8, 100)}),  # a kernel nearly as large as the volume
        ((2, 3, 1, 50, 60), (1, 31, 31), {"padding": "same"}),
        ((1, 2, 5, 6, 200), (1, 1, 101), {"padding": "same"}),
        ((1, 2, 150, 6, 5), (101, 1, 1), {"padding": "same"}),
        ((1, 1, 65, 20, 30), (7, 1, 1), {"padding": 0, "padding_mode": "zeros"}),
        ((1, 1, 70, 45, 46), (15, 15, 15), {"padding": 7, "padding_mode": "circular"}),
        ((1, 1, 64, 45, 46), (9, 9, 9), {"padding": 8, "stride": (3, 2, 4), "dilation": (2, 2, 1)}),
        ((1, 1, 31, 31, 31), (31, 31, 31), {}),  # one output
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_kernels(shape, kernel, parameters, dtype):
    rng = np.random.default_rng(11)
    x, w = values(rng, shape, dtype), values(rng, (2, shape[1], *kernel), dtype)
    assert_within_bound(x, w, **parameters)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(("channels", "size", "kernel"), few([(1, 64, 31), (1, 64, 11), (64, 20, 9)], (1, 64, 11)))
def test_error_bound_with_a_constant_beneath_noise(offset, channels, size, kernel):
    rng = np.random.default_rng(12)
    x = offset + values(rng, (1, channels, size, size, size), "float32")
    assert_within_bound(x, values(rng, (2, channels, kernel, kernel, kernel), "float32"), padding=kernel // 2)


@pytest.mark.parametrize("kind", ["random", "positive", "difference"])
def test_error_bound_with_one_bright_voxel(kind):
    rng = np.random.default_rng(13)
    x, w = values(rng, (1, 1, 48, 48, 48), "float32"), values(rng, (1, 1, 11, 11, 11), "float32")
    x[0, 0, 20, 30, 5] = 1e6
    w = {"random": w, "positive": abs(w), "difference": w - w.mean()}[kind]
    assert_within_bound(x, w, padding=5)


def test_voxels_between_taps_leave_no_trace():
    # What no output sees may be as large as it likes.
    x, w = np.ones((1, 1, 9, 9, 9), np.float32), np.ones((1, 1, 2, 2, 2), np.float32)
    x[..., 2::3] = x[..., 2::3, :] = x[:, :, 2::3] = 1e30
    np.testing.assert_allclose(volconv.conv3d(x, w, stride=3, algorithm="fft"), 8, rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "output", "parameters"),
    [
        ((1, 1, 31, 31, 31), (1, 1, 256, 256, 256), {}),
        ((64, 64, 9, 9, 9), (1, 64, 64, 64, 64), {}),
        ((64, 64, 31, 31, 31), (1, 64, 512, 512, 512), {}),
        ((1, 1, 65, 65, 65), (1, 1, 2048, 2048, 2048), {}),
        ((32, 1, 15, 15, 15), (1, 32, 256, 256, 256), {"groups": 32}),
        ((1, 1, 1, 1, 101), (1, 1, 1024, 1024, 1024), {}),
    ],
)
def test_tiles_hold_their_size(weight, output, parameters):
    params = Conv3dParams.parse(weight, padding="same", **parameters)
    tiles = fft_tiles.choose_tiles(Problem(params, output, np.dtype(np.float32)))
    assert all(n >= e for n, e in zip(tiles.size, params.effective_kernel))
    channels = max(params.in_channels, params.out_channels) // params.groups
    held = 4 * channels * np.prod([-(-n // 16) * 16 for n in tiles.size])
    assert held <= 256 << 20
    # A slab of tiles across the volume is what an I/O block holds at least.
    assert min(tiles.box[0], output[2]) * output[3] * output[4] <= 512 << 20


def test_spectra_that_are_kept_are_not_much_more_than_the_weights():
    params = Conv3dParams.parse((16, 16, 9, 9, 9), padding="same")
    problem = Problem(params, (1, 16, 64, 64, 64), np.dtype(np.float32))
    weight = np.ones(params.weight_shape, np.float32)
    depth = fft_tiles.choose_tiles(problem).size[0]
    # Along D they are as long as the transform, along W whole vectors.
    assert spectra_bytes(problem) <= weight.nbytes * (depth / 9) * (16 / 9) * 1.1 + 4096


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 12, 14, 16, 30, 49, 64, 70, 120, 128, 144, 210, 343])
def test_passes_make_up_the_transform(size):
    assert np.prod(radices(size), dtype=int) == size
    axis = Axis(size, np.dtype(np.float32))
    assert len(axis.passes) == len(radices(size))
