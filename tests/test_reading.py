"""The compiled reader of blocks, against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import MODES
from volconv.padding import PaddedAxis, every, read_block
from volconv.reading import block_reader

DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64", "int64", ">i2", "bool", "float16", "complex64")


@st.composite
def blocks(draw):
    """An array in some order and steps, and what a block of it holds along each axis."""
    size = [draw(st.integers(1, 6)) for _ in range(4)]
    order = draw(st.permutations(range(4)))
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in range(4)]
    values = np.arange(np.prod([n * abs(s) for n, s in zip(size, steps, strict=True)]))
    values = values.reshape([size[i] * abs(steps[i]) for i in order]).transpose(np.argsort(order))
    values = values[tuple(slice(None, None, s) for s in steps)]
    mode, stride = draw(st.sampled_from(MODES)), draw(st.sampled_from([1, 1, 2, 3]))
    runs, shape = [], [size[0]]
    for n in size[1:]:
        most = {"reflect": n - 1}.get(mode, n)
        axis = PaddedAxis(n, draw(st.integers(0, most)), draw(st.integers(0, most)), mode)
        length = axis.low + n + axis.high
        start = draw(st.integers(0, length - 1))
        stop = draw(st.integers(start + 1, length))
        runs.append(every(axis.runs(start, stop), stride))
        shape.append(-(-(stop - start) // stride))
    return values, runs, shape


@pytest.mark.parametrize("stored", DTYPES)
@settings(max_examples=60, deadline=None)
@given(block=blocks(), dtype=st.sampled_from(["float32", "float64"]))
def test_blocks_are_those_of_the_plain_reader(stored, block, dtype):
    values, runs, shape = block
    values = values.astype(stored) if values.flags.c_contiguous else np.asarray(values, stored)
    parts = [values.real, values.imag] if values.dtype.kind == "c" else [values]
    for part in parts:
        expected, got = (np.full((*shape[:3], shape[3] + 2), -7, dtype) for _ in range(2))
        read_block(part, runs, expected[..., : shape[3]], -3.0, None)
        block_reader(np.dtype(stored), np.dtype(dtype))(part, runs, got[..., : shape[3]], -3.0, None)
        np.testing.assert_array_equal(got, expected)


@given(st.integers(1, 9), st.integers(0, 8), st.integers(0, 8), st.sampled_from(MODES), st.integers(1, 5), st.data())
def test_every_so_many_voxels_of_an_interval(size, low, high, mode, stride, data):
    most = {"reflect": size - 1, "circular": size, "symmetric": size}.get(mode, 8)
    axis = PaddedAxis(size, min(low, most), min(high, most), mode)
    start = data.draw(st.integers(0, axis.low + size + axis.high - 1))
    stop = data.draw(st.integers(start + 1, axis.low + size + axis.high))
    whole, some = (
        [run.first + run.step * i for run in sorted(runs) for i in range(run.length)]
        for runs in (axis.runs(start, stop), every(axis.runs(start, stop), stride))
    )
    assert some == whole[::stride]
    targets = [run.target + i for run in every(axis.runs(start, stop), stride) for i in range(run.length)]
    assert sorted(targets) == list(range(len(some)))
