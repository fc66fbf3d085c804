"""``volconv diff``: what it says, and its exit code."""

from __future__ import annotations

import json
import re
import sys

import nibabel
import numpy as np
import pytest
import tifffile

from command import ANISO, NUCLEI, make_nifti, noise, volconv
from volconv.difference import diff


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys):
    """Stdout, where nothing goes to stderr."""

    def call(*arguments, code=0):
        volconv("diff", *arguments, code=code)
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def make_pair(change=0.25, dtype="float32"):
    array = noise((5, 6, 7), dtype)
    other = array.copy()
    other[2, 3, 4] += change
    affine = np.diag([1, 2, 3, 1.0])
    affine[:3, 3] = 10, 20, 30
    make_nifti("a.nii", array, affine)
    make_nifti("b.nii", other, affine)
    return array[2, 3, 4]


def test_the_same(printed):
    make_pair(0)
    assert printed("a.nii", "b.nii") == "a.nii and b.nii are the same\n"
    make_nifti(
        "c.nii.gz", noise((5, 6, 7), "uint8"), np.array([[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    )
    assert printed("a.nii", "c.nii.gz") == (
        "a.nii and c.nii.gz are the same\n  dtype  float32 and uint8, no difference by itself\n"
    )


def test_where_they_differ(printed):
    value = make_pair()
    assert printed("a.nii", "b.nii", code=1).splitlines() == [
        "a.nii and b.nii differ",
        "  voxels   1 of 210 differ by more than 0",
        f"  largest  0.25: {value:g} and {value + 0.25:g}",
        "  at       0,0,2,3,4 (N,C,D,H,W), 14,26,36 mm (x,y,z)",
    ]


def test_within_a_tolerance(printed):
    value = make_pair()
    assert printed("a.nii", "b.nii", "--tol", "0.25").splitlines() == [
        "a.nii and b.nii are the same to within 0.25",
        "  voxels   0 of 210 differ by more than 0.25",
        f"  largest  0.25: {value:g} and {value + 0.25:g}",
        "  at       0,0,2,3,4 (N,C,D,H,W), 14,26,36 mm (x,y,z)",
    ]
    assert "1 of 210 differ by more than 0.2\n" in printed("a.nii", "b.nii", "--tol", "0.2", code=1)


def test_values_with_all_their_digits(printed):
    make_nifti("a.nii", np.full((1, 1, 2), 2**60, np.int64))
    make_nifti("b.nii", np.full((1, 1, 2), 2**60 + 1, np.int64))
    assert f"  largest  1: {2**60} and {2**60 + 1}\n" in printed("a.nii", "b.nii", code=1)
    make_nifti("c.nii", np.full((1, 1, 2), np.nan))
    make_nifti("d.nii", np.full((1, 1, 2), 1 / 3))
    assert "  largest  inf: nan and 0.333333333\n" in printed("c.nii", "d.nii", code=1)


def test_shapes(printed):
    make_nifti("a.nii", noise((5, 6, 7)))
    make_nifti("b.nii", noise((5, 7, 6)))
    assert printed("a.nii", "b.nii", code=1).splitlines() == [
        "a.nii and b.nii differ",
        "  shape  1,1,5,6,7 and 1,1,5,7,6  (N,C,D,H,W)",
    ]


def test_geometry(printed):
    make_nifti("a.nii", noise((5, 6, 7)))
    make_nifti("b.nii", noise((5, 6, 7)), np.diag([1, 1, 2, 1]))
    assert printed("a.nii", "b.nii", code=1).splitlines() == [
        "a.nii and b.nii differ",
        "  geometry  affine [1 0 0 0; 0 1 0 0; 0 0 1 0] mm",
        "            affine [1 0 0 0; 0 1 0 0; 0 0 2 0] mm",
    ]


def test_a_place_without_a_unit(capsys):
    volconv("diff", NUCLEI, NUCLEI.parents[1] / "tests" / "data" / "mask3d.tif", code=1)
    out, err = capsys.readouterr()
    assert re.search(r"  at       0,0,\d+,\d+,\d+ \(N,C,D,H,W\)\n", out)
    assert [line[:8] for line in err.splitlines()] == ["  note: "] * 2


def test_notes_are_told_on_stderr(capsys):
    volconv("diff", ANISO, ANISO)
    out, err = capsys.readouterr()
    assert out == f"{ANISO} and {ANISO} are the same\n"
    assert err == "  note: aniso_vox.nii.gz states no units, taken as mm\n"


def test_quiet(printed):
    make_pair()
    assert printed("a.nii", "b.nii", "-q", code=1) == ""
    assert printed("a.nii", "b.nii", "-q", "--tol", "1") == ""
    volconv("diff", ANISO, ANISO, "-q")


def test_json(printed):
    make_pair()
    for tolerance, code in ((0, 1), (1, 0)):
        text = printed("a.nii", "b.nii", "--json", "--tol", tolerance, code=code)
        assert text.count("\n") == 1
        assert json.loads(text) == json.loads(json.dumps(diff("a.nii", "b.nii", tolerance=tolerance).as_dict()))
    assert json.loads(text)["same"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.nii"], 2, "Missing argument 'B'"),
        (["a.nii", "a.nii", "a.nii"], 2, "unexpected extra argument"),
        (["a.nii", "gone.nii"], 3, "gone.nii: no such file"),
        (["a.nii", "a.nii", "--tol", "-1"], 2, r"tolerance must be a number from 0 \(got -1\.0\)"),
        (["a.nii", "a.nii", "--tol", "nan"], 2, r"tolerance must be a number from 0 \(got nan\)"),
        (["a.nii", "a.nii", "--tol", "x"], 2, "'x' is not a valid float"),
        (["a.nii", "a.nii", "--json", "-q"], 2, "give either --json or --quiet"),
    ],
)
def test_errors_have_higher_codes_than_1(capsys, arguments, code, message):
    make_nifti("a.nii", noise())
    volconv("diff", *arguments, code=code)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(message, err), err
    assert err.count("\n") == 1


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    make_pair(0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    volconv("diff", "a.nii", "b.nii")
    out, err = capsys.readouterr()
    assert out == "a.nii and b.nii are the same\n"
    assert "100%" in err


def test_the_help_tells_the_codes(printed):
    text = printed("--help")
    told = text.partition("Exits with\n")[2].partition("\n\n")[0]
    assert re.findall(r"^ +(\d\+?) ", told, re.MULTILINE) == ["0", "1", "2+"]


def test_another_time_step_is_a_difference(capsys):
    for name, step in (("a", 2.0), ("b", 3.0), ("c", 0.0)):
        image = nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), np.uint8), np.eye(4))
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((1, 1, 1, step))
        image.to_filename(f"{name}.nii")
    volconv("diff", "a.nii", "b.nii", code=1)
    assert "  time step  2 s and 3 s\n" in capsys.readouterr().out
    volconv("diff", "a.nii", "c.nii")  # one does not say
    volconv("diff", "a.nii", "b.nii", "--time", "0")


def test_colours_are_compared_as_channels():
    tifffile.imwrite("a.tif", np.zeros((3, 4, 5, 3), np.uint8), photometric="rgb")
    volconv("diff", "a.tif", "a.tif", code=3)
    volconv("diff", "a.tif", "a.tif", "--rgb")
