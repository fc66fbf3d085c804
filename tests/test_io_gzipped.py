"""gzip as it is read and written: against Python's gzip and zlib, whatever the threads and the order of regions."""

import errno
import gzip
import io
import itertools
import threading
import zlib

import nibabel
import numpy as np
import pytest

from niftifiles import write
from volconv.errors import ReadError, WriteError
from volconv.io import Region, create_volume, open_stack, open_volume, unpacking
from volconv.io import gzipped as module
from volconv.io.gzipped import PIECE, Packer

NOISE = np.random.default_rng(0).integers(0, 50, 2 * PIECE + 12345, np.uint8).tobytes()


def packed(*parts):
    file = io.BytesIO()
    packer = Packer(file)
    for part in parts:
        packer.write(part)
    packer.finish()
    return file.getvalue()


@pytest.fixture
def no_threads_left():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)  # it was told to end, and may be about to
        assert not thread.is_alive()


# --- writing


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(NOISE)])
def test_one_plain_member_of_gzip(size):
    content = packed(NOISE[:size])
    assert content[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"
    assert gzip.decompress(content) == NOISE[:size]
    unpacker = zlib.decompressobj(31)
    assert unpacker.decompress(content) == NOISE[:size]
    assert (unpacker.eof, unpacker.unused_data) == (True, b"")


def test_it_packs_about_as_well_as_zlib_does():
    smooth = np.cumsum(np.random.default_rng(0).standard_normal(1 << 20)).astype(np.float32).tobytes()
    for content in (NOISE, smooth, bytes(PIECE)):
        assert len(packed(content)) < 1.1 * len(zlib.compress(content, 1)) + 20


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_bytes_depend_on_neither_threads_nor_calls(monkeypatch, threads):
    once = packed(NOISE)
    monkeypatch.setattr(module.os, "cpu_count", lambda: threads)
    monkeypatch.setattr(module, "MOST_THREADS", threads)
    assert packed(NOISE) == once
    assert packed(NOISE[:352], NOISE[352:PIECE], NOISE[PIECE : PIECE + 1], NOISE[PIECE + 1 :]) == once
    assert packed(*(NOISE[i : i + 100_000] for i in range(0, len(NOISE), 100_000))) == once


def test_what_was_given_may_change_afterwards():
    array = np.frombuffer(NOISE, np.uint8).copy()
    file = io.BytesIO()
    packer = Packer(file)
    packer.write(array)
    array[:] = 0
    packer.finish()
    assert gzip.decompress(file.getvalue()) == NOISE


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("room", [20, PIECE, 2 * PIECE])
def test_a_full_disk_ends_it(tmp_path, monkeypatch, room):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr("volconv.io.target.Path.open", lambda path, mode: Full(path, mode.replace("b", "")))
    values = np.random.default_rng(0).standard_normal((1, 1, 30, 100, 300))
    with (
        pytest.raises(WriteError, match=r"v\.nii\.gz: cannot be written: No space left on device"),
        fill(tmp_path, values),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def fill(folder, values, regions=None, name="v.nii.gz"):
    """A sink that regions of the values were written to."""
    sink = create_volume(folder / name, shape=values.shape, dtype=values.dtype)
    try:
        for region in regions or [Region.whole(values.shape)]:
            sink.write(region, values[region.slices])
    except BaseException:
        sink.abort()
        raise
    return sink


def slabs(shape, axis, step):
    whole = Region.whole(shape)
    return [whole.along(axis, i, min(i + step, shape[axis])) for i in range(0, shape[axis], step)]


# --- regions in any order


@pytest.fixture
def spools(monkeypatch):
    """Temporary files that were made."""
    made = []
    real = module_spool().tempfile.TemporaryFile

    def spy(**arguments):
        made.append(real(**arguments))
        return made[-1]

    monkeypatch.setattr("volconv.io.spool.tempfile.TemporaryFile", spy)
    yield made
    assert all(file.closed for file in made)


def module_spool():
    import volconv.io.spool

    return volconv.io.spool


SERIES = np.random.default_rng(1).integers(0, 9, (3, 2, 7, 20, 30), np.int16)


@pytest.mark.parametrize(
    ("channels", "orders", "spooled"),
    [
        (1, [[Region.whole((3, 1, 7, 20, 30))]], 0),
        (1, [slabs((3, 1, 7, 20, 30), 0, 1), slabs((3, 1, 7, 20, 30), 0, 2)], 0),
        (1, [[slab.along(0, n, n + 1) for n in range(3) for slab in slabs((3, 1, 7, 20, 30), 2, 3)]], 0),
        (1, [slabs((3, 1, 7, 20, 30), 0, 1)[::-1], slabs((3, 1, 7, 20, 30), 2, 3)], 1),
        (1, [[slabs((3, 1, 7, 20, 30), 0, 1)[i] for i in (0, 2, 1)]], 1),
        (2, [[Region.whole((3, 2, 7, 20, 30))], slabs((3, 2, 7, 20, 30), 1, 1)], 0),
        (2, [slabs((3, 2, 7, 20, 30), 0, 1), slabs((3, 2, 7, 20, 30), 2, 2)], 1),
    ],
)
def test_order_changes_no_byte_and_costs_a_temporary_file_only_where_it_is_another(
    tmp_path, spools, channels, orders, spooled
):
    values = SERIES[:, :channels]
    fill(tmp_path, values, name="once.nii.gz").commit()
    assert not spools
    for regions in orders:
        spools.clear()
        fill(tmp_path, values, regions).commit()
        assert len(spools) == spooled
        assert (tmp_path / "v.nii.gz").read_bytes() == (tmp_path / "once.nii.gz").read_bytes()
        (tmp_path / "v.nii.gz").unlink()
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(tmp_path / "once.nii.gz").dataobj).reshape(30, 20, 7, 3, channels),
        values.transpose(4, 3, 2, 0, 1),
    )


