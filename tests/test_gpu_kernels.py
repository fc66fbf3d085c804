"""The kernels of a GPU, compiled for the host: every one against naive sums, in any order of threads."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from gpu_host import build
from gpu_host.device import HostDevice
from tolerances import BOUND, allowed, assert_matches
from volconv.engines.gpu import kernels
from volconv.engines.gpu.source import Source

pytestmark = pytest.mark.skipif(bool(build.missing()), reason=build.missing())

STORED = {
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
}

MODES = ["zeros", "reflect", "replicate", "circular", "symmetric"]

#: Kernels and strides that are tried, by test; the functions for them are compiled together.
SMALL = [
    ("int16", (3, 3, 3)),
    ("float32", (3, 3, 3)),
    ("float32", (1, 2, 7)),
    ("float32", (5, 5, 5)),
    ("float64", (2, 1, 4)),
]
ALONG = [("int16", 2, 3, 1), ("int16", 1, 4, 2), ("float32", 0, 13, 1), ("float32", 2, 31, 2), ("float64", 1, 5, 1)]
CHANNELS = [
    # dtype, groups, C_in, C_out, kernel, stride, dilation along D
    ("float32", 1, 3, 9, (3, 3, 3), (1, 1, 1), 1),
    ("int16", 2, 4, 10, (2, 2, 5), (2, 1, 2), 2),
    ("float32", 1, 2, 25, (1, 3, 3), (1, 2, 2), 1),
    ("float32", 1, 2, 1, (2, 7, 5), (1, 1, 1), 1),
    ("float64", 1, 2, 3, (2, 1, 3), (3, 1, 1), 1),
]
DEEP = {9: "8, 2", 5: "8, 1", 25: "8, 4", 1: "4, 1", 3: "4, 1"}


def numbers(dtype):
    """C++ types of voxels of a dtype and of what they are computed in."""
    return f"{STORED[dtype]}, {'double' if dtype == 'float64' else 'float'}"


EXPRESSIONS = (
    (
        *(f"gather<{stored}, float>" for stored in STORED.values()),
        "gather<double, double>",
        *(f"small<{numbers(dtype)}, {kd}, {kh}, {kw}>" for dtype, (kd, kh, kw) in SMALL),
        *(
            "generic<unsigned char, float, 1>",
            "columns<unsigned char, float, float>",
            "small<unsigned char, float, 1, 1, 1>",
        ),
        *("along_voxels<unsigned char, float, 1, 1>", "along_lines<unsigned char, float, 0, 1, 1>"),
        *("along_lines<unsigned char, float, 1, 1, 1>", "channels<unsigned char, float, 1, 1, 1, 1, 4, 1>"),
        *("columns<short, float, float>", "columns<double, double, double>", "columns<float, float, Half>"),
    ),
    (
        *("generic<short, float, 4>", "generic<short, float, 1>", "generic<float, float, 1>"),
        *("generic<double, double, 4>", "products<float>", "products<double>"),
        *(
            f"along_voxels<{numbers(dtype)}, {taps}, {stride}>"
            if axis == 2
            else f"along_lines<{numbers(dtype)}, {axis}, {taps}, {stride}>"
            for dtype, axis, taps, stride in ALONG
        ),
        *(
            f"channels<{numbers(dtype)}, {kh}, {kw}, {sh}, {sw}, {DEEP[c_out // groups]}>"
            for dtype, groups, _, c_out, (_, kh, kw), (_, sh, sw), _ in CHANNELS
        ),
    ),
)

FORWARD, BACKWARD, PERMUTED = range(3)


@functools.cache
def device(order=FORWARD):
    return HostDevice(EXPRESSIONS, order)


def table(size, low, high, mode):
    """For each index of a padded axis that of a voxel, -1 for none."""
    found = [reference.source_index(i - low, size, mode) for i in range(low + size + high)]
    return np.array([-1 if i is None else i for i in found], np.int32)


def padded(values, padding=(0, 0, 0), mode="zeros", fill=0, scaling=None):
    """A source of a whole volume with its padding."""
    sides = [(p, p) if np.ndim(p) == 0 else p for p in padding]
    tables = tuple(table(size, *side, mode) for size, side in zip(values.shape[1:], sides))
    return Source(values, tables, fill, scaling)


def voxels(rng, dtype, shape):
    """Values of any dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    values = rng.standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def dense(source, dtype):
    """The padded block of a source by NumPy: (C, d, h, w) of real numbers."""
    values = source.values
    if values.dtype.kind == "c":
        parts = np.stack([values.real, values.imag], axis=1).reshape(-1, *values.shape[1:])
        fills, intercepts = [source.fill.real, source.fill.imag], [1, 0]
    else:
        parts, fills, intercepts = values, [complex(source.fill).real], [1]
    found = parts.astype(dtype)
    if source.scaling is not None:
        slope, intercept = (np.dtype(dtype).type(each) for each in source.scaling)
        found *= slope
        found += intercept * np.resize(intercepts, len(found)).astype(dtype)[:, None, None, None]
    where = np.ix_(*source.tables)
    block = found[:, where[0], where[1], where[2]]
    outside = (where[0] < 0) | (where[1] < 0) | (where[2] < 0)
    for channel, each in enumerate(block):
        each[outside] = fills[channel % len(fills)]
    return block


