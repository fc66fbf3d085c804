"""NIfTI files, against nibabel."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io import Region, Scaling, create_volume, open_volume
from volconv.io.niftiheader import DTYPES

ROOT = Path(__file__).parent.parent
REAL = (
    "tests/data/S0_10slices.nii.gz",
    "tests/data/aniso_vox.nii.gz",
    "tests/data/func_discrete.nii.gz",
    "tests/data/small_64D.nii",
    "sample_data/mni152_t1.nii.gz",
)
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag([-0.5, 0.75, 2.5]), [10, -20, 30]
)


def write(path, array, **changes):
    """Write an (x, y, z...) array through nibabel with header fields changed."""
    image = changes.pop("kind", nibabel.Nifti1Image)(array, OBLIQUE, dtype=array.dtype)
    for name, value in changes.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def patch(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def copy(source_path, path, **options):
    with open_volume(source_path) as source:
        stored = source.read(Region.whole(source.info.shape))
        options = {"like": source.info, "shape": source.info.shape, "dtype": source.info.dtype, **options}
        with create_volume(path, **options) as sink:
            sink.write(Region.whole(source.info.shape), stored.astype(sink.info.dtype))
    return nibabel.load(path)


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
        assert source.info.notes == (f"{Path(name).name} states no units, taken as mm",)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_copy_of_a_real_file_keeps_its_header(name, suffix, tmp_path):
    old, new = nibabel.load(ROOT / name), copy(ROOT / name, tmp_path / f"c{suffix}")
    np.testing.assert_array_equal(np.asarray(new.dataobj).squeeze(), np.asarray(old.dataobj).squeeze())
    np.testing.assert_allclose(new.affine, old.affine, atol=1e-5)
    for field in ("sform_code", "qform_code", "xyzt_units", "descrip", "intent_code"):
        assert new.header[field] == old.header[field], field
    np.testing.assert_array_equal(new.header.get_zooms()[3:], old.header.get_zooms()[3 : new.ndim])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("byteorder", "<>")
def test_every_dtype_version_and_byte_order(tmp_path, dtype, kind, byteorder):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    header = kind.header_class(endianness=byteorder)
    kind(array.astype(array.dtype.newbyteorder(byteorder)), OBLIQUE, header, dtype=dtype).to_filename(
        tmp_path / "v.nii"
    )
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


def test_scaling_of_an_input_is_not_carried_over(tmp_path):
    write(tmp_path / "v.nii", np.ones((2, 3, 4), np.int16))
    patch(tmp_path / "v.nii", 112, np.array([0.5, 2], "<f4").tobytes())
    new = copy(tmp_path / "v.nii", tmp_path / "c.nii")
    assert (new.dataobj.slope, new.dataobj.inter) == (1.0, 0.0)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf, 1.0])
def test_slopes_that_say_nothing(tmp_path, slope):
    write(tmp_path / "v.nii", np.ones((2, 3, 4), np.int16))
    patch(tmp_path / "v.nii", 112, np.array([slope, 0], "<f4").tobytes())
    with open_volume(tmp_path / "v.nii") as source:
        assert source.info.scaling is None


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0)])
def test_transforms_keep_their_codes(tmp_path, sform, qform):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_qform(OBLIQUE, 1)
    image.to_filename(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 252, np.array([qform, sform], "<i2").tobytes())
    with open_volume(tmp_path / "v.nii") as source:
        geometry = source.info.geometry.resampled((2, 2, 2), (0.5, 0.5, 0.5))
        with create_volume(
            tmp_path / "c.nii", shape=(1, 1, 3, 2, 2), dtype="uint8", like=source.info, geometry=geometry
        ):
            pass
    header = nibabel.load(tmp_path / "c.nii").header
    assert (header["sform_code"], header["qform_code"]) == (sform, qform)
    np.testing.assert_allclose(header.get_zooms(), [1, 1.5, 5], rtol=1e-6)
    if sform:
        np.testing.assert_allclose(header.get_sform(), geometry.matrix, atol=1e-5)
    if qform:
        np.testing.assert_allclose(header.get_qform(), geometry.matrix, atol=1e-5)


def test_a_second_transform_moves_along(tmp_path):
    other = nibabel.affines.from_matvec(np.diag([0.5, 0.75, 2.5]), [1, 2, 3])
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_sform(OBLIQUE, 4)
    image.header.set_qform(other, 1)
    image.to_filename(tmp_path / "v.nii")
    with open_volume(tmp_path / "v.nii") as source:
        geometry = source.info.geometry.resampled((2, 2, 2), (0.5, 0.5, 0.5))
        with create_volume(
            tmp_path / "c.nii", shape=(1, 1, 3, 2, 2), dtype="uint8", like=source.info, geometry=geometry
        ):
            pass
    expected = Geometry.from_matrix(other).resampled((2, 2, 2), (0.5, 0.5, 0.5))
    np.testing.assert_allclose(nibabel.load(tmp_path / "c.nii").get_qform(), expected.matrix, atol=1e-5)


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1)])
def test_a_shear_goes_to_the_sform_alone(tmp_path, sform, qform):
    sheared = OBLIQUE @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_sform(OBLIQUE, sform)
    image.header.set_qform(OBLIQUE, qform)
    image.to_filename(tmp_path / "v.nii")
    new = copy(tmp_path / "v.nii", tmp_path / "c.nii", geometry=Geometry.from_matrix(sheared))
    assert new.header["qform_code"] == 0
    np.testing.assert_allclose(new.affine, sheared, atol=1e-5)


def test_a_new_header_is_like_nibabels(tmp_path):
    with create_volume(
        tmp_path / "v.nii",
        shape=(3, 1, 4, 5, 6),
        dtype="float32",
        geometry=Geometry.from_matrix(OBLIQUE, "um"),
        note="n",
    ):
        pass
    image = nibabel.load(tmp_path / "v.nii")
    assert image.shape == (6, 5, 4, 3)
    assert (image.header["sform_code"], image.header["qform_code"]) == (2, 0)
    assert image.header.get_xyzt_units() == ("micron", "sec")
    assert image.header["descrip"] == b"n"
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms()[:3], [0.5, 0.75, 2.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "stated", "factor"), [("mm", "mm", 1), ("um", "micron", 1), ("nm", "micron", 1e-3), ("m", "meter", 1)]
)
def test_units(tmp_path, unit, stated, factor):
    with create_volume(
        tmp_path / "v.nii", shape=(1, 1, 2, 2, 2), dtype="uint8", geometry=Geometry.from_spacing((4, 4, 4), unit)
    ):
        pass
    image = nibabel.load(tmp_path / "v.nii")
    assert image.header.get_xyzt_units()[0] == stated
    np.testing.assert_allclose(image.header.get_zooms(), [4 * factor] * 3, rtol=1e-6)


def test_the_header_carries_on(tmp_path):
    write(
        tmp_path / "v.nii",
        np.zeros((2, 3, 4, 5), np.int16),
        descrip=b"scan",
        cal_max=9,
        slice_code=1,
        pixdim=[1, 1, 1, 1, 2.5, 1, 1, 1],
    )
    header = copy(tmp_path / "v.nii", tmp_path / "c.nii").header
    assert header["descrip"] == b"scan"
    assert header.get_zooms()[3] == 2.5
    assert header["cal_max"] == 0
    assert header["slice_code"] == 0
    noted = copy(tmp_path / "v.nii", tmp_path / "d.nii", note="é" * 60).header
    assert noted["descrip"].item().decode() == "é" * 39


def test_nifti2_where_a_size_needs_it(tmp_path):
    for width, kind in ((32767, nibabel.Nifti1Image), (32768, nibabel.Nifti2Image)):
        write(tmp_path / "like.nii", np.zeros((2, 2, 2), np.uint8), descrip=b"kept")
        with (
            open_volume(tmp_path / "like.nii") as like,
            create_volume(tmp_path / f"{width}.nii", shape=(1, 1, 1, 1, width), dtype="uint8", like=like.info),
        ):
            pass
        image = nibabel.load(tmp_path / f"{width}.nii")
        assert type(image) is kind
        assert image.header["descrip"] == b"kept"
        np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-5)
        with open_volume(tmp_path / f"{width}.nii") as source:
            assert source.info.shape == (1, 1, 1, 1, width)


def test_extensions_and_their_offset(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello" * 20))
    image.to_filename(tmp_path / "v.nii.gz")
    new = copy(tmp_path / "v.nii.gz", tmp_path / "c.nii.gz")
    np.testing.assert_array_equal(np.asarray(new.dataobj), np.asarray(image.dataobj))
    assert new.header.extensions[0].get_content().startswith(b"hello")


def test_what_nibabel_warns_of_is_a_note(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
    image.to_filename(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 352, np.array(13, "<i4").tobytes())
    with open_volume(tmp_path / "v.nii") as source:
        assert source.info.notes[0].startswith("v.nii: Extension size is not a multiple of 16 bytes")


def test_content_tells_whether_a_file_is_gzipped(tmp_path):
    write(tmp_path / "v.nii", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    (tmp_path / "z.nii").write_bytes(gzip.compress((tmp_path / "v.nii").read_bytes()))
    (tmp_path / "p.nii.gz").write_bytes((tmp_path / "v.nii").read_bytes())
    for name in ("z.nii", "p.nii.gz"):
        with open_volume(tmp_path / name) as source:
            assert source.numpy().sum() == 276


def test_gzip_headers_hold_neither_name_nor_time(tmp_path):
    copy(ROOT / REAL[1], tmp_path / "c.nii.gz")
    assert (tmp_path / "c.nii.gz").read_bytes()[3:8] == bytes(5)


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


def test_colours_and_odd_datatypes(tmp_path):
    colours = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    write(tmp_path / "rgb.nii", colours)
    with pytest.raises(ReadError, match=r"rgb\.nii: voxels of datatype RGB are not supported \(known: uint8"):
        open_volume(tmp_path / "rgb.nii")
    write(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8))
    patch(tmp_path / "v.nii", 70, np.array(77, "<i2").tobytes())
    with pytest.raises(ReadError, match=r"v\.nii: "):
        open_volume(tmp_path / "v.nii")


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (344, b"ni1\0", r"header of a \.hdr/\.img pair"),
        (344, b"xxxx", "is no NIfTI file"),
        (42, np.array(-3, "<i2").tobytes(), "every axis must hold a voxel"),
        (42, np.array(30000, "<i2").tobytes(), "is truncated: .* bytes of voxels expected"),
        (108, np.array(100, "<f4").tobytes(), "its NIfTI header is damaged: .*offset"),
        (108, np.array(np.nan, "<f4").tobytes(), "its NIfTI header is damaged: .*NaN"),
        (108, np.array(np.inf, "<f4").tobytes(), "its NIfTI header is damaged: "),
        (280, np.array(np.nan, "<f4").tobytes(), "its affine is not finite"),
        (112, np.array([1, np.inf], "<f4").tobytes(), "slope and intercept are damaged"),
    ],
)
def test_damaged_headers(tmp_path, offset, data, message):
    path = write(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8))
    patch(path, offset, data)
    with pytest.raises(ReadError, match=rf"v\.nii: .*{message}") as caught:
        open_volume(path)
    assert "\n" not in str(caught.value)


def test_more_than_five_axes(tmp_path):
    write(tmp_path / "six.nii", np.zeros((2, 3, 4, 1, 2, 1), np.uint8))
    with open_volume(tmp_path / "six.nii") as source:
        assert source.info.shape == (1, 2, 4, 3, 2)
    write(tmp_path / "big.nii", np.zeros((2, 3, 4, 1, 2, 2), np.uint8))
    with pytest.raises(ReadError, match="at most five axes"):
        open_volume(tmp_path / "big.nii")
