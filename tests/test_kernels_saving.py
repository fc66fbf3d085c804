"""Weights written to files, and read again by NumPy, h5py and volconv."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import h5py
import numpy as np
import pytest

from command import names
from volconv.errors import OutputExistsError, ParameterError, WriteError
from volconv.geometry import Geometry
from volconv.kernel_report import save_kernel
from volconv.kernels import load_kernel
from volconv.kernels.saving import check_output, save_weights, split_output


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(dtype="float64", shape=(2, 3, 4, 5)):
    values = np.random.default_rng(0).standard_normal(shape) * 100
    return (values + 1j * values[::-1] if np.dtype(dtype).kind == "c" else values).astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int16", "bool", "complex64"])
@pytest.mark.parametrize("spec", ["k.npy", "k.npz", "k.npz:blue", "k.NPZ:conv1.weight", "k.h5", "k.h5:/a/b", "k.hdf5"])
def test_what_is_written_is_read(spec, dtype):
    save_weights(weights(dtype), spec)
    again = load_kernel(spec, Geometry()).weight
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, weights(dtype))
    assert names(".") == [spec.partition(":")[0]]


def test_other_libraries_read_it():
    for spec in ("k.npy", "k.npz", "k.npz:file", "k.h5:a/b"):
        save_weights(weights(), spec, overwrite=True)
        path, _, key = spec.partition(":")
        if path == "k.h5":
            with h5py.File(path) as file:
                found = file[key][()]
        else:
            loaded = np.load(path)
            found = loaded if path == "k.npy" else loaded[key or "weight"]
        np.testing.assert_array_equal(found, weights())


@pytest.mark.parametrize("name", ["k.npy", "k.npz", "k.h5"])
def test_the_same_weights_give_the_same_bytes(name):
    for other in ("one", "two"):
        Path(other).mkdir()
        save_weights(weights(), f"{other}/{name}")
    assert Path(f"one/{name}").read_bytes() == Path(f"two/{name}").read_bytes()


@pytest.mark.parametrize("name", ["k.npy", "k.npz", "k.h5"])
def test_an_existing_file_is_kept_unless_it_may_be_replaced(name):
    Path(name).write_bytes(b"precious")
    Path(name).chmod(0o640)
    for refused in (lambda: save_weights(weights(), name), lambda: check_output(f"{name}")):
        with pytest.raises(OutputExistsError, match=f"{name}: the output already exists; pass -f/--overwrite"):
            refused()
    assert Path(name).read_bytes() == b"precious"
    save_weights(weights(), name, overwrite=True)
    assert stat.S_IMODE(Path(name).stat().st_mode) == 0o640
    assert names(".") == [name]


@pytest.mark.parametrize("name", ["k.npy", "k.npz", "k.h5"])
def test_a_full_disk_leaves_nothing(monkeypatch, name):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("volconv.io.target.os.fsync", full)
    with pytest.raises(WriteError, match=rf"{name}: cannot be written: No space left on device; make room there"):
        save_weights(weights(), name)
    assert names(".") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("k.txt", r"output must be .npy, .npz:KEY, .h5:/PATH or .hdf5:/PATH \(got 'k.txt'\); the key may be left out"),
        ("sobel", r"output must be \.npy"),
        ("k.npy:key", r"output must have no key in a .npy file, which holds one array \(got 'k.npy:key'\)"),
        ("k.npz:", r"output must have a key that names an array \(got 'k.npz:'\); as in k.npz:weight"),
        ("k.h5:/", r"output must have a key that names an array"),
        ("k.h5:/a//b", r"output must have a key that names an array"),
        ("k.npz:../k", r"output must have a key that names an array"),
        ("k.h5:a\0b", r"output must have a key that names an array"),
    ],
)
def test_names_that_cannot_be(spec, message):
    for refused in (split_output, lambda spec: save_kernel("sobel", spec)):
        with pytest.raises(ParameterError, match=message):
            refused(spec)
    assert names(".") == []


def test_a_missing_folder():
    with pytest.raises(WriteError, match=r"nowhere/k\.npy: the output's folder does not exist"):
        save_kernel("sobel", "nowhere/k.npy")
