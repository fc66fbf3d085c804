"""Volumes of gigabytes in some megabytes of disk: made by pieces of values by index, read without volconv."""

from __future__ import annotations

import builtins
import functools
import io
import itertools
import math
import struct
from pathlib import Path

import h5py
import nibabel
import numpy as np
import tifffile
from isal import igzip, isal_zlib

import reference

#: Values along W, which come again after a prime number of voxels; and what a plane, and a line, adds to them. That
#: takes little room when it is packed, before and after a kernel, and no two places look the same for long.
_LINE = np.tile(np.random.default_rng(3).integers(0, 256, 61).astype(np.uint8), 700)
_STEPS = [np.random.default_rng(seed).integers(0, 8, 40_000).astype(np.uint8) * np.uint8(32) for seed in (1, 2)]

#: Rows of a strip, and the edges of a chunk, in what is made here.
ROWS = 50
CHUNK = (20, 100, 200)


def voxels(z, y, x):
    """Values (uint8) of a volume at these indices along D, H, W."""
    return _STEPS[0][z][:, None, None] + _STEPS[1][y][:, None] + _LINE[x]


def plane(z, height, width):
    """All values of one plane."""
    return voxels(np.array([z]), np.arange(height), np.arange(width))[0]


def expected(shape, weight, box, stride=(1, 1, 1), circular=False, planes=None):
    """Outputs (uint8) in a box, (start, stop) along D, H, W, of a 3x3x3 kernel with padding 1.

    The input has ``shape`` (D, H, W) and the values of :func:`voxels`; zeros outside of ``planes``, if they are given.
    """
    seen = [np.arange(low * s - 1, (high - 1) * s + 2) for (low, high), s in zip(box, stride)]
    inside = [(i >= 0) & (i < n) for i, n in zip(seen, shape)]
    values = voxels(*(i % n for i, n in zip(seen, shape))).astype(np.float64)
    if planes is not None:
        inside[0] &= np.isin(seen[0] % shape[0], planes)
    if planes is not None or not circular:
        values *= inside[0][:, None, None] & inside[1][:, None] & inside[2]
    sums = reference.conv3d(values[None, None], weight.astype(np.float64)[None, None], stride=stride)[0, 0]
    return np.clip(np.rint(sums), 0, 255).astype(np.uint8)


# --- files of these values, (D, H, W), uint8


def make_nii(path, shape, planes):
    """Only some planes; the others are zeros that take no room on the disk."""
    with Path(path).open("wb") as file:
        _nifti_header(shape).write_to(file)
        file.truncate(352 + math.prod(shape))
        for z in planes:
            file.seek(352 + z * shape[1] * shape[2])
            file.write(plane(z, *shape[1:]))


def _nifti_header(shape):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape[::-1])
    return header


def make_nii_gz(path, shape):
    """One stream of gzip; planes that are the same are packed once."""

    @functools.cache
    def packed(content):
        packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
        return packer.compress(content) + packer.flush(isal_zlib.Z_FULL_FLUSH)

    crc = 0
    with Path(path).open("wb") as file:
        file.write(b"\x1f\x8b\x08" + bytes(6) + b"\xff")
        header = io.BytesIO()
        _nifti_header(shape).write_to(header)
        for content in (header.getvalue(), *_planes(shape)):
            crc = isal_zlib.crc32(content, crc)
            file.write(packed(content))
        file.write(b"\x03\0" + struct.pack("<II", crc, 352 + math.prod(shape) & 0xFFFFFFFF))


def _planes(shape):
    """Every plane as bytes; those that are the same are the same object."""
    made = {}
    for z in range(shape[0]):
        step = _STEPS[0][z]
        if step not in made:
            made[step] = plane(z, *shape[1:]).tobytes()
        yield made[step]


def make_tif(path, shape, planes):
    """Pages as they are, only some of which are not zeros."""
    values = tifffile.memmap(path, shape=shape, dtype=np.uint8, metadata={"axes": "ZYX"})
    for z in planes:
        values[z] = plane(z, *shape[1:])
    values.flush()


def make_packed_tif(path, shape):
    """Strips packed by zlib."""

    @functools.cache
    def strips(content):
        size = ROWS * shape[2]
        return [isal_zlib.compress(content[at : at + size], 1) for at in range(0, len(content), size)]

    pieces = itertools.chain.from_iterable(strips(content) for content in _planes(shape))
    tifffile.imwrite(
        path,
        pieces,
        shape=shape,
        dtype=np.uint8,
        compression="zlib",
        rowsperstrip=ROWS,
        photometric="minisblack",
        metadata={"axes": "ZYX"},
    )


def make_slices(path, shape):
    """A folder of TIFF files, packed by zlib."""
    Path(path).mkdir()
    made = {}
    for z, content in enumerate(_planes(shape)):
        if content not in made:
            file = io.BytesIO()
            tifffile.imwrite(file, np.frombuffer(content, np.uint8).reshape(shape[1:]), compression="zlib")
            made[content] = file.getvalue()
        (Path(path) / f"z{z:04}.tif").write_bytes(made[content])


def make_h5(path, shape, planes):
    """A contiguous dataset, only some planes of which are not zeros."""
    with h5py.File(path, "w") as file:
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple(shape), kind)
        for z in planes:
            file["data"][z] = plane(z, *shape[1:])


def make_packed_h5(path, shape, chunk=CHUNK):
    """Chunks packed by gzip."""
    chunk = tuple(min(c, n) for c, n in zip(chunk, shape))
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape, np.uint8, chunks=chunk, compression="gzip")
        for start in itertools.product(*(range(0, n, c) for n, c in zip(shape, chunk))):
            values = voxels(*(np.arange(s, s + c) for s, c in zip(start, chunk)))
            data.id.write_direct_chunk(start, isal_zlib.compress(values, 1))


# --- files read without volconv


def regions(path, boxes):
    """Values (D, H, W) of a volume of uint8 in some boxes, each (start, stop) along D, H, W."""
    path = Path(path)
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return [file["data"][tuple(slice(*span) for span in box)] for box in boxes]
    found = [np.empty([stop - start for start, stop in box], np.uint8) for box in boxes]
    for z, values in _planes_of(path, {z for box in boxes for z in range(*box[0])}):
        for box, out in zip(boxes, found):
            if box[0][0] <= z < box[0][1]:
                out[z - box[0][0]] = values[slice(*box[1]), slice(*box[2])]
    return found


def _planes_of(path, wanted):
    """These planes of a file, in order."""
    if path.is_dir():
        files = sorted(path.iterdir())
        yield from ((z, tifffile.imread(files[z])) for z in sorted(wanted))
    elif path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            yield from ((z, file.pages[z].asarray()) for z in sorted(wanted))
    else:
        image = nibabel.load(path)
        width, height, depth = image.shape
        with (igzip if path.suffix == ".gz" else builtins).open(path, "rb") as file:
            file.read(int(image.dataobj.offset))
            for z in range(depth):
                if z in wanted:
                    yield z, np.frombuffer(file.read(height * width), np.uint8).reshape(height, width)
                else:
                    file.seek(height * width, 1)
