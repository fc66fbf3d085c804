"""Weights of every kind of file: the numbers, a layer's weight and bias together, and what is told of other keys."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import onnx
import pytest
import tifffile
from safetensors.numpy import save_file

import volconv
from niftifiles import new
from volconv.errors import ParameterError, ReadError, ShapeError
from volconv.geometry import Geometry
from volconv.kernels import list_weights, load_bias, load_kernel
from volconv.kernels.files import load_layer

DATA = Path(__file__).parent / "data" / "weights"


def counted(*shape):
    """What the files in tests/data/weights hold."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8


def noise(*shape, dtype="float32"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(spec, error, message, load=load_layer):
    with pytest.raises(error) as caught:
        load(spec)
    assert type(caught.value) is error
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- PyTorch, Keras: files that they made


@pytest.mark.parametrize(
    ("spec", "layout", "shape"),
    [
        ("torch.pt:state_dict.enc.0", "oidhw", (4, 2, 3, 2, 1)),
        ("torch.pt", "oidhw", (4, 2, 3, 2, 1)),
        ("torch_legacy.pth:enc.0", "oidhw", (4, 2, 3, 2, 1)),
        ("torch_cuda_bfloat16.pt:enc.0", "oidhw", (4, 2, 3, 2, 1)),
        ("keras3.keras:enc", "dhwio", (3, 2, 1, 2, 3)),
        ("keras3.weights.h5:enc", "dhwio", (3, 2, 1, 2, 3)),
        ("keras3.weights.h5:block/deep", "dhwio", (2, 2, 2, 3, 2)),
        ("keras.h5:enc", "dhwio", (3, 2, 1, 2, 3)),
        ("keras.h5:block/deep", "dhwio", (2, 2, 2, 3, 2)),
    ],
)
def test_a_layers_weight_and_bias_are_taken_together(spec, layout, shape):
    layer = load_layer(f"{DATA}/{spec}")
    np.testing.assert_array_equal(layer.weight, counted(*shape))
    np.testing.assert_array_equal(layer.bias, counted(shape[0] if layout == "oidhw" else shape[4]))
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer.layout == layout
    for name in (layer.name, layer.bias_name):
        assert load_layer(name, "kernel" if name == layer.name else "bias", (1, 5)).bias is None
    if ":" in spec:
        np.testing.assert_array_equal(load_bias(f"{DATA}/{spec}", layer.bias.size), layer.bias)


def test_keras_calls_layers_by_their_own_names():
    """Not by those of groups, which are other layers' here: "conv3d" is in the group conv3d_1."""
    for name in ("keras3.keras", "keras3.weights.h5", "keras.h5"):
        layer = load_layer(f"{DATA}/{name}:conv3d")
        assert layer.weight.shape == (1, 1, 1, 2, 3)
        assert layer.bias is None


TRANSPOSED = "is the weight of a transposed convolution"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("torch.pt:enc.0", ReadError, "(it holds state_dict.enc.0 (4, 2, 3, 2, 1)); did you mean state_dict.enc.0?"),
        ("torch.pt:state_dict.up", ReadError, f"state_dict.up.weight (4, 2, 2, 2, 2) {TRANSPOSED} by its bias of 2"),
        ("torch.pt:state_dict.up.weight", ReadError, TRANSPOSED),
        ("torch.pt:state_dict.flat", ShapeError, "(got shape (4, 2, 3, 3), which is a Conv2d's weight)"),
        ("torch.pt:state_dict.enc.0.bias", ShapeError, "must be a numeric array of 3, 4 or 5 axes (got shape (4,)"),
        ("torch.pt:epoch", ReadError, "torch.pt:epoch is no tensor (it is of type int)"),
        ("torch.pt:name", ReadError, "torch.pt:name is no tensor (it is of type str)"),
        ("torch_legacy.pth:up", ReadError, TRANSPOSED),
        ("keras3.keras:up", ReadError, TRANSPOSED),
        ("keras3.weights.h5:up", ReadError, TRANSPOSED),
        ("keras.h5:up", ReadError, TRANSPOSED),
        ("keras3.keras", ReadError, "(it holds enc (3, 2, 1, 2, 3), conv3d (1, 1, 1, 2, 3), block/deep"),
        ("keras3.keras:dec", ReadError, "has no layer or array 'dec' (it holds enc (3, 2, 1, 2, 3)"),
    ],
)
def test_what_is_no_layer_of_a_conv3d(spec, error, message):
    refused(f"{DATA}/{spec}", error, message)


