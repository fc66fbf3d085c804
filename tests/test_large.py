"""Volumes eight times as large as the bound on memory, each of more than 2^31 voxels, by the command under a watch."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

import largefiles
from largefiles import expected, regions
from watched import watched

pytestmark = pytest.mark.slow

BOUND = 256 << 20

#: Eight times the bound, a voxel a byte, and more than 2^31 of them.
SHAPE = (2051, 1022, 1025)

#: Of files that are not packed, only these planes are there; the rest would fill the disk.
PLANES = [0, 1, 2, 500, 501, *range(1000, 1100), 2047, 2048, 2050]

#: Sums of uint8 are exact in float32, and so are their halves: no rounding is in doubt.
WEIGHT = (np.random.default_rng(0).multinomial(64, [1 / 27] * 27) / 64).astype(np.float32).reshape(3, 3, 3)


def stride_of(options):
    """As the options say."""
    return tuple(map(int, options[1].split(","))) if options[:1] == ["--stride"] else (1, 1, 1)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """A folder that is gone after the test: there is not room on every disk for all that these tests make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    np.save("k.npy", WEIGHT)
    yield
    shutil.rmtree(tmp_path)


def make(name, shape, planes):
    """A file of this name, and the planes that it has; None where it has all."""
    packed = "packed" in name or name.endswith((".gz", "/"))
    makers = {".nii": "nii", ".gz": "nii_gz", ".tif": "tif", ".h5": "h5", "": "slices"}
    kind = makers[Path(name).suffix]
    if packed:
        getattr(largefiles, f"make_packed_{kind}" if kind in ("tif", "h5") else f"make_{kind}")(name, shape)
        return None
    getattr(largefiles, f"make_{kind}")(name, shape, planes)
    return planes


def apply(name, output, *options, bound=BOUND):
    """Run ``volconv apply`` on a small volume first, for what is compiled; what the large run took, as data."""
    line = ["-k", "k.npy", "--dtype", "same", "--algorithm", "direct", "--json", "-q", *options]
    small = f"small{''.join(Path(name).suffixes)}{'/' if name.endswith('/') else ''}"
    make(small.replace("small", "small_packed" if "packed" in name else "small"), (40, 300, 320), [0])
    assert watched(".", "apply", next(Path().glob("small*")), *line, "-o", f"w{output}").code == 0
    done = watched(".", "apply", name, *line, "-o", output, "--memory", str(bound))
    assert done.code == 0, done.said
    assert done.said == ""
    assert done.peak <= bound
    (run,) = json.loads(done.out)["runs"]
    assert run["peak_memory"] <= run["plan"]["memory"]["peak"] <= bound
    return run


