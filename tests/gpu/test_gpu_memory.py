"""A GPU whose memory runs out, and volumes beyond what 31 bits count."""

from __future__ import annotations

import numpy as np
import pytest

import volconv
from command import make_nifti, noise, read
from tolerances import BOUND
from volconv.errors import OutOfMemoryError
from volconv.memory import free_memory

pytestmark = pytest.mark.gpu

EPS = float(np.finfo(np.float32).eps)


def box(edge=5):
    return np.full((1, 1, edge, edge, edge), 1 / 3, np.float32)


@pytest.fixture(scope="module")
def volume():
    """Half a gigabyte."""
    return np.random.default_rng(0).standard_normal((1, 1, 512, 512, 512), np.float32)


@pytest.mark.parametrize("left", [600 << 20, 250 << 20])
@pytest.mark.parametrize("algorithm", ["direct", "fft", "gemm"])
def test_too_little_memory_takes_smaller_blocks_and_the_same_bits(volume, fill_memory, left, algorithm):
    whole = volconv.conv3d(volume, box(), padding="same", backend="cupy", algorithm=algorithm)
    fill_memory(left)
    again = volconv.conv3d(volume, box(), padding="same", backend="cupy", algorithm=algorithm)
    assert again.tobytes() == whole.tobytes()


def test_no_memory_at_all(volume, fill_memory):
    fill_memory(1 << 20)
    with pytest.raises(OutOfMemoryError):
        volconv.conv3d(volume, box(), padding="same", backend="cupy")
    expected = volconv.conv3d(volume, box(), padding="same", backend="numpy")
    got = volconv.conv3d(volume, box(), padding="same", backend="auto")
    assert abs(got - expected).max() <= 2 * BOUND * EPS * 125 / 3 * abs(volume).max()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_bits_do_not_depend_on_the_bound(tmp_path, dtype):
    make_nifti(tmp_path / "in.nii", noise((96, 200, 300), dtype))
    whole = None
    for bound in (None, "1G", "256M", "64M"):
        out = tmp_path / f"{bound}.nii"
        volconv.apply(tmp_path / "in.nii", out, "gaussian:sigma=2", padding="same", backend="cupy", gpu_memory=bound)
        whole = whole or out.read_bytes()
        assert out.read_bytes() == whole, bound
    volconv.apply(tmp_path / "in.nii", tmp_path / "cpu.nii", "gaussian:sigma=2", padding="same", backend="numpy")
    expected = read(tmp_path / "cpu.nii").astype(float)
    eps = np.finfo(read(tmp_path / "None.nii").dtype).eps
    assert abs(read(tmp_path / "None.nii") - expected).max() <= 2 * BOUND * eps * 200


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["direct", "separable", "fft"])
def test_more_than_2_to_the_31_voxels(algorithm):
    shape = (1291, 1291, 1291)
    voxels = int(np.prod(shape))
    assert voxels > 2**31
    if free_memory() < 4 * voxels * 4:
        pytest.skip(f"needs {4 * voxels * 4 >> 30} GiB of memory")
    plane = np.random.default_rng(0).standard_normal(shape[1:], np.float32)
    x = np.empty((1, 1, *shape), np.float32)
    for z in range(shape[0]):
        np.multiply(plane, np.float32(1 + z % 7), out=x[0, 0, z])
    got = volconv.conv3d(x, box(), padding="same", backend="cupy", algorithm=algorithm)
    bound = 2 * BOUND * EPS * 125 / 3 * float(abs(plane).max()) * 7
    for z in (2, 322, 644, 1288):  # bytes pass 2^31 and 2^32, and voxels 2^31
        for y in (2, 700, 1280):
            part = np.ascontiguousarray(x[:, :, z - 2 : z + 3, y - 2 : y + 9])
            expected = volconv.conv3d(part, box(), padding=(0, 0, 2), backend="numpy")
            assert abs(got[:, :, z : z + 1, y : y + 7] - expected).max() <= bound, (z, y)
    assert np.isfinite(got[0, 0, ::50]).all()
