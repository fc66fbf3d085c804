"""OME-Zarr images at URLs: in memory, and in a real S3-compatible server on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from command import volconv
from volconv import apply, convert
from volconv.errors import OutputExistsError, ReadError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, create_volume, list_contents, open_volume
from watched import SCRIPT

GEOMETRY = Geometry.from_spacing((2.0, 0.5, 0.25), "um", (1.0, 2.0, 3.0))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(shape, dtype="uint16"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def written(url, array, **options):
    with create_volume(url, shape=array.shape, dtype=array.dtype, geometry=GEOMETRY, options=options) as sink:
        sink.write(Region.whole(array.shape), array)


@pytest.mark.parametrize("options", [{}, {"version": "0.4"}, {"chunks": "2,2,2", "shards": "4,4,4"}])
def test_what_is_written_is_read(memory, options):
    array = noise((1, 2, 5, 6, 7))
    written(f"{memory}/a.zarr", array, **options)
    with open_volume(f"{memory}/a.zarr") as source:
        assert source.info.geometry == GEOMETRY
        np.testing.assert_array_equal(source.numpy(), array)
    assert list_contents(f"{memory}/a.zarr")[0].name == f"{memory}/a.zarr:0"


def test_an_unfinished_image_is_no_image(memory):
    array = noise((1, 1, 4, 4, 4))
    sink = create_volume(f"{memory}/a.zarr", shape=array.shape, dtype=array.dtype)
    sink.write(Region.whole(array.shape), array)
    with pytest.raises(ReadError, match="is no OME-Zarr image"):
        open_volume(f"{memory}/a.zarr")
    sink.abort()
    sink.abort()
    assert fsspec.filesystem("memory").find("/tests") == []


def test_nothing_is_replaced(memory, capsys):
    fsspec.filesystem("memory").pipe("/tests/a.zarr/mine", b"mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="is not empty, and what lies at a URL is never replaced"):
            create_volume(f"{memory}/a.zarr", shape=(1, 1, 2, 2, 2), dtype="uint8", overwrite=overwrite)
    assert fsspec.filesystem("memory").cat("/tests/a.zarr/mine") == b"mine"
    volconv("info", f"{memory}/a.zarr", code=3)
    assert (
        capsys.readouterr().err == f"volconv: error: {memory}/a.zarr: is no OME-Zarr image (there is no Zarr group)\n"
    )


def test_notes_tell_inputs_at_urls_apart(memory, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        written(f"{memory}/{name}.zarr", noise((1, 1, 4, 4, 4)) + np.uint16(seed))
    command = ["-k", "box:size=3", "--skip-existing", "-o"]
    volconv("apply", f"{memory}/a.zarr", *command, f"{memory}/c.zarr")
    volconv("apply", f"{memory}/a.zarr", *command, f"{memory}/c.zarr")
    assert "skipped" in capsys.readouterr().err
    volconv("apply", f"{memory}/b.zarr", *command, f"{memory}/c.zarr", code=4)
    assert "input" in capsys.readouterr().err
    volconv("info", f"{memory}/c.zarr")
    assert "on disk" in capsys.readouterr().out
    volconv("apply", f"{memory}/a.zarr", "-k", "box:size=3", "-o", "memory://tests/{stem}_x{ext}", "--pyramid")
    volconv("info", f"{memory}/a_x.zarr")


def test_urls_that_nobody_knows(capsys):
    volconv("info", "nowhere://a/b.zarr", code=3)
    assert "nowhere" in capsys.readouterr().err
    volconv("convert", "s3://b/a.zarr", "s3://b/a.nii", code=3)
    with pytest.raises(WriteError, match=r"nowhere://b\.zarr: "):
        create_volume("nowhere://b.zarr", shape=(1, 1, 2, 2, 2), dtype="uint8")


# --- a real object store


@pytest.mark.slow
def test_an_object_store(bucket):
    array = noise((1, 2, 20, 30, 40))
    written("a.zarr", array)
    convert("a.zarr", f"{bucket}/a.zarr", options={"chunks": "8,8,8", "shards": "16,16,16"})
    with open_volume(f"{bucket}/a.zarr") as source:
        np.testing.assert_array_equal(source.numpy(), array)
    report = apply(f"{bucket}/a.zarr", f"{bucket}/b.zarr", "gaussian:sigma=1", padding="same", pyramid=True)
    apply("a.zarr", "b.zarr", "gaussian:sigma=1", padding="same", pyramid=True, options={"chunks": "8,8,8"})
    assert report.levels == 6
    for number in range(report.levels):
        with open_volume(f"{bucket}/b.zarr:{number}") as there, open_volume(f"b.zarr:{number}") as here:
            assert there.info.geometry == here.info.geometry
            np.testing.assert_array_equal(there.numpy(), here.numpy())
    with pytest.raises(OutputExistsError, match="is never replaced"):
        convert("a.zarr", f"{bucket}/b.zarr", options={})
    again = apply(
        f"{bucket}/a.zarr", f"{bucket}/b.zarr", "gaussian:sigma=1", padding="same", pyramid=True, skip_existing=True
    )
    assert again.skipped


@pytest.mark.slow
def test_an_object_store_says_no(bucket):
    with pytest.raises(ReadError, match=r"s3://.*/nowhere\.zarr: is no OME-Zarr image \(there is no Zarr group\)"):
        open_volume(f"{bucket}/nowhere.zarr")
    with pytest.raises((ReadError, WriteError), match=r"s3://no-such-bucket-here/a\.zarr: "):
        written("s3://no-such-bucket-here/a.zarr", noise((1, 1, 2, 2, 2)))
    for change in ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}):
        command = [str(SCRIPT), "info", f"{bucket}/a.zarr"]
        done = subprocess.run(command, env={**os.environ, **change}, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert done.stderr.startswith(f"volconv: error: {bucket}/a.zarr: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_image(bucket, store, number):
    written("a.zarr", noise((1, 1, 128, 256, 256)), chunks="16,64,64")
    command = [SCRIPT, "apply", "a.zarr", "-k", "box:size=3", "-o", f"{bucket}/b.zarr"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    while process.poll() is None:
        store.invalidate_cache()
        if len(store.find(f"{bucket}/b.zarr")) > 5:
            process.send_signal(number)
            break
        time.sleep(0.05)
    assert process.wait() != 0
    with pytest.raises(ReadError, match="is no OME-Zarr image"):
        open_volume(f"{bucket}/b.zarr")
    assert Path("a.zarr").is_dir()