@pytest.mark.parametrize("name", ["torch.pt", "torch_legacy.pth", "keras3.keras", "keras.h5"])
def test_content_tells_the_kind_whatever_the_suffix(name):
    expected = load_layer(f"{DATA}/torch.pt").weight if "torch" in name else load_layer(f"{DATA}/{name}:enc").weight
    key = ":enc" if "keras" in name else ""
    for other in ("weights.bin", "weights", "weights.npy", "12:30.dat"):
        shutil.copy(DATA / name, other)
        np.testing.assert_array_equal(load_layer(f"./{other}{key}").weight, expected)


# --- safetensors


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool", "complex64"])
def test_safetensors(dtype):
    w, b = noise(4, 2, 3, 2, 1, dtype="float64").astype(dtype), noise(4).astype("float32")
    save_file({"enc.weight": w, "enc.bias": b, "norm.weight": b, "other": noise(3, 3)}, "m.safetensors", {"by": "me"})
    for spec in ("m.safetensors", "m.safetensors:enc"):
        layer = load_layer(spec)
        np.testing.assert_array_equal(layer.weight, w)
        np.testing.assert_array_equal(layer.bias, b)
        assert (layer.weight.dtype, layer.layout) == (np.dtype(dtype), "oidhw")


def safetensors(header, data=b""):
    import json

    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(words).to_bytes(8, "little") + words + data


def tensor(dtype="F32", shape=(1, 1, 1, 1, 2), offsets=(0, 8)):
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_bfloat16_of_safetensors_is_exact():
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2")
    Path("m.safetensors").write_bytes(safetensors(tensor("BF16", (1, 1, 4), (0, 8)), bits.tobytes()))
    np.testing.assert_array_equal(load_layer("m.safetensors").weight, [[[1, -2, np.inf, 2.0**-133]]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (safetensors(tensor("F8_E4M3", (2, 2, 2), (0, 8)), bytes(8)), "must be of a dtype that is read (got F8_E4M3)"),
        (safetensors(tensor(offsets=(0, 7)), bytes(8)), "what its header says of 'w' does not fit the file"),
        (safetensors(tensor(), bytes(7)), "does not fit the file"),
        (safetensors(tensor(offsets=(8, 0)), bytes(8)), "does not fit the file"),
        (safetensors(tensor(offsets=(-8, 0)), bytes(8)), "does not fit the file"),
        (safetensors(tensor(shape=(1, -1, -2)), bytes(8)), "does not fit the file"),
        (safetensors(tensor(shape=[2.0]), bytes(8)), "does not fit the file"),
        (safetensors({"w": 3}), "does not fit the file"),
        (safetensors(b'{"w": 1, "w": 2}'), "its header is no JSON (a key is there twice)"),
        (safetensors(b'{"w": '), "its header is no JSON"),
        (safetensors(b"{" + b"[" * 100_000), "its header is no JSON"),
        (safetensors({}), "it holds no arrays"),
        (b"hello", "is no safetensors file, or a damaged one"),
    ],
)
def test_damaged_safetensors(content, message):
    Path("m.safetensors").write_bytes(content)
    refused("m.safetensors:w" if b"F8" in content else "m.safetensors", ReadError, message)


def test_of_a_large_model_one_layer_is_read():
    """A file of 8 GB, most of it a hole."""
    far = 8 << 30
    header = {"w.weight": {"dtype": "F32", "shape": [4, 4, 3, 3, 3], "data_offsets": [far, far + 4 * 4 * 27 * 4]}}
    header["large"] = {"dtype": "F32", "shape": [far // 4], "data_offsets": [0, far]}
    start = safetensors(header)
    values = noise(4, 4, 3, 3, 3)
    with Path("m.safetensors").open("wb") as file:
        file.write(start)
        file.seek(len(start) + far)
        file.write(values.tobytes())
    np.testing.assert_array_equal(load_layer("m.safetensors:w").weight, values)
    refused("m.safetensors:large", ShapeError, "must be a numeric array of 3, 4 or 5 axes")


# --- ONNX


def onnx_model(nodes, **tensors):
    """A model with these nodes and initialisers."""
    initialisers = [onnx.numpy_helper.from_array(value, name.replace("_", ".")) for name, value in tensors.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], initialisers))
    Path("m.onnx").write_bytes(model.SerializeToString())


def conv(name="Conv_0", op="Conv", inputs=("x", "enc.weight", "enc.bias"), **attributes):
    return onnx.helper.make_node(op, list(inputs), ["y"], name=name, **attributes)


