"""Regions of interest: which outputs, from which voxels, where they lie."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import cases
from command import ANISO, ROOT, make_nifti, names, noise, read, volconv
from tolerances import BOUND
from volconv import apply
from volconv.errors import ParameterError, ShapeError
from volconv.geometry import Geometry
from volconv.params import Conv3dParams
from volconv.roi import Roi, outputs_in, parse_roi
from volconv.shapes import full_output_shape

ENDS = st.none() | st.integers(0, 14)


@pytest.fixture(autouse=True)
def _there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def inside(case, params, axis, low, high):
    """Outputs of one axis whose centres lie in what voxels ``low`` to ``high - 1`` cover, by trying each."""
    count = full_output_shape(case.input_shape, params)[2 + axis]
    found = []
    for o in range(count):
        centre = o * params.stride[axis] - params.padding_low[axis]
        centre += Fraction(params.dilation[axis] * (params.kernel_size[axis] - 1), 2)
        if (low is None or centre >= low - Fraction(1, 2)) and (high is None or centre < high - Fraction(1, 2)):
            found.append(o)
    return found


@settings(max_examples=300, deadline=None)
@given(case=cases(), ends=st.tuples(*[st.tuples(ENDS, ENDS)] * 3))
def test_outputs_whose_centres_lie_in_it(case, ends):
    params = Conv3dParams.parse(case.weight_shape, **case.parameters)
    text = ",".join(f"{'' if a is None else a}:{'' if b is None else b}" for a, b in ends)
    if any(a is not None and b is not None and a >= b for a, b in ends):
        with pytest.raises(ParameterError, match="must end behind its begin"):
            parse_roi(text)
        return
    found = [inside(case, params, axis, *ends[axis]) for axis in range(3)]
    shape = full_output_shape(case.input_shape, params)
    if not all(found):
        with pytest.raises(ShapeError, match="roi must hold an output's centre"):
            outputs_in(parse_roi(text), shape, params, Geometry(), "volume")
        return
    box = outputs_in(parse_roi(text), shape, params, Geometry(), "volume")
    assert box == (tuple(o[0] for o in found), tuple(map(len, found)))


@pytest.mark.parametrize("spacing", [0.1, 0.3, 1.1, 3.0])
@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 30), count=st.integers(1, 30))
def test_lengths_that_are_whole_voxels(spacing, first, count):
    params = Conv3dParams.parse((1, 1, 3, 3, 3), padding="same")
    geometry = Geometry.from_spacing((spacing,) * 3)
    text = f"{first * spacing!r}:{(first + count) * spacing!r},:,:mm"
    box = outputs_in(parse_roi(text), (1, 1, 60, 60, 60), params, geometry, "volume")
    assert box == ((first, 0, 0), (count, 60, 60))


@pytest.mark.parametrize("unit", ["um", "µm", "nm", "mm", "m"])
def test_units(unit):
    factor = {"um": 1, "µm": 1, "nm": 1e3, "mm": 1e-3, "m": 1e-6}[unit]
    params = Conv3dParams.parse((1, 1, 1, 1, 1))
    geometry = Geometry.from_spacing((2.0, 1.0, 0.5), "um")
    text = ",".join(f"{4 * factor!r}:{6 * factor!r}" for _ in range(3)) + unit
    box = outputs_in(parse_roi(text), (1, 1, 20, 20, 20), params, geometry, "volume")
    assert box == ((2, 4, 8), (1, 2, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:2,3:4", "roi must be z0:z1,y0:y1,x0:x1, in voxels or with a unit (m, mm, um, nm) at its end (got '1:2,"),
        ("1:2,3:4,5", "roi must be z0:z1"),
        ("1:2,3:4,5:6 furlongs", "roi must be z0:z1"),
        ("a:b,:,:", "roi must be z0:z1"),
        ("", "roi must be z0:z1"),
        ("1.5:2,:,:", "roi must count whole voxels from 0 (got '1.5:2,:,:')"),
        ("-1:2,:,:", "roi must count whole voxels from 0 (got '-1:2,:,:')"),
        ("3:3,:,:", "roi must end behind its begin on every axis (got '3:3,:,:')"),
        (":,:,4:1e999mm", "roi must end behind its begin"),
    ],
)  # fmt: skip
def test_what_is_no_region(text, message):
    with pytest.raises(ParameterError) as error:
        parse_roi(text)
    assert message in error.value.message


def test_a_region_is_data():
    assert parse_roi(" 1:2 , :3, 4: ") == Roi(((1, 2), (None, 3), (4, None)), None)


@pytest.mark.parametrize("algorithm", ["direct", "gemm", "separable", "fft", "winograd"])
@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 0, "stride": (2, 1, 3)}, {"padding": "same", "padding_mode": "circular"}]
)
def test_the_part_of_the_whole_result(algorithm, options, monkeypatch):
    monkeypatch.setattr("volconv.engines.factors.LEAST_TAPS", 1)
    if algorithm == "winograd" and "stride" in options:
        return
    make_nifti("in.nii", noise((20, 21, 22)), np.diag([2.0, 3.0, 4.0, 1.0]))
    apply("in.nii", "whole.nii", "box:size=3", algorithm=algorithm, **options)
    report = apply("in.nii", "part.nii", "box:size=3", algorithm=algorithm, roi="3:17,5:20,7:15", **options)
    origin, size = report.job.box
    where = tuple(slice(o, o + n) for o, n in zip(origin, size, strict=True))
    whole, part = nibabel.load("whole.nii"), nibabel.load("part.nii")
    assert read("part.nii").shape[2:] == size
    expected = read("whole.nii")[(0, 0, *where)]
    bound = BOUND * np.finfo("f4").eps * noise((20, 21, 22)).max()
    assert (abs(read("part.nii")[0, 0] - expected) <= bound).all()
    if algorithm in ("direct", "gemm", "separable"):
        assert np.array_equal(read("part.nii")[0, 0], expected)
    # nibabel's own slicing says where a part lies.
    assert np.allclose(part.affine, whole.slicer[where[::-1]].affine)


@pytest.mark.parametrize("suffix", [".nii.gz", ".h5", ".tif"])
def test_bits_do_not_depend_on_memory(suffix, monkeypatch):
    make_nifti("in.nii.gz", noise((40, 60, 50)))
    roi = "5:33,7:60,:41"
    apply("in.nii.gz", f"a{suffix}", "box:size=3", roi=roi)
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 100_000)
    parts = apply("in.nii.gz", f"b{suffix}", "box:size=3", roi=roi)
    assert len(parts.plan.blocks) > 3
    assert Path(f"a{suffix}").read_bytes() == Path(f"b{suffix}").read_bytes()


def test_the_command_says_what_it_does(capfd):
    volconv("apply", ANISO, "-k", "identity", "--roi", "20:60,:100,:mm", "-o", "out.nii", "--json")
    run = json.loads(capfd.readouterr().out)["runs"][0]
    assert run["roi"] == {"origin": [4, 0, 0], "size": [8, 25, 58]}  # 5 x 4 x 4 mm
    assert run["target"]["shape"] == [1, 1, 8, 25, 58]
    image = nibabel.load(ANISO)
    assert np.allclose(nibabel.load("out.nii").affine, image.slicer[:, :25, 4:12].affine)
    volconv("shape", ANISO, "-k", "identity", "--roi", "20:60,:100,:mm", "--json")
    assert json.loads(capfd.readouterr().out)["output_shape"] == [1, 1, 8, 25, 58]


@pytest.mark.parametrize(
    ("file", "roi", "code", "message"),
    [
        (ANISO, "24:,:,:", 5, "roi must hold an output's centre (got D 24:, and"),
        (ANISO, "0:1mm,:,:", 2, "must be z0:z1,y0:y1,x0:x1"),
        (ANISO, "1:4,:,:mm", 5, "outputs have theirs from 0mm to 115mm, 5mm apart)"),
        (ROOT / "sample_data" / "nuclei.tif", "0:1,:,:um", 2, "roi in um needs a spacing, and"),
    ],
)
def test_errors(file, roi, code, message, capfd):
    volconv("apply", file, "-k", "identity", "--roi", roi, "-o", "out.h5", code=code)
    assert message in " ".join(capfd.readouterr().err.split())
    assert names(".") == []
