"""What volconv writes into HDF5, as h5py reads it: axes, geometry, attributes."""

import json
import pickle

import h5py
import numpy as np
import pytest

from volconv.errors import WriteError
from volconv.geometry import Geometry
from volconv.io import Region, create_volume, describe_volume, open_volume

GEOMETRY = Geometry.from_spacing((3, 2, 1), "nm", (7, 8, 9))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.h5"


def written(path, shape=(1, 1, 2, 3, 4), dtype="uint8", key="/data", **arguments):
    """Write ones, and return what h5py sees: dataset's shape, attributes, labels.

    ilastik's axistags are always there; they are returned where they say more than the axes.
    """
    with create_volume(f"{path}:{key}", shape=shape, dtype=dtype, **arguments) as sink:
        described = describe_volume(f"{path}:{key}", shape=shape, dtype=dtype, **arguments)
        assert sink.info == described
        sink.write(Region.whole(shape), np.ones(shape, sink.info.dtype))
    with h5py.File(path) as file:
        data = file[key]
        assert data.dtype == sink.info.dtype
        assert (data[()] == 1).all()
        labels = "".join(dimension.label for dimension in data.dims)
        attributes = {k: v for k, v in data.attrs.items() if k != "DIMENSION_LABELS"}
        tags = json.loads(attributes["axistags"])["axes"]
        assert "".join(tag["key"] for tag in tags) == labels
        if not any(tag["description"] for tag in tags):
            del attributes["axistags"]
            attributes.pop("axis_units", None)
        return data.shape, attributes, labels


def input_file(path, array=None, labels="", **attributes):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("raw", data=np.zeros((2, 3, 4), np.uint8) if array is None else array)
        for axis, label in enumerate(labels):
            data.dims[axis].label = label
        for key, value in attributes.items():
            data.attrs[key] = value
    return path


def carried(path, shape=None, **arguments):
    """What an output carries on of an input file."""
    with open_volume(path) as source:
        arguments.setdefault("geometry", source.info.geometry)
        return written(path.with_name("w.h5"), shape or source.info.shape, like=source.info, **arguments)


def test_what_is_written(path):
    shape, attributes, labels = written(path, key="/a/b", dtype="float16", geometry=GEOMETRY, note="made")
    assert shape == (2, 3, 4)
    assert labels == "zyx"
    np.testing.assert_array_equal(attributes.pop("affine"), GEOMETRY.matrix)
    np.testing.assert_allclose(attributes.pop("element_size_um"), [0.003, 0.002, 0.001])
    assert attributes == {"axes": "DHW", "unit": "nm", "volconv": "made"}
    with open_volume(path) as source:
        assert source.info.geometry == GEOMETRY
        assert source.info.axes == "ZYX"
        assert not source.info.notes


@pytest.mark.parametrize(
    ("shape", "axes", "labels"),
    [((1, 1, 2, 3, 4), "DHW", "zyx"), ((1, 2, 2, 3, 4), "NCDHW", "tczyx"), ((2, 1, 2, 3, 4), "NCDHW", "tczyx")],
)
def test_axes(path, shape, axes, labels):
    assert written(path, shape) == (shape[-len(axes) :], {"axes": axes}, labels)


def test_geometry_without_a_unit(path):
    _, attributes, _ = written(path, geometry=Geometry.from_spacing((3, 2, 1), None))
    assert set(attributes) == {"axes", "affine"}
    with open_volume(path) as source:
        assert source.info.geometry.spacing == (3, 2, 1)
        assert source.info.geometry.unit is None


@pytest.mark.parametrize(
    ("input_shape", "labels", "output", "shape", "axes"),
    [
        ((1, 2, 3, 4), "", (1, 1, 2, 3, 4), (1, 2, 3, 4), "CDHW"),
        ((5, 2, 3, 4), "", (1, 7, 2, 3, 4), (7, 2, 3, 4), "CDHW"),
        ((1, 1, 2, 3, 4), "", (1, 1, 2, 3, 4), (1, 1, 2, 3, 4), "NCDHW"),
        ((2, 3, 4), "", (1, 7, 2, 3, 4), (1, 7, 2, 3, 4), "NCDHW"),
        ((2, 3, 4, 5), "xyzc", (1, 5, 4, 3, 2), (5, 4, 3, 2), "CDHW"),
        ((2, 3, 4, 5), "tzyx", (2, 1, 3, 4, 5), (2, 1, 3, 4, 5), "NCDHW"),
        ((1, 3, 4, 5), "tzyx", (1, 1, 3, 4, 5), (1, 1, 3, 4, 5), "NCDHW"),
        ((4, 5), "yx", (1, 1, 1, 4, 5), (1, 4, 5), "DHW"),
        ((5, 2, 3, 4), "", (3, 5, 2, 3, 4), (3, 5, 2, 3, 4), "NCDHW"),
    ],
)
def test_axes_that_the_input_had_stay(path, input_shape, labels, output, shape, axes):
    input_file(path, np.zeros(input_shape, np.uint8), labels)
    with open_volume(f"{path}:/raw") as source:
        got, attributes, _ = written(path.with_name("w.h5"), output, like=source.info)
    assert got == shape
    assert attributes == {"axes": axes}


