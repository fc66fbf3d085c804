"""Chunks, compression and shuffle: read, kept, and set by creation options."""

import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest

from volconv.errors import ParameterError, ReadError, WriteError
from volconv.io import Region, create_volume, describe_volume, open_volume
from volconv.io.hdf5.chunks import DEFAULT_CHUNK, chunk_cache, fitted
from volconv.io.hdf5.filters import WRITTEN, Packing, packing_of

PLUGINS = {
    "zstd": hdf5plugin.Zstd(clevel=7),
    "blosc": hdf5plugin.Blosc(cname="zstd", clevel=3, shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    "blosc2": hdf5plugin.Blosc2(cname="lz4", clevel=4, filters=hdf5plugin.Blosc2.SHUFFLE),
    "lz4": hdf5plugin.LZ4(nbytes=4096),
    "bzip2": hdf5plugin.BZip2(blocksize=5),
    "bitshuffle": hdf5plugin.Bitshuffle(nelems=64, cname="zstd", clevel=6),
}
ARRAY = (np.arange(20 * 30 * 40) // 7 % 1000).astype(np.uint16).reshape(20, 30, 40)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.h5"


@pytest.fixture
def no_plugins(monkeypatch):
    """Make this process one in which hdf5plugin is not installed."""
    for number in {plugin.filter_id for plugin in PLUGINS.values()}:
        if h5py.h5z.filter_avail(number):
            h5py.h5z.unregister_filter(number)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    yield
    assert hdf5plugin.register()


def write(path, array=ARRAY, **packing):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=array, **packing)
    return path


def copied(path, shape=None, dtype=None, **arguments):
    """Copy of the file's volume that carries on its header, and what the sink said of it."""
    target = path.with_name("w.h5")
    with open_volume(path) as source:
        shape = shape or source.info.shape
        with create_volume(
            target, shape=shape, dtype=dtype or source.info.dtype, like=source.info, overwrite=True, **arguments
        ) as sink:
            block = np.zeros(shape, sink.info.dtype)
            block[tuple(slice(0, min(a, b)) for a, b in zip(shape, source.info.shape, strict=True))] = 1
            if shape == source.info.shape:
                block = source.numpy().astype(sink.info.dtype)
            sink.write(Region.whole(shape), block)
    return target, sink.info


def stored(path):
    """Chunks, and filters with their options, of the only dataset."""
    with h5py.File(path) as file:
        (data,) = file.values()
        creation = data.id.get_create_plist()
        return data.chunks, [creation.get_filter(i)[::2] for i in range(creation.get_nfilters())]


@pytest.mark.parametrize("name", ["gzip", "lzf", "szip", *PLUGINS, "sz3", "zfp"])
def test_packed_volumes_are_read(path, name):
    packing = {"compression": PLUGINS.get(name, name)}
    array = ARRAY
    if name in ("sz3", "zfp"):
        array = ARRAY.astype(np.float32)
        packing = {"compression": hdf5plugin.SZ3(absolute=1e-6) if name == "sz3" else hdf5plugin.Zfp(reversible=True)}
    write(path, array, chunks=(7, 8, 9), **packing)
    with open_volume(path) as source:
        assert source.info.compression == name
        assert source.info.access.chunk == (1, 1, 7, 8, 9)
        np.testing.assert_allclose(
            source.read(Region((0, 0, 3, 2, 1), (1, 1, 17, 20, 39)))[0, 0], array[3:17, 2:20, 1:39], atol=1e-5
        )


@pytest.mark.parametrize(
    ("arguments", "chunk"),
    [({}, None), ({"chunks": (5, 6, 7)}, (1, 1, 5, 6, 7)), ({"chunks": (5, 6, 7), "shuffle": True}, (1, 1, 5, 6, 7))],
)
def test_what_is_not_packed(path, arguments, chunk):
    with open_volume(write(path, **arguments)) as source:
        assert source.info.compression is None
        assert source.info.access.chunk == chunk


def test_checksums_and_shuffling_do_not_matter(path):
    write(path, chunks=(3, 4, 5), compression="gzip", shuffle=True, fletcher32=True)
    with open_volume(path) as source:
        assert source.info.compression == "gzip"
        np.testing.assert_array_equal(source.numpy()[0, 0], ARRAY)
    content = path.read_bytes()
    with h5py.File(path) as file:
        place = file["raw"].id.get_chunk_info(0).byte_offset
    path.write_bytes(content[: place + 5] + b"\xff" * 8 + content[place + 13 :])
    with open_volume(path) as source, pytest.raises(ReadError, match=r"v\.h5:/raw: cannot be read"):
        source.numpy()


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize("name", PLUGINS)
def test_a_filter_that_is_not_installed(path, name, monkeypatch):
    monkeypatch.delitem(sys.modules, "hdf5plugin")
    hdf5plugin.register()
    write(path, chunks=(10, 10, 10), compression=PLUGINS[name])
    number = PLUGINS[name].filter_id
    h5py.h5z.unregister_filter(number)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(
        ReadError, match=rf"packed by a filter that is not installed \({name}, number {number}\)"
    ) as caught:
        open_volume(path)
    assert caught.value.message.startswith(f"{path}:/raw: ")
    assert caught.value.hint == "pip install 'volconv[hdf5]'"


def test_filters_of_the_parts_of_a_virtual_dataset_count(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=ARRAY, chunks=(10, 10, 10), compression=PLUGINS["zstd"])
        layout = h5py.VirtualLayout(ARRAY.shape, ARRAY.dtype)
        layout[:] = h5py.VirtualSource(file["raw"])
        file.create_virtual_dataset("all", layout)
    with open_volume(f"{path}:/all") as source:
        np.testing.assert_array_equal(source.numpy()[0, 0], ARRAY)
        assert source.info.compression is None
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != PLUGINS["zstd"].filter_id)
    with pytest.raises(
        ReadError, match=r"v\.h5:/all: is packed by a filter that is not installed \(zstd, number 32015\)"
    ):
        open_volume(f"{path}:/all")


