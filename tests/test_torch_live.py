"""conv3d and Conv3d beside an installed PyTorch: the same shapes, values, texts and refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import volconv
from cases import random_case
from tolerances import allowed, assert_matches
from volconv.errors import VolconvError

torch = pytest.importorskip("torch")

ALGORITHMS = ("direct", "channels", "winograd", "fft", "gemm")
DTYPES = ("float32", "float64", "complex64", "complex128", "float16")

# PyTorch's note that it may copy the input; what it computes is what is compared.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")


def torch_cases(seed, algorithm="direct"):
    """Cases at random that an algorithm can do, of modes that PyTorch has."""
    rng = np.random.default_rng(seed)
    while True:
        case = random_case(rng, algorithm)
        if case.mode != "symmetric":
            yield case


def torch_layer(case, x, w, b):
    """PyTorch's module with a case's weights, in the arrays' dtype."""
    layer = torch.nn.Conv3d(
        x.shape[1],
        w.shape[0],
        w.shape[2:],
        **case.parameters,
        bias=b is not None,
        dtype=torch.from_numpy(x).dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(w))
        if b is not None:
            layer.bias.copy_(torch.from_numpy(b))
    return layer


def compare(case, algorithm, dtype):
    x, w, b = case.arrays(dtype)
    got = volconv.conv3d(x, w, b, algorithm=algorithm, threads=1, **case.parameters)
    with torch.no_grad():
        expected = torch_layer(case, x, w, b)(torch.from_numpy(x)).numpy()
    assert got.dtype == expected.dtype == dtype
    tolerance = allowed(dtype, x, w, b, **case.reference_parameters)
    # Both are within the bound of the exact sum, on either side of it.
    assert_matches(got, expected.astype(np.result_type(dtype, "float32")), 2 * tolerance)
    assert volconv.output_shape(x.shape, w.shape, case.stride, case.padding, case.dilation, case.groups) == tuple(
        expected.shape
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_torch(algorithm, dtype):
    for case in itertools.islice(torch_cases(DTYPES.index(dtype), algorithm), 100):
        try:
            compare(case, algorithm, dtype)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_torch_thousands_of_times(algorithm, dtype):
    for case in itertools.islice(torch_cases(100 + DTYPES.index(dtype), algorithm), 600):
        try:
            compare(case, algorithm, dtype)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error


def layers(case, seed=0):
    """The same layer twice: PyTorch's, and volconv's with its weights loaded."""
    torch.manual_seed(seed)
    arguments = (case.input_shape[1], case.weight_shape[0], case.weight_shape[2:])
    options = {**case.parameters, "bias": case.bias}
    theirs, ours = torch.nn.Conv3d(*arguments, **options), volconv.Conv3d(*arguments, **options)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    return theirs, ours


def test_modules_agree_in_text_and_values():
    for case in itertools.islice(torch_cases(50), 100):
        theirs, ours = layers(case)
        assert repr(ours) == repr(theirs)
        x, w, b = case.arrays("float32")[0], ours.weight, ours.bias
        for volume in (x, x[0]):
            with torch.no_grad():
                expected = theirs(torch.from_numpy(volume)).numpy()
            assert_matches(ours(volume), expected, 2 * allowed("float32", x, w, b, **case.reference_parameters))


def test_a_layers_text_is_torchs():
    rng = np.random.default_rng(0)
    for case in itertools.islice(torch_cases(51), 300):
        kernel, stride, padding, dilation = (
            value[0] if isinstance(value, tuple) and rng.integers(3) == 0 else value
            for value in (case.weight_shape[2:], case.stride, case.padding, case.dilation)
        )
        arguments = (case.input_shape[1], case.weight_shape[0], kernel, stride, padding, dilation, case.groups)
        arguments += (case.bias, case.mode)
        assert repr(volconv.Conv3d(*arguments)) == repr(torch.nn.Conv3d(*arguments))


def test_initial_weights_have_torchs_range():
    torch.manual_seed(0)
    theirs, ours = torch.nn.Conv3d(8, 64, 3, groups=2), volconv.Conv3d(8, 64, 3, groups=2, seed=0)
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        other = other.detach().numpy()
        assert mine.shape == other.shape
        assert abs(mine).max() == pytest.approx(abs(other).max(), rel=0.05)
        assert mine.std() == pytest.approx(other.std(), rel=0.2)


X, W, B = (2, 4, 5, 6, 7), (6, 4, 3, 3, 3), (6,)


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 0},
        {"stride": -1},
        {"stride": (1, 0, 1)},
        {"stride": (1, 2)},
        {"stride": 1.5},
        {"dilation": 0},
        {"dilation": (1, 1, -1)},
        {"dilation": (1, 1, 1, 1)},
        {"padding": -1},
        {"padding": (0, 1)},
        {"padding": "full"},
        {"padding": 0.5},
        {"padding": "same", "stride": 2},
        {"padding": "same", "stride": (1, 2, 1)},
        {"groups": 0},
        {"groups": -1},
        {"groups": 2},
        {"groups": 3},
        {"groups": 1.0},
        {"x": (2, 3, 5, 6, 7)},
        {"x": (2, 8, 5, 6, 7)},
        {"x": (5, 6, 7)},
        {"x": (1, 2, 4, 5, 6, 7)},
        {"x": (2, 4, 2, 6, 7)},
        {"x": (2, 4, 5, 6, 2)},
        {"x": (2, 4, 5, 0, 7)},
        {"x": (2, 4, 2, 6, 7), "dilation": 2, "padding": 1},
        {"w": (6, 4, 3, 3)},
        {"w": (1, 6, 4, 3, 3, 3)},
        {"w": (6, 4, 3, 0, 3)},
        {"w": (5, 2, 3, 3, 3), "groups": 2, "b": (5,)},
        {"b": (5,)},
        {"b": (1,)},
        {"b": (6, 1)},
        {"b": ()},
    ],
)
def test_both_refuse(changes):
    shapes = {"x": X, "w": W, "b": B} | {key: value for key, value in changes.items() if key in "xwb"}
    options = {key: value for key, value in changes.items() if key not in "xwb"}
    x, w, b = (np.ones(shape, np.float32) for shape in shapes.values())
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        torch.nn.functional.conv3d(*map(torch.from_numpy, (x, w, b)), **options)
    with pytest.raises(VolconvError):
        volconv.conv3d(x, w, b, **options)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((4, 6, 3), {"groups": 3}),
        ((4, 6, 3), {"groups": 4}),
        ((4, 6, 3), {"groups": 0}),
        ((4, 6, 3), {"padding": "full"}),
        ((4, 6, 3), {"padding": "same", "stride": 2}),
        ((4, 6, 3), {"padding_mode": "wrap"}),
        ((4, 6, 3), {"dtype": "int32"}),
    ],
)
def test_both_modules_refuse_to_be_made(arguments, options):
    theirs = {key: getattr(torch, value) if key == "dtype" else value for key, value in options.items()}
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        torch.nn.Conv3d(*arguments, **theirs)
    with pytest.raises(VolconvError):
        volconv.Conv3d(*arguments, **options)


@pytest.mark.parametrize(
    ("mode", "padding"), [("reflect", (5, 0, 0)), ("reflect", (0, 0, 9)), ("circular", (0, 7, 0)), ("circular", 8)]
)
def test_both_modules_refuse_a_padding_wider_than_its_mode_allows(mode, padding):
    x = np.ones(X, np.float32)
    with pytest.raises(RuntimeError):
        torch.nn.Conv3d(4, 6, 3, padding=padding, padding_mode=mode)(torch.from_numpy(x))
    with pytest.raises(VolconvError):
        volconv.Conv3d(4, 6, 3, padding=padding, padding_mode=mode)(x)


def test_both_modules_refuse_another_number_of_channels():
    x = np.ones((2, 5, 5, 6, 7), np.float32)
    with pytest.raises(RuntimeError):
        torch.nn.Conv3d(4, 6, 3)(torch.from_numpy(x))
    with pytest.raises(VolconvError):
        volconv.Conv3d(4, 6, 3)(x)
