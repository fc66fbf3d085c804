"""Pickles in files of weights: nothing that they name is called, and what lies is refused at little cost."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from volconv.errors import ReadError
from volconv.kernels.files import load_layer
from volconv.kernels.weights.kinds import LEGACY_MAGIC
from volconv.kernels.weights.pickles import Machine


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


class Call:
    """Pickled as a call of what has this name."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


class Id(tuple):
    """Pickled as a persistent id."""


class Pickler(pickle._Pickler):  # that of Python's own, which can be taught to name what is not there
    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012  # as its base has it

    def persistent_id(self, value):
        return tuple(value) if isinstance(value, Id) else None

    def save_call(self, value):
        module, _, name = value.name.rpartition(".")
        self.write(b"c" + f"{module}\n{name}\n".encode())
        if value.arguments != (None,):
            self.save(value.arguments)
            self.write(b"R")

    dispatch[Call] = save_call


def pickled(value, protocol=2):
    file = io.BytesIO()
    Pickler(file, protocol).dump(value)
    return file.getvalue()


def named(name):
    """A name that is mentioned, and not called."""
    return Call(name, None)


def storage(count=54, key="0", kind="torch.FloatStorage", *more):
    return Id(("storage", named(kind), key, "cpu", count, *more))


def tensor(shape=(2, 1, 3, 3, 3), strides=(27, 27, 9, 3, 1), offset=0, of=None, function="_rebuild_tensor_v2"):
    more = (False, Call("collections.OrderedDict")) if function == "_rebuild_tensor_v2" else ()
    return Call(f"torch._utils.{function}", of or storage(), offset, shape, strides, *more)


VALUES = np.arange(54, dtype="<f4")
STORED = VALUES.tobytes()


def archive(value, data=STORED, name="w.pt", protocol=2, **members):
    """A zip archive as PyTorch writes it."""
    with zipfile.ZipFile(name, "w") as file:
        file.writestr("w/data.pkl", value if isinstance(value, bytes) else pickled(value, protocol))
        file.writestr("w/data/0", data)
        for member, content in members.items():
            file.writestr(f"w/{member}", content)


def legacy(value, keys=("0",), data=STORED, count=54):
    content = LEGACY_MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2) + pickled(value)
    Path("w.pth").write_bytes(content + pickle.dumps(list(keys), 2) + struct.pack("<q", count) + data)


def refused(spec, message):
    with pytest.raises(ReadError) as caught:
        load_layer(spec)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- nothing is executed


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_bomb_does_not_explode(protocol):
    value = OrderedDict([("w", Bomb())])
    content = pickle.dumps(value, protocol)
    archive(content)
    refused("w.pt", "w.pt holds pathlib.Path.touch" if protocol >= 4 else "w.pt holds ")
    refused("w.pt:w", "which volconv never loads; save tensors alone: torch.save(model.state_dict(), FILE)")
    legacy_start = LEGACY_MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    Path("w.pth").write_bytes(legacy_start + content)
    refused("w.pth", "which volconv never loads")
    for place in range(3):  # in each of the pickles of an old file
        parts = [LEGACY_MAGIC, pickle.dumps(1001, 2), pickle.dumps({}, 2)]
        parts[place + 1 :] = [content]
        Path("w.pth").write_bytes(b"".join(parts))
        refused("w.pth", "which volconv never loads")
    Path("w.bin").write_bytes(content)
    refused("./w.bin", "holds Python objects, which volconv never loads" if protocol >= 2 else "is of no kind")
    assert not Path("exploded").exists()
    pickle.loads(content)  # noqa: S301  # the bomb is a real one
    assert Path("exploded").exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "builtins.getattr",
        "torch.load",
        "torch.storage._load_from_bytes",
        "torch._utils._rebuild_sparse_tensor",
        "torch.nn.modules.conv.Conv3d",
        "torch.hub.load",
        "collections.OrderedDict.fromkeys",
        "numpy.core.multiarray._reconstruct",
        "torch.float32.__class__",
        "torch.jit._pickle.restore_type_tag",
    ],
)
def test_every_other_name_is_refused_by_name(name):
    for value in ({"w": Call(name, "id")}, {"w": tensor(), "note": named(name)}):
        archive(value)
        refused("w.pt:w", f"w.pt holds {name}, which volconv never loads")
        legacy(value)
        refused("w.pth:w", f"w.pth holds {name}, which volconv never loads")


