"""FILE[:KEY]: every kind of file, every way in which one can be wrong, and no code ever run."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volconv.errors import ReadError, ShapeError
from volconv.kernels import is_file_spec, split_file_spec
from volconv.kernels.files import load_array

KERNEL = (3, 4, 5)
CUBE = np.arange(24.0).reshape(2, 3, 4)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("psf.npy", ("psf.npy", None)),
        ("a b/PSF.NPY", ("a b/PSF.NPY", None)),
        ("w.npz:weight", ("w.npz", "weight")),
        ("w.npz:", ("w.npz", "")),
        ("w.npz:a:b", ("w.npz", "a:b")),
        ("w.npz:b.npz", ("w.npz", "b.npz")),
        ("w.h5:/net/conv1.npy", ("w.h5", "/net/conv1.npy")),
        ("run.h5/w.npy", ("run.h5/w.npy", None)),
        ("w.hdf5:/a", ("w.hdf5", "/a")),
        ("12:30.npy", ("12:30.npy", None)),
        ("gaussian:sigma=2", None),
        ("box", None),
        (".npy", None),
        ("w.npz.gz", None),
        ("brain.nii.gz", ("brain.nii.gz", None)),
        ("unet.pt:encoder.0", ("unet.pt", "encoder.0")),
        ("unet.weights.h5:layers/conv3d", ("unet.weights.h5", "layers/conv3d")),
        ("psf.ome.tif", ("psf.ome.tif", None)),
        ("model.safetensors:a.h5", ("model.safetensors", "a.h5")),
        ("1.5", None),
        ("", None),
    ],
)
def test_the_suffix_decides_what_is_a_file(spec, expected):
    assert split_file_spec(spec) == expected
    assert is_file_spec(spec) is (expected is not None)


@given(st.text(), st.sampled_from(["npy", "npz", "h5", "hdf5"]), st.none() | st.text())
def test_path_and_key_make_up_the_spec(stem, suffix, key):
    spec = f"{stem}.{suffix}" + ("" if key is None else f":{key}")
    parts = split_file_spec(spec)
    if not stem:
        return
    assert parts is not None
    assert parts[0] + ("" if parts[1] is None else f":{parts[1]}") == spec


@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", ">i2", "<f2", ">f4", "f8", ">c8", "c16"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_arrays_become_native_and_c_ordered(tmp_path, dtype, order, kind):
    stored = np.asarray(CUBE % 7, dtype=dtype, order=order)
    path = tmp_path / f"k.{kind}"
    if kind == "npy":
        np.save(path, stored)
    elif kind == "npz":
        np.savez(path, w=stored)
    else:
        with h5py.File(path, "w") as h5:
            h5["w"] = stored
    array = load_array(str(path), "kernel", KERNEL)
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, stored)


def test_non_finite_weights_are_weights(tmp_path):
    np.save(tmp_path / "k.npy", np.full((1, 1, 3), [np.nan, np.inf, -np.inf]))
    assert not np.isfinite(load_array(str(tmp_path / "k.npy"), "kernel", KERNEL)).any()


def test_an_array_is_picked_by_its_key(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, **{"conv1.weight": CUBE, "conv1.bias": np.ones(2), "a/b": CUBE + 1})
    np.testing.assert_array_equal(load_array(f"{path}:conv1.weight", "kernel", KERNEL), CUBE)
    np.testing.assert_array_equal(load_array(f"{path}:a/b", "kernel", KERNEL), CUBE + 1)
    assert load_array(f"{path}:conv1.bias", "bias", (1,)).shape == (2,)


def test_a_dataset_is_picked_by_its_path_or_by_being_the_only_one_that_fits(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as h5:
        h5.create_dataset("net/conv1/weight", data=CUBE, chunks=True, compression="gzip")
        h5["net/conv1/bias"] = np.ones(2)
        h5["note"] = "hello"
    for spec in (f"{path}:/net/conv1/weight", f"{path}:net/conv1/weight", str(path)):
        np.testing.assert_array_equal(load_array(spec, "kernel", KERNEL), CUBE)
    assert load_array(str(path), "bias", (1,)).tolist() == [1, 1]


# --- errors


def save_all(folder):
    """One file of each kind of trouble."""
    np.save(folder / "cube.npy", CUBE)
    np.save(folder / "flat.npy", np.ones((2, 3)))
    np.save(folder / "text.npy", np.full((1, 1, 1), "abc"))
    np.save(folder / "dates.npy", np.zeros((1, 1, 1), "M8[s]"))
    np.save(folder / "struct.npy", np.zeros((1, 1, 1), [("a", "f4")]))
    np.save(folder / "object.npy", np.full((1, 1, 1), None), allow_pickle=True)
    (folder / "pickle.npy").write_bytes(pickle.dumps(CUBE))
    (folder / "words.npy").write_text("hello")
    (folder / "empty.npy").write_bytes(b"")
    (folder / "short.npy").write_bytes((folder / "cube.npy").read_bytes()[:-9])
    (folder / "header.npy").write_bytes((folder / "cube.npy").read_bytes()[:20])
    (folder / "folder.npy").mkdir()
    np.savez(folder / "two.npz", a=CUBE, b=np.ones((3, 3, 3)), bias=np.ones(2))
    np.savez(folder / "none.npz")
    np.savez(folder / "object.npz", allow_pickle=True, w=np.full((1, 1, 1), None))
    (folder / "words.npz").write_text("hello")
    damaged = bytearray((folder / "two.npz").read_bytes())
    damaged[200] ^= 255
    (folder / "damaged.npz").write_bytes(damaged)
    with h5py.File(folder / "two.h5", "w") as h5:
        h5["a/weight"], h5["b"], h5["bias"] = CUBE, CUBE, np.ones(2)
        h5["words"] = ["x", "y"]
        h5["void"] = h5py.Empty("f4")
    with h5py.File(folder / "none.h5", "w"):
        pass
    (folder / "words.h5").write_text("hello")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("missing.npy", ReadError, "cannot read kernel from missing.npy: No such file or directory"),
        ("missing.npz:w", ReadError, "cannot read kernel from missing.npz: No such file or directory"),
        ("missing.h5", ReadError, "cannot read kernel from missing.h5: No such file or directory"),
        ("folder.npy", ReadError, "cannot read kernel from folder.npy: Is a directory"),
        ("cube.npy:w", ReadError, "cube.npy must be given without a key, it holds one array (got key 'w')"),
        ("object.npy", ReadError, "object.npy holds Python objects, which volconv never loads"),
        ("pickle.npy", ReadError, "pickle.npy holds Python objects, which volconv never loads"),
        ("object.npz", ReadError, "object.npz:w holds Python objects, which volconv never loads"),
        ("words.npy", ReadError, "words.npy is no NumPy array file, or a damaged one (it starts with b'hello')"),
        ("empty.npy", ReadError, "empty.npy is no NumPy array file, or a damaged one (it starts with b'')"),
        ("short.npy", ReadError, "cannot read kernel from short.npy: "),
        ("header.npy", ReadError, "cannot read kernel from header.npy: "),
        ("words.npz", ReadError, "cannot read kernel from words.npz: File is not a zip file"),
        ("damaged.npz:a", ReadError, "cannot read kernel from damaged.npz: Bad CRC-32"),
        (
            "two.npz",
            ReadError,
            "kernel must say which array of two.npz to read (it holds a (2, 3, 4), b (3, 3, 3)); as in two.npz:a",
        ),
        ("two.npz:w", ReadError, "two.npz has no layer or array 'w' (it holds a (2, 3, 4), b (3, 3, 3))"),
        ("two.npz:", ReadError, "two.npz has no layer or array '' (it holds"),
        ("none.npz", ReadError, "kernel must say which array of none.npz to read (it holds no arrays)"),
        ("words.h5", ReadError, "cannot read kernel from words.h5: "),
        (
            "two.h5",
            ReadError,
            "kernel must say which array of two.h5 to read (it holds a (2, 3, 4), /b (2, 3, 4)); as in two.h5:a",
        ),
        ("two.h5:/c", ReadError, "two.h5 has no layer or array '/c' (it holds a (2, 3, 4), /b (2, 3, 4))"),
        ("two.h5:/b/c", ReadError, "two.h5 has no layer or array '/b/c' (it holds"),
        ("two.h5:", ReadError, "two.h5 has no layer or array '' (it holds"),
        ("none.h5", ReadError, "kernel must say which array of none.h5 to read (it holds no arrays)"),
        ("two.h5:/words", ShapeError, "weights must be a numeric array (got object"),
        ("two.h5:/void", ShapeError, "weights must be a numeric array (got float32 with shape None"),
        ("two.h5:/bias", ShapeError, "kernel must be a numeric array of 3, 4 or 5 axes (got shape (2,) of float64"),
        ("flat.npy", ShapeError, "of 3, 4 or 5 axes (got shape (2, 3) of float64 in flat.npy)"),
        ("text.npy", ShapeError, "of 3, 4 or 5 axes (got shape (1, 1, 1) of <U3 in text.npy)"),
        ("dates.npy", ShapeError, "kernel must be a numeric array"),
        ("struct.npy", ShapeError, "kernel must be a numeric array"),
        ("w.txt", ReadError, "kernel must be in a file of kind .npy, .npz, .h5, .keras, "),
    ],
)
def test_errors(tmp_path, monkeypatch, spec, error, message):
    save_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        load_array(spec, "kernel", KERNEL)
    assert type(caught.value) is error
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_can_run_code(tmp_path):
    trace = tmp_path / "exploded"
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Bomb(trace)))
    np.save(tmp_path / "b.npy", np.array([Bomb(trace)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "c.npz", w=np.array([Bomb(trace)], dtype=object))
    for name in ("a.npy", "b.npy", "c.npz"):
        with pytest.raises(ReadError, match="holds Python objects, which volconv never loads"):
            load_array(str(tmp_path / name), "kernel", KERNEL)
    assert not trace.exists()
    np.load(tmp_path / "b.npy", allow_pickle=True)  # the bomb is a real one
    assert trace.exists()


def test_importing_kernels_loads_nothing_heavy():
    heavy = {"h5py", "click", "scipy", "numba"}
    code = f"import sys, volconv.kernels, volconv.config; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
