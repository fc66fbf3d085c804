"""The ``volconv`` command run in this process, and files read and made without volconv."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from volconv_cli.main import main

ROOT = Path(__file__).parents[1]
ANISO = ROOT / "tests" / "data" / "aniso_vox.nii.gz"
NUCLEI = ROOT / "sample_data" / "nuclei.tif"


def volconv(*arguments, code=0):
    """Run ``volconv ...`` and expect this exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == code


def read(path, key="data"):
    """A file's voxels as (N, C, D, H, W), by the format's own library; TIFF: one channel of one volume."""
    path = Path(path)
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            array = file[key][()]
    elif path.suffix in (".tif", ".tiff"):
        array = tifffile.imread(path)
    else:
        array = np.asarray(nibabel.load(path).dataobj)
        return array.reshape(array.shape + (1,) * (5 - array.ndim)).transpose(3, 4, 2, 1, 0)
    return array.reshape((1,) * (5 - array.ndim) + array.shape)


def make_nifti(path, array, affine=None, unit="mm"):
    """A NIfTI file from a (D, H, W) array."""
    image = nibabel.Nifti1Image(array.transpose(), np.eye(4) if affine is None else affine, dtype=array.dtype)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


def noise(shape=(9, 10, 11), dtype="float32", seed=0):
    """Values that fill a dtype well enough."""
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def names(folder):
    """All that lies in a folder, hidden files too."""
    return sorted(path.name for path in Path(folder).iterdir())
