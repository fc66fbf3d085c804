"""Conv3d, the module: its text, its weights, its state."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import volconv
from cases import values
from volconv import Conv3d
from volconv.errors import DtypeError, ParameterError, ShapeError, VolconvError


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Conv3d(16, 33, 3, stride=2), "Conv3d(16, 33, kernel_size=(3, 3, 3), stride=(2, 2, 2))"),
        (
            Conv3d(16, 33, (3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0)),
            "Conv3d(16, 33, kernel_size=(3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0))",
        ),
        (Conv3d(1, 1, 3, padding="same"), "Conv3d(1, 1, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=same)"),
        (Conv3d(1, 1, 3, padding="valid"), "Conv3d(1, 1, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=valid)"),
        (Conv3d(2, 4, 1, bias=False), "Conv3d(2, 4, kernel_size=(1, 1, 1), stride=(1, 1, 1), bias=False)"),
        (
            Conv3d(2, 4, 3, padding=1, dilation=(1, 2, 1), groups=2, bias=False, padding_mode="circular"),
            "Conv3d(2, 4, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1), dilation=(1, 2, 1), groups=2, "
            "bias=False, padding_mode=circular)",
        ),
    ],
)
def test_repr_is_pytorchs(layer, text):
    assert repr(layer) == text


def test_repr_names_a_subclass():
    class Mine(Conv3d):
        pass

    assert repr(Mine(1, 1, 1)).startswith("Mine(1, 1, ")


def test_parameters_read_back():
    layer = Conv3d(4, 6, (1, 2, 3), (3, 2, 1), (0, 1, 2), (1, 2, 3), 2, padding_mode="replicate")
    assert (layer.in_channels, layer.out_channels, layer.groups) == (4, 6, 2)
    assert (layer.kernel_size, layer.stride, layer.dilation) == ((1, 2, 3), (3, 2, 1), (1, 2, 3))
    assert (layer.padding, layer.padding_mode) == ((0, 1, 2), "replicate")
    assert Conv3d(1, 1, 3, padding="same").padding == "same"
    assert layer.weight.shape == (6, 2, 1, 2, 3)
    assert layer.bias.shape == (6,)
    assert Conv3d(1, 1, 3, bias=False).bias is None


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv3d(16, 33, 3, stride=2, seed=0), (20, 33, 4, 24, 49)),
        (Conv3d(16, 33, (3, 5, 2), stride=(2, 1, 1), padding=(4, 2, 0), seed=0), (20, 33, 8, 50, 99)),
    ],
)
def test_examples_of_the_page(layer, shape):
    x = np.random.default_rng(0).standard_normal((20, 16, 10, 50, 100), np.float32)
    got = layer(x)
    assert got.shape == shape
    assert got.dtype == np.float32
    assert layer(x[3]).tobytes() == got[3].tobytes()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize("padding", ["same", "valid", (1, 0, 2)])
def test_a_call_is_conv3d_with_the_layers_parameters(mode, padding):
    layer = Conv3d(4, 6, (2, 3, 4), padding=padding, dilation=(2, 1, 1), groups=2, padding_mode=mode, seed=1)
    x = values(np.random.default_rng(0), (2, 4, 7, 8, 9), "float32")
    expected = volconv.conv3d(
        x, layer.weight, layer.bias, 1, padding, (2, 1, 1), 2, padding_mode=mode, algorithm="direct"
    )
    for threads in (None, 1, 3):
        got = layer(x, threads=threads)
        np.testing.assert_array_equal(got.shape, expected.shape)
        assert (
            got.tobytes()
            == volconv.conv3d(x, layer.weight, layer.bias, 1, padding, (2, 1, 1), 2, padding_mode=mode).tobytes()
        )


def test_a_stride_reaches_the_call():
    layer = Conv3d(1, 1, 1, stride=(1, 2, 3), bias=False)
    x = np.arange(4 * 5 * 6, dtype=np.float32).reshape(1, 4, 5, 6)
    np.testing.assert_array_equal(layer(x), x[:, :, ::2, ::3] * layer.weight.item())


# --- initial weights


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (16, 4)])
def test_initial_weights_fill_pytorchs_range(dtype, channels, groups):
    layer = Conv3d(channels, 64, 3, groups=groups, dtype=dtype, seed=0)
    bound = np.sqrt(groups / (channels * 27))
    for array in (layer.weight, layer.bias):
        assert array.dtype == dtype
        for part in [array.real, array.imag] if array.dtype.kind == "c" else [array]:
            low, high, mean = float(part.min()), float(part.max()), float(part.mean(dtype=np.float64))
            eps = float(np.finfo(dtype).eps) * bound
            assert -bound - eps <= low < -0.85 * bound
            assert 0.85 * bound < high <= bound + eps
            assert abs(mean) < 0.3 * bound


def test_real_and_imaginary_parts_are_drawn_apart():
    layer = Conv3d(1, 8, 3, dtype="complex64", seed=0)
    assert (layer.weight.real != layer.weight.imag).all()


def test_the_default_dtype_is_float32():
    assert Conv3d(1, 1, 1).weight.dtype == np.float32


def test_a_seed_gives_the_same_weights_and_none_gives_others():
    one, same, other = (Conv3d(2, 3, 3, seed=s) for s in (7, 7, 8))
    assert one.weight.tobytes() == same.weight.tobytes()
    assert one.bias.tobytes() == same.bias.tobytes()
    assert one.weight.tobytes() != other.weight.tobytes()
    assert Conv3d(2, 3, 3).weight.tobytes() != Conv3d(2, 3, 3).weight.tobytes()


def test_a_generator_goes_on():
    rng = np.random.default_rng(7)
    first, second = (Conv3d(2, 3, 3, seed=rng) for _ in range(2))
    assert first.weight.tobytes() == Conv3d(2, 3, 3, seed=7).weight.tobytes()
    assert first.weight.tobytes() != second.weight.tobytes()


# --- arrays in, arrays out


def test_from_arrays():
    rng = np.random.default_rng(0)
    w, b = values(rng, (4, 2, 3, 1, 2), "float64"), values(rng, (4,), "float64")
    layer = Conv3d.from_arrays(w, b, stride=2, padding=1, dilation=(1, 1, 2), groups=2, padding_mode="reflect")
    assert repr(layer) == (
        "Conv3d(4, 4, kernel_size=(3, 1, 2), stride=(2, 2, 2), padding=(1, 1, 1), dilation=(1, 1, 2), groups=2, "
        "padding_mode=reflect)"
    )
    x = values(rng, (4, 5, 6, 7), "float32")
    expected = volconv.conv3d(x, w, b, 2, 1, (1, 1, 2), 2, padding_mode="reflect")
    assert layer(x).tobytes() == expected.tobytes()
    w[...], b[...] = 0, 0
    assert layer(x).tobytes() == expected.tobytes()


def test_from_arrays_takes_lists_and_integers():
    layer = Conv3d.from_arrays([[[[[2, 1]]]]], [3])
    assert layer(np.arange(3).reshape(1, 1, 1, 3)).tolist() == [[[[4, 7]]]]
    assert Conv3d.from_arrays([[[[[2]]]]]).bias is None


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.ones((3, 3, 3)),), {}, ShapeError, "weight must have 5 axes"),
        ((np.ones((1, 1, 3, 0, 3)),), {}, ShapeError, "weight must have no axis of size 0"),
        ((np.ones((2, 1, 1, 1, 1)), [1.0]), {}, ShapeError, r"bias must have shape \(2,\)"),
        ((np.ones((1, 1, 1, 1, 1), object),), {}, DtypeError, r"weight must hold numbers \(got dtype object\)"),
        ((np.full((1, 1, 1, 1, 1), "a"),), {}, DtypeError, "weight must hold numbers"),
        ((np.ones((2, 1, 1, 1, 1)),), {"groups": 3}, ShapeError, "groups must divide out_channels"),
        ((np.ones((1, 1, 1, 1, 1)),), {"padding": "same", "stride": 2}, ParameterError, "needs stride 1"),
    ],
)
def test_from_arrays_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Conv3d.from_arrays(*arguments, **options)


# --- state


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_state_round_trip(tmp_path, bias, dtype):
    one, two = (Conv3d(2, 4, 3, groups=2, bias=bias, dtype=dtype, seed=s) for s in (1, 2))
    np.savez(tmp_path / "state.npz", **one.state_dict())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        assert set(state) == ({"weight", "bias"} if bias else {"weight"})
        two.load_state_dict(state)
    x = values(np.random.default_rng(0), (2, 4, 4, 4), dtype)
    assert two(x).tobytes() == one(x).tobytes()


def test_state_is_the_layers_own_and_loading_copies():
    layer = Conv3d(1, 2, 1, seed=0)
    layer.state_dict()["weight"][...] = 5
    assert (layer.weight == 5).all()
    state = {"weight": np.ones((2, 1, 1, 1, 1), np.float32), "bias": np.ones(2, np.float32)}
    layer.load_state_dict(state)
    state["weight"][...] = 9
    assert (layer.weight == 1).all()


def test_loading_keeps_the_layers_dtype():
    layer = Conv3d(1, 1, 1, dtype="float16")
    layer.load_state_dict({"weight": np.float64([[[[[1 / 3]]]]]), "bias": [2]})
    assert layer.weight.dtype == layer.bias.dtype == np.float16
    assert layer.weight.item() == np.float16(1 / 3)


GOOD = np.ones((2, 1, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({}, ShapeError, r"state_dict must have the names weight, bias \(got none\)"),
        ({"weight": GOOD}, ShapeError, r"state_dict must have the names weight, bias \(got weight\)"),
        ({"weight": GOOD, "bias": [1, 2], "scale": 1}, ShapeError, r"\(got bias, scale, weight\)"),
        ({"weight": GOOD, 3: [1, 2]}, ShapeError, r"\(got 3, weight\)"),
        ({"weight": GOOD[:1], "bias": [1, 2]}, ShapeError, r"weight must have shape \(2, 1, 3, 3, 3\) \(got \(1, "),
        ({"weight": GOOD, "bias": [1]}, ShapeError, r"bias must have shape \(2,\) \(got \(1,\)\)"),
        ({"weight": GOOD, "bias": [1j, 1]}, DtypeError, r"bias must be of a dtype that float32 can take \(got complex"),
        ({"weight": GOOD.astype(object), "bias": [1, 2]}, DtypeError, r"weight must be of a dtype .* \(got object\)"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state, error, message):
    layer = Conv3d(1, 2, 3, seed=0)
    before = {name: array.tobytes() for name, array in layer.state_dict().items()}
    with pytest.raises(VolconvError, match=message) as caught:
        layer.load_state_dict(state)
    assert type(caught.value) is error
    assert {name: array.tobytes() for name, array in layer.state_dict().items()} == before


def test_a_layer_can_be_pickled():
    layer = Conv3d(2, 4, 3, padding="same", padding_mode="circular", groups=2, seed=0)
    again = pickle.loads(pickle.dumps(layer))  # noqa: S301  # made here
    assert repr(again) == repr(layer)
    x = values(np.random.default_rng(0), (2, 5, 5, 5), "float32")
    assert again(x).tobytes() == layer(x).tobytes()


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((1, 1, 3), {"device": "cuda"}, ParameterError, r"^device must be 'cpu' \(got 'cuda'\)$"),
        ((1, 1, 3), {"dtype": int}, DtypeError, r"^dtype must be a floating-point or complex one \(got int64\)$"),
        ((1, 1, 3), {"dtype": object}, ParameterError, "^dtype must be a NumPy dtype "),
        ((1, 1, 3), {"dtype": "float31"}, ParameterError, r"^dtype must be a NumPy dtype .* \(got 'float31'\)$"),
        ((3, 4, 3), {"groups": 2}, ShapeError, r"^groups must divide in_channels \(got groups=2, in_channels=3\)$"),
        ((4, 3, 3), {"groups": 2}, ShapeError, r"^groups must divide out_channels \(got groups=2, out_channels=3\)$"),
        ((0, 1, 3), {}, ParameterError, r"^in_channels must be an integer of at least 1 \(got 0\)$"),
        ((1, 0, 3), {}, ParameterError, r"^out_channels must be an integer of at least 1 \(got 0\)$"),
        ((1.5, 2, 3), {}, ParameterError, r"^in_channels must be an integer \(got 1.5\)$"),
        ((1, "2", 3), {}, ParameterError, r"^out_channels must be an integer \(got '2'\)$"),
        ((2, 2, 3), {"groups": -1}, ParameterError, r"^groups must be an integer of at least 1 \(got -1\)$"),
        ((1, 1, 0), {}, ParameterError, r"^kernel_size must be an integer of at least 1 \(got 0\)$"),
        ((1, 1, (3, 3)), {}, ParameterError, r"^kernel_size must be one integer or three \(D, H, W\)"),
        ((1, 1, 3.0), {}, ParameterError, r"^kernel_size must be an integer \(got 3.0\)$"),
        ((1, 1, 3), {"stride": 0}, ParameterError, r"^stride must be an integer of at least 1 \(got 0\)$"),
        ((1, 1, 3), {"padding": "same", "stride": 2}, ParameterError, "^padding='same' needs stride 1"),
        ((1, 1, 3), {"padding_mode": "wrap"}, ParameterError, "^padding_mode must be one of zeros,"),
    ],
)
def test_a_layer_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Conv3d(*arguments, **options)


def test_the_cpu_is_a_device():
    assert repr(Conv3d(1, 1, 1, device="cpu")) == repr(Conv3d(1, 1, 1))


def test_a_call_refuses_what_conv3d_refuses():
    layer = Conv3d(2, 4, 3)
    with pytest.raises(ShapeError, match=r"^input must have as many channels .* \(got in_channels=3"):
        layer(np.ones((3, 5, 5, 5)))
    with pytest.raises(ParameterError, match=r"^threads must be an integer of at least 1 "):
        layer(np.ones((2, 5, 5, 5)), threads=0)
