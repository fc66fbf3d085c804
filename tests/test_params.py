"""What a user may say, and what it becomes."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volconv.errors import ParameterError, ShapeError, VolconvError
from volconv.params import PADDING_MODES, Conv3dParams, parse_triple

WEIGHT = (8, 4, 3, 5, 2)
triples = st.tuples(*[st.integers(1, 6)] * 3)


def test_defaults_are_those_of_torch():
    assert Conv3dParams.parse(WEIGHT) == Conv3dParams(
        in_channels=4,
        out_channels=8,
        kernel_size=(3, 5, 2),
        stride=(1, 1, 1),
        padding_low=(0, 0, 0),
        padding_high=(0, 0, 0),
        dilation=(1, 1, 1),
        groups=1,
        padding_mode="zeros",
        padding_value=0,
    )


def test_everything_at_once():
    params = Conv3dParams.parse(
        WEIGHT,
        stride=(2, 1, 3),
        padding=[4, 2, 0],
        dilation=np.array([1, 2, 3]),
        groups=np.int64(2),
        padding_value=-1000,
    )
    assert params.in_channels == 8
    assert params.groups == 2
    assert type(params.groups) is int
    assert (params.stride, params.dilation) == ((2, 1, 3), (1, 2, 3))
    assert params.padding_low == params.padding_high == (4, 2, 0)
    assert params.effective_kernel == (3, 9, 4)
    assert params.weight_shape == WEIGHT
    assert params.padding_value == -1000


@pytest.mark.parametrize(
    "value", [2, np.int8(2), np.array(2), [2], (2,), [2, 2, 2], (2, 2, 2), np.array([2, 2, 2]), np.array([2])]
)
def test_one_or_three(value):
    result = parse_triple("stride", value, at_least=1)
    assert result == (2, 2, 2)
    assert all(type(v) is int for v in result)


@given(triples, triples)
def test_same_keeps_the_size_and_pads_one_more_after(kernel, dilation):
    params = Conv3dParams.parse((1, 1, *kernel), padding="same", dilation=dilation)
    for low, high, effective in zip(params.padding_low, params.padding_high, params.effective_kernel, strict=True):
        assert low + high == effective - 1
        assert high - low in (0, 1)


@given(triples)
def test_valid_is_no_padding(kernel):
    assert Conv3dParams.parse((1, 1, *kernel), padding="valid") == Conv3dParams.parse((1, 1, *kernel), padding=0)


@given(triples, triples)
def test_effective_kernel_is_the_extent_of_its_taps(kernel, dilation):
    params = Conv3dParams.parse((1, 1, *kernel), dilation=dilation)
    for k, d, effective in zip(kernel, dilation, params.effective_kernel, strict=True):
        taps = [tap * d for tap in range(k)]
        assert effective == max(taps) - min(taps) + 1


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_modes(mode):
    assert Conv3dParams.parse(WEIGHT, padding_mode=mode).padding_mode == mode


def test_params_are_plain_values():
    params = Conv3dParams.parse(WEIGHT, padding="same")
    assert pickle.loads(pickle.dumps(params)) == params  # noqa: S301  # our own bytes
    assert hash(params) == hash(Conv3dParams.parse(list(WEIGHT), padding="same"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.groups = 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stride": 0}, ParameterError, "stride must be an integer of at least 1 (got 0)"),
        ({"stride": (1, 1, -1)}, ParameterError, "stride must be an integer of at least 1 (got -1)"),
        ({"stride": 1.0}, ParameterError, "stride must be an integer (got 1.0)"),
        ({"stride": np.float32(2)}, ParameterError, "stride must be an integer (got 2.0)"),
        ({"stride": "2"}, ParameterError, "stride must be an integer (got '2')"),
        ({"stride": None}, ParameterError, "stride must be an integer (got None)"),
        ({"stride": True}, ParameterError, "stride must be an integer of at least 1 (got True)"),
        ({"stride": (1, 2)}, ParameterError, "stride must be one integer or three (D, H, W) (got (1, 2))"),
        ({"stride": ()}, ParameterError, "stride must be one integer or three (D, H, W) (got ())"),
        ({"stride": [1] * 4}, ParameterError, "stride must be one integer or three (D, H, W) (got [1, 1, 1, 1])"),
        ({"dilation": 0}, ParameterError, "dilation must be an integer of at least 1 (got 0)"),
        ({"dilation": (1, "a", 1)}, ParameterError, "dilation must be an integer (got 'a')"),
        ({"padding": -1}, ParameterError, "padding must be an integer of at least 0 (got -1)"),
        ({"padding": (0, 0)}, ParameterError, "padding must be one integer or three (D, H, W) (got (0, 0))"),
        ({"padding": "full"}, ParameterError, "padding must be integers, 'valid' or 'same' (got 'full')"),
        ({"padding": "same", "stride": 2}, ParameterError, "padding='same' needs stride 1 (got stride=(2, 2, 2))"),
        ({"groups": 0}, ParameterError, "groups must be an integer of at least 1 (got 0)"),
        ({"groups": 1.0}, ParameterError, "groups must be an integer (got 1.0)"),
        ({"groups": True}, ParameterError, "groups must be an integer of at least 1 (got True)"),
        ({"groups": 3}, ShapeError, "groups must divide out_channels (got groups=3, out_channels=8)"),
        (
            {"padding_mode": "wrap"},
            ParameterError,
            "padding_mode must be one of zeros, reflect, replicate, circular, symmetric (got 'wrap')",
        ),
        (
            {"padding_mode": "reflect", "padding_value": 1},
            ParameterError,
            "padding_value needs padding_mode='zeros' (got padding_value=1, padding_mode='reflect')",
        ),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(VolconvError) as caught:
        Conv3dParams.parse(WEIGHT, **options)
    assert type(caught.value) is error
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 3, 3), "weight must have 5 axes (C_out, C_in/groups, kD, kH, kW) (got shape (3, 3, 3))"),
        ((1, 1, 3, 0, 3), "weight must have no axis of size 0 (got shape (1, 1, 3, 0, 3))"),
        ((0, 1, 3, 3, 3), "weight must have no axis of size 0 (got shape (0, 1, 3, 3, 3))"),
    ],
)
def test_weight_shapes_that_are_none(shape, message):
    with pytest.raises(ShapeError) as caught:
        Conv3dParams.parse(shape)
    assert str(caught.value) == message
