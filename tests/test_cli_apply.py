"""``volconv apply``: real files in, real files out."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from nibabel.affines import apply_affine

import reference
import volconv as library
from command import ANISO, NUCLEI, ROOT, make_nifti, names, noise, read, volconv
from tolerances import allowed, assert_matches

BRAIN = ROOT / "sample_data" / "mni152_t1.nii.gz"
UNET = ROOT / "sample_data" / "brain_unet.npz"
PRESETS = sorted((ROOT / "configs").glob("*.toml"))
SCRIPT = Path(sys.executable).parent / "volconv"
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag([-0.5, 0.75, 2.5]), [10, -20, 30]
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOLCONV_THREADS", raising=False)


@pytest.fixture
def kernel():
    """A kernel without any symmetry, in a file."""
    weight = np.random.default_rng(1).standard_normal((3, 2, 4)).astype(np.float32)
    np.save("kernel.npy", weight)
    return weight


def depthwise(weight, channels=1):
    return np.repeat(weight[np.newaxis, np.newaxis], channels, axis=0)


def same_values(path, expected):
    got = read(path)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)


# --- every option


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ([], {}),
        (["--stride", "2"], {"stride": 2}),
        (["--stride", "1,2,3"], {"stride": (1, 2, 3)}),
        (["--padding", "2"], {"padding": 2}),
        (["--padding", "3,0,1"], {"padding": (3, 0, 1)}),
        (["--padding", "same"], {"padding": "same"}),
        (["--padding", "valid"], {"padding": "valid"}),
        (["--padding", "2,1,3", "--padding-mode", "reflect"], {"padding": (2, 1, 3), "padding_mode": "reflect"}),
        (["--padding", "same", "--padding-mode", "replicate"], {"padding": "same", "padding_mode": "replicate"}),
        (["--padding", "4", "--padding-mode", "circular"], {"padding": 4, "padding_mode": "circular"}),
        (["--padding", "4", "--padding-mode", "symmetric"], {"padding": 4, "padding_mode": "symmetric"}),
        (["--padding", "1", "--padding-value", "-1000"], {"padding": 1, "padding_value": -1000}),
        (["--dilation", "2"], {"dilation": 2}),
        (["--dilation", "1,3,2", "--padding", "same"], {"dilation": (1, 3, 2), "padding": "same"}),
        (["--bias", "2.5"], {"bias": [2.5]}),
        (["-b", "-3"], {"bias": [-3]}),
        (["--groups", "1"], {}),
        (["--algorithm", "direct"], {"algorithm": "direct"}),
        (["--algorithm", "gemm"], {"algorithm": "gemm"}),
        (["--threads", "1"], {}),
        (["--threads", "3"], {}),
    ],
)
@pytest.mark.parametrize("source", [ANISO, NUCLEI], ids=["nifti", "tiff"])
def test_options_are_conv3ds_parameters(kernel, source, options, parameters):
    volconv("apply", source, "-k", "kernel.npy", "-o", "out.nii", *options)
    x = read(source).astype(np.float32)
    same_values("out.nii", library.conv3d(x, depthwise(kernel), **parameters))


@pytest.mark.usefixtures("kernel")
def test_options_make_a_difference():
    """No two of them give the same file."""
    lines = [
        [],
        ["--flip-kernel"],
        ["--stride", "2"],
        ["--padding", "1"],
        ["--padding", "1", "--padding-mode", "reflect"],
        ["--padding", "1", "--padding-value", "7"],
        ["--dilation", "2"],
        ["--bias", "1"],
        ["--dtype", "int16"],
        ["--compute-dtype", "float64"],
        ["--compute-dtype", "complex64"],
    ]
    found = []
    for i, line in enumerate(lines):
        volconv("apply", ANISO, "-k", "kernel.npy", "-o", f"{i}.nii", *line)
        found.append((read(f"{i}.nii").dtype, read(f"{i}.nii").tobytes()))
    assert len(set(found)) == len(lines)


def test_flip_kernel_is_convolution_in_the_mathematical_sense(kernel):
    volconv("apply", ANISO, "-k", "kernel.npy", "-o", "out.nii", "--flip-kernel")
    x = read(ANISO).astype(np.float32)
    same_values("out.nii", library.conv3d(x, depthwise(kernel[::-1, ::-1, ::-1])))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_dtype(kernel, dtype):
    volconv("apply", ANISO, "-k", "kernel.npy", "-o", "out.nii", "--dtype", dtype)
    real = library.conv3d(read(ANISO).astype(np.float32), depthwise(kernel))
    if np.dtype(dtype).kind == "f":
        same_values("out.nii", real.astype(dtype))
    else:
        info = np.iinfo(dtype)
        same_values("out.nii", np.clip(np.rint(real.astype(np.float64)), info.min, info.max).astype(dtype))


def test_dtype_same_keeps_the_inputs(capsys):
    volconv("apply", ANISO, "-k", "box:size=3", "--padding", "same", "-o", "out.nii", "--dtype", "same")
    assert read("out.nii").dtype == read(ANISO).dtype == np.int16
    assert "saturated" not in capsys.readouterr().err


def test_saturated_voxels_and_those_that_are_no_number_are_counted(capsys):
    values = np.zeros((2, 2, 3), np.float32)
    values[0, 0] = [300, -5, np.nan]
    values[1] = 300
    make_nifti("in.nii", values)
    volconv("apply", "in.nii", "-k", "identity", "-o", "out.nii", "--dtype", "uint8")
    err = capsys.readouterr().err
    assert "  8 voxels saturated in uint8\n" in err
    assert "  1 voxel not a number, stored as 0 in uint8\n" in err
    assert read("out.nii")[0, 0, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("uint8", "float32"),
        ("int16", "float32"),
        ("int32", "float64"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("complex64", "complex64"),
    ],
)
def test_the_weights_follow_the_volume(kernel, stored, expected):
    x = noise(dtype=stored)
    make_nifti("in.nii", x)
    volconv("apply", "in.nii", "-k", "kernel.npy", "-o", "out.nii")
    same_values("out.nii", library.conv3d(x[None, None].astype(expected), depthwise(kernel).astype(expected)))


@pytest.mark.parametrize("compute", ["float32", "float64", "complex64", "complex128"])
def test_compute_dtype(kernel, compute):
    volconv("apply", ANISO, "-k", "kernel.npy", "-o", "out.nii", "--compute-dtype", compute)
    same_values("out.nii", library.conv3d(read(ANISO).astype(compute), depthwise(kernel).astype(compute)))


def test_a_bank_and_its_bias_from_files():
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((5, 3, 3, 3)), rng.standard_normal(5)
    np.savez("layer.npz", weight=weight, bias=bias)
    volconv("apply", NUCLEI, "-k", "layer.npz:weight", "-b", "layer.npz:bias", "--padding", "1", "-o", "out.nii")
    x = read(NUCLEI).astype(np.float32)
    same_values("out.nii", library.conv3d(x, weight[:, None].astype(np.float32), bias.astype(np.float32), padding=1))


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_channels(groups):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 6, 7, 8)).astype(np.float32)
    weight = rng.standard_normal((6, 4 // groups, 3, 3, 3)).astype(np.float32)
    np.save("w.npy", weight)
    image = nibabel.Nifti1Image(x.transpose(4, 3, 2, 0, 1), np.eye(4))
    image.to_filename("in.nii")
    volconv("apply", "in.nii", "-k", "w.npy", "--groups", groups, "-o", "out.nii")
    same_values("out.nii", library.conv3d(x, weight, groups=groups))


def test_a_kernel_of_three_axes_is_for_each_channel(kernel):
    x = noise((1, 3, 6, 7, 8))
    nibabel.Nifti1Image(x.transpose(4, 3, 2, 0, 1), np.eye(4)).to_filename("in.nii")
    volconv("apply", "in.nii", "-k", "kernel.npy", "-o", "out.nii")
    same_values("out.nii", library.conv3d(x, depthwise(kernel, 3), groups=3))


def test_volumes_over_time():
    source = ROOT / "tests" / "data" / "small_64D.nii"
    volconv("apply", source, "-k", "gaussian:sigma=1", "--padding", "same", "-o", "out.nii")
    x = read(source).astype(np.float32)
    assert x.shape[0] == 65
    weight = library.kernels.load_kernel("gaussian:sigma=1", library.Geometry()).weight
    expected = library.conv3d(x, depthwise(weight).astype(np.float32), padding="same")
    np.testing.assert_allclose(read("out.nii"), expected, rtol=1e-6)  # its factors were not rounded to float32 first


@pytest.mark.parametrize("spec", ["gaussian:sigma=4mm", "gaussian:fwhm=8mm,truncate=2"])
def test_millimetres_are_the_volumes(spec):
    volconv("apply", ANISO, "-k", spec, "--padding", "same", "-o", "out.nii")
    with library.open_volume(ANISO) as volume:
        weight = library.kernels.load_kernel(spec, volume.info.geometry).weight
    assert weight.shape[0] < weight.shape[1]  # 5 mm along z, 4 mm across
    expected = library.conv3d(read(ANISO).astype(np.float32), depthwise(weight).astype(np.float32), padding="same")
    np.testing.assert_allclose(read("out.nii"), expected, rtol=1e-6)


# --- formats


def inputs_of_every_format():
    x = noise((6, 7, 8), "uint8")
    make_nifti("in.nii.gz", x)
    tifffile.imwrite("in.tif", x, photometric="minisblack", metadata={"axes": "ZYX"})
    import h5py

    with h5py.File("in.h5", "w") as file:
        file["raw"] = x
    return x


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(["nii.gz", "h5", "tif"], ["nii", "nii.gz", "h5", "tif"]))
)
def test_any_format_into_any_other(kernel, source, target):
    x = inputs_of_every_format()
    volconv("apply", f"in.{source}", "-k", "kernel.npy", "-o", f"out.{target}")
    same_values(f"out.{target}", library.conv3d(x[None, None].astype(np.float32), depthwise(kernel)))


def test_datasets_inside_hdf5(kernel):
    x = inputs_of_every_format()
    volconv("apply", "in.h5:/raw", "-k", "kernel.npy", "-o", "out.h5:/deep/down")
    expected = library.conv3d(x[None, None].astype(np.float32), depthwise(kernel))
    np.testing.assert_array_equal(read("out.h5", "deep/down").reshape(expected.shape), expected)


def test_the_spacing_goes_from_format_to_format():
    make_nifti("in.nii", noise(), np.diag([0.5, 0.75, 2, 1]))
    for target in ("out.tif", "out.h5", "out.nii"):
        volconv("apply", "in.nii", "-k", "box:size=2", "--stride", "1,2,3", "-o", target)
        with library.open_volume(target) as volume:
            assert volume.info.geometry.unit in ("mm", "um")
            assert volume.info.geometry.spacing_in("mm") == pytest.approx((2, 1.5, 1.5))


# --- geometry


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--padding", "4,0,2"],
        ["--padding", "same", "--dilation", "1,2,3"],
        ["--stride", "2", "--padding", "1"],
        ["--stride", "3,1,2", "--padding", "2,3,4", "--dilation", "2,1,3"],
    ],
)
@pytest.mark.parametrize(
    "affine",
    [pytest.param(np.diag([1.5, 2, 3, 1]), id="straight", marks=pytest.mark.slow), pytest.param(OBLIQUE, id="oblique")],
)
def test_a_bright_voxel_stays_where_it_is_in_the_world(options, affine):
    weight = np.zeros((3, 3, 3))
    weight[1, 1, 1] = 1
    np.save("centre.npy", weight)
    found = 0
    for position in itertools.product((9, 10, 11), repeat=3):
        x = np.zeros((20, 21, 22), np.float32)
        x[position] = 1
        make_nifti("in.nii", x, affine)
        volconv("apply", "in.nii", "-k", "centre.npy", "-o", "out.nii", "-f", *options)
        out = nibabel.load("out.nii")
        y = np.asarray(out.dataobj)
        if not y.max():
            continue  # between the outputs of a stride
        found += 1
        before = apply_affine(nibabel.load("in.nii").affine, position[::-1])
        after = apply_affine(out.affine, np.unravel_index(y.argmax(), y.shape))
        np.testing.assert_allclose(after, before, atol=1e-4)
    strides = [int(s) for s in options[1].split(",")] * 3 if "--stride" in options else [1, 1, 1]
    # Every residue is seen once along each axis of stride 3, at least once along the others.
    assert found >= np.prod([3 // s for s in strides[:3]])


@pytest.mark.parametrize("spec", ["box:size=2", "box:size=4/2/3", "gaussian:sigma=0.8", "laplacian"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_symmetric_kernel_does_not_move_the_centre_of_mass(spec, dilation):
    x = np.zeros((20, 21, 22), np.float32)
    x[8:11, 9:12, 10:12] = noise((3, 3, 2)) + 1
    make_nifti("in.nii", x, OBLIQUE)
    if spec == "laplacian":
        weight = library.kernels.load_kernel(spec, library.Geometry()).weight
        weight[1, 1, 1] = 1  # the original has no mass
        np.save("k.npy", weight)
        spec = "k.npy"
    volconv("apply", "in.nii", "-k", spec, "--padding", 6, "--dilation", dilation, "-o", "out.nii")

    def centre(path):
        image = nibabel.load(path)
        mass = np.asarray(image.dataobj, np.float64)
        index = [(np.indices(mass.shape)[i] * mass).sum() / mass.sum() for i in range(3)]
        return apply_affine(image.affine, index)

    np.testing.assert_allclose(centre("out.nii"), centre("in.nii"), atol=1e-4)


# --- weights of a network, presets, configuration


def brain_crop(name="brain.nii.gz"):
    nibabel.load(BRAIN).slicer[80:110, 100:128, 70:96].to_filename(name)
    return read(name)


def test_the_first_layer_of_a_network_on_a_brain():
    x = brain_crop().astype(np.float32)
    volconv("apply", "brain.nii.gz", "-k", f"{UNET}:conv3d", "--padding", "same", "-o", "f.nii.gz")
    with np.load(UNET) as layer:
        w, b = layer["conv3d|kernel"].transpose(4, 3, 0, 1, 2), layer["conv3d|bias"]
    got = read("f.nii.gz")
    assert got.shape == (1, 8, *x.shape[2:])
    parameters = {"padding": (1, 1, 1)}
    assert_matches(got, reference.conv3d(x, w, b, **parameters), allowed("float32", x, w, b, **parameters))


#: What a preset makes of one channel: channels, dtype, and size.
MADE = {
    "edges": (3, "float32", 1),
    "half": (1, "uint8", 2),
    "microscopy": (1, "uint8", 1),
    "unet_layer1": (8, "float32", 1),
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets(preset):
    x = brain_crop()
    output = "out.ome.tif" if preset.stem == "microscopy" else "out.nii.gz"
    volconv("apply", "brain.nii.gz", "--config", preset, "-o", output)
    channels, dtype, divided = MADE.get(preset.stem, (1, "float32", 1))
    got = read(output)
    assert got.shape == (1, channels, *(size // divided for size in x.shape[2:]))
    assert got.dtype == dtype
    assert got.std() > 0
    if preset.stem == "mean":
        edges = np.pad(x[0, 0].astype(float), 1, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(edges, (3, 3, 3))
        np.testing.assert_allclose(got[0, 0], windows.mean((3, 4, 5)), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_say_when_to_use_them_and_how(preset):
    comment = "".join(line for line in preset.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert len(comment) > 150
    assert f"--config configs/{preset.name}" in comment


def threads_used(capsys):
    return int(re.search(r"on (\d+) threads", capsys.readouterr().err)[1])


def test_flags_win_over_the_environment_and_that_over_the_configuration(capsys, monkeypatch):
    Path("conf.toml").write_text('kernel = "box:size=3"\nthreads = 3\nstride = 2\n')
    line = ["apply", NUCLEI, "-v", "-f", "-o", "out.nii", "--config", "conf.toml"]
    volconv(*line)
    assert threads_used(capsys) == 3
    assert read("out.nii").shape[2:] == (15, 30, 28)
    monkeypatch.setenv("VOLCONV_THREADS", "4")
    volconv(*line)
    assert threads_used(capsys) == 4
    volconv(*line, "--threads", "5", "--stride", "3")
    assert threads_used(capsys) == 5
    assert read("out.nii").shape[2:] == (10, 20, 19)
    volconv(*[part for part in line if part not in ("--config", "conf.toml")], "-k", "box:size=3")
    assert threads_used(capsys) == 4


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5"])
def test_bad_threads_are_refused_wherever_they_are_from(capsys, monkeypatch, value):
    volconv("apply", NUCLEI, "-k", "identity", "-o", "out.nii", "--threads", value, code=2)
    monkeypatch.setenv("VOLCONV_THREADS", value)
    volconv("apply", NUCLEI, "-k", "identity", "-o", "out.nii", code=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("--threads" in line for line in lines)
    assert names(".") == []


@pytest.mark.parametrize("value", ["many", "-1G", "64M", "0"])
def test_bad_bounds_on_memory_are_refused_wherever_they_are_from(capsys, monkeypatch, value):
    volconv("apply", NUCLEI, "-k", "identity", "-o", "out.nii", "--memory", value, code=2)
    monkeypatch.setenv("VOLCONV_MEMORY", value)
    volconv("apply", NUCLEI, "-k", "identity", "-o", "out.nii", code=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("'--memory'" in line and value in line for line in lines)
    assert names(".") == []


def test_a_configuration_may_give_every_required_option_but_the_output(capsys):
    Path("conf.toml").write_text('kernel = "identity"\n')
    volconv("apply", NUCLEI, "--config", "conf.toml", code=2)
    assert "Missing option '-o' / '--output'" in capsys.readouterr().err
    Path("conf.toml").write_text('kernal = "identity"\n')
    volconv("apply", NUCLEI, "--config", "conf.toml", "-o", "out.nii", code=2)
    assert capsys.readouterr().err.endswith("(got 'kernal'); did you mean kernel?\n")


# --- refusals


REFUSED = {
    "missing input": (["gone.nii"], 3, r"gone\.nii: no such file"),
    "unknown kind of input": (["in.txt"], 3, r"in\.txt: the suffix names no known kind of volume"),
    "damaged input": (["torn.nii"], 3, r"torn\.nii"),
    "not gzip": (["fake.nii.gz"], 3, r"fake\.nii\.gz"),
    "bad option": (["in.nii", "--strid", "2"], 2, r"No such option '?--strid"),
    "bad value": (["in.nii", "--stride", "two"], 2, r"--stride.*must be 1 or 3 integers .*\(got 'two'\)"),
    "two numbers": (["in.nii", "--stride", "1,2"], 2, r"--stride.*\(got '1,2'\)"),
    "stride 0": (["in.nii", "--stride", "0"], 2, r"stride must be an integer of at least 1 \(got 0\)"),
    "padding": (["in.nii", "--padding", "full"], 2, r"--padding.*same.*valid.*\(got 'full'\)"),
    "negative padding": (["in.nii", "--padding", "-1"], 2, r"padding must be an integer of at least 0 \(got -1\)"),
    "padding mode": (["in.nii", "--padding-mode", "wrap"], 2, r"--padding-mode.*wrap"),
    "padding value": (["in.nii", "--padding-value", "air"], 2, r"--padding-value.*must be a number \(got 'air'\)"),
    "value and mode": (
        ["in.nii", "--padding-value", "1", "--padding-mode", "reflect", "--padding", "1"],
        2,
        r"padding_value needs padding_mode='zeros'",
    ),
    "complex padding value": (["in.nii", "--padding-value", "1j"], 5, r"padding_value must be a number that float32"),
    "same with a stride": (["in.nii", "--padding", "same", "--stride", "2"], 2, r"padding='same' needs stride 1"),
    "algorithm": (
        ["in.nii", "--algorithm", "fast"],
        2,
        r"algorithm must be one of auto, direct, .*, gemm \(got 'fast'\)",
    ),
    "kernel name": (["in.nii", "-k", "gausian:sigma=1"], 2, r"\(got 'gausian:sigma=1'\); did you mean gaussian\?"),
    "kernel parameter": (["in.nii", "-k", "box:sise=3"], 2, r"sise"),
    "missing kernel file": (["in.nii", "-k", "gone.npy"], 3, r"gone\.npy: No such file"),
    "kernel key": (["in.nii", "-k", "layer.npz:wait"], 3, r"layer\.npz has no layer or array 'wait' \(it holds weight"),
    "channels": (["in.nii", "-k", "layer.npz:weight"], 5, r"in\.nii: .*got in_channels=1, weights for 2"),
    "groups": (["in.nii", "-k", "layer.npz:weight", "--groups", "3"], 5, r"groups must divide out_channels"),
    "bias": (["in.nii", "-b", "layer.npz:bias"], 5, r"bias must have one value for each output channel"),
    "no number": (["in.nii", "-b", "one"], 2, r"bias must be a finite number or a file"),
    "kernel too large": (
        ["in.nii", "-k", "box:size=12"],
        5,
        r"in\.nii: kernel must fit into the padded input \(got D=9",
    ),
    "pad too wide": (
        ["in.nii", "--padding", "9", "--padding-mode", "reflect"],
        5,
        r"padding must be smaller than the axis",
    ),
    "dtype": (["in.nii", "--dtype", "flot"], 2, r"dtype must be a NumPy dtype such as .* \(got 'flot'\)"),
    "compute dtype": (
        ["in.nii", "--compute-dtype", "int8"],
        2,
        r"compute_dtype must be one of float32, .*\(got 'int8'",
    ),
    "complex into real": (
        ["in.nii", "--compute-dtype", "complex64", "--dtype", "float32"],
        5,
        r"output dtype must be complex",
    ),
    "unknown kind of output": (
        ["in.nii", "-o", "out.xyz"],
        2,
        r"output must have a suffix that names a format: \.nii, .*\(got 'out\.xyz'\); a name that ends in / is",
    ),
    "a format that is only read": (["in.nii", "-o", "out.mgz"], 2, r"\(got 'out\.mgz'; FreeSurfer MGH is only read\)"),
    "quiet and verbose": (["in.nii", "-q", "-v"], 2, "give either --quiet or --verbose"),
    "report of a dry run": (["in.nii", "-n", "--report", "r.json"], 2, "--dry-run touches nothing: give --json"),
    "creation option": (
        ["in.nii", "--co", "tile=16,16"],
        2,
        r"must be left out for NIfTI, which has none \(got 'tile'\)",
    ),
    "no creation option": (["in.nii", "--co", "zlib"], 2, r"must be NAME=VALUE, as in compression=zlib \(got 'zlib'\)"),
    "spacing": (["in.nii", "--spacing", "1,2"], 2, r"must be 1 or 3 positive lengths and a unit .* \(got '1,2'\)"),
    "spacing of 0": (["in.nii", "--spacing", "0mm"], 2, r"\(got '0mm'\)"),
    "time": (["in.nii", "--time", "a"], 2, r"must be an index from 0 or a range such as 0:10 \(got 'a'\)"),
    "no such time": (["in.nii", "--time", "1"], 5, r"time must be an index below 1 .* \(got 1, in\.nii has 1\)"),
    "no such channels": (["in.nii", "--channel", "0:3"], 5, r"channel must be .* \(got 0:3, in\.nii has 1\)"),
    "no folder": (["in.nii", "-o", "none/out.nii"], 1, r"none/out\.nii: the output's folder does not exist"),
    "a folder": (["in.nii", "-o", "folder.nii", "-f"], 1, r"folder\.nii: is a folder"),
    "existing output": (["in.nii", "-o", "old.nii"], 4, r"old\.nii: the output already exists; pass -f/--overwrite"),
    "config": (["in.nii", "--config", "gone.toml"], 2, r"cannot read gone\.toml: No such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_line_and_leaves_everything_as_it_was(capsys, name):
    arguments, code, message = REFUSED[name]
    make_nifti("in.nii", noise())
    Path("torn.nii").write_bytes(Path("in.nii").read_bytes()[:1000])
    for other in ("in.txt", "fake.nii.gz", "old.nii"):
        Path(other).write_text("something else")
    Path("folder.nii").mkdir()
    np.savez("layer.npz", weight=np.ones((4, 2, 3, 3, 3)), bias=np.ones(3))
    before = {p: Path(p).read_bytes() for p in names(".") if Path(p).is_file()}
    listing = names(".")
    line = ["apply", *arguments]
    for option, default in (("-k", "box:size=3"), ("-o", "out.nii")):
        line += [] if option in arguments else [option, default]
    volconv(*line, code=code)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(message, err), err
    assert err.startswith("volconv: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert names(".") == listing
    assert {p: Path(p).read_bytes() for p in before} == before
    assert names("folder.nii") == []


def test_debug_shows_a_traceback(capsys):
    volconv("apply", "gone.nii", "-k", "identity", "-o", "out.nii", "--debug", code=3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "volconv: error: gone.nii: no such file"
    assert sum(line.startswith("volconv: error: ") for line in lines) == 1


def test_debug_shows_a_traceback_for_each_of_several():
    done = subprocess.run(
        [SCRIPT, "apply", "a.nii", "b.nii", "-k", "identity", "-o", "{stem}.h5", "--debug"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last):") == 2


# --- outputs


@pytest.mark.usefixtures("kernel")
def test_overwriting_takes_a_flag():
    make_nifti("in.nii", noise())
    volconv("apply", "in.nii", "-k", "kernel.npy", "-o", "out.nii")
    first = Path("out.nii").read_bytes()
    volconv("apply", "in.nii", "-k", "box:size=3", "-o", "out.nii", code=4)
    assert Path("out.nii").read_bytes() == first
    volconv("apply", "in.nii", "-k", "box:size=3", "-o", "out.nii", "-f")
    assert Path("out.nii").read_bytes() != first
    assert names(".") == ["in.nii", "kernel.npy", "out.nii"]


@pytest.mark.parametrize("name", ["in.nii", "in.nii.gz", "in.h5:/raw", "in.tif"])
def test_the_output_may_be_the_input(kernel, name):
    x = inputs_of_every_format()
    make_nifti("in.nii", x)
    path = Path(name.partition(":")[0])
    before = path.read_bytes()
    volconv("apply", name, "-k", "kernel.npy", "--padding", "same", "-o", name, code=4)
    assert path.read_bytes() == before
    volconv("apply", name, "-k", "kernel.npy", "--padding", "same", "-o", name, "-f")
    expected = library.conv3d(x[None, None].astype(np.float32), depthwise(kernel), padding="same")
    np.testing.assert_array_equal(read(path, "raw").reshape(expected.shape), expected)
    assert names(".") == ["in.h5", "in.nii", "in.nii.gz", "in.tif", "kernel.npy"]


@pytest.mark.usefixtures("kernel")
def test_outputs_are_byte_reproducible():
    make_nifti("in.nii", noise())
    for target in ("nii", "nii.gz", "h5", "tif"):
        for name, threads in (("one", 1), ("two", 3)):
            volconv("apply", "in.nii", "-k", "kernel.npy", "-o", f"{name}.{target}", "--threads", threads)
        one, two = (Path(f"{name}.{target}").read_bytes() for name in ("one", "two"))
        assert one == two, target


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 6)])
@pytest.mark.parametrize("existing", [True, False])
def test_what_stops_a_run_half_way_leaves_no_trace(capsys, monkeypatch, error, code, existing):
    make_nifti("in.nii", noise())
    if existing:
        Path("out.nii").write_text("old")
    before = names(".")

    def stop(plan, _source, sink, *_):
        sink.write(plan.blocks[0], np.zeros(plan.blocks[0].shape, sink.info.dtype))
        raise error

    monkeypatch.setattr("volconv.making.run", stop)
    volconv("apply", "in.nii", "-k", "box:size=3", "-o", "out.nii", "-f", code=code)
    err = capsys.readouterr().err.removeprefix("\n")  # click leaves the terminal's line with ^C first
    assert err.count("\n") == 1
    assert err.startswith("volconv: interrupted" if code == 130 else "volconv: error: in.nii: needs more memory than")
    assert names(".") == before
    assert not existing or Path("out.nii").read_text() == "old"


def test_interrupted_before_anything(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("volconv.functional.apply", interrupt)
    make_nifti("a.nii", noise())
    for inputs in (["a.nii"], ["a.nii", "b.nii"]):  # the rest is not begun
        volconv("apply", *inputs, "-k", "identity", "-o", "{stem}.h5", code=130)
        assert capsys.readouterr() == ("", "\nvolconv: interrupted\n")  # click leaves the line with ^C first


# --- what is said


def test_one_line_a_file_on_stderr_and_nothing_on_stdout(capsys):
    make_nifti("in.nii", noise(), np.diag([0.5, 0.5, 2, 1]))
    volconv("apply", "in.nii", "-k", "box:size=3", "--stride", "2", "-o", "out.nii")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"in\.nii -> out\.nii: 1,1,9,10,11 -> 1,1,4,4,5, 2x0\.5x0\.5 -> 4x1x1 mm, (direct|gemm), \d+\.\d\d s\n", err
    )


def test_quiet_says_nothing_and_verbose_says_more(capsys):
    for options in (["-q"], [], ["-v"]):
        volconv("apply", ANISO, "-k", "box:size=3", "-o", "out.nii", "-f", *options)
        out, err = capsys.readouterr()
        assert out == ""
        assert (err == "") == (options == ["-q"])
        assert ("float32 by gemm on " in err) == (options == ["-v"])
        assert ("predicted  on one thread: direct " in err) == (options == ["-v"])
    volconv("apply", "gone.nii", "-k", "box:size=3", "-o", "out.nii", "-f", "-q", code=3)
    assert capsys.readouterr().err == "volconv: error: gone.nii: no such file\n"


def test_notes_are_shown_indented(capsys):
    volconv("apply", ANISO, "-k", "box:size=3", "-o", "out.nii")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [f"  note: {ANISO.name} states no units, taken as mm"]


def test_no_escape_codes_where_stderr_is_no_terminal():
    shutil.copy(ANISO, "in.nii.gz")
    done = subprocess.run(
        [SCRIPT, "apply", "in.nii.gz", "-k", "box:size=3", "-o", "out.nii"], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert done.stderr.startswith("in.nii.gz -> out.nii: ")
    same_values("out.nii", library.conv3d(read(ANISO).astype(np.float32), np.full((1, 1, 3, 3, 3), 1 / 27, np.float32)))


@pytest.mark.usefixtures("kernel")
def test_apply_as_a_function_does_the_same():
    seen = []
    report = library.apply(
        ANISO,
        "function.nii",
        "kernel.npy",
        stride=2,
        padding=1,
        threads=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    volconv("apply", ANISO, "-k", "kernel.npy", "-o", "command.nii", "--stride", "2", "--padding", "1")
    assert Path("function.nii").read_bytes() == Path("command.nii").read_bytes()
    assert seen[-1] == (read("command.nii").nbytes,) * 2
    assert report.shape.output_shape == read("command.nii").shape
    assert (report.inputs, report.output) == ((str(ANISO),), "function.nii")
    assert report.plan.algorithm in report.plan.candidates
    json.dumps(report.shape.as_dict())


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("", "-k", "identity", "-o", "out.nii"), "input must have a name (got an empty one)", 3),
        (("in.nii", "-k", "identity", "-o", ""), "output must have a name (got an empty one)", 2),
        (("in.nii", "-k", "identity", "-o", "out.nii", "--padding", "100000"), "and its folder has room for", 1),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path, monkeypatch, capsys, arguments, message, code):
    monkeypatch.chdir(tmp_path)
    make_nifti("in.nii", noise())
    volconv("apply", *arguments, code=code)
    assert message in capsys.readouterr().err
    assert names(tmp_path) == ["in.nii"]
