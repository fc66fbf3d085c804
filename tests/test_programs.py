"""Programs for the register tile: every tap once, and no term rounded more often than the error bound allows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.engines.cpu.flat import TapPlaces
from volconv.engines.cpu.programs import ROUNDINGS, Neighbours, Sums, channel_program
from volconv.engines.cpu.tile import patterns, tile_shape
from volconv.params import Conv3dParams

KERNELS = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9))


def rounded(program, row):
    """How often the first tap of a row's sum, in each of its chains, is rounded; its taps in order."""
    chains, taps = [0], []
    ranges = patterns(program.shape)
    for pattern, first, last, flushed in program.segments:
        low, high = ranges[pattern]
        steps = program.taps[first * program.shape.run : last * program.shape.run, row]
        if flushed >> row & 1:
            chains.append(0)
        if low <= row < high:
            chains[-1] += int((steps >= 0).sum())
            taps += [tap for tap in steps if tap >= 0]
    later = 2 + 1 if program.chained == 2 else len(chains) - 1
    return max(chains) + later, taps


@settings(max_examples=150, deadline=None)
@given(KERNELS, st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 1]), st.booleans())
def test_neighbours_see_every_tap_once_and_are_rounded_seldom_enough(kernel, channels, stride, dilation, axis, sparse):
    places = TapPlaces.of(Conv3dParams.parse((1, channels, *kernel), stride=stride, dilation=dilation))
    neighbours = Neighbours.of(places, axis, np.dtype(np.float32), ROUNDINGS, sparse)
    orders = []
    for rows in range(1, neighbours.shape.rows + 1):
        program = neighbours.program(rows)
        for row in range(rows):
            times, taps = rounded(program, row)
            assert times <= ROUNDINGS
            assert sorted(taps) == list(range(channels * np.prod(kernel)))
            orders.append(taps)
    assert all(order == orders[0] for order in orders)  # bits do not depend on a tile's rows


@given(st.integers(1, 5000))
def test_channels_are_rounded_seldom_enough(channels):
    shape = tile_shape(np.dtype(np.float32), tall=False)
    places = TapPlaces.of(Conv3dParams.parse((4, channels, 1, 1, 1)))
    times, taps = rounded(channel_program(places, shape, Sums.of(channels, ROUNDINGS)), 0)
    assert times <= ROUNDINGS
    assert taps == list(range(channels))
