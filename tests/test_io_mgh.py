"""FreeSurfer's MGH and MGZ files, written by nibabel."""

import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from niftifiles import OBLIQUE, copy, number, patch
from volconv.errors import ParameterError, ReadError
from volconv.io import Region, create_volume, list_contents, open_volume

SUFFIXES = [".mgh", ".mgz", ".mgh.gz"]
DTYPES = ["uint8", "int16", "int32", "float32"]


def write(path, array, step=0.0):
    image = nibabel.MGHImage(array, OBLIQUE.astype(np.float32))
    image.header["tr"] = step
    plain = path.with_name(path.name.partition(".")[0] + ".mgh")
    image.to_filename(plain)
    if path != plain:
        content = plain.read_bytes()
        plain.unlink()
        path.write_bytes(gzip.compress(content))
    return path


def load(path):
    """By nibabel, from memory: it keeps files open otherwise."""
    content = path.read_bytes()
    return nibabel.MGHImage.from_bytes(content if path.suffix == ".mgh" else gzip.decompress(content))


def volume(*shape, dtype="int16"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 2, 5)])
def test_values_dtype_and_geometry(tmp_path, suffix, dtype, shape):
    array = volume(*shape, dtype=dtype)
    path = write(tmp_path / f"v{suffix}", array, step=2500)
    image = load(path)
    expected = array.reshape(*shape[:3], -1, 1).transpose(3, 4, 2, 1, 0)
    with open_volume(path) as source:
        info = source.info
        assert (info.shape, info.dtype, info.dtype.isnative) == (expected.shape, dtype, True)
        assert (info.format, info.axes) == ("mgh", "XYZT"[: len(shape)])
        assert info.time_step == (2.5 if len(shape) == 4 else None)
        assert info.compression == (None if suffix == ".mgh" else "gzip")
        assert bool(info.access.spool_bytes) == (suffix != ".mgh")
        assert (info.scaling, info.notes, info.geometry.unit) == (None, (), "mm")
        np.testing.assert_array_equal(
            source.read(Region((0, 0, 1, 1, 1), (1, 1, 2, 3, 2))), expected[:1, :, 1:, 1:, 1:2]
        )
        np.testing.assert_array_equal(source.numpy(), expected)
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)
        np.testing.assert_array_equal(info.geometry.matrix, image.affine)
        np.testing.assert_allclose(info.geometry.matrix, OBLIQUE, atol=1e-5)
    (entry,) = list_contents(path)
    assert (entry.name, entry.shape, entry.dtype, entry.axes) == (str(path), shape, dtype, "XYZT"[: len(shape)])


def test_content_tells_whether_a_file_is_gzipped(tmp_path):
    array = volume(4, 3, 2)
    plain = write(tmp_path / "v.mgh", array)
    (tmp_path / "p.mgz").write_bytes(plain.read_bytes())
    (tmp_path / "z.mgh").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("p.mgz", "z.mgh"):
        with open_volume(tmp_path / name) as source:
            np.testing.assert_array_equal(source.numpy()[0, 0], array.transpose())
            assert bool(source.info.access.spool_bytes) == (name == "z.mgh")


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
def test_frames_may_be_channels(tmp_path, suffix):
    array = volume(4, 3, 2, 5)
    path = write(tmp_path / f"v{suffix}", array, step=2500)
    with open_volume(path, axes="xyzc") as source:
        assert (source.info.shape, source.info.axes, source.info.time_step) == ((1, 5, 2, 3, 4), "XYZC", None)
        np.testing.assert_array_equal(source.numpy()[0], array.transpose(3, 2, 1, 0))
    with pytest.raises(ParameterError, match=r"axes of .*: did you mean XYZC\?") as caught:
        open_volume(path, axes="CZYX")
    assert caught.value.hint.startswith("in MGH X, Y, Z come first")
    with pytest.raises(ParameterError, match="axes must name each of the 4 axes of"):
        open_volume(path, axes="XYZ")


@pytest.mark.parametrize("axes", ["XYZ", "XYZT", "XYZC"])
def test_axes_of_one_frame(tmp_path, axes):
    with open_volume(write(tmp_path / "v.mgz", volume(4, 3, 2)), axes=axes) as source:
        assert (source.info.shape, source.info.axes, source.info.time_step) == ((1, 1, 2, 3, 4), axes, None)


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
@pytest.mark.parametrize(
    ("footer", "seconds"),
    [(number([700.0, 9], ">f4"), 0.7), (b"", None), (b"\0\0", None)]
    + [(number(step, ">f4"), None) for step in (0, -5, np.nan, np.inf)],
)
def test_the_time_behind_the_voxels(tmp_path, suffix, footer, seconds):
    array = volume(4, 3, 2, 5)
    content = write(tmp_path / "v.mgh", array).read_bytes()[: 284 + array.nbytes] + footer
    (tmp_path / f"c{suffix}").write_bytes(gzip.compress(content) if suffix == ".mgz" else content)
    with open_volume(tmp_path / f"c{suffix}") as source:
        assert source.info.time_step == pytest.approx(seconds)
        np.testing.assert_array_equal(source.numpy()[:, 0], array.transpose(3, 2, 1, 0))