def test_hdf5plugin_is_imported_when_it_is_needed(tmp_path):
    write(tmp_path / "gzip.h5", compression="gzip")
    write(tmp_path / "zstd.h5", compression=PLUGINS["zstd"])
    code = (
        "import sys, volconv\n"
        "for name in sys.argv[1:]:\n"
        "    with volconv.open_volume(name) as source:\n"
        "        print(int(source.numpy().sum()), 'hdf5plugin' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "gzip.h5", tmp_path / "zstd.h5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{ARRAY.sum()} False", f"{ARRAY.sum()} True"]


@pytest.mark.parametrize("name", WRITTEN)
def test_compression_by_option(path, name):
    with create_volume(path, shape=(1, 1, *ARRAY.shape), dtype="uint16", options={"compression": name}) as sink:
        assert sink.info.compression == (None if name == "none" else name)
        assert sink.info.access.chunk == (None if name == "none" else (1, 1, 20, 30, 40))
        for d in (0, 5, 10, 15):
            sink.write(Region((0, 0, d, 0, 0), (1, 1, d + 5, 30, 40)), ARRAY[None, None, d : d + 5])
    chunks, filters = stored(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][()], ARRAY)
    if name == "none":
        assert chunks is None
    else:
        assert chunks == (20, 30, 40)
        assert len(filters) == 1
        assert path.stat().st_size < ARRAY.nbytes
    with open_volume(path) as source:
        assert source.info.compression == sink.info.compression


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ("compression=gzip", [(1, (4,))]),
        ("compression=GZIP level=9", [(1, (9,))]),
        ("compression=gzip level=1 shuffle=yes", [(2, (2,)), (1, (1,))]),
        ("compression=gzip shuffle=no", [(1, (4,))]),
        ("compression=lzf shuffle=yes", [(2, (2,)), (32000, (4, 261, 2400))]),
        ("compression=zstd level=9", [(32015, (9,))]),
        ("compression=bzip2 level=2", [(307, (2,))]),
        ("compression=blosc level=8 shuffle=no", [(32001, (2, 2, 2, 2400, 8, 0, 1))]),
        ("compression=blosc shuffle=yes", [(32001, (2, 2, 2, 2400, 5, 1, 1))]),
    ],
)
def test_level_and_shuffle_by_option(path, options, filters):
    options = dict(part.split("=") for part in options.split()) | {"chunks": "10,10,12"}
    with create_volume(path, shape=(1, 1, *ARRAY.shape), dtype="uint16", options=options) as sink:
        sink.write(Region.whole(sink.info.shape), ARRAY[None, None])
    assert stored(path) == ((10, 10, 12), filters)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][()], ARRAY)


