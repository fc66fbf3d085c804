"""Pairs of ``.hdr`` and ``.img``, written by nibabel."""

import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from niftifiles import OBLIQUE, copy, number, patch, write
from volconv.errors import ParameterError, ReadError
from volconv.geometry import Geometry
from volconv.io import create_volume, list_contents, open_volume

KINDS = [nibabel.Nifti1Pair, nibabel.nifti2.Nifti2Pair]
ARRAY = np.arange(24, dtype=np.int16).reshape(4, 3, 2)


@pytest.fixture
def pair(tmp_path):
    write(tmp_path / "v.img", ARRAY, kind=nibabel.Nifti1Pair)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_pair_is_read_by_either_name(tmp_path, kind, byteorder, packed):
    header = kind.header_class(endianness=byteorder)
    header.set_xyzt_units("mm", "sec")
    image = kind(ARRAY.astype(ARRAY.dtype.newbyteorder(byteorder)), OBLIQUE, header, dtype=ARRAY.dtype)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
    image.to_filename(tmp_path / f"v.img{packed}")
    for name in (f"v.hdr{packed}", f"v.img{packed}"):
        path = tmp_path / name
        with open_volume(path) as source:
            np.testing.assert_array_equal(source.numpy()[0, 0], ARRAY.transpose())
            np.testing.assert_array_equal(source.info.geometry.matrix, nibabel.load(path).affine)
            assert (source.info.format, source.info.axes, source.info.notes) == ("pair", "XYZ", ())
            assert source.info.compression == ("gzip" if packed else None)
            assert source.info.access.in_turn == bool(packed)
        (entry,) = list_contents(path)
        assert (entry.name, entry.shape, entry.dtype, entry.axes) == (str(path), (4, 3, 2), "int16", "XYZ")
        new = copy(path, tmp_path / f"{name}.nii", note="n")
        assert isinstance(new, nibabel.Nifti2Image if kind is KINDS[1] else nibabel.Nifti1Image)
        assert [extension.get_content() for extension in new.header.extensions] == [b"hello", b"n"]
        np.testing.assert_array_equal(np.asarray(new.dataobj), ARRAY)


def test_one_of_two_may_be_gzipped(pair):
    content = (pair / "v.img").read_bytes()
    (pair / "v.img").unlink()
    (pair / "v.img.gz").write_bytes(gzip.compress(content))
    for name in ("v.hdr", "v.img.gz"):
        with open_volume(pair / name) as source:
            np.testing.assert_array_equal(source.numpy()[0, 0], ARRAY.transpose())
            assert source.info.compression == "gzip"
    (pair / "v.img").write_bytes(gzip.compress(content))  # its content says so, not its name
    (pair / "v.img.gz").unlink()
    with open_volume(pair / "v.hdr") as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], ARRAY.transpose())


def test_upper_case(pair):
    for old, new in (("v.hdr", "V.HDR"), ("v.img", "V.IMG")):
        (pair / old).rename(pair / new)
    for name in ("V.HDR", "V.IMG"):
        with open_volume(pair / name) as source:
            assert source.numpy().sum() == 276


def test_the_partner_of_the_same_kind_comes_first(pair):
    (pair / "v.img.gz").write_bytes(b"another's")
    with open_volume(pair / "v.hdr") as source:
        assert source.numpy().sum() == 276


@pytest.mark.parametrize("offset", [16, 40, 352])
def test_voxels_that_begin_later(pair, offset):
    patch(pair / "v.hdr", 108, number(offset, "<f4"))
    (pair / "v.img").write_bytes(bytes(offset) + (pair / "v.img").read_bytes())
    for packed in (False, True):
        if packed:
            (pair / "v.img").write_bytes(gzip.compress((pair / "v.img").read_bytes()))
        with open_volume(pair / "v.hdr") as source:
            np.testing.assert_array_equal(source.numpy()[0, 0], ARRAY.transpose())


