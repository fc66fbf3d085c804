"""Padded reads, against numpy.pad on whole arrays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import MODES
from volconv.io.volume import Scaling
from volconv.padding import FILL, PaddedAxis, Piece, padded_axes, read_block
from volconv.params import Conv3dParams

NUMPYS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


def padded(array, sides, mode, value=FILL):
    """numpy.pad by our names."""
    if mode == "zeros":
        return np.pad(array, sides, constant_values=value)
    return np.pad(array, sides, mode=NUMPYS[mode])


def widest(mode, size):
    """The most that a mode can pad an axis by: a long way for those without a limit."""
    return {"reflect": size - 1, "circular": size, "symmetric": size}.get(mode, 3 * size + 4)


@st.composite
def axes(draw, largest=7, mode=None):
    mode = mode or draw(st.sampled_from(MODES))
    size = draw(st.integers(1, largest))
    limit = min(widest(mode, size), 9)
    return PaddedAxis(size, draw(st.integers(0, limit)), draw(st.integers(0, limit)), mode)


def indices(axis):
    """Source index of every padded voxel, FILL where there is none."""
    return padded(np.arange(axis.size), (axis.low, axis.high), axis.mode)


def expanded(runs, length):
    """The same from runs, and how often each target was written."""
    found, times = np.full(length, -99), np.zeros(length, int)
    for run in runs:
        where = slice(run.target, run.target + run.length)
        found[where] = FILL if run.first == FILL else run.first + run.step * np.arange(run.length)
        times[where] += 1
    return found, times


@pytest.mark.parametrize("mode", MODES)
def test_runs_are_numpys_pad_for_every_interval(mode):
    for size in range(1, 6):
        limit = min(widest(mode, size), 7)
        for low, high in itertools.product(range(limit + 1), repeat=2):
            axis = PaddedAxis(size, low, high, mode)
            every = indices(axis)
            for start, stop in itertools.combinations(range(len(every) + 1), 2):
                found, times = expanded(axis.runs(start, stop), stop - start)
                assert found.tolist() == every[start:stop].tolist(), (axis, start, stop)
                assert (times == 1).all()


@settings(deadline=None)
@given(axes(largest=40), st.data())
def test_runs_of_longer_axes(axis, data):
    every = indices(axis)
    start = data.draw(st.integers(0, len(every) - 1))
    stop = data.draw(st.integers(start + 1, len(every)))
    runs = axis.runs(start, stop)
    found, times = expanded(runs, stop - start)
    np.testing.assert_array_equal(found, every[start:stop])
    assert (times == 1).all()
    assert len(runs) <= 3
    assert [run.target for run in runs] == sorted(run.target for run in runs)
    assert all(run.length > 0 and run.step in (-1, 0, 1) for run in runs)


def test_no_voxels_are_no_runs():
    for mode in MODES:
        axis = PaddedAxis(4, 2, 2, mode)
        for start in range(9):
            assert axis.runs(start, start) == []
            assert axis.extents(start, start) == []


@settings(deadline=None)
@given(axes(), st.data())
def test_extents_are_disjoint_ascending_and_cover_exactly(axis, data):
    every = indices(axis)
    start = data.draw(st.integers(0, len(every)))
    stop = data.draw(st.integers(start, len(every)))
    extents = axis.extents(start, stop)
    covered = [i for low, high in extents for i in range(low, high)]
    assert covered == sorted(set(every[start:stop].tolist()) - {FILL})
    for (_, before), (after, _) in itertools.pairwise(extents):
        assert before < after  # neighbours are one interval
    assert all(low < high for low, high in extents)


def test_axes_of_a_volume_have_the_parameters_pads():
    params = Conv3dParams.parse((1, 1, 2, 3, 4), padding="same", dilation=(1, 1, 3), padding_mode="reflect")
    assert padded_axes((5, 6, 7), params) == [
        PaddedAxis(5, 0, 1, "reflect"),
        PaddedAxis(6, 1, 1, "reflect"),
        PaddedAxis(7, 4, 5, "reflect"),
    ]


# --- pieces


@settings(deadline=None)
@given(st.tuples(axes(), axes(), axes()), st.data())
def test_place_says_where_a_voxel_of_a_piece_lies(three, data):
    intervals = []
    for axis in three:
        length = axis.low + axis.size + axis.high
        start = data.draw(st.integers(0, length))
        intervals.append((start, data.draw(st.integers(start, length))))
    piece = Piece(tuple(tuple(axis.extents(*i)) for axis, i in zip(three, intervals, strict=True)))
    for number, (axis, extents) in enumerate(zip(three, piece.extents, strict=True)):
        held = [i for low, high in extents for i in range(low, high)]
        assert piece.size[number] == len(held)
        assert [piece.place(number, i) for i in held] == list(range(len(held)))
        for missing in set(range(-1, axis.size + 1)) - set(held):
            with pytest.raises(IndexError, match=f"source index {missing} is not in "):
                piece.place(number, missing)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(MODES).flatmap(lambda mode: st.tuples(*[axes(5, mode)] * 3)), st.data())
def test_a_piece_holds_all_that_a_block_needs(three, data):
    """What the pipeline does: extents read side by side into one array, then a block out of that."""
    source = np.arange(np.prod([axis.size for axis in three])).reshape([axis.size for axis in three])
    full = padded(source, [(axis.low, axis.high) for axis in three], three[0].mode)
    intervals = []
    for n in full.shape:
        start = data.draw(st.integers(0, n - 1))
        intervals.append((start, data.draw(st.integers(start + 1, n))))
    piece = Piece(tuple(tuple(axis.extents(*i)) for axis, i in zip(three, intervals, strict=True)))
    held = source[np.ix_(*([i for low, high in e for i in range(low, high)] for e in piece.extents))]
    assert held.shape == piece.size
    runs = [
        [r if r.first == FILL else r._replace(first=piece.place(number, r.first)) for r in axis.runs(*i)]
        for number, (axis, i) in enumerate(zip(three, intervals, strict=True))
    ]
    block = np.full((1, *(stop - start for start, stop in intervals)), -77)
    read_block(held[np.newaxis], runs, block, FILL, None)
    np.testing.assert_array_equal(block[0], full[tuple(slice(*i) for i in intervals)])


# --- blocks


@settings(deadline=None, max_examples=150)
@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(*[st.integers(1, 6)] * 3),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4", "<f8", "bool"]),
    target=st.sampled_from(["float32", "float64", "int64"]),
    scaled=st.booleans(),
    order=st.sampled_from(["C", "F", "reversed"]),
    data=st.data(),
)
def test_a_block_is_numpys_pad_cast_and_scaled(mode, size, channels, dtype, target, scaled, order, data):
    limits = [min(widest(mode, n), 4) for n in size]
    sides = [tuple(data.draw(st.tuples(st.integers(0, m), st.integers(0, m)))) for m in limits]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    stored = rng.integers(0, 2 if dtype == "bool" else 127, (channels, *size)).astype(dtype)
    scaling = Scaling(0.5, -3.0) if scaled and target != "int64" else None
    real = stored.astype(target)
    if scaling:
        real = real * np.dtype(target).type(scaling.slope) + np.dtype(target).type(scaling.intercept)
    full = padded(real, [(0, 0), *sides], mode, value=7)
    intervals = []
    for n in full.shape[1:]:
        start = data.draw(st.integers(0, n - 1))
        intervals.append((start, data.draw(st.integers(start + 1, n))))
    if order == "F":
        stored = np.asfortranarray(stored)
    elif order == "reversed":
        stored = stored[:, ::-1, ::-1, ::-1].copy()[:, ::-1, ::-1, ::-1]
    stored.flags.writeable = False
    runs = [PaddedAxis(n, *side, mode).runs(*i) for n, side, i in zip(size, sides, intervals, strict=True)]
    block = np.full((channels, *(stop - start for start, stop in intervals)), 99, target)
    read_block(stored, runs, block, 7, scaling)
    np.testing.assert_array_equal(block, full[(slice(None), *(slice(*i) for i in intervals))])


def test_scaling_leaves_padding_value_alone():
    axis = PaddedAxis(1, 1, 1, "zeros")
    block = np.empty((1, 3, 3, 3))
    read_block(np.full((1, 1, 1, 1), 5, np.int16), [axis.runs(0, 3)] * 3, block, -1000, Scaling(2, 100))
    assert block[0, 1, 1, 1] == 110
    assert (block == -1000).sum() == 26


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_padding_value_that_is_not_finite(value):
    axis = PaddedAxis(1, 1, 0, "zeros")
    block = np.empty((1, 2, 2, 2), np.float32)
    read_block(np.ones((1, 1, 1, 1)), [axis.runs(0, 2)] * 3, block, value, None)
    assert block[0, 1, 1, 1] == 1
    np.testing.assert_array_equal(block.ravel()[:-1], value)


def test_large_values_are_cast_before_they_are_scaled():
    """uint16 times a slope does not wrap."""
    axis = PaddedAxis(1, 0, 0, "zeros")
    block = np.empty((1, 1, 1, 1), np.float32)
    read_block(np.full((1, 1, 1, 1), 65535, np.uint16), [axis.runs(0, 1)] * 3, block, 0, Scaling(2, 1))
    assert block.item() == 131071
