"""HDF5 datasets, against h5py."""

import tracemalloc

import h5py
import numpy as np
import pytest

from volconv.errors import ReadError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, Scaling, create_volume, list_contents, open_volume
from volconv.io.hdf5.source import DTYPES


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
    create(path, flat=np.zeros((3, 4)), line=np.zeros(5))
    with pytest.raises(
        ReadError,
        match=r"holds no dataset of 3 axes \(D, H, W\), .*, only /flat \(3, 4\), /line \(5,\); name one and its axes, "
        r"as in v\.h5:/flat --axes YX",
    ):
        open_volume(path)
    create(path)
    with pytest.raises(
        ReadError, match=r"holds no dataset of 3 axes \(D, H, W\), 4 \(C, D, H, W\) or 5 \([NCDHW, ]+\)$"
    ):
        open_volume(path)


def odd_file(path):
    """What can lie in a file and is no volume."""
    with h5py.File(path, "w") as file:
        file["flat"] = np.zeros((3, 4))
        file["line"] = np.zeros(3)
        file["one"] = 3.0
        file["six"] = np.zeros((1,) * 6)
        file["words"] = np.array([[["a", "b"]]], dtype=object)
        file["fixed"] = np.array([[[b"a", b"b"]]])
        file["pairs"] = np.zeros((2, 2, 2), [("x", "f4"), ("y", "f4")])
        file.create_dataset("kinds", (2, 2, 2), h5py.enum_dtype({"cell": 1, "wall": 2}, "u1"))
        file.create_dataset("refs", (2, 2, 2), h5py.ref_dtype)
        file.create_dataset("areas", (2, 2, 2), h5py.regionref_dtype)
        file.create_dataset("lists", (2, 2, 2), h5py.vlen_dtype("i4"))
        file.create_dataset("vectors", (2, 2, 2), "(3,)f4")
        file.create_dataset("opaque", (2, 2, 2), "V3")
        file.create_dataset("wide", (2, 2, 2), np.longdouble)
        file["none"] = h5py.Empty("f4")
        file["void"] = np.zeros((0, 2, 2))
        file["type"] = np.dtype("f4")
        file.create_group("group")
        space = h5py.h5s.create_simple((2, 2, 2))
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, space)
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((2, 2, 2))
        creation.set_filter(250, h5py.h5z.FLAG_OPTIONAL, (2,))
        h5py.h5d.create(file.id, b"packed", h5py.h5t.NATIVE_UINT8, space, creation)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("flat", r"flat: a volume has 3 axes \(D, H, W\).*\(got shape \(3, 4\)\); say .* as in --axes YX"),
        ("line", r"line: a volume has 3 axes \(D, H, W\).*\(got shape \(3,\)\); say .* as in --axes X "),
        ("one", r"a volume has 3 axes .*\(got shape \(\)\)"),
        ("six", "a volume has 3 axes"),
        ("words", r"voxels of dtype string are not supported \(known: uint8, "),
        ("fixed", "voxels of dtype string are not supported"),
        ("pairs", r"voxels of dtype compound \(x, y\) are not supported"),
        ("kinds", "voxels of dtype enum of uint8 are not supported"),
        ("refs", "voxels of dtype object reference are not supported"),
        ("areas", "voxels of dtype region reference are not supported"),
        ("lists", "voxels of dtype sequence of int32 are not supported"),
        ("vectors", r"voxels of dtype array \(3,\) of float32 are not supported"),
        ("opaque", "voxels of dtype opaque are not supported"),
        ("wide", "voxels of dtype (longdouble|float128) are not supported"),
        ("time", "time: its datatype cannot be read: No NumPy equivalent"),
        (
            "packed",
            r"packed: is packed by a filter that is not installed \(.*, number 250\); hdf5plugin does not",
        ),
        ("none", r"none: holds no voxels \(its dataspace is empty\)"),
        ("void", r"every axis must hold a voxel \(got shape \(0, 2, 2\)\)"),
        ("group", "/group is a group, not a dataset"),
        ("type", "/type is a group, not a dataset"),
        ("lost", r"holds no dataset /lost \(it holds /areas, /fixed, "),
        ("flat/deeper", r"holds no dataset /flat/deeper \(it holds "),
    ],
)
def test_what_is_no_volume(path, key, message):
    odd_file(path)
    with pytest.raises(ReadError, match=message) as caught:
        open_volume(f"{path}:/{key}")
    assert caught.value.message.startswith(str(path))
    assert "\n" not in str(caught.value)


def test_contents(path):
    odd_file(path)
    with h5py.File(path, "a") as file:
        file["a/raw"] = np.zeros((2, 3, 4), ">u2")
        file["a/raw"].attrs["axes"] = "DHW"
        file["a/mask"] = np.zeros((2, 3), bool)
        file["a/mask"].attrs["axistags"] = "broken"
        file["a/complex"] = np.zeros((2, 3, 4), "c8")
        file["far"] = h5py.ExternalLink("elsewhere.h5", "/raw")
        file["soft"] = h5py.SoftLink("/a/raw")
    found = {
        entry.name.removeprefix(f"{path}:"): (entry.shape, entry.dtype, entry.axes) for entry in list_contents(path)
    }
    assert found["/a/raw"] == ((2, 3, 4), "uint16", "ZYX")
    assert found["/a/mask"] == ((2, 3), "bool", "")
    assert found["/a/complex"] == ((2, 3, 4), "complex64", "")
    assert found["/line"] == ((3,), "float64", "")
    assert found["/pairs"] == ((2, 2, 2), "compound (x, y)", "")
    assert found["/time"] == ((2, 2, 2), "unknown", "")
    assert found["/words"] == ((1, 1, 2), "string", "")
    assert found["/void"][0] == (0, 2, 2)
    assert not {"/one", "/none", "/group", "/type", "/far", "/soft"} & set(found)
    with open_volume(list_contents(path)[2].name) as source:
        assert source.info.shape == (1, 1, 2, 3, 4)


def test_files_that_are_cut_off(path):
    create(path, raw=np.zeros((20, 30, 40)))
    path.write_bytes(path.read_bytes()[:9000])
    for use in (open_volume, list_contents):
        with pytest.raises(ReadError, match=r"v\.h5: is truncated: .*eof = 9000"):
            use(path)


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


def peak_of(call):
    """Most bytes that Python's and NumPy's allocators had given out during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "chunks": "8,64,64"}], ids=str)
def test_what_lies_apart_in_memory_is_copied_by_small_parts(tmp_path, options):
    shape = (1, 1, 40, 300, 310)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    apart = np.zeros((1, 1, 41, 301, 320), np.float32)[:, :, :40, :300, :310]
    region = Region.whole(shape)
    with create_volume(tmp_path / "a.h5", shape=shape, dtype="float32", options=options) as sink:
        sink.write(region, values)
    with open_volume(tmp_path / "a.h5") as source:
        assert peak_of(lambda: source.read_into(region, apart)) < 3 << 20
    np.testing.assert_array_equal(apart, values)