def run(launch, shape, dtype, *args, order=FORWARD, **parameters):
    """Outputs of a kernel into an array of NaN."""
    out = np.full(shape, np.nan, dtype)
    where = device(order)
    launch(where, where.stream(), *args, out, **parameters)
    return out


class TestGather:
    @pytest.mark.parametrize("dtype", STORED)
    def test_it_casts_as_numpy_does(self, dtype):
        rng = np.random.default_rng(1)
        source = padded(voxels(rng, dtype, (2, 3, 4, 5)), (1, 2, 3), "reflect")
        expected = dense(source, np.float32)
        np.testing.assert_array_equal(run(kernels.gather, expected.shape, np.float32, source), expected)

    def test_half_precision_has_every_value(self):
        values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 16, 64, 64)
        got = run(kernels.gather, values.shape, np.float32, Source(values))
        np.testing.assert_array_equal(got, values.astype(np.float32))

    @pytest.mark.parametrize("mode", MODES)
    def test_padding(self, mode):
        source = padded(np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5), (2, 3, 3), mode, fill=7.5)
        expected = dense(source, np.float32)
        got = run(kernels.gather, expected.shape, np.float32, source)
        np.testing.assert_array_equal(got, expected)

    def test_scaling_leaves_the_fill_as_it_is(self):
        source = padded(np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5), (1, 1, 1), "zeros", -3.25, (0.1, 2.7))
        expected = dense(source, np.float32)
        np.testing.assert_array_equal(run(kernels.gather, expected.shape, np.float32, source), expected)

    @pytest.mark.parametrize(("dtype", "number"), [("complex64", "float32"), ("complex128", "float64")])
    def test_complex_voxels_are_two_channels(self, dtype, number):
        values = voxels(np.random.default_rng(2), dtype, (2, 3, 4, 5))
        source = padded(values, (1, 1, 1), "zeros", 2 - 3j, (1.5, 4.0))
        assert source.channels == 4
        expected = dense(source, number)
        np.testing.assert_array_equal(run(kernels.gather, expected.shape, number, source), expected)

    def test_any_strides(self):
        values = np.arange(2 * 6 * 8 * 10, dtype=np.float32).reshape(10, 8, 6, 2).T[:, ::2, :, ::3]
        source = padded(values, (1, 0, 1), "replicate")
        expected = dense(source, np.float32)
        np.testing.assert_array_equal(run(kernels.gather, expected.shape, np.float32, source), expected)

    @pytest.mark.parametrize("order", [FORWARD, BACKWARD, PERMUTED])
    def test_tiles_overlap_and_end_in_zeros(self, order):
        source = padded(np.arange(1, 2 * 5 * 6 * 7 + 1, dtype=np.int16).reshape(2, 5, 6, 7), (1, 1, 1), "circular")
        block = dense(source, np.float32)
        behind = np.pad(block, ((0, 0), (0, 8), (0, 8), (0, 8)))
        step, tile = (3, 4, 5), (4, 6, 7)
        got = run(kernels.gather, (3, 2, 2, 2, *tile), np.float32, source, order=order, step=step)
        for index in np.ndindex(3, 2, 2):
            box = [slice(i * s, i * s + t) for i, s, t in zip(index, step, tile)]
            np.testing.assert_array_equal(got[index], behind[(slice(None), *box)])


