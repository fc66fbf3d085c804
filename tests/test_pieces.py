"""How much is unpacked for blocks, against counting it voxel by voxel."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volconv.padding import padded_axes
from volconv.params import Conv3dParams
from volconv.pieces import aligned, covered, layer, times_unpacked
from volconv.region import Region
from volconv.shapes import full_output_shape
from volconv.steps import steps
from volconv.tiling import io_blocks


def pieces_of(region, chunk):
    """All pieces that hold a voxel of a region."""
    return set(
        itertools.product(
            *({i // c for i in range(a, b)} for a, b, c in zip(region.start, region.stop, chunk, strict=True))
        )
    )


TRIPLE = st.tuples(*[st.integers(1, 9)] * 3)


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 20)] * 3), TRIPLE, TRIPLE)
def test_what_a_region_covers(start, size, chunk):
    region = Region((0, 0, *start), (1, 1, *(a + n for a, n in zip(start, size))))
    chunk = (1, 1, *chunk)
    assert covered(region, chunk, kept=False) == len(pieces_of(region, chunk)) * math.prod(chunk)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(6, 20)] * 3), TRIPLE, TRIPLE, st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_how_often_voxels_are_unpacked(size, box, chunk, kernel, stride, kept):
    params = Conv3dParams.parse((1, 1, kernel, kernel, kernel), stride=stride, padding=kernel // 2)
    output = full_output_shape((1, 1, *size), params)
    box = tuple(min(b, n) for b, n in zip(box, output[2:]))
    chunk = tuple(min(c, n) for c, n in zip(chunk, size))
    regions = [
        region
        for step in steps(io_blocks(Region.whole(output), 1, box), padded_axes(size, params), params, (1, 1))
        for region, _ in step.fresh()
    ]
    # What a strided run never sees is no part of it; an axis in one block counts as unpacked once.
    seen = [max(region.stop[2 + axis] for region in regions) for axis in range(3)]
    total = sum(covered(region, (1, 1, *chunk), kept=False) for region in regions)
    once = [-(-n // c) * c if b >= o else n for n, c, b, o in zip(seen, chunk, box, output[2:])]
    found = times_unpacked(box, (1, 1, *chunk), (size, output[2:]), params, kept=kept)
    if not kept:
        assert found == pytest.approx(total / math.prod(once))
    else:
        whole = (output[2], *box[1:])
        assert found == times_unpacked(whole, (1, 1, *chunk), (size, output[2:]), params, kept=False)


def test_blocks_between_pieces():
    assert aligned((8, 30, 10), (1, 1, 4, 10, 10), (9, 30, 99))
    assert aligned((9, 30, 10), (1, 1, 4, 10, 10), (9, 30, 99))
    assert not aligned((8, 25, 10), (1, 1, 4, 10, 10), (9, 30, 99))


def test_layers():
    assert layer(None, (1, 1, 3, 3, 3), (1, 1, 9, 9, 9)) == 0
    assert layer((1, 1, 1, 3, 3), (1, 1, 3, 3, 3), (1, 1, 9, 9, 9)) == 0
    assert layer((1, 2, 4, 8, 8), (1, 3, 2, 9, 20), (1, 4, 40, 40, 20)) == 4 * 4 * 16 * 24
