"""HDF5 datasets, against h5py."""

import h5py
import numpy as np
import pytest

from volconv.errors import ReadError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, Scaling, create_volume, open_volume
from volconv.io.hdf5 import DTYPES


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.h5"


def create(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return path


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_ranks(path, rank):
    array = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)[(0,) * (5 - rank)]
    create(path, raw=array)
    with open_volume(path) as source:
        assert source.info.shape == (1,) * (5 - rank) + array.shape
        assert source.info.format == "hdf5"
        np.testing.assert_array_equal(source.numpy().reshape(array.shape), array)
        assert source.info.geometry == Geometry()
        assert source.info.geometry.unit is None


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("byteorder", "<>")
def test_dtypes(path, dtype, byteorder):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    create(path, raw=array.astype(array.dtype.newbyteorder(byteorder)))
    with open_volume(path) as source:
        assert source.info.dtype == (np.uint8 if dtype == "bool" else array.dtype)
        assert source.info.dtype.isnative
        got = source.read(Region.whole(source.info.shape))
        assert got.dtype == source.info.dtype
        np.testing.assert_array_equal(got[0, 0], array)
    other = path.with_name("w.h5")
    with create_volume(other, shape=(1, 1, 2, 3, 4), dtype=dtype) as sink:
        sink.write(Region.whole(sink.info.shape), got)
    with h5py.File(other) as file:
        assert file["data"].dtype == got.dtype
        np.testing.assert_array_equal(file["data"][()], array)


def test_the_only_volume_is_found(path):
    with h5py.File(path, "w") as file:
        file["a/table"] = np.zeros((4, 2))
        file["a/b/raw"] = np.ones((2, 3, 4))
        file["a/label"] = "text"
        file["soft"] = h5py.SoftLink("/a/b/raw")
        file["far"] = h5py.ExternalLink("elsewhere.h5", "/raw")
    with open_volume(path) as source:
        assert source.info.shape == (1, 1, 2, 3, 4)
    with open_volume(f"{path}:a/b/raw") as source:
        assert source.numpy().sum() == 24
    with open_volume(f"{path}:/soft") as source:
        assert source.numpy().sum() == 24


def test_several_or_no_volumes(path):
    create(path, **{f"d{i:02}": np.zeros((2, 3, 4 + i)) for i in range(10)})
    with pytest.raises(
        ReadError,
        match=r"holds 10 datasets .*/d00 \(2, 3, 4\), .*/d07 \(2, 3, 11\) and 2 more; name one, as in v\.h5:/d00",
    ):
        open_volume(path)
    create(path, flat=np.zeros((3, 4)))
    with pytest.raises(ReadError, match=r"holds no dataset of 3 axes \(D, H, W\)"):
        open_volume(path)


def test_what_is_no_volume(path):
    with h5py.File(path, "w") as file:
        file["flat"] = np.zeros((3, 4))
        file["six"] = np.zeros((1,) * 6)
        file["words"] = np.array([[["a", "b"]]], dtype=object)
        file["pairs"] = np.zeros((2, 2, 2), [("x", "f4"), ("y", "f4")])
        file["none"] = h5py.Empty("f4")
        file["void"] = np.zeros((0, 2, 2))
        file.create_group("group")
    for key, message in {
        "flat": r"flat: a volume has 3 axes \(D, H, W\).*\(got shape \(3, 4\)\)",
        "six": "a volume has 3 axes",
        "words": "voxels of dtype object are not supported",
        "pairs": "are not supported",
        "none": "a volume has 3 axes",
        "void": "every axis must hold a voxel",
        "group": "/group is a group, not a dataset",
        "lost": r"holds no dataset /lost \(it holds /flat, ",
    }.items():
        with pytest.raises(ReadError, match=message):
            open_volume(f"{path}:/{key}")