W, B = noise(6, 2, 3, 2, 3), noise(6)


def applied(spec, **options):
    """What would be done to a volume of four channels."""
    new("x.h5", (1, 4, 9, 9, 9), "float32", overwrite=True)
    return volconv.apply("x.h5", "y.h5", spec, dry_run=True, **options).job


@pytest.mark.parametrize("key", ["", ":Conv_0", ":enc"])
def test_a_conv_node_brings_its_parameters(key):
    attributes = {"strides": [2, 1, 1], "pads": [1, 2, 0] * 2, "dilations": [1, 2, 1], "kernel_shape": [3, 2, 3]}
    onnx_model([conv(group=2, **attributes)], enc_weight=W, enc_bias=B)
    job = applied(f"m.onnx{key}")
    params = job.params
    assert (params.stride, params.dilation, params.groups) == ((2, 1, 1), (1, 2, 1), 2)
    assert params.padding_low == params.padding_high == (1, 2, 0)
    np.testing.assert_array_equal(job.weight, W)
    np.testing.assert_array_equal(job.bias, B)
    assert job.notes == (f"stride 2,1,1, dilation 1,2,1, groups 2, padding 1,2,0 as m.onnx{key} says",)


def test_what_is_asked_for_goes_before_what_a_node_says():
    onnx_model([conv(group=2, strides=[2, 2, 2], pads=[1, 0, 0, 0, 0, 0])], enc_weight=W, enc_bias=B)
    job = applied("m.onnx", stride=1, padding=(1, 1, 1), bias="0")
    assert (job.params.stride, job.params.padding_low, job.params.groups) == ((1, 1, 1), (1, 1, 1), 2)
    assert not job.bias.any()
    assert job.notes == ("groups 2 as m.onnx says",)


@pytest.mark.parametrize(
    ("attributes", "low", "high"),
    [
        ({"auto_pad": "SAME_UPPER"}, (1, 0, 1), (1, 1, 1)),
        ({"pads": [1, 0, 1, 1, 1, 1]}, (1, 0, 1), (1, 1, 1)),
        ({"auto_pad": "SAME_LOWER", "dilations": [1, 2, 1]}, (1, 1, 1), (1, 1, 1)),
        ({"auto_pad": "VALID"}, (0, 0, 0), (0, 0, 0)),
        ({"auto_pad": "NOTSET", "pads": [2] * 6}, (2, 2, 2), (2, 2, 2)),
        ({}, (0, 0, 0), (0, 0, 0)),
    ],
)
def test_paddings_of_a_node(attributes, low, high):
    onnx_model([conv(group=2, **attributes)], enc_weight=W, enc_bias=B)
    params = applied("m.onnx").params
    assert (params.padding_low, params.padding_high) == (low, high)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"auto_pad": "SAME_LOWER"}, "auto_pad SAME_LOWER with stride 1,1,1"),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2, 2]}, "auto_pad SAME_UPPER with stride 2,2,2"),
        ({"pads": [1, 0, 0, 1, 1, 1]}, "pads 1,0,0 before and 1,1,1 after"),
        ({"pads": [-1] * 6}, "pads -1,-1,-1 before"),
    ],
)
def test_paddings_that_no_conv3d_has(attributes, told):
    onnx_model([conv(group=2, **attributes)], enc_weight=W, enc_bias=B)
    with pytest.raises(ParameterError, match="padding must be given: m.onnx:enc.weight has " + told):
        applied("m.onnx")
    assert applied("m.onnx", padding=1).params.padding_low == (1, 1, 1)


def test_nodes_that_are_no_conv3d():
    flat = conv("Flat", inputs=("x", "flat.weight"))
    up = conv("Up", "ConvTranspose", ("y", "up.weight"))
    onnx_model([up, flat], up_weight=W, flat_weight=noise(2, 3, 3, 3))
    refused("m.onnx:Up", ReadError, "m.onnx:up.weight (6, 2, 3, 2, 3) is the weight of a transposed convolution")
    refused("m.onnx:up.weight", ReadError, TRANSPOSED)
    refused("m.onnx:Flat", ShapeError, "which is a Conv2d's weight")
    refused("m.onnx", ReadError, "it holds 2 arrays, none that could be a Conv3d's kernel: up.weight (6, 2, 3, 2, 3)")