@pytest.mark.parametrize(
    ("shape", "chunks", "told"),
    [
        ((1, 1, 20, 30, 40), "7,8,9", (1, 1, 7, 8, 9)),
        ((1, 1, 20, 30, 40), "100, 8, 100", (1, 1, 20, 8, 40)),
        ((2, 3, 20, 30, 40), "7,8,9", (1, 1, 7, 8, 9)),
        ((1, 1, 20, 30, 40), "none", None),
        ((1, 1, 20, 30, 40), " None ", None),
    ],
)
def test_chunks_by_option(path, shape, chunks, told):
    with create_volume(path, shape=shape, dtype="uint8", options={"chunks": chunks}) as sink:
        assert sink.info.access.chunk == told
        assert sink.info.compression is None
    with h5py.File(path) as file:
        assert file["data"].chunks == (told[-file["data"].ndim :] if told else None)
        assert file["data"].compression is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunks": "7,8"}, r"chunks must be three positive integers D,H,W, or none \(got '7,8'\)"),
        ({"chunks": "7,8,0"}, r"chunks must be three positive integers D,H,W, or none \(got '7,8,0'\)"),
        ({"chunks": "7,8,-1"}, "chunks must be three positive integers"),
        ({"chunks": "auto"}, "chunks must be three positive integers"),
        ({"chunks": "²,1,1"}, "chunks must be three positive integers"),
        (
            {"compression": "gzp"},
            r"compression must be one of none, gzip, lzf, zstd, .* \(got 'gzp'\); did you mean gzip\?",
        ),
        ({"compression": "zfp"}, r"compression must be one of none, gzip, .* \(got 'zfp'\)"),
        ({"compression": ""}, r"compression must be one of .* \(got ''\)"),
        ({"compression": "gzip", "level": "0"}, r"level must be an integer from 1 to 9 \(got '0'\)"),
        ({"compression": "gzip", "level": "10"}, "level must be an integer from 1 to 9"),
        ({"compression": "gzip", "level": "high"}, r"level must be an integer from 1 to 9 \(got 'high'\)"),
        (
            {"compression": "lzf", "level": "3"},
            r"level must go with a compression that has levels: gzip, .* \(got lzf\)",
        ),
        ({"compression": "lz4", "level": "3"}, "level must go with a compression that has levels"),
        ({"level": "3"}, r"level must go with a compression \(got level=3\)"),
        ({"compression": "none", "level": "3"}, r"level must go with a compression \(got level=3\)"),
        ({"shuffle": "yes"}, r"shuffle must go with a compression \(got shuffle=yes\)"),
        ({"compression": "gzip", "shuffle": "maybe"}, r"shuffle must be yes or no \(got 'maybe'\)"),
        ({"compression": "bitshuffle", "shuffle": "no"}, "shuffle must be left out with bitshuffle"),
        (
            {"compression": "gzip", "chunks": "none"},
            r"chunks must be given where compression is \(got chunks=none, compression=gzip\)",
        ),
        ({"compresion": "gzip"}, r"creation option must be one of chunks, .* did you mean compression\?"),
    ],
)
def test_options_that_are_refused(path, options, message):
    for use in (create_volume, describe_volume):
        with pytest.raises(ParameterError, match=message):
            use(path, shape=(1, 1, *ARRAY.shape), dtype="uint16", options=options)
    assert list(path.parent.iterdir()) == []


def test_chunks_of_4_gigabytes_are_refused(path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 50}))
    with pytest.raises(
        ParameterError, match=r"chunks must take less than 4 GB each \(got 1024,1024,1024: 4294967296 bytes"
    ):
        describe_volume(path, shape=(1, 1, 2000, 2000, 2000), dtype="float32", options={"chunks": "1024,1024,1024"})
    assert describe_volume(
        path, shape=(1, 1, 2000, 2000, 2000), dtype="uint8", options={"chunks": "1024,1024,1024"}
    ).access.chunk == (1, 1, 1024, 1024, 1024)
    assert fitted((1, 1, 1024, 1024, 1024), (1, 1, 2000, 2000, 2000), 4) == (1, 1, *DEFAULT_CHUNK)


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize("name", PLUGINS)
def test_writing_without_hdf5plugin(path, name):
    with pytest.raises(WriteError, match=f"compression {name} needs hdf5plugin, which is not installed") as caught:
        describe_volume(path, shape=(1, 1, *ARRAY.shape), dtype="uint16", options={"compression": name})
    assert caught.value.hint == "pip install 'volconv[hdf5]'"
    assert caught.value.message.startswith(str(path))
    assert list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("no_plugins")