class TestFarVoxels:
    """Places beyond 2**31 items: three planes of 2**30 voxels, of which the system gives only what is touched."""

    PLANE = 1 << 15

    def source(self):
        values = np.zeros((1, 3, self.PLANE, self.PLANE), np.uint8)
        values[0, 2, -2:, -3:] = np.arange(6).reshape(2, 3)
        tables = ([2], [self.PLANE - 2, self.PLANE - 1], [self.PLANE - 3, self.PLANE - 2, self.PLANE - 1])
        return Source(values, tuple(np.array(table, np.int32) for table in tables))

    def test_all_kernels_reach_them(self):
        source, one = self.source(), np.ones((1, 1, 1, 1, 1), np.float32)
        expected = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
        for got in (
            run(kernels.gather, expected.shape, np.float32, source),
            run(kernels.generic, expected.shape, np.float32, source, one, None),
            run(kernels.columns, (1, 6), np.float32, source, (1, 1, 1), size=(1, 2, 3)).reshape(expected.shape),
            run(kernels.small, expected.shape, np.float32, source, one, None),
            *(run(kernels.along, expected.shape, np.float32, source, axis, one[0, 0, 0, 0]) for axis in range(3)),
            run(
                kernels.channels,
                expected.shape,
                np.float32,
                source,
                kernels.pack_channels(one, 1),
                None,
                kernel=(1,) * 3,
            ),
        ):
            np.testing.assert_array_equal(got, expected)

    def test_lines_may_go_from_plane_to_plane(self):
        across = self.source()
        source = Source(across.values.transpose(0, 3, 2, 1), across.tables[::-1])
        assert not source.flat  # so not for small and channels
        one = np.ones((1, 1, 1, 1, 1), np.float32)
        expected = np.arange(6, dtype=np.float32).reshape(2, 3).T.reshape(1, 3, 2, 1)
        for got in (
            run(kernels.gather, expected.shape, np.float32, source),
            run(kernels.generic, expected.shape, np.float32, source, one, None),
            run(kernels.columns, (1, 6), np.float32, source, (1, 1, 1), size=(3, 2, 1)).reshape(expected.shape),
            *(run(kernels.along, expected.shape, np.float32, source, axis, one[0, 0, 0, 0]) for axis in range(3)),
        ):
            np.testing.assert_array_equal(got, expected)

    def test_a_plane_may_be_too_large_for_some(self):
        values = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 1, 2, 1 << 16), (0, 0, 1 << 31, 1))
        assert self.source().flat
        assert not Source(values).flat