def test_geometry_from_attributes(path):
    affine = Geometry.from_spacing((3, 2, 1), "um", (7, 8, 9)).matrix
    create(path, raw=np.zeros((2, 3, 4)))
    for attributes, spacing, unit, notes in (
        ({"affine": affine, "unit": "um"}, (3, 2, 1), "um", 0),
        ({"affine": affine, "unit": np.bytes_("micron"), "element_size_um": [5, 5, 5]}, (3, 2, 1), "um", 0),
        ({"affine": affine}, (3, 2, 1), None, 1),
        ({"element_size_um": [0.3, 0.2, 0.1]}, (0.3, 0.2, 0.1), "um", 0),
        ({"element_size_um": [0.3, 0.2]}, (1, 1, 1), None, 1),
        ({"element_size_um": [0.3, 0.2, 0]}, (1, 1, 1), None, 1),
    ):
        with h5py.File(path, "a") as file:
            file["raw"].attrs.clear()
            file["raw"].attrs.update(attributes)
        with open_volume(path) as source:
            assert source.info.geometry.spacing == spacing
            assert source.info.geometry.unit == unit
            assert len(source.info.notes) == notes
    with h5py.File(path, "a") as file:
        file["raw"].attrs["affine"] = np.eye(3)
    with pytest.raises(ReadError, match="attribute affine must be a finite 4x4 matrix"):
        open_volume(path)


def test_packed_and_chunked(path):
    array = np.random.default_rng(0).integers(0, 9, (8, 9, 10))
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=array, chunks=(3, 4, 5), compression="gzip", shuffle=True, fletcher32=True)
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.read(Region((0, 0, 2, 3, 4), (1, 1, 7, 8, 9)))[0, 0], array[2:7, 3:8, 4:9])
    content = path.read_bytes()
    with h5py.File(path) as file:
        place = file["raw"].id.get_chunk_info(0).byte_offset
    path.write_bytes(content[: place + 5] + b"\xff" * 8 + content[place + 13 :])
    with open_volume(path) as source, pytest.raises(ReadError, match=r"v\.h5:/raw: cannot be read"):
        source.numpy()


def test_a_filter_that_is_not_installed(path):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((2, 2, 2))
    creation.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2,))
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((2, 2, 2))
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, creation)
    with pytest.raises(ReadError, match=r"v\.h5:/raw: is packed by a filter that is not installed \(.*32001\)"):
        open_volume(path)


def test_what_is_written(path):
    geometry = Geometry.from_spacing((3, 2, 1), "nm", (7, 8, 9))
    with create_volume(f"{path}:/a/b", shape=(1, 1, 2, 3, 4), dtype="float16", geometry=geometry, note="made") as sink:
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.float16))
    with h5py.File(path) as file:
        data = file["a/b"]
        assert data.shape == (2, 3, 4)
        assert data.dtype == np.float16
        assert data.attrs["axes"] == "DHW"
        assert data.attrs["unit"] == "nm"
        assert data.attrs["volconv"] == "made"
        np.testing.assert_array_equal(data.attrs["affine"], geometry.matrix)
        np.testing.assert_allclose(data.attrs["element_size_um"], [0.003, 0.002, 0.001])
    with create_volume(path.with_name("w.hdf5"), shape=(1, 2, 2, 3, 4), dtype="uint8"):
        pass
    with h5py.File(path.with_name("w.hdf5")) as file:
        assert file["data"].shape == (1, 2, 2, 3, 4)
        assert dict(file["data"].attrs) == {"axes": "NCDHW"}


def test_other_peoples_datasets_are_not_lost(path):
    create(path, mine=np.zeros((2, 2, 2)), other=np.zeros(3))
    before = path.read_bytes()
    with pytest.raises(
        WriteError, match=r"is not replaced, as it holds other datasets \(/other\); write to a new file"
    ):
        create_volume(f"{path}:/mine", shape=(1, 1, 2, 2, 2), dtype="uint8", overwrite=True)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_a_slope_has_no_place(path):
    with pytest.raises(WriteError, match="HDF5 has no place for a slope"):
        create_volume(path, shape=(1, 1, 1, 1, 1), dtype="uint8", scaling=Scaling(2, 0))
    assert not path.exists()