def test_an_hdf5plugin_that_was_built_without_a_filter(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", hdf5plugin)
    with pytest.raises(WriteError, match="compression zstd is missing from the installed hdf5plugin"):
        describe_volume(path, shape=(1, 1, *ARRAY.shape), dtype="uint16", options={"compression": "zstd"})


@pytest.mark.parametrize("name", PLUGINS)
def test_hdf5plugins_filters_are_kept_with_all_their_options(path, name):
    write(path, chunks=(10, 10, 12), compression=PLUGINS[name])
    target, info = copied(path)
    assert info.compression == name
    assert stored(target) == stored(path)
    with h5py.File(target) as file:
        np.testing.assert_array_equal(file["data"][()], ARRAY)


@pytest.mark.parametrize(
    "packing",
    [
        {"compression": "gzip", "compression_opts": 9, "shuffle": True},
        {"compression": "gzip", "compression_opts": 0},
        {"compression": "lzf", "shuffle": True},
        {"compression": "szip", "compression_opts": ("nn", 16)},
        {"compression": "szip", "compression_opts": ("nn", 16), "shuffle": True},
        {},
    ],
)
def test_hdf5s_filters_are_kept(path, packing):
    write(path, chunks=(10, 10, 12), **packing)
    target, info = copied(path)
    kept = packing
    if packing.get("compression") == "szip":
        kept = {**packing, "compression": "gzip", "compression_opts": 4}
    write(path, chunks=(10, 10, 12), **kept)
    assert stored(target) == stored(path)
    assert info.access.chunk == (1, 1, 10, 10, 12)
    assert info.notes == (
        ("w.h5: szip is not written, so its voxels are packed by gzip",) if packing.get("compression") == "szip" else ()
    )


def test_lossy_filters_are_not_kept(path):
    write(path, ARRAY.astype(np.float32), chunks=(10, 10, 12), compression=hdf5plugin.SZ3(absolute=0.5))
    target, info = copied(path)
    assert info.notes == ("w.h5: sz3 is not written, so its voxels are packed by gzip",)
    assert stored(target) == ((10, 10, 12), [(1, (4,))])


def test_contiguous_inputs_stay_so(path):
    target, info = copied(write(path))
    assert info.access.chunk is None
    assert stored(target) == (None, [])


@pytest.mark.parametrize(
    ("options", "chunks", "filters"),
    [
        ({"level": "2"}, (10, 10, 12), [(2, (2,)), (1, (2,))]),
        ({"shuffle": "no"}, (10, 10, 12), [(1, (9,))]),
        ({"compression": "none"}, (10, 10, 12), []),
        ({"compression": "lzf"}, (10, 10, 12), [(32000, (4, 261, 2400))]),
        ({"compression": "gzip"}, (10, 10, 12), [(1, (4,))]),
        ({"chunks": "5,6,7"}, (5, 6, 7), [(2, (2,)), (1, (9,))]),
        ({"chunks": "none"}, None, []),
        ({"chunks": "none", "shuffle": "no"}, None, []),
    ],
)
def test_options_go_before_what_the_input_has(path, options, chunks, filters):
    write(path, chunks=(10, 10, 12), compression="gzip", compression_opts=9, shuffle=True)
    assert stored(copied(path, options=options)[0]) == (chunks, filters)


def test_only_the_level_of_a_kept_filter_changes(path):
    write(path, chunks=(10, 10, 12), compression=PLUGINS["blosc"])
    assert stored(copied(path, options={"level": "9"})[0])[1] == [(32001, (2, 2, 2, 2400, 9, 2, 5))]
    assert stored(copied(path, options={"shuffle": "no"})[0])[1] == [(32001, (2, 2, 2, 2400, 3, 0, 5))]


@pytest.mark.parametrize(
    ("name", "code", "option", "filters"),
    [
        ("zstd", 32015, {"level": "9"}, [(32015, (9,))]),
        ("blosc", 32001, {"level": "9"}, [(32001, (2, 2, 2, 2400, 9))]),
        ("blosc", 32001, {"shuffle": "no"}, [(32001, (2, 2, 2, 2400, 5, 0))]),
    ],
)
def test_a_filter_that_was_written_without_options(path, name, code, option, filters):
    bare = Packing(name, code, ())
    write(path, chunks=(10, 10, 12), **bare.arguments)
    assert stored(copied(path, options=option)[0])[1] == filters


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [
        ((1, 1, 9, 30, 40), (1, 1, 9, 10, 12)),
        ((1, 4, 20, 30, 6), (1, 1, 10, 10, 6)),
        ((1, 1, 50, 60, 70), (1, 1, 10, 10, 12)),
    ],
)
def test_kept_chunks_fit_the_output(path, shape, chunk):
    write(path, chunks=(10, 10, 12), compression="gzip")
    target, info = copied(path, shape=shape, dtype="float32")
    assert info.access.chunk == chunk
    with h5py.File(target) as file:
        assert file["data"].chunks == chunk[-file["data"].ndim :]