def test_a_weight_that_two_nodes_have_is_named_by_a_node():
    onnx_model([conv("A", strides=[2, 2, 2]), conv("B", inputs=("x", "enc.weight"))], enc_weight=W, enc_bias=B)
    assert load_kernel("m.onnx:A", Geometry()).parameters == {"stride": [2, 2, 2]}
    assert load_kernel("m.onnx:B", Geometry()).bias is None
    assert load_kernel("m.onnx:enc", Geometry()).parameters == {}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("kind", "dtype"), [(1, "f4"), (11, "f8"), (10, "f2"), (3, "i1"), (7, "i8"), (13, "u8"), (9, "?"), (14, "c8")]
)
def test_initialisers_of_every_dtype(raw, kind, dtype):
    values = abs(3 * noise(2, 1, 1, 2, 3)).astype(dtype)
    given = values.tobytes() if raw else values.ravel().tolist()
    tensor = onnx.helper.make_tensor("w", kind, values.shape, given, raw=raw)
    Path("m.onnx").write_bytes(
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    )
    got = load_layer("m.onnx").weight
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, values)


def test_a_constant_node_is_an_initialiser():
    value = onnx.numpy_helper.from_array(W, "v")
    constant = onnx.helper.make_node("Constant", [], ["enc.weight"], value=value)
    onnx_model([constant, conv(inputs=("x", "enc.weight"), group=2)])
    np.testing.assert_array_equal(load_layer("m.onnx:Conv_0").weight, W)


