"""What conv3d refuses: the kind of error and what it says."""

from __future__ import annotations

import re

import nibabel
import numpy as np
import pytest

import volconv
from volconv.errors import DtypeError, ParameterError, ShapeError, VolconvError

X = np.ones((1, 4, 5, 6, 7), np.float32)
W = np.ones((2, 4, 3, 3, 3), np.float32)
INT = np.int32


def refuses(error, message, x=X, w=W, b=None, **options):
    with pytest.raises(VolconvError, match=message) as caught:
        volconv.conv3d(x, w, b, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    builtin = TypeError if error is DtypeError else ValueError
    assert isinstance(caught.value, builtin)


# --- parameters


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "must be an integer of at least 1 (got 0)"),
        (-1, "must be an integer of at least 1 (got -1)"),
        ((1, 0, 1), "must be an integer of at least 1 (got 0)"),
        (True, "must be an integer of at least 1 (got True)"),
        ((1, True, 1), "must be an integer of at least 1 (got True)"),
        (np.True_, "must be an integer of at least 1 (got True)"),
        (1.0, "must be an integer (got 1.0)"),
        (1.5, "must be an integer (got 1.5)"),
        (np.float64(2), "must be an integer (got 2.0)"),
        (np.array([1.0, 1.0, 1.0]), "must be an integer (got 1.0)"),
        ((1, 1.0, 1), "must be an integer (got 1.0)"),
        ("1", "must be an integer (got '1')"),
        (None, "must be an integer (got None)"),
        ((1, 2), "must be one integer or three (D, H, W) (got (1, 2))"),
        ([1, 1, 1, 1], "must be one integer or three (D, H, W) (got [1, 1, 1, 1])"),
        ((), "must be one integer or three (D, H, W) (got ())"),
    ],
)
def test_stride_and_dilation(name, value, message):
    refuses(ParameterError, f"^{name} {re.escape(message)}$", **{name: value})


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        (-1, "padding must be an integer of at least 0 (got -1)"),
        ((0, 0, -2), "padding must be an integer of at least 0 (got -2)"),
        (1.0, "padding must be an integer (got 1.0)"),
        (False, "padding must be an integer of at least 0 (got False)"),
        ((1, 2), "padding must be one integer or three (D, H, W) (got (1, 2))"),
        ("full", "padding must be integers, 'valid' or 'same' (got 'full')"),
        ("SAME", "padding must be integers, 'valid' or 'same' (got 'SAME')"),
        (None, "padding must be an integer (got None)"),
    ],
)
def test_padding(padding, message):
    refuses(ParameterError, f"^{re.escape(message)}$", padding=padding)


@pytest.mark.parametrize("stride", [2, (1, 1, 2), (3, 1, 1)])
def test_same_with_a_stride(stride):
    refuses(ParameterError, r"^padding='same' needs stride 1 \(got stride=\(", padding="same", stride=stride)


@pytest.mark.parametrize("mode", ["wrap", "Zeros", "", "constant", None, 0])
def test_unknown_padding_mode(mode):
    message = f"^padding_mode must be one of zeros, reflect, replicate, circular, symmetric \\(got {mode!r}\\)$"
    refuses(ParameterError, message, padding_mode=mode)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "symmetric"])
def test_padding_value_with_a_mode_that_has_none(mode):
    message = f"^padding_value needs padding_mode='zeros' \\(got padding_value=3, padding_mode='{mode}'\\)$"
    refuses(ParameterError, message, padding_mode=mode, padding_value=3)


@pytest.mark.parametrize(
    ("x", "value", "shown"),
    [
        (X, 1j, r"float32 can hold \(got 1j\)"),
        (X.astype(np.float16), 2 + 1j, r"float32 can hold \(got \(2\+1j\)\)"),
        (X.astype(INT), 0.5, r"int64 can hold \(got 0.5\)"),
        (X.astype(INT), np.nan, r"int64 can hold \(got nan\)"),
        (X.astype(INT), np.inf, r"int64 can hold \(got inf\)"),
        (X.astype(INT), 1j, r"int64 can hold \(got 1j\)"),
        (X, 1e300, r"float32 can hold \(got 1e\+300\)"),
    ],
)
def test_padding_value_that_the_dtype_cannot_hold(x, value, shown):
    refuses(DtypeError, f"^padding_value must be a number that {shown}$", x, W.astype(x.dtype), padding_value=value)


@pytest.mark.parametrize("value", ["1", None, [1], np.array([1, 2])])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_padding_value_that_is_no_number(value, dtype):
    message = f"^padding_value must be a number \\(got {re.escape(repr(value))}\\)$"
    refuses(ParameterError, message, X.astype(dtype), W.astype(dtype), padding=1, padding_value=value)