def test_kept_chunks_follow_the_axes(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "raw", data=np.zeros((40, 30, 20, 3), np.uint8), chunks=(8, 6, 4, 3), compression="lzf"
        )
        for axis, letter in enumerate("xyzc"):
            data.dims[axis].label = letter
    target, info = copied(path)
    assert info.access.chunk == (1, 3, 4, 6, 8)
    assert stored(target)[0] == (3, 4, 6, 8)


def test_blocks_that_cut_chunks_in_any_order(path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (2, 3, 20, 30, 40)).astype(np.uint8)
    options = {"compression": "gzip", "chunks": "8,8,8", "shuffle": "yes"}
    steps = (1, 2, 7, 11, 13)
    starts = list(np.ndindex(*(-(-size // step) for size, step in zip(values.shape, steps, strict=True))))
    rng.shuffle(starts)
    with create_volume(path, shape=values.shape, dtype="uint8", options=options) as sink:
        for index in starts:
            start = tuple(int(i) * step for i, step in zip(index, steps, strict=True))
            stop = tuple(min(a + step, size) for a, step, size in zip(start, steps, values.shape, strict=True))
            sink.write(Region(start, stop), values[Region(start, stop).slices])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][()], values)


def test_packed_bytes_are_reproducible(tmp_path):
    contents = []
    for name in "ab":
        (tmp_path / name).mkdir()
        target = tmp_path / name / "v.h5"
        options = {"compression": "gzip", "chunks": "8,8,8", "shuffle": "yes"}
        with create_volume(
            f"{target}:/a/b/c", shape=(1, 2, 20, 30, 40), dtype="uint16", options=options, note="n"
        ) as sink:
            for c in (1, 0):
                sink.write(Region((0, c, 0, 0, 0), (1, c + 1, 20, 30, 40)), ARRAY[None, None])
        contents.append(target.read_bytes())
    assert contents[0] == contents[1]


def test_a_layer_of_chunks_stays_unpacked(path):
    write(path, np.zeros((10, 1000, 1000), np.uint16), chunks=(2, 500, 1000), compression="gzip")
    with open_volume(path) as source:
        slots, size, _ = source._data.id.get_access_plist().get_chunk_cache()
        assert size == 16 << 20
        assert slots == 521
    assert chunk_cache((100, 1000, 1000), (10, 100, 100), 2) == (4099, 20_000_000)
    assert chunk_cache((100, 9000, 9000), (10, 100, 100), 4) == (4099, 64 << 20)
    assert chunk_cache((9, 9, 9), (1, 1, 1), 1) == (262147, 16 << 20)
    assert chunk_cache((500, 1000, 1000), (500, 1000, 1000), 2) == (521, 1_000_000_000)
    assert chunk_cache((9, 9, 9), None, 1) is None


def test_packing_of_every_kind_of_dataset(path):
    with h5py.File(path, "w") as file:
        assert packing_of(file.create_dataset("a", (4, 4), "u2")) is None
        assert packing_of(file.create_dataset("b", (4, 4), "u2", fletcher32=True)) is None
        assert packing_of(file.create_dataset("c", (4, 4), "u2", scaleoffset=0)).name == "scaleoffset"
        gzip = packing_of(file.create_dataset("d", (4, 4), "u2", compression="gzip", shuffle=True))
    assert gzip == Packing("gzip", 1, (4,), shuffle=True)