def test_onnx_numbers_in_other_files_are_not_followed():
    onnx_model([conv()], enc_weight=W, enc_bias=B)
    onnx.save(onnx.load("m.onnx"), "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    refused("e.onnx", ReadError, "e.onnx:enc.weight keeps its numbers in another file, and other files are not")


def test_onnx_needs_its_library(monkeypatch):
    onnx_model([conv()], enc_weight=W, enc_bias=B)
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused("m.onnx", ReadError, "m.onnx needs the onnx library to be read; install volconv[onnx]")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07"])
def test_no_onnx_model(content):
    Path("m.onnx").write_bytes(content)
    refused("m.onnx", ReadError, "m.onnx is no ONNX model, or a")


# --- volumes


def test_a_volume_is_a_kernel():
    psf = noise(3, 5, 7)
    nibabel.Nifti1Image(psf.T, np.diag([1, 1, 2, 1])).to_filename("psf.nii.gz")
    tifffile.imwrite("psf.tif", psf, photometric="minisblack")
    bank = noise(3, 2, 5, 7)
    tifffile.imwrite("bank.ome.tif", bank, photometric="minisblack", metadata={"axes": "ZCYX"})
    for name in ("psf.nii.gz", "psf.tif"):
        np.testing.assert_array_equal(load_layer(name).weight, psf)
    np.testing.assert_array_equal(load_layer("bank.ome.tif").weight, bank.swapaxes(0, 1))
    image = nibabel.Nifti1Image(np.arange(27, dtype="u1").reshape(3, 3, 3), np.eye(4))
    image.header.set_slope_inter(0.5, -1)
    image.to_filename("scaled.nii")
    with volconv.open_volume("scaled.nii") as volume:
        np.testing.assert_array_equal(load_layer("scaled.nii").weight, volume.numpy()[0, 0])


def test_voxels_of_another_size_are_told_of():
    nibabel.Nifti1Image(np.ones((3, 3, 3), "f4"), np.diag([1, 1, 2, 1])).to_filename("psf.nii")
    assert load_kernel("psf.nii", Geometry.from_spacing((2, 1, 1))).notes == ()
    assert load_kernel("psf.nii", Geometry()).notes == ()
    assert load_kernel("psf.nii", Geometry.from_spacing((2, 1, 1.5))).notes == (
        "voxels in psf.nii are 2x1x1 mm, those of the volume 2x1x1.5 mm: the kernel is applied voxel by voxel",
    )


def test_volumes_that_are_no_kernel():
    nibabel.Nifti1Image(np.ones((3, 3, 3, 2), "f4"), np.eye(4)).to_filename("series.nii")
    Path("torn.nii").write_bytes(Path("series.nii").read_bytes()[:380])
    refused("series.nii", ShapeError, "series.nii must be one volume to be a kernel (got 2 volumes)")
    refused("torn.nii", ReadError, "torn.nii: is truncated")
    refused("gone.nii", ReadError, "cannot read kernel from gone.nii: No such file or directory")
    refused("series.nii:w", ShapeError, "one volume")


# --- keys


def test_long_lists_are_cut():
    np.savez("w.npz", **{f"conv{n}.weight": np.ones((1, 1, 1, 1, n + 1)) for n in range(40)})
    refused("w.npz", ReadError, "conv9 (1, 1, 1, 1, 10), and 30 more); as in w.npz:conv0")
    refused("w.npz:conv99", ReadError, "and 30 more); did you mean conv9?")


def test_names_of_keras_2_and_others():
    with h5py.File("k2.h5", "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = '{"class_name": "Conv3DTranspose", "config": {"name": "top"}}'
        for name in ("first", "top"):
            file[f"model_weights/{name}/{name}/kernel:0"] = noise(3, 3, 3, 1, 2)
            file[f"model_weights/{name}/{name}/bias:0"] = noise(2)
        file["optimizer_weights/m"] = noise(3, 3, 3, 1, 2)
    layer = load_layer("k2.h5")
    np.testing.assert_array_equal(layer.weight, noise(3, 3, 3, 1, 2))
    assert (layer.layout, layer.bias_name) == ("dhwio", "k2.h5:/model_weights/first/first/bias:0")
    refused("k2.h5:top", ReadError, TRANSPOSED)
    np.savez(
        "a.npz", **{"a|kernel": noise(3, 3, 3), "a|bias": noise(1), "b_weight": noise(1, 1, 1), "c": noise(1, 1, 1)}
    )
    assert [load_layer(f"a.npz:{key}").bias is not None for key in ("a", "b", "c", "a|kernel")] == [1, 0, 0, 0]
    np.savez("t.npz", **{"conv_transpose/kernel": noise(3, 3, 3, 1, 1), "deconv.weight": noise(3, 3, 3, 1, 1)})
    for key in ("conv_transpose", "deconv", "deconv.weight"):
        refused(f"t.npz:{key}", ReadError, f"{TRANSPOSED} by its name")


def test_parts_of_a_weight_are_none():
    save_file({"c.weight_g": noise(2, 1, 1, 1, 1), "c.weight_v": noise(2, 1, 3, 3, 3), "c.bias": noise(2)}, "m.st")
    refused("./m.st", ReadError, "none that could be a Conv3d's kernel")
    refused("./m.st:c.weight_v", ReadError, "is a part that a weight is computed from")
    save_file({"c.parametrizations.weight.original0": noise(2, 1, 3, 3, 3), "original": noise(3, 3, 3)}, "m.st")
    refused("./m.st:c.parametrizations.weight.original0", ReadError, "is a part that a weight is computed from")
    assert load_layer("./m.st:original").weight.shape == (3, 3, 3)


def test_an_empty_weight_is_refused():
    save_file({"c.weight": np.ones((2, 0, 3, 3, 3), "f4"), "c.bias": noise(4)}, "m.safetensors")
    with pytest.raises(ShapeError, match=r"kernel must have no axis of size 0 \(got shape \(2, 0, 3, 3, 3\)"):
        load_kernel("m.safetensors", Geometry())


def test_a_list_of_all():
    listed = {entry.key: entry for entry in list_weights(DATA / "torch.pt")}
    assert list(listed) == [
        *(f"state_dict.{layer}.{role}" for layer in ("enc.0", "up", "flat") for role in ("weight", "bias")),
        "epoch",
        "name",
    ]
    first = listed["state_dict.enc.0.weight"]
    assert (first.shape, first.dtype, first.layer, first.layout) == (
        (4, 2, 3, 2, 1),
        "float32",
        "state_dict.enc.0",
        "oidhw",
    )
    assert TRANSPOSED in listed["state_dict.up.weight"].refusal
    assert listed["epoch"].shape is None


def test_a_bias_that_does_not_fit_its_layer():
    np.savez("w.npz", weight=noise(4, 1, 3, 3, 3), bias=noise(3))
    new("x.nii", (1, 1, 8, 8, 8))
    message = r"bias must have shape \(4,\).*\(got \(3,\) in w\.npz:bias\); -b 0 leaves out a bias"
    with pytest.raises(ShapeError, match=message):
        volconv.apply("x.nii", "y.nii", "w.npz")
    volconv.apply("x.nii", "y.nii", "w.npz", bias="0")


def test_names_of_any_length_make_no_message_of_any_length():
    np.savez("w.npz", **{f"{n}{'k' * 30_000}": noise(3, 3, 3) for n in range(3)})
    save_file({"k" * 5000 + "_transpose.weight": noise(2, 2, 3, 3, 3)}, "m.safetensors")
    for spec in ("w.npz", "w.npz:k", "m.safetensors", f"m.safetensors:{'k' * 5000}_transpose"):
        with pytest.raises(ReadError) as caught:
            load_layer(spec)
        assert len(caught.value.message) <= 900
