"""Axes and time of NIfTI files: what ``--axes`` may say, what is kept, and what nibabel then finds."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from niftifiles import ROOT, copy, new, number, patch, write
from volconv.errors import ParameterError, ReadError
from volconv.io import Region, list_contents, open_volume


def counted(*shape):
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "axes", "seen", "moved"),
    [
        # moved: nibabel's axes as (N, C, D, H, W), None for those that are not there
        ((4, 3, 2), None, "XYZ", (None, None, 2, 1, 0)),
        ((4, 3, 2, 5), None, "XYZT", (3, None, 2, 1, 0)),
        ((4, 3, 2, 5, 2), None, "XYZTC", (3, 4, 2, 1, 0)),
        ((4, 3, 2, 1, 2), None, "XYZTC", (3, 4, 2, 1, 0)),
        ((4, 3, 2, 5), "XYZC", "XYZC", (None, 3, 2, 1, 0)),
        ((4, 3, 2, 5), "xyzn", "XYZT", (3, None, 2, 1, 0)),
        ((4, 3, 2, 5), "WHDC", "XYZC", (None, 3, 2, 1, 0)),
        ((4, 3, 2, 5, 2), "XYZCT", "XYZCT", (4, 3, 2, 1, 0)),
        ((4, 3, 2, 5, 2), "XYZTC", "XYZTC", (3, 4, 2, 1, 0)),
        ((4, 3, 2, 1), "XYZ", "XYZ", (None, None, 2, 1, 0)),
        ((4, 3, 2, 5, 1), "XYZC", "XYZC", (None, 3, 2, 1, 0)),
        ((4, 3, 2, 5, 1, 1), "XYZCT", "XYZCT", (4, 3, 2, 1, 0)),
        ((4, 3), None, "XY", (None, None, None, 1, 0)),
        ((4, 3), "XY", "XY", (None, None, None, 1, 0)),
        ((4,), None, "X", (None, None, None, None, 0)),
    ],
)
def test_axes(tmp_path, suffix, shape, axes, seen, moved):
    array = counted(*shape)
    path = write(tmp_path / f"v{suffix}", array)
    volume = array.reshape(shape[:5] + (1,) * (5 - len(shape)))
    spare = [axis for axis in range(5) if axis not in moved]
    expected = volume.transpose([spare.pop() if axis is None else axis for axis in moved])
    with open_volume(path, axes=axes) as source:
        assert source.info.shape == expected.shape
        assert source.info.axes == seen
        np.testing.assert_array_equal(source.numpy(), expected)
        part = Region((0,) * 5, tuple(-(-size // 2) for size in expected.shape))
        np.testing.assert_array_equal(source.read(part), expected[part.slices])
    assert list_contents(path)[0].shape == shape[:5]


@pytest.mark.parametrize(
    ("shape", "axes", "meant"),
    [
        ((4, 3, 2, 5), "CZYX", "XYZC"),
        ((4, 3, 2, 5), "ZYXT", "XYZT"),
        ((4, 3, 2, 5), "XYCZ", "XYZC"),
        ((4, 3, 2, 5), "XYZS", "XYZC"),
        ((4, 3, 2, 5, 2), "TCZYX", "XYZCT"),
        ((4, 3, 2, 5, 2), "ctxyz", "XYZCT"),
        ((4, 3, 2), "ZYX", "XYZ"),
        ((4, 3, 2), "TYX", "XYZ"),
    ],
)
def test_axes_in_another_order(tmp_path, shape, axes, meant):
    path = write(tmp_path / "v.nii", counted(*shape))
    with pytest.raises(ParameterError, match=r"axes of .*v\.nii must be XYZ, then T \(or N\) and C \(got ") as caught:
        open_volume(path, axes=axes)
    assert repr(axes) in caught.value.message
    assert caught.value.hint == f"in NIfTI X, Y, Z come first: did you mean {meant}?"


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 3, 2, 5), "XYZ"),
        ((4, 3, 2), "XYZC"),
        ((4, 3, 2, 5), "XYZQ"),
        ((4, 3, 2, 5, 2), "XYZCC"),
        ((4, 3, 2, 5, 2), "XYZTN"),
        ((4, 3, 2), ""),
    ],
)
def test_axes_that_are_none(tmp_path, shape, axes):
    path = write(tmp_path / "v.nii", counted(*shape))
    with pytest.raises(ParameterError, match=rf"axes must name each of the {len(shape)} axes of .*v\.nii, shape"):
        open_volume(path, axes=axes)


def test_more_than_five_axes(tmp_path):
    write(tmp_path / "six.nii", counted(2, 3, 4, 1, 2, 1))
    with open_volume(tmp_path / "six.nii") as source:
        assert source.info.shape == (1, 2, 4, 3, 2)
    write(tmp_path / "big.nii", counted(2, 3, 4, 1, 2, 2))
    with pytest.raises(ReadError, match=r"at most five axes x, y, z, t, channel \(got shape \(2, 3, 4, 1, 2, 2\)\)"):
        open_volume(tmp_path / "big.nii")


@pytest.mark.parametrize(
    "shape", [(4,), (4, 3), (4, 1), (4, 3, 1), (4, 3, 2, 1), (1, 1, 1, 1), (4, 3, 2, 5, 1), (4, 3, 2, 1, 1, 1)]
)
def test_axes_of_size_1_are_kept(tmp_path, shape):
    path = write(tmp_path / "v.nii", counted(*shape))
    np.testing.assert_array_equal(np.asarray(copy(path, tmp_path / "c.nii").dataobj), counted(*shape))


@pytest.mark.parametrize(
    ("old", "shape", "expected"),
    [
        ((4, 3, 2, 5), (1, 1, 2, 3, 4), (4, 3, 2)),  # one time point of several is a volume
        ((4, 3, 2, 1, 3), (1, 1, 2, 3, 4), (4, 3, 2)),  # and so is one channel
        ((4, 3, 2), (1, 1, 1, 3, 4), (4, 3, 1)),
        ((4, 3), (1, 1, 1, 1, 4), (4, 1)),
        ((4, 3), (1, 1, 2, 3, 4), (4, 3, 2)),
        ((4, 3, 2, 1), (1, 2, 2, 3, 4), (4, 3, 2, 1, 2)),
        ((4, 3, 2, 5, 1), (7, 1, 2, 3, 4), (4, 3, 2, 7, 1)),
    ],
)
def test_axes_that_come_and_go(tmp_path, old, shape, expected):
    with open_volume(write(tmp_path / "v.nii", counted(*old))) as source:
        info = new(tmp_path / "c.nii", shape, like=source.info)
    assert nibabel.load(tmp_path / "c.nii").shape == expected
    assert info.axes == "XYZTC"[: len(expected)]


def test_a_real_file_keeps_its_last_axis(tmp_path):
    assert copy(ROOT / "tests/data/S0_10slices.nii.gz", tmp_path / "c.nii.gz").shape == (128, 128, 10, 1)


def test_channels_that_axes_named_are_the_fifth_axis_of_a_copy(tmp_path):
    array = counted(4, 3, 2, 5)
    path = write(tmp_path / "brats.nii.gz", array, pixdim=[1, 1, 1, 1, 7, 1, 1, 1])
    image = copy(path, tmp_path / "c.nii.gz", opened={"axes": "XYZC"})
    np.testing.assert_array_equal(np.asarray(image.dataobj), array[:, :, :, None])
    np.testing.assert_array_equal(image.header["pixdim"][4:6], [0, 7])
    with open_volume(tmp_path / "c.nii.gz") as source:
        assert source.info.shape == (1, 5, 2, 3, 4)
        assert source.info.time_step is None


def test_time_that_axes_put_last(tmp_path):
    array = counted(4, 3, 2, 5, 6)
    path = write(tmp_path / "v.nii", array, pixdim=[1, 1, 1, 1, 7, 2500, 1, 1], xyzt_units=2 | 16)
    with open_volume(path, axes="XYZCT") as source:
        assert source.info.time_step == 2.5
    image = copy(path, tmp_path / "c.nii", opened={"axes": "XYZCT"})
    np.testing.assert_array_equal(np.asarray(image.dataobj), array.transpose(0, 1, 2, 4, 3))
    np.testing.assert_array_equal(image.header["pixdim"][4:6], [2500, 7])
    assert image.header.get_xyzt_units() == ("mm", "msec")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("stated", "unit", "seconds"),
    [
        (2.5, "sec", 2.5),
        (2500, "msec", 2.5),
        (2.5e6, "usec", 2.5),
        (0.7, "unknown", float(np.float32(0.7))),
        (0, "sec", None),
        (-2, "sec", None),
        (np.nan, "sec", None),
        (np.inf, "sec", None),
        (2.5, "hz", None),
    ],
)
def test_time_step(tmp_path, kind, stated, unit, seconds):
    path = tmp_path / "v.nii"
    image = kind(counted(2, 3, 4, 5), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = np.float32(stated)
    image.header["toffset"] = 12.5
    image.to_filename(path)
    before = nibabel.load(path).header
    with open_volume(path) as source:
        assert source.info.time_step == (seconds and pytest.approx(seconds, rel=1e-12))
    header = copy(path, tmp_path / "c.nii").header
    np.testing.assert_array_equal(header["pixdim"], before["pixdim"])
    assert header.get_xyzt_units() == ("mm", unit)
    assert header["toffset"] == 12.5


def test_units_that_are_nonsense(tmp_path):
    path = write(tmp_path / "v.nii", counted(2, 3, 4, 5), pixdim=[1, 1, 1, 1, 3, 1, 1, 1])
    patch(path, 123, number(255, "u1"))
    with open_volume(path) as source:
        assert source.info.time_step == 3
        assert source.info.notes == ("v.nii states no units, taken as mm",)
    assert copy(path, tmp_path / "c.nii").header.get_zooms()[3] == 3


def test_a_volume_has_no_time_step(tmp_path):
    path = write(tmp_path / "v.nii", counted(2, 3, 4), pixdim=[1, 1, 1, 1, 3, 1, 1, 1])
    patch(path, 92, number(3, "<f4"))
    with open_volume(path) as source:
        assert source.info.time_step is None


def test_time_step_of_another_format(tmp_path):
    with open_volume(write(tmp_path / "v.nii", counted(2, 3, 4, 5), pixdim=[1, 1, 1, 1, 3, 1, 1, 1])) as source:
        like = source.info
    new(tmp_path / "c.nii", (5, 1, 4, 3, 2), like=replace(like, format="tiff", header=None, time_step=0.25))
    header = nibabel.load(tmp_path / "c.nii").header
    assert header["pixdim"][4] == 0.25
    assert header.get_xyzt_units() == ("mm", "sec")
    info = new(tmp_path / "d.nii", (5, 1, 4, 3, 2), like=replace(like, format="tiff", header=None, time_step=None))
    assert info.time_step is None
    header = nibabel.load(tmp_path / "d.nii").header
    assert header["pixdim"][4] == 0
    assert header.get_xyzt_units() == ("mm", "unknown")
