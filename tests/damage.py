"""Small valid files of every kind that is read, and ways to damage them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import h5py
import nibabel
import numpy as np
import onnx
import tifffile
from hypothesis import strategies as st
from safetensors.numpy import save_file


def _array(shape=(3, 4, 5), dtype="int16"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def _nifti(path, array, kind=nibabel.Nifti1Image, endianness="<", extension=None):
    affine = np.array([[-1, 0, 0, 10], [0, 0.5, 0.1, -20], [0, -0.1, 2, 30], [0, 0, 0, 1]])
    image = kind(array.transpose(), affine, kind.header_class(endianness=endianness), dtype=array.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(0.5, -3)
    if extension:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", extension))
    image.to_filename(path)


def _rgb_nifti(path):
    array = np.zeros((5, 4, 3), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)


def _hdf5(path, array=None, attributes=(), **options):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("group/data", data=_array() if array is None else array, **options)
        for name, value in attributes:
            data.attrs[name] = value


def _several(path):
    with h5py.File(path, "w") as file:
        file["a"], file["b"], file["c"] = _array(), _array((2, 3)), h5py.SoftLink("/a")
        file["d"] = h5py.ExternalLink("other.h5", "/a")


def _scales(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=_array())
        for axis, label in enumerate("zyx"):
            data.dims[axis].label = label
            file[label] = np.arange(data.shape[axis]) * 0.5
            file[label].make_scale(label)
            data.dims[axis].attach_scale(file[label])


def _external(path):
    """Voxels that lie in another file."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (3, 4, 5), "i2", external=[(b"/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _virtual(path):
    layout = h5py.VirtualLayout((3, 4, 5), "i2")
    layout[:] = h5py.VirtualSource(Path(path).with_name("other.h5"), "data", (3, 4, 5))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)


def _tiff(path, array=None, **options):
    tifffile.imwrite(path, _array() if array is None else array, **{"photometric": "minisblack", **options})


def _metamorph(path):
    array = _array((3, 5, 6))
    tags = [(33628, "I", 2, (0, 0), True), (33629, "2I", 1, (0, 1), True)]
    tifffile.imwrite(path, array[0], photometric="minisblack", metadata=None, extratags=tags)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, uic1, uic2 = page.dataoffsets[0], page.tags[33628].offset, page.tags[33629].offset
    content = bytearray(Path(path).read_bytes()[:start]) + array.tobytes()
    places = []
    for part in (struct.pack("<6I", 1500, 1000, 2450000, 0, 0, 0) * 3, struct.pack("<2I", 250, 1000), b"\3\0\0\0um\0"):
        places.append(len(content))
        content += part
    struct.pack_into("<HHII", content, uic1, 33628, 4, 4, len(content))
    struct.pack_into("<HHII", content, uic2, 33629, 5, 3, places[0])
    Path(path).write_bytes(content + struct.pack("<8I", 3, 1, 4, places[1], 5, places[1], 6, places[2]))


def _zeiss(path):
    array = _array((2, 2, 3, 5, 6), "uint8")
    known = np.zeros((), [(name, kind) for name, kind in tifffile.TIFF.CZ_LSMINFO if name])
    known["MagicNumber"], known["StructureSize"], known["ScanType"] = 67127628, known.nbytes, 6
    for name, size in zip(("Time", "Z", "Channels", "Y", "X"), array.shape, strict=True):
        known[f"Dimension{name}"] = size
    for axis in "ZYX":
        known[f"VoxelSize{axis}"] = 2e-7
    tags = [(34412, "B", known.nbytes, known.tobytes(), True)]
    with tifffile.TiffWriter(path) as writer:
        for page in array.reshape(-1, 3, 5, 6):
            writer.write(page, planarconfig="separate", photometric="minisblack", metadata=None, extratags=tags)
            thumbnail = np.zeros((3, 4, 4), "uint8")
            writer.write(thumbnail, photometric="rgb", planarconfig="separate", subfiletype=1, metadata=None)
            tags = []


_AXISTAGS = json.dumps({"axes": [{"key": key, "typeFlags": 2, "resolution": 0.5} for key in "zyx"]})

