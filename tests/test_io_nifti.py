"""NIfTI files as they are read, against nibabel."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from niftifiles import OBLIQUE, ROOT, copy, number, patch, write
from volconv.errors import ReadError
from volconv.io import Region, Scaling, list_contents, open_volume
from volconv.io.nifti.newheader import DTYPES

REAL = (
    "tests/data/S0_10slices.nii.gz",
    "tests/data/aniso_vox.nii.gz",
    "tests/data/func_discrete.nii.gz",
    "tests/data/small_64D.nii",
    "sample_data/mni152_t1.nii.gz",
)
RGB = np.dtype([(letter, "u1") for letter in "RGB"])
RGBA = np.dtype([(letter, "u1") for letter in "RGBA"])


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    image = nibabel.load(ROOT / name)
    expected = np.asarray(image.dataobj)
    expected = expected.reshape(expected.shape + (1,) * (5 - expected.ndim)).transpose(3, 4, 2, 1, 0)
    with open_volume(ROOT / name) as source:
        np.testing.assert_array_equal(source.numpy(), expected)
        np.testing.assert_array_equal(source.info.geometry.matrix, image.affine)
        assert source.info.geometry.unit == "mm"
        assert source.info.scaling is None
        assert source.info.format == "nifti"
        assert source.info.axes == "XYZT"[: image.ndim]
        packed = name.endswith(".gz")
        assert source.info.compression == ("gzip" if packed else None)
        assert source.info.access.in_turn == packed
        assert source.info.notes == (f"{Path(name).name} states no units, taken as mm",)
    (entry,) = list_contents(ROOT / name)
    assert (entry.name, entry.shape, entry.axes) == (str(ROOT / name), image.shape, "XYZT"[: image.ndim])
    assert entry.dtype == image.get_data_dtype().name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("byteorder", "<>")
def test_every_dtype_version_and_byte_order(tmp_path, dtype, kind, byteorder):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    header = kind.header_class(endianness=byteorder)
    kind(array.astype(array.dtype.newbyteorder(byteorder)), OBLIQUE, header, dtype=dtype).to_filename(
        tmp_path / "v.nii"
    )
    assert nibabel.load(tmp_path / "v.nii").header.endianness == byteorder
    with open_volume(tmp_path / "v.nii") as source:
        assert source.info.dtype == array.dtype
        assert source.info.dtype.isnative
        np.testing.assert_array_equal(source.numpy()[0, 0], array.transpose())
    new = copy(tmp_path / "v.nii", tmp_path / "c.nii.gz")
    assert isinstance(new, kind)
    assert new.get_data_dtype() == array.dtype
    assert new.header.endianness == "<"
    np.testing.assert_array_equal(np.asarray(new.dataobj), array)


def test_scaling_is_told_and_not_applied(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.1, -3)
    image.to_filename(tmp_path / "v.nii")
    image = nibabel.load(tmp_path / "v.nii")
    with open_volume(tmp_path / "v.nii") as source:
        assert source.info.scaling == Scaling(float(image.dataobj.slope), float(image.dataobj.inter))
        assert source.read(Region.whole(source.info.shape)).dtype == np.int16
        np.testing.assert_array_equal(source.numpy()[0, 0].transpose(), image.get_fdata())
        new = copy(tmp_path / "v.nii", tmp_path / "c.nii", scaling=source.info.scaling)
    np.testing.assert_array_equal(new.get_fdata(), image.get_fdata())


@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (0, 7), (0, np.nan), (1, 0)])
def test_slopes_that_say_nothing(tmp_path, slope, intercept):
    write(tmp_path / "v.nii", np.ones((2, 3, 4), np.int16))
    patch(tmp_path / "v.nii", 112, number([slope, intercept], "<f4"))
    with open_volume(tmp_path / "v.nii") as source:
        assert source.info.scaling is None


@pytest.mark.parametrize(
    ("slope", "intercept", "told"),
    [
        (np.nan, 0, "slope is nan"),
        (np.nan, np.nan, "slope is nan"),
        (np.inf, 0, "slope is inf"),
        (-np.inf, 0, "slope is -inf"),
        (2, np.nan, "intercept is nan"),
        (1, np.inf, "intercept is inf"),
    ],
)
def test_slopes_that_give_no_values(tmp_path, slope, intercept, told):
    write(tmp_path / "v.nii", np.ones((2, 3, 4), np.int16))
    patch(tmp_path / "v.nii", 112, number([slope, intercept], "<f4"))
    with pytest.raises(ReadError, match=rf"v\.nii: its {told}, which gives no values") as caught:
        open_volume(tmp_path / "v.nii")
    assert caught.value.hint.startswith("set scl_slope=1 and scl_inter=0")


def test_what_nibabel_warns_of_is_a_note(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
    image.to_filename(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 352, number(13, "<i4"))
    with open_volume(tmp_path / "v.nii") as source:
        assert source.info.notes[0].startswith("v.nii: Extension size is not a multiple of 16 bytes")


def test_content_tells_whether_a_file_is_gzipped(tmp_path):
    write(tmp_path / "v.nii", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    (tmp_path / "z.nii").write_bytes(gzip.compress((tmp_path / "v.nii").read_bytes()))
    (tmp_path / "p.nii.gz").write_bytes((tmp_path / "v.nii").read_bytes())
    for name, compression in (("z.nii", "gzip"), ("p.nii.gz", None)):
        with open_volume(tmp_path / name) as source:
            assert source.numpy().sum() == 276
            assert source.info.compression == compression
            assert source.info.access.in_turn == (compression is not None)


@pytest.mark.parametrize("at", [400, -12, -4])
def test_damaged_gzip_streams(tmp_path, at):
    path = write(tmp_path / "v.nii.gz", np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)

    def read():
        with open_volume(path) as source:
            source.numpy()

    with pytest.raises(ReadError, match=r"v\.nii\.gz: (its gzip stream is damaged|is truncated)"):
        read()


@pytest.mark.parametrize("kind", [RGB, RGBA])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 1, 1)])
def test_colours_are_channels_where_that_is_asked_for(tmp_path, kind, suffix, shape):
    samples = len(kind.names)
    values = np.random.default_rng(0).integers(0, 256, (*shape, samples), dtype=np.uint8)
    path = write(tmp_path / f"v{suffix}", values.view(kind)[..., 0], scl_slope=np.nan)
    with pytest.raises(
        ReadError, match=rf": its voxels are colours \(RGB{'A32' if samples == 4 else '24'}\)"
    ) as caught:
        open_volume(path)
    assert caught.value.hint == "pass --rgb (rgb=True) to take them as channels"
    full = values.reshape(2, 3, 4, -1, samples).transpose(3, 4, 2, 1, 0)
    with open_volume(path, rgb=True) as source:
        assert source.info.shape == full.shape
        assert source.info.dtype == np.uint8
        assert source.info.scaling is None
        assert source.info.axes == ("XYZTS" if len(shape) > 3 else "XYZS")
        np.testing.assert_array_equal(source.read(Region((0, 1, 1, 0, 1), (1, 3, 3, 2, 2))), full[:1, 1:3, 1:3, :2, 1:])
        np.testing.assert_array_equal(source.numpy(), full)
    (entry,) = list_contents(path)
    assert (entry.shape, entry.dtype, len(entry.axes)) == ((*shape[:4], samples), "uint8", len(shape[:4]) + 1)
    new = copy(path, tmp_path / "c.nii", opened={"rgb": True})
    assert new.shape == (2, 3, 4, full.shape[0], samples)
    assert (new.get_data_dtype(), new.header["intent_code"]) == (np.uint8, 1007)
    np.testing.assert_array_equal(np.asarray(new.dataobj), full.transpose(4, 3, 2, 0, 1))


def test_colours_beside_channels(tmp_path):
    path = write(tmp_path / "v.nii", np.zeros((2, 3, 4, 2), RGB))
    with pytest.raises(ReadError, match=r"v\.nii: colours and an axis of channels cannot both be channels"):
        open_volume(path, axes="XYZC", rgb=True)


def test_rgb_leaves_other_files_alone(tmp_path):
    with open_volume(write(tmp_path / "v.nii", np.ones((2, 3, 4), np.uint8)), rgb=True) as source:
        assert (source.info.shape, source.info.axes) == ((1, 1, 4, 3, 2), "XYZ")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (77, "its datatype code 77 is unknown"),
        (0, "voxels of datatype none are not supported"),
        (1, "voxels of datatype binary are not supported"),
        (1536, r"voxels of datatype float128 are not supported \(known: uint8, .*complex128\)"),
        (2048, "voxels of datatype complex256 are not supported"),
    ],
)
def test_other_datatypes_are_refused_by_name(tmp_path, code, message):
    write(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8))
    patch(tmp_path / "v.nii", 70, number(code, "<i2"))
    for rgb in (False, True):
        with pytest.raises(ReadError, match=rf"v\.nii: {message}"):
            open_volume(tmp_path / "v.nii", rgb=rgb)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, number(349, "<i4"), "is no NIfTI file"),
        (344, b"ni1\0", r"is the header of a \.hdr/\.img pair; name it \.hdr"),
        (344, b"\0\0\0\0", "is no NIfTI file but an Analyze 7.5 header, without NIfTI's magic; convert it to NIfTI"),
        (40, number(0, "<i2"), r"its NIfTI header is damaged: a volume must have 1 to 7 axes \(got dim\[0\]=0\)"),
        (40, number(-1, "<i2"), r"1 to 7 axes \(got dim\[0\]=-1\)"),
        (40, number(8, "<i2"), r"1 to 7 axes \(got dim\[0\]=8\)"),
        (42, number(0, "<i2"), r"every axis must hold a voxel \(got shape \(0, 3, 4\)\)"),
        (42, number(-3, "<i2"), r"every axis must hold a voxel \(got shape \(-3, 3, 4\)\)"),
        (42, number([-1, 1, 1], "<i2"), "its NIfTI header is damaged: -1 in dim"),
        (108, number(100, "<f4"), r"damaged: its voxels must begin after it \(got vox_offset=100\)"),
        (108, number(0, "<f4"), r"its voxels must begin after it \(got vox_offset=0\)"),
        (108, number(-16, "<f4"), r"its voxels must begin after it \(got vox_offset=-16\)"),
        (108, number(np.nan, "<f4"), "its NIfTI header is damaged: .*NaN"),
        (108, number(np.inf, "<f4"), "its NIfTI header is damaged: .*infinity"),
        (280, number(np.nan, "<f4"), "its NIfTI header is damaged: its affine is not finite"),
    ],
)
def test_damaged_headers(tmp_path, suffix, offset, data, message):
    path = write(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8))
    patch(path, offset, data)
    if suffix == ".nii.gz":
        path = tmp_path / "v.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "v.nii").read_bytes()))
    with pytest.raises(ReadError, match=rf"v\{suffix}: .*{message}") as caught:
        open_volume(path)
    assert "\n" not in str(caught.value)


def test_dimensions_beyond_the_file(tmp_path):
    path = write(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8))
    patch(path, 42, number(30000, "<i2"))
    message = "is truncated: 360000 bytes of voxels expected, 24 found"
    with pytest.raises(ReadError, match=rf"v\.nii: {message}"):
        open_volume(path)
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    # More than gzip could ever have packed is told at once, and less when it is unpacked.
    most = (tmp_path / "v.nii.gz").stat().st_size * 1032
    with pytest.raises(ReadError, match=rf"v\.nii\.gz: is truncated: 360000 .* it can hold at most {most}"):
        open_volume(tmp_path / "v.nii.gz")
    patch(path, 42, number(300, "<i2"))
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with (
        open_volume(tmp_path / "v.nii.gz") as source,
        pytest.raises(ReadError, match=r"v\.nii\.gz: is truncated: 3600 bytes of voxels expected, 24 found"),
    ):
        source.read(Region((0, 0, 0, 0, 0), (1, 1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a volume\n" * 99, "is no NIfTI file"),
        (b"ab", "is no NIfTI file"),
        (number(348, "<i4") + bytes(90), "is truncated: its header ends early"),
        (number(540, ">i4") + b"n+2\0" + bytes(400), "is truncated: its header ends early"),
        (number(540, "<i4") + bytes(600), "is no NIfTI file: its magic is"),
    ],
)
def test_what_is_no_nifti_file(tmp_path, content, message):
    (tmp_path / "v.nii").write_bytes(content)
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(content))
    for suffix in (".nii", ".nii.gz"):
        with pytest.raises(ReadError, match=rf"v\{suffix}: {message}") as caught:
            open_volume(tmp_path / f"v{suffix}")
        assert "\n" not in str(caught.value)


def test_extensions_that_lie_about_their_size(tmp_path):
    image = nibabel.Nifti1Image(np.full((20, 3, 4), 32, np.uint8), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
    image.to_filename(tmp_path / "v.nii")
    for size in (0, -16, 64, 1 << 30):  # 64 bytes would end within the voxels
        patch(tmp_path / "v.nii", 352, number(size, "<i4"))
        with pytest.raises(ReadError, match=r"v\.nii: its NIfTI header is damaged: failed to read extension content"):
            open_volume(tmp_path / "v.nii")
    short = nibabel.Nifti1Image(np.zeros((32, 1, 1), np.uint8), np.eye(4), image.header)
    short.to_filename(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 352, number(48, "<i4"))  # which would end where they do
    with pytest.raises(ReadError, match=r"v\.nii: its NIfTI header is damaged: failed to read extension content"):
        open_volume(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 108, number(1e30, "<f4"))
    with pytest.raises(ReadError, match=r"v\.nii: its NIfTI header is damaged: its extensions must take less than"):
        open_volume(tmp_path / "v.nii")


def test_a_file_that_nobody_may_read(tmp_path, monkeypatch):
    path = write(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ReadError, match=r"v\.nii: cannot be read: Permission denied"):
        open_volume(path)