def test_a_file_without_a_position(tmp_path):
    path = write(tmp_path / "v.mgh", volume(4, 3, 2))
    patch(path, 28, number(0, ">i2"))
    with open_volume(path) as source:
        assert source.info.notes == ("v.mgh states no position, taken as FreeSurfer's: 1 mm, coronal",)
        np.testing.assert_array_equal(source.info.geometry.matrix, load(path).affine)


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, number(2, ">i4"), "is no MGH file"),
        (0, number(1, "<i4"), "is no MGH file"),
        (4, number(0, ">i4"), r"every axis must hold a voxel \(got shape \(0, 3, 2, 5\)\)"),
        (16, number(0, ">i4"), r"every axis must hold a voxel \(got shape \(4, 3, 2, 0\)\)"),
        (8, number(-3, ">i4"), r"every axis must hold a voxel \(got shape \(4, -3, 2, 5\)\)"),
        (4, number(10**9, ">i4"), "is truncated: 60000000000 bytes of voxels expected, (2[46]0 found|and it can hold)"),
        (20, number(2, ">i4"), "voxels of type code 2 are not supported"),
        (30, number(np.nan, ">f4"), "its MGH header is damaged: its affine is not finite"),
        (30, number([3e38, 3e38], ">f4"), "its MGH header is damaged: its affine is not finite"),
    ],
)
def test_damaged_headers(tmp_path, suffix, offset, data, message):
    path = write(tmp_path / "v.mgh", volume(4, 3, 2, 5))
    patch(path, offset, data)
    if suffix == ".mgz":
        path = tmp_path / "v.mgz"
        path.write_bytes(gzip.compress((tmp_path / "v.mgh").read_bytes()[: 284 + 240]))
    with pytest.raises(ReadError, match=rf"v\{suffix}: {message}") as caught:
        open_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0", "is no MGH file"),
        (b"not a volume\n" * 99, "is no MGH file"),
        (number(1, ">i4") + bytes(60), "is truncated: its header ends early"),
    ],
)
def test_what_is_no_mgh_file(tmp_path, content, message):
    (tmp_path / "v.mgh").write_bytes(content)
    (tmp_path / "v.mgz").write_bytes(gzip.compress(content))
    for suffix in (".mgh", ".mgz"):
        with pytest.raises(ReadError, match=rf"v\{suffix}: {message}"):
            open_volume(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.95])
def test_truncated_files(tmp_path, suffix, frames, kept):
    path = write(tmp_path / f"v{suffix}", volume(20, 15, 10, frames).squeeze())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    def read():
        with open_volume(path) as source:
            source.numpy()

    with pytest.raises(ReadError, match=rf"v\{suffix}: is truncated: ") as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_give_values_or_one_line(tmp_path, seed):
    path, rng = write(tmp_path / "v.mgz", volume(4, 3, 2, 2)), np.random.default_rng(seed)
    content = bytearray(gzip.decompress(path.read_bytes()))
    for place in rng.integers(90, size=3):
        content[place] = rng.choice([0, 1, 127, 128, 255])
    path.write_bytes(gzip.compress(content))
    try:
        with open_volume(path) as source:
            source.read(Region((0, 0, 0, 0, 0), tuple(min(size, 2) for size in source.info.shape)))
    except ReadError as error:
        told = str(error)
    else:
        told = f"{path}: "
    assert told.startswith(f"{path}: ")
    assert "\n" not in told


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mgh", volume(4, 3, 2, 5))

    def refuse(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", refuse)
        with pytest.raises(ReadError, match=r"v\.mgh: cannot be read: Input/output error"):
            open_volume(path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ReadError, match=r"v\.mgh: cannot be read: Input/output error"):
        open_volume(path)


def test_a_copy_as_nifti(tmp_path):
    array = volume(4, 3, 2, 5)
    image = copy(write(tmp_path / "v.mgz", array, step=2500), tmp_path / "c.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert image.header.get_zooms()[3] == 2.5


def test_mgh_is_not_written(tmp_path):
    with pytest.raises(ParameterError, match="FreeSurfer MGH is only read"):
        create_volume(tmp_path / "v.mgz", shape=(1, 1, 1, 1, 1), dtype="uint8")
