"""``volconv shape``: what a convolution would give, from headers and parameters alone."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from command import ANISO, NUCLEI, ROOT, make_nifti, noise, read, volconv
from volconv.report import ShapeReport

MODULE = ["--input-shape", "20,16,10,50,100", "--kernel-size", "3,5,2", "--out-channels", "33"]
MODULE += ["--stride", "2,1,1", "--padding", "4,2,0"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def facts(capsys, *arguments):
    volconv("shape", *arguments, "--json")
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out)


def test_json_of_the_modules_example(capsys):
    assert facts(capsys, *MODULE) == {
        "input_shape": [20, 16, 10, 50, 100],
        "output_shape": [20, 33, 8, 50, 99],
        "kernel_size": [3, 5, 2],
        "effective_kernel": [3, 5, 2],
        "padding_low": [4, 2, 0],
        "padding_high": [4, 2, 0],
        "padding_mode": "zeros",
        "stride": [2, 1, 1],
        "dilation": [1, 1, 1],
        "groups": 1,
        "macs": 20 * 33 * 8 * 50 * 99 * 16 * 3 * 5 * 2,
        "parameters": 33 * 16 * 3 * 5 * 2,
        "output_dtype": "float32",
        "output_bytes": 20 * 33 * 8 * 50 * 99 * 4,
        "input_spacing": None,
        "output_spacing": None,
        "unit": None,
    }


def test_json_has_every_field_of_the_report(capsys):
    assert list(facts(capsys, *MODULE)) == [field.name for field in dataclasses.fields(ShapeReport)]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], {"output_shape": [1, 1, 7, 8, 9]}),
        (["--stride", "2"], {"output_shape": [1, 1, 4, 4, 5], "stride": [2, 2, 2]}),
        (["--padding", "same"], {"output_shape": [1, 1, 9, 10, 11], "padding_high": [1, 1, 1]}),
        (["--dilation", "3"], {"output_shape": [1, 1, 3, 4, 5], "effective_kernel": [7, 7, 7]}),
        (["--padding", "1", "--padding-mode", "circular"], {"padding_mode": "circular"}),
        (["--bias", "1"], {"parameters": 28}),
        (["--out-channels", "4"], {"output_shape": [1, 4, 7, 8, 9], "parameters": 108}),
        (["--dtype", "uint8"], {"output_dtype": "uint8", "output_bytes": 7 * 8 * 9}),
        (["--dtype", "same"], {"output_dtype": "float32"}),
    ],
)
def test_every_option_counts(capsys, options, changes):
    got = facts(capsys, "--input-shape", "9,10,11", "--kernel-size", "3", *options)
    assert {key: got[key] for key in changes} == changes


def test_ranks_of_an_input_shape(capsys):
    for text, given, result in [
        ("9,10,11", [1, 1, 9, 10, 11], [1, 2, 7, 8, 9]),
        ("3,9,10,11", [3, 9, 10, 11], [2, 7, 8, 9]),  # no N in, no N out
        ("4,3,9,10,11", [4, 3, 9, 10, 11], [4, 2, 7, 8, 9]),
    ]:
        got = facts(capsys, "--input-shape", text, "--kernel-size", "3", "--out-channels", "2")
        assert (got["input_shape"], got["output_shape"]) == (given, result)


def test_groups(capsys):
    got = facts(capsys, "--input-shape", "4,9,9,9", "--kernel-size", "3", "--out-channels", "8", "--groups", "4")
    assert got["parameters"] == 8 * 1 * 27
    got = facts(capsys, "--input-shape", "4,9,9,9", "-k", "box:size=3")
    assert (got["groups"], got["parameters"]) == (4, 4 * 27)


def test_a_file_gives_shape_spacing_and_dtype(capsys):
    make_nifti("in.nii", noise(dtype="int32"), np.diag([0.5, 0.75, 2, 1]))
    got = facts(capsys, "in.nii", "-k", "gaussian:sigma=1mm,truncate=2", "--padding", "same", "--dilation", "1,1,2")
    assert got["input_shape"] == got["output_shape"] == [1, 1, 9, 10, 11]
    assert got["kernel_size"] == [3, 7, 9]
    assert got["effective_kernel"] == [3, 7, 17]
    assert got["padding_low"] == got["padding_high"] == [1, 3, 8]
    assert (got["output_dtype"], got["output_bytes"]) == ("float64", 8 * 990)
    assert got["input_spacing"] == got["output_spacing"] == [2, 0.75, 0.5]
    assert got["unit"] == "mm"
    assert facts(capsys, "in.nii", "-k", "box:size=3", "--stride", "1,2,3")["output_spacing"] == [2, 1.5, 1.5]
    assert facts(capsys, "in.nii", "-k", "box:size=3", "--dtype", "same")["output_dtype"] == "int32"


@pytest.mark.parametrize("source", [ANISO, NUCLEI, ROOT / "tests" / "data" / "small_64D.nii"])
@pytest.mark.parametrize("options", [[], ["--stride", "2,1,3", "--padding", "2"], ["--padding", "same"]])
def test_apply_gives_what_shape_foretells(capsys, source, options):
    got = facts(capsys, source, "-k", "box:size=3/4/5", *options)
    volconv("apply", source, "-k", "box:size=3/4/5", *options, "-o", "out.nii", "-q")
    out = read("out.nii")
    assert list(out.shape) == got["output_shape"]
    assert (out.dtype.name, out.nbytes) == (got["output_dtype"], got["output_bytes"])


def test_only_the_header_is_read(capsys):
    """Eight gigabytes that are a hole in the file: whoever read them would still be at it."""
    make_nifti("in.nii", noise((2, 2, 2), "uint8"))
    header = bytearray(Path("in.nii").read_bytes()[:352])
    header[42:48] = np.array([2000, 2000, 2000], "<i2").tobytes()
    with Path("in.nii").open("wb") as file:
        file.write(header)
        file.truncate(352 + 2000**3)
    got = facts(capsys, "in.nii", "-k", "box:size=3", "--stride", "2")
    assert got["input_shape"] == [1, 1, 2000, 2000, 2000]
    assert got["output_shape"] == [1, 1, 999, 999, 999]


def test_a_file_cut_off_after_its_header_is_damaged(capsys):
    make_nifti("in.nii", noise((40, 50, 60)))
    Path("in.nii").write_bytes(Path("in.nii").read_bytes()[:352])
    volconv("shape", "in.nii", "-k", "box:size=3", code=3)
    assert capsys.readouterr().err.startswith("volconv: error: in.nii: ")


# --- the table


def test_the_table_tells_shapes_and_axes(capsys):
    volconv("shape", *MODULE)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "20,16,10,50,100 -> 20,33,8,50,99  (N,C,D,H,W)"
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if re.match(r" *[DHW] ", line)}
    assert rows == {
        "D": ["10", "4", "4", "3", "3", "2", "8"],
        "H": ["50", "2", "2", "5", "5", "1", "50"],
        "W": ["100", "0", "0", "2", "2", "1", "99"],
    }
    assert "15,840 parameters, 12,545,280,000 multiply-adds, output 105 MB as float32" in out
    assert "channels 16 -> 33, groups 1, padding mode zeros" in out


@pytest.mark.parametrize("columns", ["20", "80", "300"])
@pytest.mark.parametrize(
    "arguments",
    [
        MODULE,
        [ANISO, "-k", "gaussian:sigma=7mm", "--padding", "same"],
        ["--input-shape", "1,8,2000,2000,2000", "--kernel-size", "31", "--stride", "4", "--dilation", "60,1,2"],
    ],
)
def test_the_table_fits_80_columns(capsys, monkeypatch, columns, arguments):
    monkeypatch.setenv("COLUMNS", columns)
    volconv("shape", *arguments)
    lines = capsys.readouterr().out.splitlines()
    # The first line holds shapes to be copied, and is never broken.
    assert max(map(len, lines[1:])) <= 80
    assert not any("…" in line or "\x1b" in line for line in lines)


def test_a_table_with_spacing_has_its_unit(capsys):
    volconv("shape", ANISO, "-k", "box:size=3", "--stride", "2")
    out = capsys.readouterr().out
    assert "spacing in mm" in out
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("D"))
    assert row == ["D", "24", "0", "0", "3", "3", "2", "11", "5", "10"]


# --- configuration


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_presets(capsys, preset):
    got = facts(capsys, ROOT / "sample_data" / "mni152_t1.nii.gz", "--config", preset)
    channels = {"edges": 3, "unet_layer1": 8}.get(preset.stem, 1)
    space = [94, 116, 98] if preset.stem == "half" else [189, 233, 197]
    assert got["output_shape"] == [1, channels, *space]
    biases = 8 if preset.stem == "unet_layer1" else 0
    assert got["parameters"] == channels * math.prod(got["kernel_size"]) + biases


def test_a_spacing_goes_with_an_input_shape(capsys):
    got = facts(capsys, "--input-shape", "9,9,9", "-k", "box:size=2", "--stride", "2", "--spacing", "2,1,1um")
    assert got["output_spacing"] == [4.0, 2.0, 2.0]
    assert got["unit"] == "um"
    volconv("shape", "--input-shape", "9,9,9", "-k", "identity", "--time", "0", code=2)
    assert "--time goes with INPUT, not with --input-shape" in capsys.readouterr().err


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either INPUT or --input-shape"),
        (["in.nii", "--input-shape", "1,2,3", "-k", "identity"], 2, "give either INPUT or --input-shape"),
        (["in.nii"], 2, "give --kernel or --kernel-size"),
        (["in.nii", "-k", "identity", "--kernel-size", "3"], 2, "give either --kernel or --kernel-size"),
        (["in.nii", "-k", "identity", "--out-channels", "3"], 2, "give either --kernel or --kernel-size"),
        (["--input-shape", "5,5", "-k", "identity"], 2, r"--input-shape.*must be 3 or 4 or 5 integers .*\(got '5,5'\)"),
        (["--input-shape", "5,5,x", "-k", "identity"], 2, r"--input-shape.*\(got '5,5,x'\)"),
        (["in.nii", "--kernel-size", "3,3"], 2, r"--kernel-size.*must be 1 or 3 integers"),
        (["in.nii", "--kernel-size", "0"], 2, r"kernel_size must be an integer of at least 1 \(got 0\)"),
        (["in.nii", "--kernel-size", "12"], 5, r"kernel must fit into the padded input \(got D=9"),
        (
            ["in.nii", "--kernel-size", "3", "--groups", "2", "--out-channels", "2"],
            5,
            r"groups must divide in_channels \(got groups=2",
        ),
        (["--input-shape", "9,0,9", "-k", "identity"], 5, r"no spatial axis of size 0 \(got H=0\)"),
        (["--input-shape", "9,9,9", "-k", "gaussian:sigma=1mm"], 2, r"--input-shape"),
        (["in.nii", "-k", "boxx"], 2, r"\(got 'boxx'\); did you mean box\?"),
        (["in.nii", "-k", "identity", "--padding", "same", "--stride", "2"], 2, "padding='same' needs stride 1"),
        (["in.nii", "-k", "identity", "--dtype", "flot"], 2, "dtype must be a NumPy dtype"),
        (["gone.nii", "-k", "identity"], 3, "gone.nii: no such file"),
        (["in.nii", "-k", "gone.npy"], 3, "gone.npy"),
        (["in.nii", "--kernel-size", "3", "--bias", "gone.npy"], 3, "gone.npy"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_refusal_is_one_line(capsys, arguments, code, message, as_json):
    make_nifti("in.nii", noise())
    volconv("shape", *arguments, *(["--json"] if as_json else []), code=code)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("volconv: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_debug_shows_a_traceback(capsys):
    volconv("shape", "gone.nii", "-k", "identity", "--debug", code=3)
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


def test_verbose_tells_the_candidates_fastest_first(capsys):
    volconv(
        "shape", "--input-shape", "1,32,64,64,64", "--kernel-size", "3", "--out-channels", "32", "--padding", "1", "-v"
    )
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.endswith(("picked", " s"))]
    assert table[0][0] == "winograd"
    assert table[0][-1] == "picked"
    seconds = [float(row[1]) for row in table]
    assert seconds == sorted(seconds)
    assert {row[0] for row in table} == {"direct", "channels", "winograd", "fft", "gemm"}
    volconv("shape", "--input-shape", "64,64,64", "-k", "gaussian:sigma=2", "-v")
    out = capsys.readouterr().out
    assert "separable" in out
    assert "The kernel is a product of 1-D ones." in out
    volconv("shape", "--input-shape", "9,9,9", "-k", "box:size=3", "-v")
    assert "gemm needs none" in capsys.readouterr().out


def test_json_has_the_candidates_where_they_are_asked_for(capsys):
    line = ["--input-shape", "1,32,64,64,64", "--kernel-size", "3", "--out-channels", "32", "--padding", "1"]
    assert "algorithm" not in facts(capsys, *line)
    found = facts(capsys, *line, "-v")["algorithm"]
    assert found["name"] == "winograd"
    assert found["name"] == min(found["predicted_seconds"], key=found["predicted_seconds"].get)
