"""Headers of the NIfTI files that volconv writes, read by nibabel and by ITK."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from niftifiles import OBLIQUE, ROOT, copy, new, number, patch, write
from volconv.errors import WriteError
from volconv.geometry import Geometry
from volconv.io import Region, Scaling, create_volume, describe_volume, open_volume

REAL = (
    "tests/data/S0_10slices.nii.gz",
    "tests/data/aniso_vox.nii.gz",
    "tests/data/func_discrete.nii.gz",
    "tests/data/small_64D.nii",
    "sample_data/mni152_t1.nii.gz",
)
SHEARED = OBLIQUE @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def halved(path, target, **changes):
    """A header of half as many voxels on each axis."""
    with open_volume(path) as source:
        geometry = changes.pop("geometry", source.info.geometry).resampled((2, 2, 2), (0.5, 0.5, 0.5))
        new(target, (1, 1, 3, 2, 2), like=source.info, geometry=geometry, **changes)
    return nibabel.load(target).header, geometry


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_copy_of_a_real_file_keeps_its_header(name, suffix, tmp_path):
    old, image = nibabel.load(ROOT / name), copy(ROOT / name, tmp_path / f"c{suffix}", note="n")
    assert image.shape == old.shape
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(old.dataobj))
    np.testing.assert_allclose(image.affine, old.affine, atol=1e-5)
    for field in ("sform_code", "qform_code", "xyzt_units", "intent_code", "intent_name", "toffset", "aux_file"):
        assert image.header[field] == old.header[field], field
    assert image.header["descrip"] == (old.header["descrip"].item() or b"n")
    np.testing.assert_array_equal(image.header.get_zooms(), old.header.get_zooms())


def test_scaling_of_an_input_is_not_carried_over(tmp_path):
    write(tmp_path / "v.nii", np.ones((2, 3, 4), np.int16))
    patch(tmp_path / "v.nii", 112, number([0.5, 2], "<f4"))
    image = copy(tmp_path / "v.nii", tmp_path / "c.nii")
    assert (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)


def test_scaling_is_told_as_exact_as_the_header_keeps_it(tmp_path):
    info = new(tmp_path / "c.nii", (1, 1, 2, 3, 4), scaling=Scaling(0.1, 3))
    assert info.scaling == Scaling(float(np.float32(0.1)), 3.0)


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0)])
def test_transforms_keep_their_codes(tmp_path, sform, qform):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_qform(OBLIQUE, 1)
    image.to_filename(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 252, number([qform, sform], "<i2"))
    header, geometry = halved(tmp_path / "v.nii", tmp_path / "c.nii")
    assert (header["sform_code"], header["qform_code"]) == (sform, qform)
    np.testing.assert_allclose(header.get_zooms(), [1, 1.5, 5], rtol=1e-6)
    if sform:
        np.testing.assert_allclose(header.get_sform(), geometry.matrix, atol=1e-5)
    if qform:
        np.testing.assert_allclose(header.get_qform(), geometry.matrix, atol=1e-5)


@pytest.mark.parametrize("unit", ["mm", "um", "m"])
def test_a_second_transform_moves_along(tmp_path, unit):
    other = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.1) @ np.diag([0.5, 0.75, 2.5]), [1, 2, 3])
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_sform(OBLIQUE, 4)
    image.header.set_qform(other, 1)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "v.nii")
    factor = {"mm": 1, "um": 1e3, "m": 1e-3}[unit]
    scale = np.diag([factor, factor, factor, 1])
    header, _ = halved(tmp_path / "v.nii", tmp_path / "c.nii", geometry=Geometry.from_matrix(scale @ OBLIQUE, unit))
    for before, after in ((OBLIQUE, header.get_sform()), (other, header.get_qform())):
        expected = Geometry.from_matrix(scale @ before).resampled((2, 2, 2), (0.5, 0.5, 0.5)).matrix
        np.testing.assert_allclose(after / factor, expected / factor, atol=1e-4)
    assert header.get_xyzt_units()[0] == {"mm": "mm", "um": "micron", "m": "meter"}[unit]


def test_a_quaternion_that_is_none_follows_the_sform(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_sform(OBLIQUE, 1)
    image.header.set_qform(OBLIQUE, 1)
    image.to_filename(tmp_path / "v.nii")
    patch(tmp_path / "v.nii", 256, number([1, 1, 1], "<f4"))
    header, geometry = halved(tmp_path / "v.nii", tmp_path / "c.nii")
    np.testing.assert_allclose(header.get_sform(), geometry.matrix, atol=1e-5)
    np.testing.assert_allclose(header.get_qform(), geometry.matrix, atol=1e-5)


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1)])
def test_a_shear_goes_to_the_sform_alone(tmp_path, sform, qform):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE)
    image.header.set_sform(OBLIQUE, sform)
    image.header.set_qform(OBLIQUE, qform)
    image.to_filename(tmp_path / "v.nii")
    image = copy(tmp_path / "v.nii", tmp_path / "c.nii", geometry=Geometry.from_matrix(SHEARED))
    assert image.header["qform_code"] == 0
    np.testing.assert_allclose(image.affine, SHEARED, atol=1e-5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_new_header_is_like_nibabels(tmp_path, suffix):
    info = new(
        tmp_path / f"v{suffix}", (3, 1, 4, 5, 6), "float32", geometry=Geometry.from_matrix(OBLIQUE, "um"), note="n"
    )
    packed = suffix == ".nii.gz"
    assert (info.format, info.axes, info.compression) == ("nifti", "XYZT", "gzip" if packed else None)
    assert (info.access.chunk, info.access.in_turn) == (None, packed)
    assert info.notes == ()
    image = nibabel.load(tmp_path / f"v{suffix}")
    assert image.shape == (6, 5, 4, 3)
    assert (image.header["sform_code"], image.header["qform_code"]) == (2, 0)
    assert image.header.get_xyzt_units() == ("micron", "unknown")
    assert image.header["descrip"] == b"n"
    assert image.header["pixdim"][4] == 0
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms()[:3], [0.5, 0.75, 2.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "stated", "factor"), [("mm", "mm", 1), ("um", "micron", 1), ("nm", "micron", 1e-3), ("m", "meter", 1)]
)
def test_units(tmp_path, unit, stated, factor):
    new(tmp_path / "v.nii", (1, 1, 2, 2, 2), geometry=Geometry.from_spacing((4, 4, 4), unit, (1, 2, 3)))
    image = nibabel.load(tmp_path / "v.nii")
    assert image.header.get_xyzt_units()[0] == stated
    np.testing.assert_allclose(image.header.get_zooms(), [4 * factor] * 3, rtol=1e-6)
    np.testing.assert_allclose(image.affine[:3, 3], [3 * factor, 2 * factor, factor], rtol=1e-6)


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize(
    ("geometry", "written"),
    [(Geometry(), "1"), (Geometry().resampled((2, 1, 1), (0.5, 0, 0)), "2,1,1")],
)
def test_unknown_spacing_invents_no_position(tmp_path, carried, geometry, written):
    like = None
    if carried:
        with open_volume(write(tmp_path / "like.nii", np.zeros((2, 2, 2), np.uint8), xyzt_units=2)) as source:
            like = source.info
    info = new(tmp_path / "v.nii", (1, 1, 4, 2, 2), geometry=geometry, like=like)
    assert info.notes == (f"v.nii: spacing unknown, written as {written} without a unit",)
    header = nibabel.load(tmp_path / "v.nii").header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)
    assert header.get_xyzt_units() == ("unknown", "unknown")
    np.testing.assert_array_equal(header.get_zooms()[::-1], geometry.spacing)


@pytest.mark.parametrize("value", [1e39, np.inf, np.nan])
def test_numbers_that_the_header_cannot_hold(tmp_path, value):
    geometry = Geometry.from_spacing((value, 1, 1), "mm")
    with pytest.raises(WriteError, match=r"v\.nii: NIfTI cannot hold such numbers \(affine \["):
        new(tmp_path / "v.nii", (1, 1, 2, 2, 2), geometry=geometry)
    assert list(tmp_path.iterdir()) == []


def test_an_affine_without_a_unit_is_written(tmp_path):
    info = new(tmp_path / "v.nii", (1, 1, 4, 2, 2), geometry=Geometry.from_matrix(OBLIQUE, None))
    assert info.notes == ()
    image = nibabel.load(tmp_path / "v.nii")
    assert image.header.get_xyzt_units() == ("unknown", "unknown")
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)


def test_what_would_lie_is_reset_and_the_rest_is_kept(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), np.int16), OBLIQUE)
    header = image.header
    header.set_dim_info(freq=1, phase=0, slice=2)
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((1, 1, 1, 2.5))
    header.set_intent("t test", (10,), name="score")
    for name, value in {"descrip": b"scan", "aux_file": b"aux", "toffset": 3, "cal_max": 9, "cal_min": 1}.items():
        header[name] = value
    for name in ("slice_code", "slice_start", "slice_end", "slice_duration", "glmax", "glmin"):
        header[name] = 1
    image.to_filename(tmp_path / "v.nii")
    after = copy(tmp_path / "v.nii", tmp_path / "c.nii", note="n").header
    assert (after["descrip"], after["aux_file"], after["toffset"]) == (b"scan", b"aux", 3)
    assert after.get_intent() == ("t test", (10.0,), "score")
    assert after.get_xyzt_units() == ("mm", "sec")
    assert after.get_zooms()[3] == 2.5
    assert after.get_dim_info() == (1, 0, None)
    for name in ("cal_max", "cal_min", "slice_code", "slice_start", "slice_end", "slice_duration", "glmax", "glmin"):
        assert after[name] == 0, name


def test_extensions_are_kept_and_notes_follow_them(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4))
    for code, content in (("afni", b"<AFNI/>"), ("comment", b"hello" * 20), (4242, b"\1\0\2")):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    image.to_filename(tmp_path / "0.nii.gz")
    for step in (1, 2):
        after = copy(tmp_path / f"{step - 1}.nii.gz", tmp_path / f"{step}.nii.gz", note=f"µ {step}")
        np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(image.dataobj))
    told = [(extension.get_code(), extension.get_content()) for extension in after.header.extensions]
    assert told == [
        (4, b"<AFNI/>"),
        (6, b"hello" * 20),
        (4242, b"\1\0\2"),
        (6, "µ 1".encode()),
        (6, "µ 2".encode()),
    ]
    assert after.header["descrip"].item().decode() == "µ 1"
    without = copy(tmp_path / "2.nii.gz", tmp_path / "3.nii.gz")
    assert len(without.header.extensions) == 5


def test_a_note_that_descrip_cannot_hold(tmp_path):
    new(tmp_path / "v.nii", (1, 1, 2, 2, 2), note="é" * 60)
    header = nibabel.load(tmp_path / "v.nii").header
    assert header["descrip"].item().decode() == "é" * 39
    assert header.extensions[0].get_content().decode() == "é" * 60


def test_what_is_told_beforehand_is_what_is_made(tmp_path):
    with open_volume(ROOT / REAL[3]) as source:
        arguments = {"shape": (3, 2, 4, 5, 6), "dtype": "uint8", "like": source.info, "note": "n"}
        told = describe_volume(tmp_path / "c.nii.gz", **arguments)
        assert list(tmp_path.iterdir()) == []
        assert new(tmp_path / "c.nii.gz", **arguments) == told
        assert told.axes == "XYZTC"
        assert told.time_step == source.info.time_step


def test_an_input_without_its_header(tmp_path):
    with open_volume(ROOT / REAL[3]) as source:
        like = replace(source.info, header=None)
    new(tmp_path / "c.nii", (3, 1, 4, 5, 6), like=like)
    np.testing.assert_allclose(nibabel.load(tmp_path / "c.nii").affine, like.geometry.matrix, rtol=1e-6)


def test_gzip_headers_hold_neither_name_nor_time(tmp_path):
    copy(ROOT / REAL[1], tmp_path / "c.nii.gz")
    assert (tmp_path / "c.nii.gz").read_bytes()[3:8] == bytes(5)


def test_nifti2_where_a_size_needs_it(tmp_path):
    for width, kind in ((32767, nibabel.Nifti1Image), (32768, nibabel.Nifti2Image)):
        write(tmp_path / "like.nii", np.zeros((2, 2, 2), np.uint8), descrip=b"kept", dim_info=0b111001)
        with open_volume(tmp_path / "like.nii") as like:
            new(tmp_path / f"{width}.nii", (1, 1, 1, 1, width), like=like.info)
        image = nibabel.load(tmp_path / f"{width}.nii")
        assert type(image) is kind
        assert image.header["descrip"] == b"kept"
        assert image.header["dim_info"] == 0b1001
        np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-5)
        with open_volume(tmp_path / f"{width}.nii") as source:
            assert source.info.shape == (1, 1, 1, 1, width)


@pytest.mark.parametrize(
    ("old", "intent", "shape", "expected"),
    [
        ((4, 3, 2), 0, (1, 3, 2, 3, 4), 1007),
        ((4, 3, 2), 0, (1, 1, 2, 3, 4), 0),
        ((4, 3, 2, 5), 0, (5, 1, 2, 3, 4), 0),
        ((4, 3, 2), 1002, (1, 3, 2, 3, 4), 1002),
        ((4, 3, 2, 1, 3), 1006, (1, 1, 2, 3, 4), 0),
        ((4, 3, 2, 1, 3), 1007, (1, 2, 2, 3, 4), 1007),
        ((4, 3, 2, 1, 3), 1007, (1, 1, 2, 3, 4), 0),  # no vector any more
        ((4, 3, 2), 1007, (1, 1, 2, 3, 4), 1007),
        (None, 0, (1, 3, 2, 3, 4), 1007),
    ],
)
def test_intent(tmp_path, old, intent, shape, expected):
    like = None
    if old is not None:
        with open_volume(write(tmp_path / "v.nii", np.zeros(old, np.uint8), intent_code=intent)) as source:
            like = source.info
    new(tmp_path / "c.nii", shape, like=like)
    assert nibabel.load(tmp_path / "c.nii").header["intent_code"] == expected


@pytest.mark.parametrize("shape", [(1, 1, 4, 5, 6), (3, 1, 4, 5, 6), (1, 2, 4, 5, 6), (3, 2, 4, 5, 6)])
def test_itk_reads_channels_and_position(tmp_path, shape):
    sitk = pytest.importorskip("SimpleITK")
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    geometry = Geometry.from_matrix(OBLIQUE, "mm")
    with create_volume(tmp_path / "v.nii.gz", shape=shape, dtype="float32", geometry=geometry, note="n") as sink:
        sink.write(Region.whole(shape), array)
    image = sitk.ReadImage(tmp_path / "v.nii.gz")
    n, c = shape[:2]
    assert image.GetDimension() == (4 if n > 1 else 3)
    assert image.GetNumberOfComponentsPerPixel() == c
    values = sitk.GetArrayFromImage(image).reshape(n, *shape[2:], c)
    np.testing.assert_array_equal(values, array.transpose(0, 2, 3, 4, 1))
    corner = [*(size - 1 for size in shape[:1:-1]), *([0] if n > 1 else [])]
    expected = np.diag([-1, -1, 1, 1]) @ OBLIQUE @ [*corner[:3], 1]  # ITK's world is LPS
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(corner)[:3], expected[:3], rtol=1e-5)


def test_a_copy_keeps_what_is_said_of_its_voxels(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4))
    image.header.set_dim_info(0, 1, 2)
    for name, value in (("slice_code", 3), ("slice_end", 1), ("slice_duration", 0.5), ("cal_max", 9)):
        image.header[name] = value
    image.to_filename(tmp_path / "a.nii")
    with open_volume(tmp_path / "a.nii") as source:
        for copied in (True, False):
            path = tmp_path / f"{copied}.nii"
            create_volume(path, shape=source.info.shape, dtype="uint8", like=source.info, copied=copied).commit()
    for name in ("slice_code", "slice_end", "slice_duration", "cal_max", "dim_info"):
        assert nibabel.load(tmp_path / "True.nii").header[name] == image.header[name]
    header = nibabel.load(tmp_path / "False.nii").header
    assert [header[name] for name in ("slice_code", "slice_end", "slice_duration", "cal_max")] == [0, 0, 0, 0]
    assert header.get_dim_info() == (0, 1, None)
