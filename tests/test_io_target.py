"""Output files and folders that appear when they are complete, and raw arrays in files."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import names
from volconv.errors import OutputExistsError, ReadError, WriteError
from volconv.io import ArraySink, ArraySource, Region, Sink, Source
from volconv.io.raw import RawFile
from volconv.io.target import FolderTarget, Target, check_folder_target, check_target, make_folder
from volconv.io.units import normal_unit


def test_the_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        Target(tmp_path / "a", overwrite=False).commit()
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_the_mode_of_what_is_replaced_stays(tmp_path, mode):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(mode)
    (tmp_path / "b").mkdir()
    (tmp_path / "b").chmod(mode | 0o100)
    file, folder = Target(tmp_path / "a", overwrite=True), FolderTarget(tmp_path / "b")
    for target in (file, folder):
        assert target.temporary.stat().st_mode & 0o077 == 0  # nobody looks into what may be private
        target.commit()
    assert (tmp_path / "a").read_bytes() == b""
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    assert (tmp_path / "b").stat().st_mode & 0o777 == mode | 0o100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_of_what_root_replaces_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    os.chown(tmp_path / "a", 1234, 5678)
    Target(tmp_path / "a", overwrite=True).commit()
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid, found.st_size) == (1234, 5678, 0)


def test_a_symbolic_link_is_replaced_at_its_end(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "real")
    target = Target(tmp_path / "link", overwrite=True)
    assert target.temporary.parent == tmp_path / "far"
    target.file.write(b"new")
    target.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "real").read_bytes() == b"new"


def test_folders_and_devices_are_refused(tmp_path):
    for overwrite in (False, True):
        with pytest.raises(WriteError, match="is a folder, and a folder is never replaced"):
            Target(tmp_path, overwrite=overwrite)
        with pytest.raises(WriteError, match="is no regular file"):
            Target(Path("/dev/null"), overwrite=overwrite)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"the output's folder does not exist \(got .*nowhere\); create the folder"):
        Target(tmp_path / "nowhere" / "a", overwrite=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match=r"the output's folder is a file \(got .*file\); name another folder"):
        Target(tmp_path / "file" / "a", overwrite=False)


def test_folders_that_will_be_made_may_be_missing(tmp_path):
    deep = tmp_path / "a" / "b" / "c.nii"
    check_target(deep, overwrite=False, mkdir=True)
    check_folder_target(deep, mkdir=True)
    assert names(tmp_path) == []
    make_folder(deep)
    make_folder(deep)
    Target(deep, overwrite=False).commit()
    with pytest.raises(OutputExistsError):
        check_target(deep, overwrite=False, mkdir=True)
    for below in (deep / "d", deep / "d" / "e"):
        with pytest.raises(WriteError, match=r"the output's folder is a file \(got .*c.nii\)"):
            check_target(below, overwrite=False, mkdir=True)
        with pytest.raises(WriteError, match="the output's folder is a file"):
            make_folder(below)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(WriteError, match=r"a: cannot be written: Permission denied"):
        Target(tmp_path / "a", overwrite=False)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    target = Target(tmp_path / "a", overwrite=False)
    (tmp_path / "a").write_bytes(b"theirs")
    with pytest.raises(OutputExistsError):
        target.commit()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_appears_at_the_last_moment_is_kept(tmp_path, monkeypatch):
    target = Target(tmp_path / "a", overwrite=False)
    monkeypatch.setattr("os.fsync", lambda _: (tmp_path / "a").write_bytes(b"theirs"))
    with pytest.raises(OutputExistsError, match="a: the output already exists"):
        target.commit()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    target = Target(tmp_path / "a", overwrite=False)
    target.file.write(b"new")
    target.commit()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failing_rename_leaves_nothing(tmp_path, monkeypatch):
    target = Target(tmp_path / "a", overwrite=False)

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match="No space left on device"):
        target.commit()
    assert list(tmp_path.iterdir()) == []


def test_long_names_leave_room(tmp_path):
    path = tmp_path / ("ä" * 125 + ".nii")
    Target(path, overwrite=False).commit()
    assert path.exists()


def test_a_folder_appears_when_it_is_complete(tmp_path):
    old = os.umask(0o027)
    try:
        target = FolderTarget(tmp_path / "new")
    finally:
        os.umask(old)
    assert target.temporary.parent == tmp_path
    assert target.temporary.name.startswith(f".new.volconv-{os.getpid()}-")
    assert target.temporary.name.endswith(".tmp")
    (target.temporary / "a").write_bytes(b"1")
    target.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "a").read_bytes() == b"1"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750
    target.abort()
    target.commit()
    assert (tmp_path / "new" / "a").read_bytes() == b"1"


def test_an_aborted_folder_leaves_nothing(tmp_path):
    target = FolderTarget(tmp_path / "new")
    (target.temporary / "a").write_bytes(b"1")
    target.abort()
    target.abort()
    target.commit()
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    target = FolderTarget(tmp_path / "link")
    (target.temporary / "a").write_bytes(b"1")
    target.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "a").read_bytes() == b"1"
    with pytest.raises(WriteError, match=r"link/: is not empty, and a non-empty folder is never replaced; name a new"):
        FolderTarget(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(WriteError, match=r"file/: is a file, and is not replaced by a folder; name a new folder"):
        FolderTarget(tmp_path / "file")
    with pytest.raises(WriteError, match=r"the output's folder does not exist \(got .*nowhere\); create the folder"):
        FolderTarget(tmp_path / "nowhere" / "new")
    with pytest.raises(WriteError, match="is not empty"):
        FolderTarget(Path("/"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "link"]


@pytest.mark.parametrize("checked", [True, False])
def test_what_appears_meanwhile_is_kept(tmp_path, monkeypatch, checked):
    first, second = FolderTarget(tmp_path / "first"), FolderTarget(tmp_path / "second")
    (tmp_path / "first").write_bytes(b"theirs")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "a").write_bytes(b"theirs")
    if not checked:  # what appears after the last check is refused by the system itself
        monkeypatch.setattr("volconv.io.target.check_folder_target", lambda _: None)
    for target, told in ((first, "is a file, and is not replaced"), (second, "is not empty")):
        (target.temporary / "b").write_bytes(b"1")
        with pytest.raises(WriteError, match=told if checked else "cannot be written: (Not a directory|Directory not)"):
            target.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert (tmp_path / "first").read_bytes() == b"theirs"
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["a"]


def test_folders_reach_the_disk_before_their_name(tmp_path, monkeypatch):
    target = FolderTarget(tmp_path / "new")
    for name in "ab":
        (target.temporary / name).write_bytes(b"1")
    synced, fsync = [], os.fsync

    def spy(descriptor):
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (tmp_path / "new").exists()))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", spy)
    target.commit()
    hidden = target.temporary.name
    assert synced == [("a", False), ("b", False), (hidden, False), (tmp_path.name, True)]


def test_a_folder_that_fails_leaves_nothing(tmp_path, monkeypatch):
    target = FolderTarget(tmp_path / "new")
    (target.temporary / "a").write_bytes(b"1")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match=r"new/: cannot be written: No space left on device"):
        target.commit()
    monkeypatch.setattr("pathlib.Path.mkdir", fail)
    with pytest.raises(WriteError, match=r"new/: cannot be written: No space left on device"):
        FolderTarget(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_long_folder_names_leave_room(tmp_path):
    FolderTarget(tmp_path / ("ä" * 125)).commit()
    assert (tmp_path / ("ä" * 125)).is_dir()


@st.composite
def layouts(draw):
    shape = tuple(draw(st.integers(1, 5)) for _ in range(5))
    order = tuple(draw(st.permutations(range(5))))
    regions = []
    for _ in range(3):
        ends = [sorted((draw(st.integers(0, size)), draw(st.integers(0, size)))) for size in shape]
        regions.append(Region(tuple(a for a, _ in ends), tuple(b for _, b in ends)))
    dtype = draw(st.sampled_from(["<u2", ">u2", ">f4", "<c16", "u1", ">c8"]))
    return shape, order, regions, np.dtype(dtype), draw(st.integers(0, 9))


@given(layouts())
def test_raw_files_read_and_write_any_region_in_any_axis_order(tmp_path_factory, layout):
    shape, order, regions, dtype, offset = layout
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = tmp_path_factory.mktemp("raw") / "f"
    path.write_bytes(b"x" * offset + np.ascontiguousarray(array.transpose(order)).tobytes())
    with path.open("r+b") as file:
        raw = RawFile(file, offset, dtype, shape, order, name="f")
        raw.check_length()
        for region in regions:
            got = raw.read(region)
            assert got.dtype.isnative
            np.testing.assert_array_equal(got, array[region.slices])
            array[region.slices] += 7
            raw.write(region, array[region.slices].astype(dtype.newbyteorder("=")))
            np.testing.assert_array_equal(raw.read(Region.whole(shape)), array)
    assert path.read_bytes() == b"x" * offset + np.ascontiguousarray(array.transpose(order)).tobytes()


def test_a_slab_is_one_call_and_short_transfers_go_on(tmp_path, monkeypatch):
    array = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)
    calls = []
    preadv, pwritev = os.preadv, os.pwritev

    def short_read(descriptor, buffers, position):
        calls.append(position)
        return preadv(descriptor, [buffers[0][:limit]], position)

    def short_write(descriptor, buffers, position):
        calls.append(position)
        return pwritev(descriptor, [buffers[0][:limit]], position)

    monkeypatch.setattr("os.preadv", short_read)
    monkeypatch.setattr("os.pwritev", short_write)
    slab = Region((1, 2, 1, 0, 0), (2, 3, 3, 5, 6))
    with (tmp_path / "f").open("w+b") as file:
        raw = RawFile(file, 0, array.dtype, array.shape, name="f")
        for limit, count in ((10**6, 1), (7, -(-120 // 7))):  # noqa: B007  # the functions above read it
            raw.write(Region.whole(array.shape), array)
            calls.clear()
            raw.write(slab, array[slab.slices])
            assert len(calls) == count
            calls.clear()
            np.testing.assert_array_equal(raw.read(slab), array[slab.slices])
            assert len(calls) == count


def test_raw_files_tell_what_failed(tmp_path, monkeypatch):
    with (tmp_path / "f").open("w+b") as file:
        raw = RawFile(file, 0, np.dtype("u1"), (1, 1, 1, 1, 8), name="some.nii")
        file.write(b"1234")
        file.flush()
        with pytest.raises(ReadError, match=r"some\.nii: is truncated: 8 bytes of voxels expected, 4 found"):
            raw.check_length()
        with pytest.raises(ReadError, match=r"some\.nii: is truncated: the file ends at byte 4"):
            raw.read(Region.whole(raw.shape))

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.pwritev", full)
        with pytest.raises(WriteError, match=r"some\.nii: cannot be written: No space left on device"):
            raw.write(Region.whole(raw.shape), np.ones(raw.shape, np.uint8))


def test_array_ends():
    array = np.arange(120.0).reshape(1, 2, 3, 4, 5)
    source, sink = ArraySource(array), ArraySink(np.zeros_like(array))
    assert isinstance(source, Source)
    assert isinstance(sink, Sink)
    assert source.info.access.in_memory
    assert sink.info.access.in_memory
    region = Region((0, 1, 0, 1, 2), (1, 2, 2, 3, 5))
    assert np.shares_memory(source.read(region), array)
    sink.write(region, source.read(region))
    np.testing.assert_array_equal(sink.view(region), array[region.slices])
    sink.view(region)[...] = 3
    sink.commit()
    sink.abort()
    assert (sink.view(region) == 3).all()
    with pytest.raises(ValueError, match="axes"):
        ArraySource(array[0])
    swapped = ArraySource(array.astype(">f8"))
    assert swapped.info.dtype.isnative
    np.testing.assert_array_equal(swapped.read(region), array[region.slices])
    with pytest.raises(ValueError, match="native byte order"):
        ArraySink(array.astype(">f8"))


def test_units():
    assert normal_unit("\\u00B5m") == normal_unit("µm") == normal_unit(" micron ") == ("um", 1.0)
    assert normal_unit("pixel") is None
    assert normal_unit("") is None


@pytest.mark.parametrize("gap", [0, 1, 10**6])
@pytest.mark.parametrize("together", [1, 100, 10**6])
def test_rows_with_and_without_their_gaps(tmp_path, monkeypatch, gap, together):
    monkeypatch.setattr("volconv.io.raw.BRIDGED_GAP", gap)
    monkeypatch.setattr("volconv.io.raw.BRIDGED_BYTES", together)
    array = np.arange(2 * 3 * 4 * 5 * 7, dtype=np.uint16).reshape(2, 3, 4, 5, 7)
    (tmp_path / "f").write_bytes(array.tobytes())
    with (tmp_path / "f").open("rb") as file:
        raw = RawFile(file, 0, array.dtype, array.shape, name="f")
        for start in np.ndindex(2, 3, 2, 3, 3):
            region = Region(start, (2, 3, 4, 5, 7))
            np.testing.assert_array_equal(raw.read(region), array[region.slices])
            part = Region(start, (start[0] + 1, start[1] + 1, 3, 4, 6))
            np.testing.assert_array_equal(raw.read(part), array[part.slices])