#: Files by name, each with what makes it; a pair has two, of which the named one is opened.
VOLUMES = {
    "n1.nii": lambda path: _nifti(path, _array()),
    "n1e.nii": lambda path: _nifti(path, _array((2, 3, 4, 5)), endianness=">", extension=b"a comment"),
    "n2.nii": lambda path: _nifti(path, _array((2, 2, 3, 4, 5), "float32"), nibabel.Nifti2Image),
    "rgb.nii": _rgb_nifti,
    "gz.nii.gz": lambda path: _nifti(path, _array()),
    "pair.hdr": lambda path: _nifti(path, _array(), nibabel.Nifti1Pair),
    "pair.img": lambda path: _nifti(path, _array(), nibabel.Nifti1Pair),
    "m.mgh": lambda path: nibabel.MGHImage(_array((2, 3, 4, 5)).T, np.eye(4)).to_filename(path),
    "m.mgz": lambda path: nibabel.MGHImage(_array().T, np.eye(4)).to_filename(path),
    "flat.h5": _hdf5,
    "packed.h5": lambda path: _hdf5(path, chunks=(2, 3, 5), compression="gzip", shuffle=True),
    "checked.h5": lambda path: _hdf5(path, chunks=(1, 4, 5), fletcher32=True, maxshape=(None, 4, 5)),
    "lzf.h5": lambda path: _hdf5(path, chunks=(3, 4, 5), compression="lzf"),
    "tags.h5": lambda path: _hdf5(path, attributes=[("axistags", _AXISTAGS), ("element_size_um", (1.0, 0.5, 0.5))]),
    "affine.h5": lambda path: _hdf5(path, attributes=[("affine", np.eye(4)), ("unit", "mm"), ("axes", "ZYX")]),
    "latest.h5": lambda path: _latest(path),
    "several.h5": _several,
    "scales.h5": _scales,
    "external.h5": _external,
    "virtual.h5": _virtual,
    "plain.tif": _tiff,
    "big.tif": lambda path: _tiff(path, bigtiff=True, byteorder=">"),
    "imagej.tif": lambda path: _tiff(
        path,
        _array((2, 3, 4, 5), "uint8"),
        imagej=True,
        metadata={"axes": "TZYX", "spacing": 2, "unit": "um"},
        resolution=(2, 2),
    ),
    "o.ome.tif": lambda path: _tiff(
        path, _array((2, 3, 4, 5), "uint8"), metadata={"axes": "CZYX", "PhysicalSizeX": 0.5}
    ),
    "shaped.tif": lambda path: _tiff(path, metadata={"axes": "ZYX", "spacing": [2, 1, 1], "unit": "um"}),
    "zlib.tif": lambda path: _tiff(path, compression="zlib", predictor=True),
    "lzw.tif": lambda path: _tiff(path, compression="lzw"),
    "packbits.tif": lambda path: _tiff(path, compression="packbits"),
    "tiles.tif": lambda path: _tiff(path, _array((2, 33, 20)), tile=(16, 16), compression="zlib"),
    "float.tif": lambda path: _tiff(path, _array(dtype="float32"), compression="zlib", predictor=3),
    "lzma.tif": lambda path: _tiff(path, compression="lzma"),
    "zstd.tif": lambda path: _tiff(path, compression="zstd"),
    "jpeg2000.tif": lambda path: _tiff(path, _array((2, 16, 16), "uint16"), compression="jpeg2000"),
    "png.tif": lambda path: _tiff(path, _array((2, 16, 16), "uint16"), compression="png"),
    "rgb.tif": lambda path: _tiff(path, _array((4, 5, 3), "uint8"), photometric="rgb"),
    "strips.tif": lambda path: _tiff(path, _array((2, 9, 5)), rowsperstrip=2, compression="zlib"),
    "scan.lsm": _zeiss,
    "scan.stk": _metamorph,
}