@pytest.mark.parametrize("dtype", ["float32", "int32", "complex64"])
def test_padding_value_beyond_double(dtype):
    message = r"^padding_value must be a number that \w+ can hold \(got an integer beyond 1e308\)$"
    refuses(DtypeError, message, X.astype(dtype), W.astype(dtype), padding=1, padding_value=10**400)


@pytest.mark.parametrize("value", [3.0, np.float32(3), np.int8(3)])
def test_padding_values_that_are_integers_all_the_same(value):
    x, w = np.ones((1, 1, 1, 1, 1), INT), np.ones((1, 1, 1, 1, 1), INT)
    assert volconv.conv3d(x, w, padding=1, padding_value=value).max() == 3


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (0, ParameterError, "groups must be an integer of at least 1 (got 0)"),
        (-2, ParameterError, "groups must be an integer of at least 1 (got -2)"),
        (2.0, ParameterError, "groups must be an integer (got 2.0)"),
        (True, ParameterError, "groups must be an integer of at least 1 (got True)"),
        (3, ShapeError, "groups must divide out_channels (got groups=3, out_channels=2)"),
        (
            2,
            ShapeError,
            "input must have as many channels as the weights expect "
            "(got in_channels=4, weights for 8 = 4*groups with groups=2)",
        ),
    ],
)
def test_groups(groups, error, message):
    refuses(error, f"^{re.escape(message)}$", groups=groups)


@pytest.mark.parametrize("algorithm", ["fast", "Direct", "", None])
def test_unknown_algorithm(algorithm):
    names = "auto, direct, channels, separable, winograd, fft, gemm"
    refuses(ParameterError, rf"^algorithm must be one of {names} \(got {algorithm!r}\)$", algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ["separable", "winograd", "fft"])
def test_integers_in_algorithms_of_floats(algorithm):
    message = rf"^algorithm='{algorithm}' cannot do this: .* floating.point.*\(got int64\)$"
    refuses(ParameterError, message, X.astype(INT), W.astype(INT), algorithm=algorithm)


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        ("winograd", {"stride": 2}, r"winograd needs stride 1 \(got \(2, 2, 2\)\)"),
        ("winograd", {"w": np.ones((2, 4, 3, 2, 3))}, r"winograd needs a kernel of 3 along .* \(got \(3, 2, 3\)\)"),
        ("winograd", {"w": np.ones((2, 4, 1, 1, 3))}, r"winograd needs a kernel of 3 along .* \(got \(1, 1, 3\)\)"),
        ("separable", {}, r"separable needs large kernels of one channel that are sums of a few products .*"),
    ],
)
def test_what_an_algorithm_cannot_do(algorithm, options, message):
    refuses(ParameterError, rf"^algorithm='{algorithm}' cannot do this: {message}$", algorithm=algorithm, **options)


@pytest.mark.parametrize("threads", [0, -3, True, 1.5, "2"])
def test_threads_that_are_none(threads):
    rule = "an integer of at least 1" if isinstance(threads, int) else "an integer"
    refuses(ParameterError, rf"^threads must be {rule} \(got {threads!r}\)$", threads=threads)


def test_a_stride_beyond_any_volume():
    refuses(ParameterError, r"^stride must be at most 2147483647 \(got 99999999999999999999\)$", stride=10**20 - 1)


def test_an_output_beyond_any_memory():
    refuses(ShapeError, r"^output must have at most 2\^60 voxels \(got shape ", padding=10**9)


# --- shapes


@pytest.mark.parametrize("shape", [(), (5,), (5, 6, 7), (1, 1, 4, 5, 6, 7)])
def test_input_of_wrong_rank(shape):
    message = r"^input must have 4 axes \(C, D, H, W\) or 5 \(N, C, D, H, W\) \(got shape " + re.escape(f"{shape})")
    refuses(ShapeError, message, np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [(), (3, 3, 3), (4, 3, 3, 3), (1, 2, 4, 3, 3, 3)])
def test_weight_of_wrong_rank(shape):
    message = r"^weight must have 5 axes \(C_out, C_in/groups, kD, kH, kW\) \(got shape " + re.escape(f"{shape})")
    refuses(ShapeError, message, w=np.ones(shape, np.float32))


@pytest.mark.parametrize("axis", range(5))
def test_weight_with_an_empty_axis(axis):
    shape = [2, 4, 3, 3, 3]
    shape[axis] = 0
    refuses(ShapeError, "^weight must have no axis of size 0", w=np.ones(shape, np.float32))


@pytest.mark.parametrize(("axis", "name"), [(2, "D"), (3, "H"), (4, "W")])
@pytest.mark.parametrize("n", [0, 1])
def test_input_with_an_empty_axis(axis, name, n):
    shape = [n, 4, 5, 6, 7]
    shape[axis] = 0
    message = rf"^input must have no spatial axis of size 0 \(got {name}=0\)$"
    refuses(ShapeError, message, np.ones(shape, np.float32), padding=3)


