"""The kernels of a GPU, compiled for the host: every one against naive sums, in any order of threads."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import reference
from gpu_host import build
from gpu_host.device import HostDevice
from tolerances import allowed, assert_matches
from volconv.engines.gpu import kernels

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

#: What is compiled together, in so many translation units.
EXPRESSIONS = (
    (*(f"gather<{stored}, float>" for stored in STORED.values()), "gather<double, double>"),
    ("generic<short, float>", "generic<float, float>", "generic<double, double>", "generic<float, double>"),
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
    return kernels.Source(values, tables, fill, scaling)


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


def run(kernel, shape, dtype, *args, order=FORWARD, **parameters):
    """Outputs of a kernel into an array of NaN."""
    out = np.full(shape, np.nan, dtype)
    where = device(order)
    kernel(where, where.stream(), *args, out, **parameters)
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
        got = run(kernels.gather, values.shape, np.float32, kernels.Source(values))
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
        got = run(kernels.generic, expected.shape, np.float32, kernels.Source(x), w, None)
        # One rounding a chain's tap at most, and few more.
        assert_matches(got, expected, allowed(np.float32, x[None], w))
        assert abs(got - expected).max() < 3 * np.finfo(np.float32).eps * expected.max()

    def test_double_precision(self):
        rng = np.random.default_rng(5)
        x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((3, 2, 2, 3, 3))
        expected = reference.conv3d(x[None], w)[0]
        got = run(kernels.generic, expected.shape, np.float64, kernels.Source(x), w, None)
        assert_matches(got, expected, allowed(np.float64, x[None], w))