@pytest.mark.parametrize("written", [[], [0], [0, 1], [1], [2, 0]])
@pytest.mark.usefixtures("spools")
def test_what_is_never_written_is_zeros(tmp_path, written):
    regions = [slabs(SERIES.shape, 1, 1)[0].along(0, n, n + 1) for n in written]
    fill(tmp_path, SERIES, [Region((0, 0, 0, 0, 0), (0, 2, 7, 20, 30)), *regions]).commit()
    expected = np.zeros_like(SERIES)
    for region in regions:
        expected[region.slices] = SERIES[region.slices]
    with open_volume(tmp_path / "v.nii.gz") as source:
        np.testing.assert_array_equal(source.numpy(), expected)


@pytest.mark.usefixtures("spools", "no_threads_left")
@pytest.mark.parametrize("order", [1, -1])
def test_an_aborted_file_leaves_nothing(tmp_path, order):
    sink = fill(tmp_path, SERIES[:, :1], slabs((3, 1, 7, 20, 30), 0, 1)[::order])
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_threads_left")
def test_a_second_commit_does_nothing(tmp_path):
    sink = fill(tmp_path, SERIES)
    sink.commit()
    content = (tmp_path / "v.nii.gz").read_bytes()
    sink.commit()
    sink.abort()
    assert (tmp_path / "v.nii.gz").read_bytes() == content


# --- reading


def volume(path, *, pieces=1, tail=b"", cut=None, flip=None):
    """A gzipped file of several members, with bytes behind them, cut off, or with a byte changed."""
    plain = write(path.with_name("plain.nii"), np.random.default_rng(0).integers(0, 99, (40, 50, 60)).astype(np.int16))
    content = plain.read_bytes()
    bounds = [len(content) * k // pieces for k in range(pieces + 1)]
    stream = bytearray(b"".join(gzip.compress(content[a:b]) for a, b in itertools.pairwise(bounds)) + tail)[:cut]
    if flip is not None:
        stream[flip] ^= 0xFF
    path.write_bytes(stream)
    return np.asarray(nibabel.load(plain).dataobj).transpose()


@pytest.mark.parametrize("how", [{"pieces": 2}, {"pieces": 5}, {"tail": bytes(1)}, {"tail": bytes(5000)}])
@pytest.mark.parametrize("ahead", [False, True])
def test_members_and_zeros_behind_them(tmp_path, how, ahead):
    expected = volume(tmp_path / "v.nii.gz", **how)
    with open_volume(tmp_path / "v.nii.gz") as source:
        if ahead:
            source.prefetch()
        np.testing.assert_array_equal(source.numpy()[0, 0], expected)


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"cut": -1}, "is truncated: its gzip stream ends early"),
        ({"cut": 90_000}, "is truncated: its gzip stream ends early"),
        ({"flip": -6}, "its gzip stream is damaged: CRC check failed"),
        ({"flip": -2}, "its gzip stream is damaged: Incorrect length of data produced"),
        ({"flip": 50_000}, "its gzip stream is damaged: "),
        ({"tail": b"some text" * 9}, r"its gzip stream is damaged: Not a gzipped file \(b'so'\)"),
        ({"tail": b"\x1f\x8b"}, "is truncated: its gzip stream ends early"),
        ({"pieces": 2, "flip": -6}, "its gzip stream is damaged: CRC check failed"),
    ],
)
def test_damage_anywhere_is_told_by_the_first_read(tmp_path, how, message, ahead):
    volume(tmp_path / "v.nii.gz", **how)
    with open_volume(tmp_path / "v.nii.gz") as source:
        if ahead:
            source.prefetch()
        for _ in range(2):
            with pytest.raises(ReadError, match=rf"v\.nii\.gz: {message}") as caught:
                source.read(Region((0, 0, 0, 0, 0), (1, 1, 1, 1, 1)))
            assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("how", [{}, {"flip": -6}])
def test_closing_stops_what_was_begun(tmp_path, monkeypatch, how):
    """However large the rest is, one piece is the last that is unpacked."""
    monkeypatch.setattr(unpacking, "COPY_BYTES", 1000)
    volume(tmp_path / "v.nii.gz", **how)
    sizes, began, go_on = [], threading.Event(), threading.Event()
    real = unpacking.unpacked

    class Slow:
        def __init__(self, stream):
            self.seek = stream.seek
            self._stream = stream

        def read(self, size):
            began.set()
            go_on.wait(10)
            sizes.append(size)
            return self._stream.read(size)

    class Slowly:
        def __init__(self, *args, **kwargs):
            self._manager = real(*args, **kwargs)

        def __enter__(self):
            return Slow(self._manager.__enter__())

        def __exit__(self, *error):
            return self._manager.__exit__(*error)

    monkeypatch.setattr(unpacking, "unpacked", Slowly)
    source = open_volume(tmp_path / "v.nii.gz")
    source.prefetch()
    assert began.wait(10)
    threading.Timer(0.1, go_on.set).start()
    source.close()
    source.close()
    assert sizes == [1000]


def test_a_selection_and_a_stack_are_begun_too(tmp_path, spools):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in paths:
        expected = volume(path)
    with (
        open_stack(paths) as stacked,
        open_volume(paths[0], time=0) as selected,
        open_volume(tmp_path / "plain.nii") as plain,
    ):
        assert not spools
        for source in (stacked, selected, plain):
            source.prefetch()
        for _ in range(2):
            assert (stacked.numpy()[0] == expected).all()
            assert (selected.numpy()[0, 0] == expected).all()
            assert len(spools) == 3