class TestGeneric:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        ("kernel", "stride", "dilation", "groups"),
        [
            ((1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
            ((2, 3, 4), (2, 1, 3), (1, 2, 1), 2),
            ((3, 1, 2), (1, 3, 2), (2, 1, 2), 4),
            ((1, 1, 5), (3, 1, 1), (1, 3, 1), 1),
        ],
    )
    def test_any_parameters(self, mode, kernel, stride, dilation, groups):
        rng = np.random.default_rng(3)
        parameters = {"stride": stride, "dilation": dilation, "groups": groups}
        x = voxels(rng, "int16", (4, 6, 7, 37))
        w = voxels(rng, "float32", (12, 4 // groups, *kernel))
        b = voxels(rng, "float32", 12)
        more = {"padding": (2, 2, 3), "mode": mode, "value": 100.0, **parameters}
        expected = reference.conv3d(x.astype(np.float32)[None], w, b, **more)[0]
        source = padded(x, (2, 2, 3), mode, 100.0)
        got = run(kernels.generic, expected.shape, np.float32, source, w, b, **parameters)
        assert_matches(got, expected, allowed(np.float32, x.astype(np.float32)[None], w, b, **more))

    def test_long_sums_are_compensated(self):
        rng = np.random.default_rng(4)
        x, w = rng.random((3, 9, 9, 40)).astype(np.float32), rng.random((1, 3, 9, 9, 9)).astype(np.float32)
        expected = reference.conv3d(x[None], w)[0]
        got = run(kernels.generic, expected.shape, np.float32, Source(x), w, None)
        # One rounding a chain's tap at most, and few more.
        assert_matches(got, expected, allowed(np.float32, x[None], w))
        assert abs(got - expected).max() < 3 * np.finfo(np.float32).eps * expected.max()

    def test_double_precision(self):
        rng = np.random.default_rng(5)
        x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((3, 2, 2, 3, 3))
        expected = reference.conv3d(x[None], w)[0]
        got = run(kernels.generic, expected.shape, np.float64, Source(x), w, None)
        assert_matches(got, expected, allowed(np.float64, x[None], w))


def compute(dtype):
    """What voxels are computed in."""
    return np.float64 if np.dtype(dtype) in (np.float64, np.complex128) else np.float32


def size_of(source, kernel, stride=(1, 1, 1), dilation=(1, 1, 1)):
    """Outputs along D, H, W."""
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(source.size, kernel, stride, dilation))


def check(got, source, w, b=None, **parameters):
    """Compare with naive sums over what a source stands for."""
    block = dense(source, got.dtype)[None]
    expected = reference.conv3d(block, w, b, **parameters)[0]
    assert_matches(got, expected, allowed(got.dtype, block, w, b, **parameters))


def same_in_any_order(launch, shape, *args, **parameters):
    """Outputs, whose bits must not depend on which thread is first."""
    got, *others = (run(launch, shape, *args, order=order, **parameters) for order in (FORWARD, BACKWARD, PERMUTED))
    for other in others:
        np.testing.assert_array_equal(other, got)
    return got


class TestSmall:
    @pytest.mark.parametrize("width", [64, 37])  # lines that begin at multiples of 16 bytes, and others
    @pytest.mark.parametrize(("dtype", "kernel"), SMALL)
    def test_values(self, dtype, kernel, width):
        rng = np.random.default_rng(6)
        # Two tiles along H and W, two blocks along D.
        x = voxels(rng, dtype, (2, 18, 15, width + kernel[2] - 3))
        source = padded(x, [(1, 1), (2, 2), (1, 1)], "reflect", scaling=(0.5, 3.0) if dtype == "int16" else None)
        w, b = voxels(rng, compute(dtype), (4, 1, *kernel)), voxels(rng, compute(dtype), 4)
        shape = (4, *size_of(source, kernel))
        got = same_in_any_order(kernels.small, shape, compute(dtype), source, w, b)
        check(got, source, w, b, groups=2)

    @pytest.mark.parametrize("mode", MODES)
    def test_padding(self, mode):
        rng = np.random.default_rng(7)
        source = padded(voxels(rng, "int16", (1, 5, 6, 7)), (2, 3, 4), mode, fill=-1000.0)
        w = voxels(rng, "float32", (1, 1, 3, 3, 3))
        got = run(kernels.small, (1, *size_of(source, (3, 3, 3))), np.float32, source, w, None)
        check(got, source, w)

    def test_bits_do_not_depend_on_where_a_block_begins(self):
        rng = np.random.default_rng(8)
        x, w = voxels(rng, "float32", (1, 30, 24, 80)), voxels(rng, "float32", (1, 1, 5, 5, 5))
        whole = run(kernels.small, (1, 26, 20, 76), np.float32, Source(x), w, None)
        part = run(kernels.small, (1, 9, 3, 70), np.float32, Source(x[:, 7:20, 11:18, 3:77]), w, None)
        np.testing.assert_array_equal(part, whole[:, 7:16, 11:14, 3:73])

    def test_non_finite_values_spread_through_zero_taps(self):
        x = np.zeros((1, 12, 12, 12), np.float32)
        x[0, 5, 5, 5], x[0, 8, 8, 8] = np.nan, np.inf
        w = np.zeros((1, 1, 5, 5, 5), np.float32)
        got = run(kernels.small, (1, 8, 8, 8), np.float32, Source(x), w, None)
        expected = np.zeros((8, 8, 8), bool)
        expected[1:6, 1:6, 1:6] = expected[4:8, 4:8, 4:8] = True  # zero times infinity is no number
        np.testing.assert_array_equal(np.isnan(got[0]), expected)

    def test_complex_voxels_are_two_channels(self):
        rng = np.random.default_rng(9)
        source = padded(voxels(rng, "complex64", (2, 5, 6, 7)), (1, 1, 1), "zeros", 2 - 3j)
        w = voxels(rng, "float32", (4, 1, 3, 3, 3))
        got = run(kernels.small, (4, 5, 6, 7), np.float32, source, w, None)
        check(got, source, w, groups=4)


class TestAlong:
    @pytest.mark.parametrize(("dtype", "axis", "taps", "stride"), ALONG)
    def test_values(self, dtype, axis, taps, stride):
        rng = np.random.default_rng(10)
        outputs = [3, 4, 35]
        outputs[axis] = 140 if axis == 2 else 70
        size = list(outputs)
        size[axis] = (outputs[axis] - 1) * stride + taps
        sides = [(2, 3) if a == axis else (0, 0) for a in range(3)]
        x = voxels(rng, dtype, (2, *(n - low - high for n, (low, high) in zip(size, sides))))
        source = padded(x, sides, "zeros", fill=5.0)
        w, b = voxels(rng, compute(dtype), taps), voxels(rng, compute(dtype), 2)
        got = same_in_any_order(kernels.along, (2, *outputs), compute(dtype), source, axis, w, bias=b, stride=stride)
        full = w.reshape([taps if a == axis else 1 for a in range(3)])
        strides = [stride if a == axis else 1 for a in range(3)]
        check(got, source, np.broadcast_to(full, (2, 1, *full.shape)), b, stride=strides, groups=2)

    @pytest.mark.parametrize(("axis", "taps"), [(2, 3), (0, 13)])
    def test_terms_are_added(self, axis, taps):
        rng = np.random.default_rng(11)
        dtype = "int16" if axis == 2 else "float32"
        source = padded(voxels(rng, dtype, (1, 20, 6, 40)))
        w = voxels(rng, "float32", taps)
        shape = (1, *size_of(source, [taps if a == axis else 1 for a in range(3)]))
        before, bias = voxels(rng, "float32", shape), voxels(rng, "float32", 1)
        once = run(kernels.along, shape, np.float32, source, axis, w)
        twice = before.copy()
        where = device()
        kernels.along(where, where.stream(), source, axis, w, twice, accumulate=True, bias=bias)
        np.testing.assert_array_equal(twice, before + once + bias)

    @pytest.mark.parametrize(("axis", "taps"), [(2, 3), (0, 13)])
    def test_padding_along_other_axes_and_scaling(self, axis, taps):
        rng = np.random.default_rng(12)
        dtype = "int16" if axis == 2 else "float32"
        source = padded(voxels(rng, dtype, (2, 14, 6, 33)), (3, 1, 2), "zeros", 2.5, (0.25, -1.0))
        w = voxels(rng, "float32", taps)
        kernel = [taps if a == axis else 1 for a in range(3)]
        got = same_in_any_order(kernels.along, (2, *size_of(source, kernel)), np.float32, source, axis, w)
        check(got, source, np.broadcast_to(w.reshape(kernel), (2, 1, *kernel)), groups=2)

    def test_non_finite_values_spread_where_sums_are_compensated(self):
        x = np.ones((1, 1, 1, 400), np.float32)
        x[..., 100], x[..., 300] = np.inf, np.nan
        got = run(kernels.along, (1, 1, 1, 185), np.float32, Source(x), 2, np.ones(31, np.float32), stride=2)
        window = [x[0, 0, 0, 2 * o : 2 * o + 31].sum() for o in range(185)]
        np.testing.assert_array_equal(got[0, 0, 0], window)


class TestChannels:
    @pytest.mark.parametrize("width", [8, 67])
    @pytest.mark.parametrize(("dtype", "groups", "c_in", "c_out", "kernel", "stride", "dilation"), CHANNELS)
    def test_values(self, dtype, groups, c_in, c_out, kernel, stride, dilation, width):
        rng = np.random.default_rng(13)
        outputs = (2, 17, width)
        size = [(o - 1) * s + e * (k - 1) + 1 for o, s, e, k in zip(outputs, stride, (dilation, 1, 1), kernel)]
        source = padded(voxels(rng, dtype, (c_in, size[0], size[1] - 2, size[2] - 2)), (0, 1, 1), "replicate")
        w = voxels(rng, compute(dtype), (c_out, c_in // groups, *kernel))
        b = voxels(rng, compute(dtype), c_out)
        got = same_in_any_order(
            kernels.channels,
            (c_out, *outputs),
            compute(dtype),
            source,
            kernels.pack_channels(w, groups),
            b,
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            groups=groups,
        )
        check(got, source, w, b, groups=groups, stride=stride, dilation=(dilation, 1, 1))

    def test_non_finite_values_spread_through_zero_taps(self):
        x = np.zeros((3, 4, 6, 9), np.float32)
        x[1, 2, 3, 4] = np.inf
        w = np.zeros((9, 3, 3, 3, 3), np.float32)
        packed = kernels.pack_channels(w, 1)
        got = run(kernels.channels, (9, 2, 4, 7), np.float32, padded(x), packed, None, kernel=(3, 3, 3))
        expected = np.zeros((2, 4, 7), bool)
        expected[0:2, 1:4, 2:5] = True
        for each in got:
            np.testing.assert_array_equal(np.isnan(each), expected)

    def test_many_channels_are_compensated(self):
        rng = np.random.default_rng(15)
        x, w = rng.random((90, 3, 3, 8)).astype(np.float32), rng.random((9, 90, 3, 3, 3)).astype(np.float32)
        expected = reference.conv3d(x[None], w)[0]
        packed = kernels.pack_channels(w, 1)
        got = run(kernels.channels, (9, 1, 1, 6), np.float32, padded(x), packed, None, kernel=(3, 3, 3))
        assert abs(got - expected).max() < 3 * np.finfo(np.float32).eps * expected.max()


class TestColumns:
    @pytest.mark.parametrize("dtype", ["int16", "float64"])
    def test_weights_times_columns_are_outputs(self, dtype):
        rng = np.random.default_rng(14)
        kernel, stride, dilation = (2, 3, 4), (1, 2, 3), (3, 2, 1)
        source = padded(voxels(rng, dtype, (3, 6, 8, 19)), (2, 2, 2), "circular")
        size = size_of(source, kernel, stride, dilation)
        count, begin = 47, 11
        got = same_in_any_order(
            kernels.columns,
            (2 * 24, count),
            compute(dtype),
            *(source, kernel),
            size=size,
            first=1,
            begin=begin,
            stride=stride,
            dilation=dilation,
        )
        block = dense(source, compute(dtype))
        for row, (c, *tap) in enumerate(np.ndindex(2, *kernel)):
            seen = block[
                (1 + c, *(slice(t * e, t * e + (n - 1) * s + 1, s) for t, e, n, s in zip(tap, dilation, size, stride)))
            ]
            np.testing.assert_array_equal(got[row], seen.reshape(-1)[begin : begin + count])

    def test_half_precision_is_rounded_as_by_numpy(self):
        below = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
        below = np.sort(below[np.isfinite(below)])
        middle = (below[:-1] + below[1:]) / 2  # the tie, and what lies beside it
        beside = np.nextafter(middle, np.float32(1e9)), np.nextafter(middle, np.float32(-1e9))
        others = np.float32([65519.99, 65520, 1e9, 1e-9, -1e-9, np.inf, -np.inf, np.nan])
        values = np.concatenate([below, middle, *beside, others])
        source = Source(values.reshape(1, 1, 1, -1))
        got = run(kernels.columns, (1, len(values)), np.float16, source, (1, 1, 1), size=(1, 1, len(values)))
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got[0], values.astype(np.float16))


class TestProducts:
    @pytest.mark.parametrize("dtype", ["complex64", "complex128"])
    @pytest.mark.parametrize(("count", "groups", "per_in", "per_out"), [(3, 2, 3, 5), (1, 1, 1, 1), (4, 3, 1, 2)])
    def test_values(self, dtype, count, groups, per_in, per_out):
        rng = np.random.default_rng(17)
        tiles = voxels(rng, dtype, (count, groups * per_in, 300))
        factors = voxels(rng, dtype, (groups * per_out, per_in, 300))
        got = run(kernels.products, (count, groups * per_out, 300), dtype, tiles, factors, groups=groups)
        expected = np.einsum(
            "tgcf,gocf->tgof",
            tiles.reshape(count, groups, per_in, 300),
            factors.reshape(groups, per_out, per_in, 300),
            dtype=np.complex128,
        ).reshape(got.shape)
        assert_matches(got, expected, BOUND * np.finfo(dtype).eps * abs(expected).max())


class TestBlocks:
    """Outputs have the same bits in whatever block they are computed."""

    @settings(max_examples=15, deadline=None)
    @given(st.data())
    def test_bits_do_not_depend_on_where_a_block_begins(self, data):
        rng = np.random.default_rng(16)
        kernel, size = (3, 3, 3), (18, 19, 70)
        x, w = voxels(rng, "float32", (2, *(n + 2 for n in size))), voxels(rng, "float32", (2, 1, *kernel))
        packed = kernels.pack_channels(voxels(rng, "float32", (9, 2, *kernel)), 1)
        taps = voxels(rng, "float32", 13)
        launches = {
            "small": (kernels.small, 2, kernel, (w, None), {}),
            "channels": (kernels.channels, 9, kernel, (packed, None), {"kernel": kernel}),
            "generic": (kernels.generic, 2, kernel, (w, None), {"groups": 2}),
            "along": (kernels.along, 2, (13, 1, 1), (0, taps), {}),
        }
        launch, outputs, kernel, args, parameters = launches[data.draw(st.sampled_from(sorted(launches)))]
        whole = size_of(Source(x), kernel)
        box = [sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in whole]
        box = [slice(low, max(high, low + 1)) for low, high in box]
        seen = [slice(each.start, each.stop + k - 1) for each, k in zip(box, kernel)]
        got = run(
            launch,
            (outputs, *(each.stop - each.start for each in box)),
            np.float32,
            Source(x[(slice(None), *seen)]),
            *args,
            **parameters,
        )
        expected = run(launch, (outputs, *whole), np.float32, Source(x), *args, **parameters)
        np.testing.assert_array_equal(got, expected[(slice(None), *box)])