@pytest.mark.parametrize("code", [b"(S'id'\nios\nsystem\n.", b"cos\nsystem\n(S'id'\ntR.", b"cos\nsystem\n)\x81."])
def test_old_opcodes_make_no_objects(code):
    archive(code)
    refused("w.pt", "w.pt holds os.system, which volconv never loads")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"ccollections\nOrderedDict\n)\x81.", "its pickle has NEWOBJ, which no file of weights needs"),
        (b"ctorch\nFloatStorage\n)R.", "its pickle calls torch.FloatStorage"),
        (b"I1\n)R.", "its pickle calls what is no function"),
        (b"(icollections\nOrderedDict\n.", "it makes an object of collections.OrderedDict"),
        (b"\x82\x01.", "its pickle has EXT1"),
        (b"}I1\nI2\nb.", "w.pt"),
        (b"]I1\nI2\ns.", "its pickle puts items where there is no dict"),
        (b"}I1\na.", "its pickle appends to what is no list"),
        (b"I1\nI2\n", "cannot read kernel from w.pt: "),
        (b"a.", "its pickle is damaged at APPEND"),
        (b"t.", "its pickle is damaged at TUPLE"),
        (b"h\x05.", "its pickle is damaged at BINGET"),
        (b"\x8c\xffabc", "cannot read kernel from w.pt: "),
        (b"X\xff\xff\xff\x7fabc", "cannot read kernel from w.pt: "),
        (b"I" + b"9" * 5000 + b"\n.", "cannot read kernel from w.pt: "),
        (b"", "cannot read kernel from w.pt: "),
        (b"S'\\d'\n.", "w.pt is no tensor (it is of type str)"),
        (b"P1\n.", "its pickle has a persistent id that names no storage"),
    ],
)
def test_pickles_that_no_writer_makes(code, message):
    archive(code)
    refused("w.pt", message)


def test_a_dict_in_a_dict_many_times_over():
    """What would be 1000**20 of them, if they were looked at one by one."""
    value = {}
    for _ in range(20):
        value = dict.fromkeys(map(str, range(1000)), value)
    archive(value)
    refused("w.pt", "w.pt must hold at most 100000 arrays")
    value = []
    value.append(value)
    archive(value)
    refused("w.pt", "w.pt must have at most 30 containers in each other")


@pytest.mark.slow
def test_a_pickle_without_end():
    archive(b"]" * 3_000_000)
    refused("w.pt", "must have pickles of at most 2000000 steps")
    with zipfile.ZipFile("w.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/data.pkl", bytes(40 << 20))
    refused("w.pt", "must have a pickle of at most 32 MB")


@pytest.mark.slow
def test_nested_tuples_take_no_stack():
    archive(b"}" + b")" + b"\x85" * 1_000_000 + b"I1\ns.")
    refused("w.pt", "it holds no arrays")


def test_containers_are_what_python_makes_of_them():
    value = {"a": [1, (2, 3.5), {"b": None}], "c": True, "d": ("t", "u", "v", "w"), "7": b"xyz", "e": set()}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        kept = list(value) if protocol >= 4 else list(value)[: 3 + (protocol == 3)]  # what needs no name of a function
        content = pickle.dumps({key: value[key] for key in kept}, protocol)
        expected = pickle.loads(content)  # noqa: S301
        expected = {key: [] if item == set() else item for key, item in expected.items()}
        machine = Machine("w.pt", {}.__getitem__, lambda _: None, "")
        assert machine.run(io.BytesIO(content)) == expected