def test_attributes_are_kept(path):
    kinds = {
        "text": "Zürich",
        "bytes": np.bytes_("fixed"),
        "texts": np.array(["a", "b"], dtype=object),
        "whole": np.int16(-3),
        "big": np.arange(6, dtype=">f8").reshape(2, 3),
        "flag": True,
        "complex": 1 + 2j,
        "pair": np.array((1, 2.5), dtype=[("a", "i4"), ("b", "f8")]),
        "void": np.zeros((0, 3)),
        "fixed utf-8": np.array("µm".encode(), h5py.string_dtype("utf-8", 3)),
    }
    _, attributes, _ = carried(input_file(path, **kinds))
    assert attributes.pop("axes") == "DHW"
    assert set(attributes) == set(kinds)
    with h5py.File(path) as before, h5py.File(path.with_name("w.h5")) as after:
        for key in kinds:
            old, new = before["raw"].attrs, after["data"].attrs
            assert new.get_id(key).dtype == old.get_id(key).dtype
            assert new.get_id(key).get_type() == old.get_id(key).get_type()
            assert new.get_id(key).shape == old.get_id(key).shape
            np.testing.assert_array_equal(new[key], old[key])


def test_attributes_that_would_be_untrue_are_not(path):
    input_file(
        path,
        labels="zyx",
        drange=(0.0, 1.0),
        IMAGE_MINMAXRANGE=(0, 1),
        time_step=3.0,
        element_size_um=(5.0, 5.0, 5.0),
        _Netcdf4Dimid=3,
        mine=1,
    )
    with h5py.File(path, "a") as file:
        file["z"] = np.arange(2.0)
        file["z"].make_scale("z")
        file["raw"].dims[0].attach_scale(file["z"])
    _, attributes, labels = carried(path, geometry=GEOMETRY)
    assert labels == "zyx"
    np.testing.assert_allclose(attributes.pop("element_size_um"), [0.003, 0.002, 0.001])
    assert set(attributes) == {"axes", "affine", "unit", "mine"}


def test_attributes_that_cannot_be_copied_are_named(path):
    input_file(path, mine=1)
    with h5py.File(path, "a", libver="latest") as file:
        attributes = file["raw"].attrs
        attributes["link"] = file["raw"].ref
        attributes["area"] = file["raw"].regionref[0:1]
        attributes["empty"] = h5py.Empty("f4")
        attributes.create("lists", [np.arange(3), np.arange(2)], (2,), h5py.vlen_dtype("i4"))
        late = file.create_dataset("late", data=np.zeros((2, 3, 4)))
        late.attrs["large"] = np.zeros(9000)
    with open_volume(f"{path}:/raw") as source:
        target = path.with_name("w.h5")
        told = ("w.h5: attributes left out: area, empty, link, lists",)
        assert describe_volume(target, shape=source.info.shape, dtype="uint8", like=source.info).notes == told
        assert set(written(target, like=source.info)[1]) == {"axes", "mine"}
    with open_volume(f"{path}:/late") as source:
        assert describe_volume(
            target.with_name("x.h5"), shape=source.info.shape, dtype="u1", like=source.info
        ).notes == ("x.h5: attributes left out: large",)


def test_places_of_other_tools_stay_while_they_are_true(path):
    input_file(path, resolution=(40.0, 4.0, 4.0), offset=(1, 2, 3), mine=1)
    assert set(carried(path)[1]) == {"axes", "mine", "offset", "resolution"}
    with open_volume(path) as source:
        moved = Geometry.from_spacing((2, 2, 2), None)
        with create_volume(
            path.with_name("x.h5"), shape=(1, 1, 1, 1, 2), dtype="uint8", geometry=moved, like=source.info
        ) as sink:
            assert sink.info.notes == ("x.h5: attributes left out: offset, resolution",)
    with h5py.File(path.with_name("x.h5")) as file:
        assert set(file["data"].attrs) == {"axes", "axistags", "affine", "mine", "DIMENSION_LABELS"}


def test_provenance_is_added_to(path):
    assert carried(input_file(path, volconv="first"), note="second")[1]["volconv"] == "first\nsecond"
    path.with_name("w.h5").unlink()
    assert carried(path)[1]["volconv"] == "first"
    path.with_name("w.h5").unlink()
    assert carried(input_file(path, volconv=3), note="second")[1]["volconv"] == "second"


def axistags(order):
    axes = [{"key": key, "typeFlags": 2, "resolution": 0, "description": "of " + key} for key in order]
    return json.dumps({"axes": axes})


