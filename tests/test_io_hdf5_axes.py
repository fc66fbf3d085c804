"""Which axis of an HDF5 dataset is which."""

import json

import h5py
import numpy as np
import pytest

from volconv.errors import ParameterError, ReadError
from volconv.io import Region, list_contents, open_volume

ORDERS = ("xyzc", "tzyxc", "tczyx", "zyx", "xyz", "czyx", "zcyx", "xyzct", "yx", "xy", "yxc", "tyx", "x", "z", "c", "t")
SIZES = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.h5"


def array_of(order):
    shape = [SIZES[letter] for letter in order]
    return np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)


def expected(array, order):
    """The array as (N, C, D, H, W)."""
    present = "".join(letter for letter in "tczyx" if letter in order)
    return np.einsum(f"{order}->{present}", array).reshape([SIZES[a] if a in order else 1 for a in "tczyx"])


def axistags(order, **more):
    """What vigra's AxisTags.toJSON writes."""
    flags = {"c": 1, "t": 8}
    axes = [{"key": key, "typeFlags": flags.get(key, 2), "resolution": 0, "description": ""} for key in order]
    return json.dumps({"axes": [{**axis, **more} for axis in axes]}, indent=2)


def write(path, array, **attributes):
    with h5py.File(path, "w") as file:
        file["raw"] = array
        file["raw"].attrs.update(attributes)
    return f"{path}:/raw"


def check(name, array, order, **options):
    want = expected(array, order)
    rng = np.random.default_rng(1)
    with open_volume(name, **options) as source:
        assert source.info.shape == want.shape
        assert source.info.axes == order.upper()
        np.testing.assert_array_equal(source.numpy(), want)
        for _ in range(10):
            ends = [sorted(rng.integers(0, size + 1, 2)) for size in want.shape]
            region = Region(tuple(int(a) for a, _ in ends), tuple(int(b) for _, b in ends))
            got = source.read(region)
            assert got.shape == region.shape
            np.testing.assert_array_equal(got, want[region.slices])
        assert not source.info.notes


@pytest.mark.parametrize("order", ORDERS)
def test_axes_by_option(path, order):
    array = array_of(order)
    check(write(path, array), array, order, axes=order)


@pytest.mark.parametrize("order", ORDERS)
def test_ilastiks_axistags(path, order):
    array = array_of(order)
    name = write(path, array, axistags=axistags(order))
    check(name, array, order)
    assert list_contents(path)[0].axes == order.upper()


@pytest.mark.parametrize("order", ORDERS)
def test_dimension_labels(path, order):
    array = array_of(order)
    name = write(path, array)
    with h5py.File(path, "a") as file:
        for axis, letter in enumerate(order):
            file["raw"].dims[axis].label = letter.upper() if axis % 2 else letter
    check(name, array, order)
    assert list_contents(path)[0].axes == order.upper()


@pytest.mark.parametrize(
    ("own", "order"), [("DHW", "zyx"), ("CDHW", "czyx"), ("WHD", "xyz"), ("TZYX", "tzyx"), ("HW", "yx")]
)
def test_volconvs_own_attribute(path, own, order):
    array = array_of(order)
    check(write(path, array, axes=own), array, order)
    assert list_contents(path)[0].axes == order.upper()


@pytest.mark.parametrize(("rank", "axes"), [(3, "ZYX"), (4, "CZYX"), (5, "NCZYX")])
def test_without_information_the_number_of_axes_counts(path, rank, axes):
    array = array_of("tczyx"[-rank:])
    with open_volume(write(path, array)) as source:
        assert source.info.axes == axes
        np.testing.assert_array_equal(source.numpy().reshape(array.shape), array)
    assert list_contents(path)[0].axes == ""


def test_synonyms_are_shown_as_others_call_them(path):
    array = array_of("zyx")
    name = write(path, array)
    with open_volume(name, axes="whd") as source:
        assert source.info.axes == "XYZ"
    with open_volume(f"{write(path, array_of('tczyx'))}", axes="NCDHW") as source:
        assert source.info.axes == "NCZYX"


def test_precedence(path):
    array = array_of("zyx")
    name = write(path, array, axes="HDW", axistags=axistags("xyz"))
    with h5py.File(path, "a") as file:
        for axis, letter in enumerate("xzy"):
            file["raw"].dims[axis].label = letter
    for remove, option, axes in (
        ("", "czx", "CZX"),
        ("", None, "YZX"),
        ("axes", None, "XYZ"),
        ("axistags", None, "XZY"),
    ):
        with h5py.File(path, "a") as file:
            if remove:
                del file["raw"].attrs[remove]
        with open_volume(name, axes=option) as source:
            assert source.info.axes == axes
    with h5py.File(path, "a") as file:
        del file["raw"].attrs["DIMENSION_LABELS"]
    with open_volume(name) as source:
        assert source.info.axes == "ZYX"


