"""Sizes and intervals, against counting."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from volconv.errors import ShapeError
from volconv.params import Conv3dParams
from volconv.shapes import (
    batched_shape,
    block_shape,
    full_output_shape,
    multiply_adds,
    output_shape,
    output_size,
    padded_interval,
    taps,
)

small = st.integers(1, 5)
triples = st.tuples(small, small, small)


def window(output, stride, kernel, dilation):
    """Padded input indices that one output sees along one axis: the definition."""
    return [output * stride + tap * dilation for tap in range(kernel)]


def count_outputs(padded, stride, kernel, dilation):
    """Outputs whose window lies inside the padded input, counted."""
    return sum(window(o, stride, kernel, dilation)[-1] < padded for o in range(padded))


@given(st.integers(1, 30), st.integers(0, 5), small, small, small)
def test_output_size_counts_windows(size, pad, stride, kernel, dilation):
    effective = dilation * (kernel - 1) + 1
    assert max(0, output_size(size, 2 * pad, effective, stride)) == count_outputs(
        size + 2 * pad, stride, kernel, dilation
    )


@given(st.integers(0, 9), st.integers(1, 6), small, small, small)
def test_padded_interval_covers_the_windows_and_no_more(start, count, stride, kernel, dilation):
    seen = {i for o in range(start, start + count) for i in window(o, stride, kernel, dilation)}
    effective = dilation * (kernel - 1) + 1
    assert padded_interval(start, start + count, stride, effective) == (min(seen), max(seen) + 1)


@given(st.integers(0, 9), small, small)
def test_no_outputs_see_nothing(start, stride, effective):
    low, high = padded_interval(start, start, stride, effective)
    assert low == high


@given(triples, triples, triples, triples, st.tuples(*[st.integers(0, 9)] * 3))
def test_block_shape_is_the_intervals_length_and_gives_the_outputs_back(out, kernel, stride, dilation, start):
    params = Conv3dParams.parse((1, 1, *kernel), stride=stride, dilation=dilation)
    block = block_shape(out, params)
    for axis in range(3):
        low, high = padded_interval(start[axis], start[axis] + out[axis], stride[axis], params.effective_kernel[axis])
        assert block[axis] == high - low
    assert full_output_shape((1, 1, *block), params) == (1, 1, *out)


def test_block_of_no_outputs_is_empty():
    assert block_shape((0, 2, 2), Conv3dParams.parse((1, 1, 3, 3, 3))) == (0, 4, 4)


@given(triples, triples, triples)
def test_same_keeps_the_size(size, kernel, dilation):
    assert output_shape((2, *size), (3, 2, *kernel), padding="same", dilation=dilation) == (3, *size)


@given(triples, triples, triples, triples, st.tuples(*[st.integers(0, 4)] * 3))
def test_output_shape_is_torchs_formula(size, kernel, stride, dilation, padding):
    expected = tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    )
    assume(min(expected) >= 1)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 2}
    assert output_shape((4, *size), (6, 2, *kernel), **options) == (6, *expected)
    assert output_shape((7, 4, *size), (6, 2, *kernel), **options) == (7, 6, *expected)


@pytest.mark.parametrize(
    ("weight", "options", "expected"),
    [
        ((33, 16, 3, 3, 3), {"stride": 2}, (20, 33, 4, 24, 49)),
        ((33, 16, 3, 5, 2), {"stride": (2, 1, 1), "padding": (4, 2, 0)}, (20, 33, 8, 50, 99)),
        ((32, 1, 3, 3, 3), {"padding": "same", "groups": 16}, (20, 32, 10, 50, 100)),
        ((1, 16, 1, 1, 1), {}, (20, 1, 10, 50, 100)),
    ],
)
def test_examples_of_torchs_page(weight, options, expected):
    assert output_shape((20, 16, 10, 50, 100), weight, **options) == expected


def test_an_empty_batch_has_an_empty_output():
    assert output_shape((0, 1, 5, 5, 5), (2, 1, 3, 3, 3)) == (0, 2, 3, 3, 3)


def test_batched_shape():
    assert batched_shape((2, 3, 4, 5)) == (1, 2, 3, 4, 5)
    assert batched_shape([1, 2, 3, 4, 5]) == (1, 2, 3, 4, 5)


def test_counts():
    params = Conv3dParams.parse((6, 2, 3, 4, 5), groups=2)
    assert taps(params) == 2 * 3 * 4 * 5
    assert multiply_adds((7, 6, 2, 3, 4), params) == 7 * 6 * 2 * 3 * 4 * taps(params)


@pytest.mark.parametrize(
    ("shape", "weight", "options", "message"),
    [
        (
            (5, 5, 5),
            (1, 1, 3, 3, 3),
            {},
            "input must have 4 axes (C, D, H, W) or 5 (N, C, D, H, W) (got shape (5, 5, 5))",
        ),
        (
            (3, 5, 5, 5),
            (2, 2, 3, 3, 3),
            {"groups": 2},
            "groups must divide in_channels (got groups=2, in_channels=3)",
        ),
        ((0, 5, 5, 5), (2, 1, 3, 3, 3), {}, "(got in_channels=0, weights for 1 = 1*groups with groups=1)"),
        ((1, 5, 0, 5), (1, 1, 1, 1, 1), {"padding": 3}, "input must have no spatial axis of size 0 (got H=0)"),
        (
            (1, 5, 5, 2),
            (1, 1, 3, 3, 3),
            {},
            "kernel must fit into the padded input (got W=2 with padding 0+0, effective kernel 3)",
        ),
        (
            (1, 4, 9, 9),
            (1, 1, 3, 3, 3),
            {"dilation": 3, "padding": 1},
            "kernel must fit into the padded input (got D=4 with padding 1+1, effective kernel 7)",
        ),
    ],
)
def test_errors(shape, weight, options, message):
    with pytest.raises(ShapeError) as caught:
        output_shape(shape, weight, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "widest", "message"),
    [
        ("reflect", 3, "padding must be smaller than the axis with padding_mode='reflect' (got 4, H=4)"),
        ("circular", 4, "padding must be at most the axis' size with padding_mode='circular' (got 5, H=4)"),
        ("symmetric", 4, "padding must be at most the axis' size with padding_mode='symmetric' (got 5, H=4)"),
        ("replicate", 50, None),
        ("zeros", 50, None),
    ],
)
def test_how_wide_a_padding_may_be(mode, widest, message):
    def shape(pad):
        params = Conv3dParams.parse((1, 1, 1, 1, 1), padding=(0, pad, 0), padding_mode=mode)
        return full_output_shape((1, 1, 9, 4, 9), params)

    assert shape(widest) == (1, 1, 9, 4 + 2 * widest, 9)
    if message:
        with pytest.raises(ShapeError) as caught:
            shape(widest + 1)
        assert str(caught.value) == message