def test_axistags_are_written_anew(path):
    input_file(path, np.zeros((4, 3, 2, 5), np.uint8), axistags=axistags("xyzc"))
    _, attributes, _ = carried(path, (1, 7, 2, 3, 4), geometry=GEOMETRY)
    assert attributes["axes"] == "CDHW"
    assert json.loads(attributes["axistags"])["axes"] == [
        {"key": "c", "typeFlags": 1, "resolution": 0, "description": "of c"},
        {"key": "z", "typeFlags": 2, "resolution": 3.0, "description": "of z"},
        {"key": "y", "typeFlags": 2, "resolution": 2.0, "description": "of y"},
        {"key": "x", "typeFlags": 2, "resolution": 1.0, "description": "of x"},
    ]
    assert json.loads(attributes["axis_units"]) == {"z": "nm", "y": "nm", "x": "nm"}
    with h5py.File(path.with_name("w.h5"), "a") as file:
        for key in ("affine", "element_size_um", "axes"):
            del file["data"].attrs[key]
    with open_volume(path.with_name("w.h5")) as source:
        assert source.info.axes == "CZYX"
        assert source.info.geometry == Geometry.from_spacing((3, 2, 1), "nm")


def test_axistags_are_written_for_any_input(path):
    with create_volume(path, shape=(1, 3, 2, 3, 4), dtype="uint8", geometry=GEOMETRY) as sink:
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    with h5py.File(path) as file:
        assert [
            (tag["key"], tag["typeFlags"], tag["resolution"])
            for tag in json.loads(file["data"].attrs["axistags"])["axes"]
        ] == [("t", 8, 0), ("c", 1, 0), ("z", 2, 3.0), ("y", 2, 2.0), ("x", 2, 1.0)]
        assert json.loads(file["data"].attrs["axis_units"]) == {"z": "nm", "y": "nm", "x": "nm"}


def test_axistags_without_a_unit_have_no_resolution(path):
    _, attributes, _ = carried(input_file(path, axistags=axistags("zyx"), axis_units='{"z": "um"}'))
    assert [axis["resolution"] for axis in json.loads(attributes["axistags"])["axes"]] == [0, 0, 0]
    assert "axis_units" not in attributes


def test_axistags_that_the_options_overrode_are_written_right(path):
    input_file(path, axistags=axistags("xyz"))
    with open_volume(path, axes="zyx") as source:
        assert written(path.with_name("w.h5"), like=source.info)[2] == "zyx"


def test_time_step(path):
    input_file(path, np.zeros((2, 3, 4, 5), np.uint8), "tzyx", time_step=1.5, axistags=axistags("tzyx"))
    _, attributes, _ = carried(path)
    assert attributes["time_step"] == 1.5
    assert json.loads(attributes["axistags"])["axes"][0]["resolution"] == 1.5
    assert json.loads(attributes["axis_units"]) == {"t": "s"}
    with open_volume(path.with_name("w.h5")) as source:
        assert source.info.time_step == 1.5
    path.with_name("w.h5").unlink()
    assert "time_step" not in carried(path, (1, 1, 3, 4, 5))[1]


def test_bigdataviewers_int16_is_written_as_uint16(path):
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = np.full((2, 3, 4), -1, np.int16)
    with (
        open_volume(path) as source,
        create_volume(path.with_name("w.h5"), shape=(1, 1, 2, 3, 4), dtype="uint16", like=source.info) as sink,
    ):
        sink.write(Region.whole(sink.info.shape), source.numpy())
    with h5py.File(path.with_name("w.h5")) as file:
        assert file["data"].dtype == np.uint16
        assert (file["data"][()] == 65535).all()


def test_headers_can_be_sent_elsewhere(path):
    input_file(path, mine="text", other=np.arange(3), axistags=axistags("zyx"))
    with open_volume(path) as source:
        header = source.info.header
    again = pickle.loads(pickle.dumps(header))  # noqa: S301
    assert str(again) == str(header)


@pytest.mark.parametrize("key", ["data", "/a/b", "//a//b", "/ä/b c"])
def test_keys(path, key):
    with create_volume(f"{path}:{key}", shape=(1, 1, 2, 3, 4), dtype="uint8"):
        pass
    with open_volume(path) as source:
        assert source.info.shape == (1, 1, 2, 3, 4)


@pytest.mark.parametrize("key", ["/.", "/a/./b"])
def test_keys_that_cannot_be(path, key):
    with pytest.raises(WriteError, match=rf"v\.h5: {key} cannot be written: "):
        create_volume(f"{path}:{key}", shape=(1, 1, 2, 3, 4), dtype="uint8")
    assert list(path.parent.iterdir()) == []


def test_errors_of_h5py_while_writing(path, monkeypatch):
    sink = create_volume(path, shape=(1, 1, 2, 3, 4), dtype="uint8", options={"chunks": "1,2,2"})

    def fail(*_):
        raise RuntimeError("Can't write\n  chunk")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", fail)
    with pytest.raises(WriteError, match=r"v\.h5: /data cannot be written: Can't write chunk$"):
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    sink.abort()
    assert list(path.parent.iterdir()) == []


def test_a_file_that_cannot_be_closed_leaves_nothing(path, monkeypatch):
    sink = create_volume(path, shape=(1, 1, 2, 3, 4), dtype="uint8")

    def fail(_):
        raise RuntimeError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(h5py.File, "close", fail)
        with pytest.raises(WriteError, match=r"v\.h5: /data cannot be written: no space"):
            sink.commit()
    assert list(path.parent.iterdir()) == []
    sink._file.close()