def check(output, shape, stride=(1, 1, 1), **how):
    """Compare an output with a reference: along each axis from end to end, so that whatever was a seam is crossed."""
    size = [(n - 1) // s + 1 for n, s in zip(shape, stride)]
    boxes = []
    for axis in range(3):
        for place in (0.0, 0.49, 1.0):
            starts = [0 if a == axis else int((n - 4) * place) for a, n in enumerate(size)]
            boxes.append([(s, n if a == axis else s + 4) for a, (s, n) in enumerate(zip(starts, size))])
    got = regions(output, boxes)
    for box, values in zip(boxes, got):
        np.testing.assert_array_equal(values, expected(shape, WEIGHT, box, stride, **how), err_msg=str(box))
    assert any(values.any() for values in got)


@pytest.mark.parametrize(
    ("name", "output", "options"),
    [
        ("a.nii", "o.nii", ["--stride", "1,2,2"]),
        ("a.nii.gz", "o.nii.gz", []),
        ("a.tif", "o.tif", ["--co", "compression=zlib"]),
        ("packed.tif", "o.tif", ["--stride", "2,2,2"]),
        ("packed.ome.tif", "o.ome.tif", ["--co", "compression=zlib", "--co", "tile=256"]),
        ("a/", "o/", ["--co", "compression=zlib"]),
        ("a.h5", "o.h5", ["--co", "compression=gzip"]),
        ("packed.h5", "o.h5", ["--stride", "1,2,2"]),
    ],
)
def test_slabs_of_every_format(name, output, options):
    planes = make(name, SHAPE, PLANES)
    run = apply(name, output, "--padding", "1", *options)
    assert math.prod(run["source"]["shape"]) == run["source"]["bytes"] > 2**31
    assert run["plan"]["traffic"]["halo"] == 0
    assert run["plan"]["spool"]["source"] == run["plan"]["spool"]["target"] == 0
    assert run["plan"]["blocks"] > 8
    check(output, SHAPE, stride_of(options), planes=planes)


@pytest.mark.parametrize(
    ("name", "output", "options"),
    [
        ("a.nii", "o.nii", ["--stride", "1,2,2"]),
        ("packed.tif", "o.h5", ["--co", "compression=gzip", "--co", "chunks=8,64,1025"]),
        ("packed.h5", "o.nii.gz", ["--stride", "1,2,2"]),
    ],
)
def test_boxes_where_a_plane_is_larger_than_the_bound(name, output, options):
    shape = (8, 16400, 16400)
    assert shape[1] * shape[2] > BOUND
    planes = make(name, shape, [0, 3, 4, 7])
    run = apply(name, output, "--padding", "1", *options)
    assert run["plan"]["block_shape"][3] < run["target"]["shape"][3]
    assert run["plan"]["traffic"]["halo"] > 0
    check(output, shape, stride_of(options), planes=planes)


def test_what_cannot_be_read_in_turn_goes_through_a_temporary_file():
    bound = 224 << 20  # so that it leaves room on a disk of 2 GB
    shape = (1836, 1023, 1001)
    assert math.prod(shape) > 8 * bound
    make("a.nii.gz", shape, None)
    options = ["--padding-mode", "circular", "--stride", "1,3,3"]
    run = apply("a.nii.gz", "o.nii.gz", "--padding", "1", *options, bound=bound)
    assert run["plan"]["spool"] == {"source": math.prod(shape), "mask": 0, "target": 0, "folder": str(Path.cwd())}
    assert run["plan"]["traffic"]["in_turn"] is False
    check("o.nii.gz", shape, (1, 3, 3), circular=True)


def test_a_kernel_in_passes_within_the_bound():
    make("a.nii.gz", SHAPE, None)
    make("small.nii.gz", (40, 300, 320), None)
    line = ["-k", "box:size=9", "--padding", "same", "--dtype", "same", "-q", "-o"]
    assert watched(".", "apply", "small.nii.gz", *line, "w.nii.gz").code == 0
    done = watched(".", "apply", "a.nii.gz", *line, "o.nii.gz", "--memory", "256M")
    assert done.code == 0, done.said
    assert done.peak <= BOUND


def test_a_copy_within_the_bound():
    make("packed.h5", SHAPE, None)
    line = ["packed.h5", "o.tif", "--co", "compression=zlib", "-q", "--memory", "256M"]
    done = watched(".", "convert", *line)
    assert done.code == 0, done.said
    assert done.peak <= BOUND
    boxes = [[(z, z + 2), (0, SHAPE[1]), (0, SHAPE[2])] for z in (0, 1019, SHAPE[0] - 2)]
    for box, values in zip(boxes, regions("o.tif", boxes)):
        np.testing.assert_array_equal(values, largefiles.voxels(*(np.arange(*span) for span in box)))


def test_outputs_too_large_for_their_formats_first_versions():
    """A NIfTI-1 axis holds 32767 voxels, and a TIFF that is no BigTIFF 4 GB."""
    largefiles.make_nii("a.nii", (40, 50, 32000), [0, 39])
    np.save("k.npy", np.ones((1, 1, 1), np.float32))
    line = ["apply", "a.nii", "-k", "k.npy", "--dtype", "same", "-q", "--memory", "256M"]
    done = watched(".", *line, "--padding", "0,0,400", "-o", "o.nii")
    assert (done.code, done.said) == (0, "")
    assert done.peak <= BOUND
    image = nibabel.load("o.nii")
    assert type(image) is nibabel.Nifti2Image
    assert image.shape == (32800, 50, 40)
    values = np.asarray(image.dataobj).transpose()
    for z in (0, 39):
        np.testing.assert_array_equal(values[z, :, 400:-400], largefiles.plane(z, 50, 32000))
    assert np.count_nonzero(values) == np.count_nonzero(values[[0, 39], :, 400:-400])


def test_a_packed_stack_above_four_gigabytes():
    largefiles.make_nii("a.nii", (4, 400, 400), range(4))
    np.save("k.npy", np.ones((1, 1, 1), np.float32))
    line = ["apply", "a.nii", "-k", "k.npy", "--dtype", "same", "-q", "--memory", "256M", "--co", "compression=zlib"]
    done = watched(".", *line, "--padding", "1100,500,500", "-o", "o.tif")
    assert done.code == 0, done.said
    assert done.peak <= BOUND
    with tifffile.TiffFile("o.tif") as file:
        assert file.is_bigtiff
        assert file.series[0].shape == (2204, 1400, 1400)
        for z in (0, 1099, *range(1100, 1104), 1104, 2203):
            values = file.pages[z].asarray()
            middle = values[500:-500, 500:-500]
            assert np.count_nonzero(values) == np.count_nonzero(middle)
            wanted = largefiles.plane(z - 1100, 400, 400) if 1100 <= z < 1104 else np.zeros((400, 400))
            np.testing.assert_array_equal(middle, wanted)