# --- tensors


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("function", ["_rebuild_tensor", "_rebuild_tensor_v2"])
def test_the_archives_of_these_tests_are_pytorchs(function, protocol):
    archive({"w": tensor(function=function)}, protocol=protocol)
    np.testing.assert_array_equal(load_layer("w.pt").weight, VALUES.reshape(2, 1, 3, 3, 3))
    legacy({"w": tensor(function=function)})
    np.testing.assert_array_equal(load_layer("w.pth").weight, VALUES.reshape(2, 1, 3, 3, 3))


def test_views_keep_their_strides_and_offsets():
    archive({"w": tensor((3, 1, 2), (9, 0, 3), 5)})
    expected = [[[5 + 9 * i + 3 * k for k in range(2)]] for i in range(3)]
    np.testing.assert_array_equal(load_layer("w.pt").weight, expected)


def test_byte_order_is_what_the_archive_says():
    archive({"w": tensor()}, VALUES.astype(">f4").tobytes(), byteorder="big")
    np.testing.assert_array_equal(load_layer("w.pt").weight.ravel(), VALUES)


def test_views_of_old_files():
    legacy({"w": tensor((1, 1, 4), (4, 4, 1), 1, storage(54, "0", "torch.FloatStorage", ("v", 10, 20)))})
    np.testing.assert_array_equal(load_layer("w.pth").weight, [[[11, 12, 13, 14]]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor((2, 1, 3, 3, 4), (27, 27, 9, 3, 1)), "w reaches beyond its storage"),
        (tensor(offset=1), "reaches beyond its storage"),
        (tensor((1, 1, 2), (1, 1, 1 << 61)), "must take at most 1 GB"),
        (tensor((1, 1, 1 << 40), (0, 0, 0)), "must take at most 1 GB"),
        (tensor((1, 1, 2), (1, 1, 1 << 20)), "reaches beyond its storage"),
        (tensor((1, 1, -2), (1, 1, 1)), "its pickle has a tensor of no shape"),
        (tensor((1, 1, 2), (1, 1, -1)), "its pickle has a tensor of no shape"),
        (tensor((1, 1, 2.0), (1, 1, 1)), "its pickle has a tensor of no shape"),
        (tensor((1, 1, 2), (1, 1)), "its pickle has a tensor of no shape"),
        (tensor(offset=-1), "its pickle has a tensor of no shape"),
        (tensor(of=storage(53)), "reaches beyond its storage"),  # of 54 that are there
        (tensor(of=storage(-1)), "its pickle has a storage of no known kind"),
        (tensor(of=storage(kind="torch.FloatTensor")), "holds torch.FloatTensor, which volconv never loads"),
        (tensor(of=storage(kind="torch.QInt8Storage")), "must be of a dtype that is read (got qint8)"),
        (tensor(of=storage(kind="torch.ObjectStorage")), "must be of a dtype that is read (got object)"),
        (tensor(of=storage(key="../../../etc/passwd")), "cannot read kernel from w.pt: "),
        (tensor(of=Id(("module", 1, 2, 3, 4))), "a persistent id that names no storage"),
        (tensor((1,) * 65, (1,) * 65), "its pickle has a tensor of no shape"),
        (Call("torch._utils._rebuild_tensor_v2", 1), "cannot read kernel from w.pt: "),
    ],
)
def test_tensors_that_lie(value, message):
    archive({"w": value})
    refused("w.pt:w", message)


def test_a_storage_that_is_cut_off():
    archive({"w": tensor()}, VALUES.tobytes()[:-4])
    refused("w.pt", "w reaches beyond its storage")
    legacy({"w": tensor()}, data=STORED[:-4])
    refused("w.pth", "it is truncated")
    legacy({"w": tensor()}, count=53)
    refused("w.pth", "w reaches beyond its storage")
    legacy({"w": tensor()}, count=-1)
    refused("w.pth", "it is truncated")
    legacy({"w": tensor()}, keys=("0", "1"))
    refused("w.pth", "its storages do not fit its tensors")


def test_a_program_is_no_file_of_weights():
    archive({"w": tensor()}, **{"constants.pkl": pickled(())})
    refused("w.pt", "w.pt is a TorchScript program, and programs are never loaded")
