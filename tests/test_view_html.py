"""Pages of ``volconv view``: what is in the file. How a browser shows it is in test_view_browser.py."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import re
from importlib.resources import files
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import NUCLEI, make_nifti, names, noise, read, volconv
from niftifiles import OBLIQUE
from volconv.view import html, view


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def taken_apart(path):
    """A page's facts, and its volumes as nibabel reads them."""
    text = Path(path).read_text(encoding="utf-8")
    facts = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    packed = re.findall(r'<script type="application/octet-stream" id="volume-\d">(.*?)</script>', text, re.DOTALL)
    images = [
        nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(base64.b64decode(data, validate=True))))
        for data in packed
    ]
    return json.loads(facts[0]), images


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "int32"])
def test_voxels_and_geometry_are_in_the_page(dtype):
    make_nifti("a.nii", noise((5, 6, 7), dtype), OBLIQUE)
    view(["a.nii"], "a.html", at="1,2,3")
    facts, [image] = taken_apart("a.html")
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(nibabel.load("a.nii").dataobj))
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    assert facts["volumes"][0]["value"] == noise((5, 6, 7), dtype)[3, 2, 1]
    shown = facts["page"]["shown"][0]
    np.testing.assert_allclose(np.array(shown["to_voxel"]) @ [*shown["start"], 1], [1, 2, 3, 1], atol=1e-5)


def test_where_no_directions_are_known_y_and_z_run_downwards():
    view([NUCLEI], "a.html")
    facts, [image] = taken_apart("a.html")
    np.testing.assert_array_equal(np.asarray(image.dataobj), read(NUCLEI)[0, 0].transpose())
    np.testing.assert_array_equal(image.affine, np.diag([1, -1, -1, 1]))
    assert not facts["page"]["shown"][0]["oriented"]
    assert "no directions in a body are known: x runs to the right, y and z downwards" in facts["notes"]


def test_a_large_volume_is_made_smaller_and_the_page_says_so(monkeypatch):
    monkeypatch.setattr(html, "MOST_VOXELS", 100)
    array = noise((4, 9, 11), "uint8")
    make_nifti("a.nii", array, np.diag([1, 1, 2, 1]))
    view(["a.nii"], "a.html")
    facts, [image] = taken_apart("a.html")
    shown = facts["page"]["shown"][0]
    d, h, w = shown["step"]
    assert (d, h, w) == (1, 2, 2)
    boxes = array[:, :8, :10].reshape(4, 4, 2, 5, 2).mean((2, 4), dtype=np.float64)
    np.testing.assert_allclose(np.asarray(image.dataobj), boxes.transpose(), rtol=1e-6)
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [0.5, 0.5, 0, 1])
    assert "shown smaller, as means of 2 × 2 × 1 voxels" in shown["told"]


@given(st.tuples(*[st.integers(1, 5000)] * 3), st.tuples(*[st.floats(0.1, 10)] * 3))
def test_steps_leave_few_enough_voxels_and_no_fewer_than_that(shape, spacing):
    step = html.smaller(shape, spacing)
    left = math.prod(max(1, size // s) for size, s in zip(shape, step))
    assert left <= html.MOST_VOXELS
    assert step == (1, 1, 1) or left > html.MOST_VOXELS / 4
    assert all(s <= size for s, size in zip(step, shape))


def test_the_difference_is_in_the_page():
    make_nifti("a.nii", noise())
    make_nifti("b.nii", noise(seed=1, dtype="int16"))
    scene = view(["a.nii", "b.nii"], "a.html")
    facts, images = taken_apart("a.html")
    expected = noise(seed=1) - noise()
    np.testing.assert_array_equal(np.asarray(images[2].dataobj), expected.transpose())
    assert facts["page"]["shown"][2]["window"] == [-scene.largest, scene.largest]
    assert scene.largest == max(abs(expected[4]).max(), abs(expected[:, 5]).max(), abs(expected[:, :, 5]).max())
    view(["a.nii", "b.nii", "a.nii"], "b.html")
    assert len(taken_apart("b.html")[1]) == 3


def test_complex_voxels_are_shown_by_their_modulus():
    make_nifti("a.nii", (noise() * (3 - 4j)).astype("complex64"))
    view(["a.nii"], "a.html")
    np.testing.assert_allclose(np.asarray(taken_apart("a.html")[1][0].dataobj), 5 * noise().transpose(), rtol=1e-6)


def test_names_are_text_and_no_markup():
    make_nifti("<img src=x onerror=1>&.nii", noise())
    view(["<img src=x onerror=1>&.nii"], "a.html")
    text = Path("a.html").read_text(encoding="utf-8")
    assert "<img" not in text.replace(viewer(), "")
    assert "<title>&lt;img src=x onerror=1&gt;&amp;.nii</title>" in text
    assert taken_apart("a.html")[0]["page"]["shown"][0]["name"] == "<img src=x onerror=1>&.nii"


def viewer():
    return (files("volconv.view") / "niivue" / "niivue.umd.js").read_text(encoding="utf-8")


def test_the_page_holds_all_that_it_needs():
    make_nifti("a.nii", noise())
    view(["a.nii"], "a.html")
    text = Path("a.html").read_text(encoding="utf-8")
    assert viewer() in text
    assert "Copyright (c) 2021, Niivue" in text
    assert "default-src 'none'" in text
    own = text.replace(viewer(), "").partition("<!--")[0]
    assert not re.findall(r"https?://|<link rel=\"stylesheet|<script src|@import", own)
    assert re.findall(r"\{\{\w+\}\}", own) == []


def test_the_same_page_has_the_same_bytes_and_nothing_else_is_left(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    make_nifti("a.nii", noise())
    for name in ("a.html", "b.html"):
        volconv("view", "a.nii", "-o", name, "-q")
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()
    assert (names("."), names("temporary")) == (["a.html", "a.nii", "b.html", "temporary"], [])


def test_nothing_is_left_where_a_page_fails(capsys):
    make_nifti("a.nii", noise())
    volconv("view", "a.nii", "-o", "a.html", "--memory", "121M", code=6)
    assert capsys.readouterr().err.count("\n") == 1
    assert names(".") == ["a.nii"]
