"""Parts of volumes, and volumes as channels of one."""

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volconv.errors import ParameterError, ReadError, ShapeError
from volconv.geometry import Geometry
from volconv.io import ArraySource, Region, Scaling, create_volume, open_stack, open_volume
from volconv.io.combine import Selected, Stacked

ARRAY = np.arange(4 * 3 * 2 * 3 * 2, dtype=np.int16).reshape(4, 3, 2, 3, 2)


def write(path, array, **options):
    with create_volume(path, shape=array.shape, dtype=array.dtype, **options) as sink:
        sink.write(Region.whole(array.shape), array)
    return path


ranges = st.integers(0, 3).flatmap(lambda a: st.integers(a + 1, 4).map(lambda b: (a, b)))


@given(ranges, ranges.filter(lambda r: r[1] <= 3), st.data())
def test_a_selection_is_a_slice(time, channel, data):
    part = ARRAY[slice(*time), slice(*channel)]
    source = Selected(ArraySource(ARRAY), slice(*time), slice(*channel), "v")
    assert source.info.shape == part.shape
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in part.shape]
    region = Region(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    np.testing.assert_array_equal(source.read(region), part[region.slices])


def test_open_ends_and_single_ones():
    for time, expected in ((2, ARRAY[2:3]), (slice(None, 2), ARRAY[:2]), (slice(3, None), ARRAY[3:]), (None, ARRAY)):
        np.testing.assert_array_equal(Selected(ArraySource(ARRAY), time, None, "v").numpy(), expected)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [(4, "4"), (-1, "-1"), (slice(2, 2), "2:2"), (slice(0, 5), "0:5"), (slice(3, 1), "3:1"), (slice(0, 4, 2), "0:4")],
)
def test_what_a_volume_does_not_have(wanted, told):
    with pytest.raises(
        ShapeError, match=rf"time must be an index below 4 or a range within 0:4 \(got {told}, v has 4\)"
    ):
        Selected(ArraySource(ARRAY), wanted, None, "v")


def test_a_selection_ends_where_it_ends():
    source = Selected(ArraySource(ARRAY), slice(0, 2), None, "v")
    with pytest.raises(ValueError, match="within the volume"):
        source.read(Region((0, 0, 0, 0, 0), (3, 1, 1, 1, 1)))


@pytest.mark.parametrize("name", ["v.nii.gz", "v.tif", "v.h5"])
def test_selections_of_files(tmp_path, name):
    path = write(tmp_path / name, ARRAY)
    with open_volume(path, time=slice(1, 3), channel=2) as volume:
        np.testing.assert_array_equal(volume.numpy(), ARRAY[1:3, 2:3])
        assert volume.names == (str(path),)
    with pytest.raises(ShapeError, match="channel must be an index below 3"):
        open_volume(path, channel=3)


def test_channels_of_several_files(tmp_path):
    paths = [write(tmp_path / f"{i}.nii", ARRAY[:, i : i + 1]) for i in range(3)]
    with open_stack(paths) as volume:
        assert volume.info.shape == ARRAY.shape
        assert volume.info.dtype == ARRAY.dtype
        assert volume.names == tuple(map(str, paths))
        np.testing.assert_array_equal(volume.numpy(), ARRAY)
        part = Region((1, 1, 0, 1, 0), (3, 3, 2, 2, 2))
        np.testing.assert_array_equal(volume.read(part), ARRAY[part.slices])
        with pytest.raises(ValueError, match="within the volume"):
            volume.read(Region((0, 0, 0, 0, 0), (1, 4, 1, 1, 1)))
    with pytest.raises((ValueError, ReadError)):
        volume.read(part)


def test_real_values_where_files_store_differently(tmp_path):
    write(tmp_path / "a.nii", ARRAY[:, :1], scaling=Scaling(0.5, 10.0))
    write(tmp_path / "b.nii", ARRAY[:, 1:].astype(np.float32))
    with open_stack([tmp_path / "a.nii", tmp_path / "b.nii"]) as volume:
        assert volume.info.dtype == np.float32
        assert volume.info.scaling is None
        np.testing.assert_array_equal(volume.numpy()[:, :1], ARRAY[:, :1] * 0.5 + 10)
        np.testing.assert_array_equal(volume.numpy()[:, 1:], ARRAY[:, 1:])
    write(tmp_path / "c.nii", ARRAY[:, 1:].astype(np.int32))
    with open_stack([tmp_path / "a.nii", tmp_path / "c.nii"]) as volume:
        assert volume.info.dtype == np.float64


def test_volumes_that_do_not_lie_on_one_grid(tmp_path):
    one = write(tmp_path / "a.nii", ARRAY, geometry=Geometry.from_spacing((1.0, 1.0, 1.0)))
    moved = Geometry.from_spacing((1.0, 1.0, 1.0), origin=(0.0, 0.5, 0.0))
    with pytest.raises(
        ShapeError, match=r"one geometry \(got .*a\.nii affine \[1 0 0 0; .*b\.nii affine \[1 0 0 0; 0 1 0 0\.5"
    ):
        open_stack([one, write(tmp_path / "b.nii", ARRAY, geometry=moved)])
    with pytest.raises(
        ShapeError, match=r"one size \(N, D, H, W\) \(got .*a\.nii \(4, 2, 3, 2\), .*c\.nii \(3, 2, 3, 2\)\)"
    ):
        open_stack([one, write(tmp_path / "c.nii", ARRAY[:3])])


def test_files_are_closed_where_one_cannot_be_opened(tmp_path):
    one = write(tmp_path / "a.nii", ARRAY)
    with pytest.raises(ReadError, match=r"gone\.nii: no such file"):
        open_stack([one, tmp_path / "gone.nii"])  # a file left open would be a warning, and warnings are errors


def test_a_spacing_needs_a_unit_where_there_is_none(tmp_path):
    path = write(tmp_path / "a.tif", ARRAY)
    with open_volume(path, spacing=((2.0, 1.0, 0.5), "um")) as volume:
        assert volume.info.geometry == Geometry.from_spacing((2.0, 1.0, 0.5), "um")
    with pytest.raises(ParameterError, match=r"spacing must have a unit, as .*a\.tif states none \(got 2,1,0\.5\)"):
        open_volume(path, spacing=((2.0, 1.0, 0.5), None))


def test_a_spacing_that_is_stated_needs_no_guess(tmp_path):
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4)).to_filename(path)
    with open_volume(path) as volume:
        assert volume.info.notes == ("a.nii states no units, taken as mm",)
    with open_volume(path, spacing=((1.0, 1.0, 1.0), "um")) as volume:
        assert volume.info.notes == ()


def test_time_that_is_left_out_is_told_in_a_copy(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2, 6), np.uint8), np.eye(4))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((1, 1, 1, 1500))
    image.header["toffset"] = 250
    image.to_filename(tmp_path / "a.nii")
    for time, expected in ((slice(2, 5), 3250), (slice(0, 3), 250), (None, 250), (4, 6250)):
        with open_volume(tmp_path / "a.nii", time=time) as volume:
            shape = volume.info.shape
            create_volume(tmp_path / "b.nii", shape=shape, dtype="uint8", like=volume.info, overwrite=True).commit()
        assert nibabel.load(tmp_path / "b.nii").header["toffset"] == expected


def test_stacked_arrays_need_no_files():
    stacked = Stacked([ArraySource(ARRAY[:, :1]), ArraySource(ARRAY[:, 1:])], ["a", "b"])
    np.testing.assert_array_equal(stacked.numpy(), ARRAY)
    stacked.close()