@pytest.mark.parametrize("text", ["ZY", "ZYXC", "ZYY", "ZYQ", "", "ZHY"])
def test_options_that_do_not_fit(path, text):
    name = write(path, array_of("zyx"))
    with pytest.raises(
        ParameterError,
        match=rf"axes must name each of the 3 axes of .*h5:/raw, shape \(4, 5, 6\), once \(got '{text}'\); letters",
    ):
        open_volume(name, axes=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "its attribute axistags cannot be understood"),
        ("[1, 2, 3]", "its attribute axistags cannot be understood"),
        ('{"axes": 3}', "its attribute axistags cannot be understood"),
        ('{"axes": [{}, {}, {}]}', "its attribute axistags cannot be understood"),
        ("[" * 100000, "its attribute axistags cannot be understood"),
        (axistags("zyx", resolution=10**400), "its attribute axistags cannot be understood"),
        (7.5, "its attribute axistags cannot be understood"),
        (np.array(["a", "b"], dtype=object), "its attribute axistags cannot be understood"),
        (axistags("zy"), r"axistags must name each of its 3 axes once \(got 'ZY', shape \(4, 5, 6\)\)"),
        (axistags("zyxc"), r"axistags must name each of its 3 axes once \(got 'ZYXC'"),
        (axistags("zyy"), r"axistags must name each of its 3 axes once \(got 'ZYY'"),
        (axistags("zy?"), r"axistags must name axes of t, c, z, y, x \(got '\?'\)"),
        (axistags("zye"), r"axistags must name axes of t, c, z, y, x \(got 'e'\)"),
    ],
)
def test_broken_axistags(path, text, message):
    array = array_of("zyx")
    name = write(path, array, axistags=text)
    with pytest.raises(ReadError, match=message) as caught:
        open_volume(name)
    assert caught.value.message.startswith(name)
    assert caught.value.hint == "say which axis is which, as in --axes ZYX (axes=...)"
    assert list_contents(path)[0].axes == ""
    check(name, array, "zyx", axes="zyx")


@pytest.mark.parametrize(
    "value",
    [
        np.bytes_(axistags("xyz")),
        np.array([axistags("xyz")], dtype=object),
        np.array([axistags("xyz").encode()]),
    ],
    ids=["fixed", "array", "bytes"],
)
def test_texts_in_every_guise(path, value):
    array = array_of("xyz")
    check(write(path, array, axistags=value), array, "xyz")


@pytest.mark.parametrize("value", ["xyz", "z:y:x", np.array(["x", "y", "z"], dtype=object), 3, ""])
def test_attributes_of_other_tools_that_are_called_axes(path, value):
    with open_volume(write(path, array_of("zyx"), axes=value)) as source:
        assert source.info.axes == "ZYX"
        assert [note.partition(": ")[2] for note in source.info.notes] == [
            "its attribute axes is not one of volconv's, and is left aside"
        ]


def test_an_own_attribute_that_does_not_fit(path):
    name = write(path, array_of("czyx"), axes="DHW")
    with pytest.raises(
        ReadError, match=r"its attribute axes must name each of its 4 axes once \(got 'DHW', shape"
    ) as caught:
        open_volume(name)
    assert caught.value.hint == "say which axis is which, as in --axes CZYX (axes=...)"


@pytest.mark.parametrize(
    "labels", [("row", "column", ""), ("z", "y", "y"), ("z", "", "x"), ("y", "x", "s"), ("zz", "y", "x")]
)
def test_labels_that_name_no_axes(path, labels):
    name = write(path, array_of("zyx"))
    with h5py.File(path, "a") as file:
        for axis, label in enumerate(labels):
            file["raw"].dims[axis].label = label
    with open_volume(name) as source:
        assert source.info.axes == "ZYX"
        assert source.info.notes == (
            f"{name}: its dimension labels ({', '.join(labels)}) do not name each axis once, and are left aside",
        )


@pytest.mark.parametrize("order", ["x", "yx"])
def test_too_few_axes_without_a_name(path, order):
    name = write(path, array_of(order))
    with pytest.raises(ReadError, match=r"raw: a volume has 3 axes \(D, H, W\), .* \(got shape \(") as caught:
        open_volume(name)
    assert caught.value.hint == f"say which axis is which, as in --axes {order.upper()} (axes=...)"


def test_colours_are_for_files_of_colours(path):
    name = write(path, array_of("zyxc"))
    with pytest.raises(
        ParameterError,
        match=r"rgb must be used with files of colour pixels \(got .*h5:/raw, axes CZYX\); --axes .* axis is channels",
    ):
        open_volume(name, rgb=True)
    for rgb in (True, False):
        with open_volume(name, axes="ZYXS", rgb=rgb) as source:
            assert source.info.axes == "ZYXS"
            np.testing.assert_array_equal(source.numpy(), expected(array_of("zyxc"), "zyxc"))


def test_chunks_are_told_in_the_order_of_volumes(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("raw", data=array_of("xyzc"), chunks=(6, 3, 2, 1))
        data.attrs["axistags"] = axistags("xyzc")
    with open_volume(path) as source:
        assert source.info.access.chunk == (1, 1, 2, 3, 6)