@pytest.mark.parametrize("channels", [0, 1, 3, 8])
def test_channels_that_do_not_match(channels):
    message = rf"\(got in_channels={channels}, weights for 4 = 4\*groups with groups=1\)$"
    refuses(ShapeError, message, np.ones((1, channels, 5, 6, 7), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": (3, 1, 1)}, "D=5 with padding 0+0, effective kernel 7"),
        ({"dilation": (1, 4, 1), "padding": 1}, "H=6 with padding 1+1, effective kernel 9"),
        ({"dilation": 5, "padding": (3, 3, 1)}, "W=7 with padding 1+1, effective kernel 11"),
    ],
)
def test_kernel_larger_than_the_padded_input(options, message):
    refuses(ShapeError, rf"^kernel must fit into the padded input \(got {re.escape(message)}\)$", **options)


@pytest.mark.parametrize(
    ("mode", "padding", "message"),
    [
        ("reflect", (5, 0, 0), "smaller than the axis with padding_mode='reflect' (got 5, D=5)"),
        ("reflect", (0, 9, 0), "smaller than the axis with padding_mode='reflect' (got 9, H=6)"),
        ("circular", (0, 0, 8), "at most the axis' size with padding_mode='circular' (got 8, W=7)"),
        ("symmetric", (6, 0, 0), "at most the axis' size with padding_mode='symmetric' (got 6, D=5)"),
    ],
)
def test_padding_wider_than_its_mode_allows(mode, padding, message):
    refuses(ShapeError, f"^padding must be {re.escape(message)}$", padding=padding, padding_mode=mode)


def test_same_that_pads_more_than_reflect_allows():
    message = r"^padding must be smaller than the axis with padding_mode='reflect' \(got 5, D=5\)$"
    refuses(ShapeError, message, dilation=(5, 1, 1), padding="same", padding_mode="reflect")


@pytest.mark.parametrize("bias", [0.5, [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], []])
def test_bias_of_wrong_shape(bias):
    shape = re.escape(str(np.shape(bias)))
    refuses(ShapeError, rf"^bias must have shape \(2,\), one value an output channel \(got {shape}\)$", b=bias)


# --- dtypes


@pytest.mark.parametrize(
    ("bias", "dtype", "message"),
    [
        ([1j, 1], "float32", r"float32 results can take \(got complex128\)"),
        ([0.5, 1], "int32", r"int64 results can take \(got float64\)"),
        (["a", "b"], "float32", r"float32 results can take \(got <U1\)"),
        (np.array([1.0, 2.0], object), "float32", r"float32 results can take \(got object\)"),
        ([None, 1], "complex64", r"complex64 results can take \(got object\)"),
    ],
)
def test_bias_of_wrong_dtype(bias, dtype, message):
    refuses(DtypeError, f"^bias must be of a dtype that {message}$", X.astype(dtype), W.astype(dtype), bias)


@pytest.mark.parametrize("dtype", [object, "U3", "S3", "M8[s]", "m8[s]", "V4", [("a", "f4")]])
@pytest.mark.parametrize("name", ["input", "weight"])
def test_arrays_that_hold_no_numbers(dtype, name):
    x, w = (np.zeros(a.shape, dtype if n == name else np.float32) for a, n in ((X, "input"), (W, "weight")))
    refuses(DtypeError, rf"^{name} must hold numbers \(got dtype ", x, w)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="longdouble is double here")
@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_wider_than_double(dtype):
    message = r"^input and weight must be at most float64 or complex128 \(got "
    refuses(DtypeError, message, X.astype(dtype))
    refuses(DtypeError, message, w=W.astype(dtype))


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ParameterError, {"algorithm": "fast"}),
        (ParameterError, {"threads": 0}),
        (DtypeError, {"b": [1j, 1]}),
        (DtypeError, {"padding_value": 1j}),
        (ShapeError, {"b": [1.0]}),
    ],
)
def test_nothing_is_written_into_out_when_refused(error, options):
    out = np.full((1, 2, 3, 4, 5), 77, np.float32)
    refuses(error, "got", out=out, **options)
    assert (out == 77).all()


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weights_that_overflow_the_compute_dtype(tmp_path, name):
    weight, bias = np.ones((1, 1, 1, 1, 1)), np.ones(1)
    {"weight": weight, "bias": bias}[name][...] = 1e300
    volume = tmp_path / "in.nii"
    nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)).to_filename(volume)
    with pytest.raises(DtypeError, match=rf"^{name} must hold values that float32 can hold \(got up to 1e\+300\)$"):
        volconv.apply(volume, tmp_path / "out.nii", weight, bias=bias)
    assert not (tmp_path / "out.nii").exists()