@pytest.mark.parametrize(
    ("kept", "missing", "message"),
    [
        ("v.hdr", "v.img", "its voxels are missing: there is no .*v.img"),
        ("v.img", "v.hdr", "its header is missing: there is no .*v.hdr"),
        ("v.img.gz", "v.hdr.gz", "its header is missing: there is no .*v.hdr.gz"),
        ("V.HDR", "V.IMG", "its voxels are missing: there is no .*V.IMG"),
    ],
)
def test_a_missing_partner_is_named(tmp_path, kept, missing, message):
    write(tmp_path / "both.img", ARRAY, kind=nibabel.Nifti1Pair)
    (tmp_path / f"both{Path(kept).suffixes[0].lower()}").rename(tmp_path / kept)
    with pytest.raises(ReadError, match=rf"{kept}: {message}") as caught:
        open_volume(tmp_path / kept)
    assert caught.value.message.endswith(f"there is no {tmp_path / missing}")
    assert caught.value.hint == "a .hdr and its .img belong together, in one folder"


def test_analyze_is_refused_by_name(tmp_path):
    nibabel.AnalyzeImage(ARRAY, np.eye(4)).to_filename(tmp_path / "v.img")
    for name in ("v.hdr", "v.img"):
        with pytest.raises(ReadError, match=r"v\.hdr: is no NIfTI header but an Analyze 7\.5 header") as caught:
            open_volume(tmp_path / name)
        assert caught.value.hint == "convert it to NIfTI first: Analyze does not say which side is left"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"ENVI\nsamples = 3\n" * 40, "is no NIfTI header"), (b"\x1f\x8bx", "gzip stream")],
)
def test_headers_that_are_none(pair, content, message):
    (pair / "v.hdr").write_bytes(content)
    for name in ("v.hdr", "v.img"):
        with pytest.raises(ReadError, match=rf"v\.hdr: .*{message}") as caught:
            open_volume(pair / name)
        assert "\n" not in str(caught.value)


def test_a_whole_file_by_the_name_of_a_pair(pair):
    whole = write(pair / "whole.nii", ARRAY)
    shutil.copy(whole, pair / "v.hdr")
    with pytest.raises(
        ReadError, match=r"v\.hdr: is a whole NIfTI file and no header of a .* name it \.nii to read it"
    ):
        open_volume(pair / "v.hdr")


@pytest.mark.parametrize("packed", [False, True])
def test_voxels_that_end_early(pair, packed):
    short = (pair / "v.img").read_bytes()[:-5]
    (pair / "v.img").write_bytes(gzip.compress(short) if packed else short)

    def read():
        with open_volume(pair / "v.hdr") as source:
            source.numpy()

    with pytest.raises(ReadError, match=r"v\.img: is truncated: 48 bytes of voxels expected, 43 found"):
        read()


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (108, number(-16, "<f4"), "its NIfTI header is damaged: its voxels must begin after it"),
        (42, number(0, "<i2"), "every axis must hold a voxel"),
        (112, number(np.nan, "<f4"), "its slope is nan"),
        (348, b"\1", "its NIfTI header is damaged: failed to read extension header"),
    ],
)
def test_damage_is_told_of_the_header(pair, offset, data, message):
    (pair / "v.hdr").write_bytes((pair / "v.hdr").read_bytes().ljust(354, b"\0"))
    patch(pair / "v.hdr", offset, data)
    with pytest.raises(ReadError, match=rf"v\.hdr: {message}"):
        open_volume(pair / "v.img")


def test_axes_and_time_of_a_pair(tmp_path):
    image = nibabel.Nifti1Pair(np.zeros((4, 3, 2, 5), np.uint8), np.eye(4))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((1, 1, 1, 500))
    image.to_filename(tmp_path / "v.img")
    with open_volume(tmp_path / "v.img") as source:
        assert (source.info.shape, source.info.time_step) == ((5, 1, 2, 3, 4), 0.5)
    with open_volume(tmp_path / "v.hdr", axes="XYZC") as source:
        assert (source.info.shape, source.info.time_step) == ((1, 5, 2, 3, 4), None)


def test_pairs_are_not_written(tmp_path):
    with pytest.raises(ParameterError, match="NIfTI pair is only read"):
        create_volume(tmp_path / "v.hdr", shape=(1, 1, 1, 1, 1), dtype="uint8", geometry=Geometry())
