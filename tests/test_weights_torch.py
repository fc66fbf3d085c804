"""Files that an installed PyTorch writes: the same numbers as it has itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import volconv
from cases import few
from niftifiles import new
from reference import conv3d as direct_sum
from tolerances import allowed, assert_matches
from volconv.errors import ReadError
from volconv.io import Region
from volconv.kernels.files import load_layer

torch = pytest.importorskip("torch")

UNET = Path(__file__).parents[1] / "sample_data" / "brain_unet.npz"
FLOATS = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "complex32")
DTYPES = (*FLOATS, "int8", "uint8", "int16", "int32", "int64", "uint16", "bool")

# PyTorch's notes on what is new in it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def as_numpy(tensor):
    widened = {torch.bfloat16: torch.float32, torch.complex32: torch.complex64}
    return tensor.detach().to(widened.get(tensor.dtype, tensor.dtype)).resolve_conj().resolve_neg().numpy()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_view(dtype, zipped):
    torch.manual_seed(0)
    values = (5 * torch.randn(4, 3, 3, 3, 3).abs()).to(getattr(torch, dtype))
    views = {
        "all": values,
        "turned": values.transpose(2, 4)[:, 1:],
        "stepped": values[::2, :, 1:, ::2],
        "one": values[3, 2],
        "wide": values[:1, :1, :1, :1, :1].expand(2, 2, 1, 1, 5),
    }
    torch.save(views, "w.pt", _use_new_zipfile_serialization=zipped)
    for key, view in views.items():
        got = load_layer(f"w.pt:{key}").weight
        np.testing.assert_array_equal(got, as_numpy(view))
        assert got.dtype == as_numpy(view).dtype


def test_views_that_are_flags():
    values = torch.randn(2, 1, 2, 2, 2, dtype=torch.complex64)
    for view in (values.conj(), values.conj().imag):
        torch.save({"w": view}, "w.pt")
        np.testing.assert_array_equal(load_layer("w.pt").weight, as_numpy(view))


def test_a_parameter_with_attributes():
    weight = torch.nn.Parameter(torch.randn(2, 1, 3, 3, 3))
    weight.note = "mine"
    torch.save({"a.weight": weight}, "w.pt")
    np.testing.assert_array_equal(load_layer("w.pt:a").weight, as_numpy(weight))


def test_a_tensor_alone_needs_no_key():
    values = torch.randn(3, 3, 3)
    for zipped in (True, False):
        torch.save(values, "w.pt", _use_new_zipfile_serialization=zipped)
        np.testing.assert_array_equal(load_layer("w.pt").weight, values.numpy())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_is_refused_by_its_classes(zipped):
    torch.save(torch.nn.Conv3d(1, 2, 3), "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ReadError, match=r"w\.pt holds torch\.nn\.modules\.conv\.Conv3d, which .*model\.state_dict\(\)"):
        load_layer("w.pt")


def test_other_kinds_of_tensor_are_refused_by_name():
    sparse = torch.ones(2, 1, 3, 3, 3).to_sparse()
    torch.save({"w": sparse}, "s.pt")
    with pytest.raises(ReadError, match=r"s\.pt holds torch\._utils\._rebuild_sparse_tensor, which"):
        load_layer("s.pt:w")
    torch.save({"w": torch.ones(2, 1, 3, 3, 3).to(torch.float8_e4m3fn)}, "f.pt")
    with pytest.raises(ReadError, match=r"must be of a dtype that is read \(got float8_e4m3fn\)"):
        load_layer("f.pt:w")


# --- a network


def volume(path, x):
    new(path, x.shape, "float32", overwrite=True)
    with volconv.create_volume(path, shape=x.shape, dtype="float32", overwrite=True) as sink:
        sink.write(Region.whole(x.shape), x)


def result(path):
    with volconv.open_volume(path) as opened:
        return opened.numpy()


LAYERS = ["conv3d", *(f"conv3d_{n}" for n in range(1, 10))]


@pytest.mark.parametrize("name", few(LAYERS, "conv3d", "conv3d_5", "conv3d_9"))
def test_each_layer_of_a_trained_network(name):
    """Through files, beside PyTorch; its weights are in TensorFlow's order, which their volume tells."""
    with np.load(UNET) as arrays:
        w = np.ascontiguousarray(arrays[f"{name}|kernel"].transpose(4, 3, 0, 1, 2))
        b = arrays.get(f"{name}|bias")
    x = np.random.default_rng(0).standard_normal((1, w.shape[1], 6, 7, 8), dtype=np.float32)
    volume("x.h5", x)
    report = volconv.apply("x.h5", "y.h5", f"{UNET}:{name}", padding="same")
    expected = torch.nn.functional.conv3d(
        torch.from_numpy(x), torch.from_numpy(w), None if b is None else torch.from_numpy(b), padding="same"
    ).numpy()
    pads = tuple(n // 2 for n in w.shape[2:])
    tolerance = allowed("float32", x, w, b, padding=pads)
    assert_matches(result("y.h5"), expected.astype(np.float64), 2 * tolerance)
    assert_matches(result("y.h5"), direct_sum(x, w, b, padding=pads), tolerance)
    assert report.job.weight_layout == "dhwio"
    assert (report.job.loaded_bias is None) == (name == "conv3d_9")


@pytest.mark.parametrize("name", ["conv3d_transpose", "conv3d_transpose_1", "conv3d_transpose_2"])
def test_its_transposed_layers_are_refused(name):
    with pytest.raises(ReadError, match=r"is the weight of a transposed convolution by its name, and no Conv3d's"):
        load_layer(f"{UNET}:{name}")
