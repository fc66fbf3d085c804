"""``volconv kernel``: facts for people, for scripts, and weights as files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from command import ROOT, make_nifti, names, noise, read, volconv
from volconv.geometry import Geometry
from volconv.kernels import NAMES, load_kernel, named_kernels


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys):
    """What a call prints to stdout, or as an error."""

    def call(*arguments, code=0):
        volconv("kernel", *arguments, code=code)
        out, err = capsys.readouterr()
        assert (err == "") == (code == 0)
        assert max(map(len, out.splitlines()), default=0) <= 80
        return out if code == 0 else err

    return call


def test_list_has_every_kernel_with_parameters_and_example(printed):
    text = printed("list")
    assert re.findall(r"^([a-z]+)  ", text, re.MULTILINE) == list(NAMES)
    for kernel in named_kernels().values():
        assert kernel.example in text
        assert " ".join(kernel.description.split()) in " ".join(text.split())
        assert not kernel.parameters or f"takes {', '.join(kernel.parameters)};" in " ".join(text.split())


@pytest.mark.parametrize("name", NAMES)
def test_list_tells_a_formula(printed, name):
    text = printed("list", name)
    assert text.startswith(f"{name}  ")
    assert "`" not in text
    assert len(text.splitlines()) >= 5 or name == "identity"


def test_list_as_json(capsys):
    volconv("kernel", "list", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert [kernel["name"] for kernel in found["kernels"]] == list(NAMES)
    assert set(found["kernels"][0]) == {"name", "description", "parameters", "example", "documentation"}
    volconv("kernel", "list", "box", "--json")
    (kernel,) = json.loads(capsys.readouterr().out)["kernels"]
    assert (kernel["name"], kernel["parameters"]) == ("box", ["size"])


def test_show_for_people(printed):
    assert printed("show", "sobel:axis=x").split("\nalgorithm  ")[0].splitlines() == [
        "kernel     sobel:axis=x",
        "shape      3,3,3  (D,H,W)",
        "dtype      float64",
        "sum        0",
        "norm       8.48528  (root of the sum of squares)",
        "rank       1,1,1  (unfolded along D,H,W)",
        "factors    a product of 1-D kernels",
        "symmetry   even along D, H; odd along W",
        "for        a typical volume 1,1,256,256,256 float32",
    ]
    algorithm, *slices = printed("show", "sobel:axis=x").split("\nalgorithm  ")[1].split("\n\n")
    assert re.match(r"direct, [\d.e-]+ s predicted on one thread \(", algorithm)
    assert slices[0].splitlines() == [
        "middle slice across D: H down, W right",
        "    -1 0 1",
        " ─────────",
        " -1 -2 0 2",
        " 0  -4 0 4",
        " 1  -2 0 2",
    ]
    assert [text.splitlines()[0] for text in slices[1:]] == [
        "middle slice across H: D down, W right",
        "middle slice across W: D down, H right",
    ]


def test_show_of_channels(printed):
    text = printed("show", "gradient", "--channel", "1")
    assert " 1         0 0.707107 1,1,1        1 even,odd,even\n" in text
    assert "\n\nchannel 1:\n\nmiddle slice across D: H down, W right\n" in text
    np.save("layer.npy", np.ones((20, 2, 1, 3, 3)))
    text = printed("show", "layer.npy")
    assert " 15       18 4.24264     -        - even,even,even\n and 4 channels more (--json has all)\n" in text
    assert "\n\nchannel 0, input channel 0:\n\nmiddle slice across D: H down, W right\n" in text
    assert "for        a typical volume 1,2,256,256,256 float32" in text


def test_show_cuts_what_is_large(printed):
    text = printed("show", "gaussian:sigma=2")
    assert "middle slice across D: H down, W right, the middle 7 x 7 of 17 x 17\n" in text
    values = np.full((1, 1, 9), -1.23456e-105 - 1.23456e-105j)
    np.save("c.npy", values)
    text = printed("show", "c.npy")
    assert "sum        -1.1111e-104-1.1111e-104j" in text
    assert " 0 -1.23e-105-1.23e-105j -1.23e-105-1.23e-105j -1.23e-105-1.23e-105j\n" in text


def test_show_for_a_volume(printed):
    make_nifti("v.nii", noise((9, 10, 11), "int16"), np.diag([0.5, 1, 3, 1]))
    text = printed("show", "gaussian:sigma=3mm", "--like", "v.nii")
    assert "shape      9,25,49  (D,H,W)\n" in text
    assert "for        v.nii 1,1,9,10,11 int16, 3,1,0.5 mm\n" in text
    assert "shape      25,25,25  (D,H,W)\n" in printed(
        "show", "gaussian:sigma=3mm", "--like", "v.nii", "--spacing", "1mm"
    )
    assert "unit=mm needs a spacing, and the command states none" in printed("show", "sobel:unit=mm", code=2)


def test_show_as_json(capsys):
    volconv("kernel", "show", "hessian:sigma=1um", "--spacing", "1,0.5,0.5um", "--json")
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        *("schema_version", "kernel", "shape", "dtype", "layout", "bias", "stated"),
        *("volume", "volume_shape", "volume_dtype", "spacing", "unit"),
        *("channels", "algorithm", "predicted_seconds", "shown_channel", "slices"),
    ]
    assert (found["shape"], found["spacing"], found["unit"]) == ([6, 9, 17, 17], [1, 0.5, 0.5], "um")
    assert [channel["products"] for channel in found["channels"]] == [1] * 6
    assert [len(plane["values"]) for plane in found["slices"]] == [7, 7, 7]


def make_model():
    """Layers as Keras orders their axes, without saying so."""
    rng = np.random.default_rng(0)
    layers = {
        "first|kernel": rng.standard_normal((3, 3, 3, 1, 8)).astype(np.float32),
        "first|bias": rng.standard_normal(8).astype(np.float32),
        "up_transpose|kernel": np.ones((2, 2, 2, 4, 8), np.float32),
    }
    np.savez("m.npz", **layers)
    return layers


def printed_json(capsys, *arguments):
    volconv("kernel", *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_list_of_a_file(printed, capsys):
    make_model()
    assert printed("list", "m.npz").splitlines() == [
        "key                  shape      dtype    layer",
        "first|kernel         3,3,3,1,8  float32  first",
        "first|bias           8          float32  first",
        "up_transpose|kernel  2,2,2,4,8  float32  up_transpose",
        "",
        "no kernel  up_transpose|kernel is the weight of a transposed convolution by its",
        "           name",
    ]
    found = printed_json(capsys, "list", "m.npz")
    assert found["file"] == "m.npz"
    assert found["weights"][0] == {
        "key": "first|kernel",
        "shape": [3, 3, 3, 1, 8],
        "dtype": "float32",
        "layer": "first",
        "role": "weight",
        "layout": None,
        "refusal": None,
    }
    assert "give FILE without a key (got 'first')" in printed("list", "m.npz:first", code=2)
    assert "gone.npz" in printed("list", "gone.npz", code=3)


def test_show_of_a_layer(printed, capsys):
    layers = make_model()
    text = printed("show", "m.npz:first")
    assert "shape      8,1,3,3,3  (C_out,C_in/groups,D,H,W)\n" in text
    assert "bias       m.npz:first|bias\n" in text
    assert "layout     dhwio in the file, as TensorFlow and Keras have it\n" in text
    found = printed_json(capsys, "show", "m.npz:first")
    sums = layers["first|kernel"].sum(axis=(0, 1, 2, 3), dtype=float)
    np.testing.assert_allclose([channel["sum"] for channel in found["channels"]], sums, rtol=1e-12)
    assert "shape      3,3,3,1,8" in printed("show", "m.npz:first|kernel")  # alone it may be either; PyTorch's
    shown = printed("show", "m.npz:first|kernel", "--weight-layout", "dhwio")
    assert "shape      8,1,3,3,3" in shown
    make_nifti("v.nii", noise())
    assert "shape      8,1,3,3,3" in printed("show", "m.npz:first|kernel", "--like", "v.nii")


@pytest.mark.parametrize("output", ["l.npz", "l.h5", "l.npz:a.weight", "l.npy", "l.npz:a"])
def test_a_layer_is_saved_with_its_bias(capsys, output):
    make_model()
    make_nifti("v.nii", noise((9, 10, 11), "int16"))
    volconv("kernel", "save", "m.npz:first", output)
    has_bias = output in ("l.npz", "l.h5", "l.npz:a.weight")
    told = "" if has_bias else "  note: m.npz:first|bias is left out: it goes into a .npz or .h5 file, beside an array"
    assert capsys.readouterr().err.startswith(told)
    spec = output.removesuffix(".weight")
    assert load_kernel(spec, Geometry()).weight.shape == (8, 1, 3, 3, 3)
    for kernel, name in (("m.npz:first", "a.nii"), (spec, "b.nii")):
        bias = () if has_bias else ("-b", "0")
        volconv("apply", "v.nii", "-k", kernel, "--padding", "same", "-o", name, "-q", *bias)
    np.testing.assert_array_equal(read("a.nii"), read("b.nii"))


@pytest.mark.parametrize("output", ["k.npy", "k.npz:psf", "k.h5:/psf"])
def test_a_saved_kernel_gives_the_same_result(printed, output):
    make_nifti("v.nii", noise((9, 10, 11), "int16"), np.diag([0.5, 1, 3, 1]))
    spec = "gaussian:sigma=3/1/1mm,order=0/0/1"
    assert printed("save", spec, output, "--like", "v.nii") == ""
    saved = load_kernel(output, Geometry()).weight
    np.testing.assert_array_equal(saved, load_kernel(spec, Geometry.from_spacing((3.0, 1.0, 0.5))).weight)
    for kernel, name in ((spec, "a.nii"), (output, "b.nii")):
        volconv("apply", "v.nii", "-k", kernel, "--padding", "same", "-o", name, "-q")
    np.testing.assert_array_equal(read("a.nii"), read("b.nii"))


def test_save_replaces_with_f_only(printed):
    printed("save", "sobel", "k.npy")
    assert "k.npy: the output already exists; pass -f/--overwrite" in printed("save", "laplacian", "k.npy", code=4)
    assert np.load("k.npy").shape == (3, 3, 3, 3)
    printed("save", "laplacian", "k.npy", "-f")
    assert np.load("k.npy").shape == (3, 3, 3)
    printed("save", "k.npy", "k.npz")  # a file, too
    assert np.load("k.npz")["weight"].shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["list", "gausian"], 2, "(got 'gausian'); did you mean gaussian?"),
        (["show", "gausian"], 2, "(got 'gausian'); did you mean gaussian?"),
        (["show", "sobel", "--channel", "3"], 2, "channel must be 0 to 2 with this kernel (got 3)"),
        (["show", "sobel", "--channel", "-1"], 2, "--channel"),
        (["show", "box:size=3mm", "--spacing", "1,2"], 2, "must be 1 or 3 positive lengths"),
        (["show", "box:size=3mm", "--spacing", "1,2,3"], 2, "spacing must have a unit where no volume states one"),
        (["show", "gone.npy"], 3, "cannot read kernel from gone.npy: No such file"),
        (["show", "sobel", "--like", "gone.nii"], 3, "gone.nii"),
        (["save", "sobel", "k.txt"], 2, "output must be .npy, .npz:KEY, .h5:/PATH"),
        (["save", "sobel", "gone/k.npy"], 1, "gone/k.npy: the output's folder does not exist"),
        (["save", "sobel"], 2, "Missing argument 'FILE[:KEY]'. (see 'volconv kernel save --help')"),
        (["shwo"], 2, "No such command 'shwo'"),
    ],
)
def test_errors(printed, arguments, code, message):
    text = printed(*arguments, code=code)
    assert message in text
    assert text.startswith("volconv: error: ")
    assert text.count("\n") == 1
    assert names(".") == []


def test_the_readme_shows_what_is_printed(printed):
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("### Look at kernels")[1].split("\n### ")[0]
    command = re.search(r"^volconv kernel (show .*)$", section, re.MULTILINE)[1].split()
    block = re.search(r"\n\n```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]
    assert printed(*command).startswith(block)
    assert not Path("out").exists()