def _latest(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("data", data=_array(), chunks=(1, 2, 5), compression="gzip", maxshape=(None, None, 5))
        for number in range(20):
            file.attrs[f"a{number}"] = "x" * 20


def _npz(path, save=np.savez):
    save(path, weight=_array((2, 1, 3, 3, 3), "float32"), bias=_array((2,), "float64"))


def _weights(path):
    with h5py.File(path, "w") as file:
        file["conv/weight"] = _array((2, 1, 3, 3, 3), "float32")


def _made(name):
    """A file that PyTorch or Keras made."""
    return lambda path: shutil.copyfile(Path(__file__).parent / "data" / "weights" / name, path)


def _onnx(path):
    values = {"enc.weight": _array((2, 1, 3, 3, 3), "float32"), "enc.bias": _array((2,), "float32")}
    typed = onnx.helper.make_tensor("typed", onnx.TensorProto.INT8, (1, 1, 2), [1, 2])
    attributes = {"strides": [2, 1, 1], "pads": [1, 1, 1, 1, 1, 1], "group": 1}
    node = onnx.helper.make_node("Conv", ["x", *values], ["y"], name="Conv_0", **attributes)
    tensors = [typed, *(onnx.numpy_helper.from_array(value, name) for name, value in values.items())]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], [], tensors))
    Path(path).write_bytes(model.SerializeToString())


KERNELS = {
    "k.npy": lambda path: np.save(path, _array((3, 3, 3), "float32")),
    "f.npy": lambda path: np.save(path, np.asfortranarray(_array((3, 3, 3), ">f8"))),
    "k.npz": _npz,
    "c.npz": lambda path: _npz(path, np.savez_compressed),
    "k.h5": _weights,
    "k.safetensors": lambda path: save_file({"enc.weight": _array((2, 1, 3, 3, 3)), "enc.bias": _array((2,))}, path),
    "torch.pt": _made("torch.pt"),
    "torch.pth": _made("torch_legacy.pth"),
    "bfloat16.pt": _made("torch_cuda_bfloat16.pt"),
    "keras3.weights.h5": _made("keras3.weights.h5"),
    "keras.h5": _made("keras.h5"),
    "k.keras": _made("keras3.keras"),
    "k.onnx": _onnx,
}

CONFIGS = {
    "a.toml": lambda path: Path(path).write_text(
        'kernel = [[[0, 1, 0], [1, 2.5, 1], [0, 1, 0]]]\nbias = 0.5\nstride = [2, 1, 1]\npadding = "same"\n'
        'padding-mode = "reflect"\nthreads = 2\nflip-kernel = true\n[co]\ncompression = "gzip"\nchunks = [8, 8, 8]\n'
    ),
}

#: Numbers that break things, as bytes of every size and order.
NUMBERS = [
    np.array(value).astype(kind, casting="unsafe").tobytes()
    for value in (0, 1, 2, -1, -2, 127, 128, 255, 32767, 32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, -(2**63))
    for kind in ("u1", "<i2", ">i2", "<i4", ">i4", "<i8", ">i8")
] + [np.array(v, k).tobytes() for v in (np.nan, np.inf, -1.0, 1e38, 1e-40) for k in ("<f4", ">f4", "<f8", ">f8")]


@st.composite
def edits(draw, length):
    """One to four things that are wrong with a file of this length; half of them where headers are."""
    changes = []
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, min(512, length) - 1)) | st.integers(0, max(0, length - 1)))
        what = draw(st.sampled_from(["number", "number", "number", "byte", "bit", "cut", "gap", "copy", "more"]))
        if what == "number":
            value = draw(st.sampled_from(NUMBERS))
            place -= place % (len(value) if draw(st.booleans()) else 1)
        elif what in ("byte", "bit"):
            value = draw(st.integers(0, 255 if what == "byte" else 7))
        elif what == "copy":
            value = draw(st.integers(0, max(0, length - 1))), draw(st.integers(1, 64))
        else:
            value = draw(st.binary(min_size=1, max_size=32) if what == "more" else st.integers(1, 64))
        changes.append((what, place, value))
    return changes


def damaged(content, changes):
    """The content with these edits."""
    new = bytearray(content)
    for what, place, value in changes:
        if what == "number":
            new[place : place + len(value)] = value
        elif what == "byte":
            new[place : place + 1] = bytes([value])
        elif what == "bit" and place < len(new):
            new[place] ^= 1 << value
        elif what == "cut":
            del new[place:]
        elif what == "gap":
            del new[place : place + value]
        elif what == "copy":
            start, count = value
            new[place : place + count] = new[start : start + count]
        elif what == "more":
            new[place:place] = value
    return bytes(new)
