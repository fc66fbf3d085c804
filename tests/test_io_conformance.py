"""What every file format must do alike; each is compared with its own library."""

import gzip
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import nibabel
import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import tifffile
import zarr

from volconv.errors import DtypeError, OutputExistsError, ReadError, VolconvError, WriteError
from volconv.geometry import Geometry
from volconv.io import (
    NewVolume,
    OpenVolume,
    Region,
    Sink,
    Source,
    create_volume,
    describe_volume,
    list_contents,
    open_volume,
)

SPACING = (2.5, 0.75, 0.5)
GEOMETRY = Geometry.from_spacing(SPACING, "um")
SHAPES = ((1, 1, 7, 6, 5), (3, 1, 4, 5, 6), (2, 3, 4, 5, 6), (1, 3, 4, 1, 7), (1, 1, 1, 9, 8))


@dataclass(frozen=True)
class Kind:
    """A kind of file: its suffix, how it is stored, and what it can hold."""

    suffix: str
    options: dict[str, str] = field(default_factory=dict)
    shapes: tuple = SHAPES
    dtypes: tuple = ("uint8", "uint16", "int16", "float32", "float64")

    @property
    def folder(self):
        """Whether it is no single file."""
        return self.suffix in ("/", ".zarr")

    def name(self, folder, stem="v"):
        """Name of a file of this kind, as a person would write it."""
        return f"{folder}/{stem}{self.suffix}"


ONE = tuple(shape for shape in SHAPES if shape[:2] == (1, 1))
WRITTEN = {
    "nii": Kind(".nii"),
    "nii.gz": Kind(".nii.gz"),
    "h5": Kind(".h5"),
    "h5, chunks": Kind(".h5", {"chunks": "3,4,2"}),
    "h5, gzip": Kind(".h5", {"compression": "gzip", "shuffle": "yes"}),
    "tif": Kind(".tif"),
    "tif, zlib": Kind(".tif", {"compression": "zlib"}),
    "tif, tiles": Kind(".tif", {"tile": "16,32", "compression": "lzw", "predictor": "yes"}, dtypes=("uint8", "uint16")),
    "ome.tif": Kind(".ome.tif"),
    "ome.tif, zstd": Kind(".ome.tif", {"compression": "zstd"}),
    "slices": Kind("/", shapes=ONE),
    "slices, zlib": Kind("/", {"compression": "zlib"}, shapes=ONE),
    "zarr": Kind(".zarr"),
    "zarr, shards": Kind(".zarr", {"chunks": "2,3,2", "shards": "4,6,4", "compression": "gzip"}),
    "zarr, 0.4": Kind(".zarr", {"version": "0.4", "chunks": "3,4,2", "compression": "blosc"}),
    "zarr, bare": Kind(".zarr", {"compression": "none"}),
}
#: Those that are only read.
READ = {
    "hdr": Kind(".hdr"),
    "mgh": Kind(".mgh", shapes=tuple(shape for shape in SHAPES if shape[1] == 1), dtypes=("float32", "uint8")),
    "mgz": Kind(".mgz", shapes=tuple(shape for shape in SHAPES if shape[1] == 1), dtypes=("float32", "uint8")),
}


def volume(shape, dtype="uint16", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 50 + 100).astype(dtype)


def library_write(path, array, byteorder="<"):
    """Write an (N, C, D, H, W) array as the format's own library does."""
    path = str(path)
    array = array.astype(array.dtype.newbyteorder(byteorder))
    if path.endswith((".nii", ".nii.gz", ".hdr")):
        header = nibabel.Nifti1Header(endianness=byteorder)
        header.set_xyzt_units("micron")
        kind = nibabel.Nifti1Pair if path.endswith(".hdr") else nibabel.Nifti1Image
        kind(array.transpose(4, 3, 2, 0, 1), GEOMETRY.matrix, header, dtype=array.dtype).to_filename(path)
    elif path.endswith((".mgh", ".mgz")):
        values = array.transpose(4, 3, 2, 0, 1)[..., 0]
        nibabel.MGHImage(values if len(array) > 1 else values[..., 0], GEOMETRY.matrix).to_filename(path)
    elif path.endswith(".h5"):
        with h5py.File(path, "w") as file:
            data = file.create_dataset("data", data=array)
            data.attrs["element_size_um"] = SPACING
    elif path.endswith(".ome.tif"):
        sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", SPACING, strict=True)}
        tifffile.imwrite(path, array, byteorder=byteorder, ome=True, metadata={"axes": "TCZYX", **sizes})
    elif path.endswith(".zarr"):
        write_zarr(path, array)
    elif path.endswith("/"):
        Path(path).mkdir()
        for number, page in enumerate(array[0, 0]):
            write_imagej(f"{path}z{number}.tif", page[None, None, None], byteorder)
    else:
        write_imagej(path, array, byteorder)


def write_zarr(path, array, version=3):
    """Write an image as zarr-python and ome-zarr-models do; big-endian values are of 0.4."""
    version = 2 if array.dtype.byteorder == ">" else version
    models = ome_zarr_models.v04 if version == 2 else ome_zarr_models.v05
    names = ["t", "c", "z", "y", "x"]
    types = ["time", "channel", "space", "space", "space"]
    axes = [models.axes.Axis(name=name, type=kind) for name, kind in zip(names, types)]
    axes = [axis.model_copy(update={"unit": "micrometer"}) if axis.type == "space" else axis for axis in axes]
    dataset = models.multiscales.Dataset.build(path="s0", scale=[1, 1, *SPACING], translation=None)
    image = models.multiscales.Multiscale(axes=axes, datasets=[dataset]).model_dump(exclude_none=True)
    attributes = {"multiscales": [image]} if version == 2 else {"ome": {"version": "0.5", "multiscales": [image]}}
    group = zarr.create_group(path, attributes=attributes, zarr_format=version)
    data = group.create_array("s0", shape=array.shape, chunks=(1, 2, 3, 4, 3), dtype=array.dtype)
    data[...] = array


def write_imagej(path, array, byteorder):
    tifffile.imwrite(
        path,
        array.transpose(0, 2, 1, 3, 4),
        byteorder=byteorder,
        imagej=array.dtype.name in ("uint8", "uint16", "float32"),
        photometric="minisblack",
        resolution=(1 / SPACING[2], 1 / SPACING[1]),
        metadata={"axes": "TZCYX", "spacing": SPACING[0], "unit": "um"},
    )


def library_read(path, shape):
    """Values and (D, H, W) spacing in micrometres as the format's own library has them."""
    path = str(path)
    if path.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        values = values.reshape(values.shape + (1,) * (5 - values.ndim)).transpose(3, 4, 2, 1, 0)
        assert image.header.get_xyzt_units()[0] == "micron"
        return values, image.header.get_zooms()[2::-1]
    if path.endswith(".h5"):
        with h5py.File(path) as file:
            return file["data"][()].reshape(shape), tuple(file["data"].attrs["element_size_um"])
    if path.endswith(".zarr"):
        group = zarr.open_group(path, mode="r")
        models = ome_zarr_models.v04 if group.metadata.zarr_format == 2 else ome_zarr_models.v05
        image = models.Image.from_zarr(group)
        (scaled,) = (image.attributes if models is ome_zarr_models.v04 else image.ome_attributes).multiscales
        assert {axis.unit for axis in scaled.axes if axis.type == "space"} == {"micrometer"}
        (dataset,) = scaled.datasets
        return group[dataset.path][...].reshape(shape), dataset.coordinateTransformations[0].scale[-3:]
    if path.endswith("/"):
        pages = [tifffile.imread(file) for file in sorted(Path(path).iterdir())]
        assert len(pages) == shape[2]
        return np.stack(pages).reshape(shape), SPACING
    with tifffile.TiffFile(path) as file:
        values = file.series[0].asarray()
        if file.is_ome:
            known = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
            assert known["PhysicalSizeZUnit"] == "µm"
            axes = known["DimensionOrder"][::-1]
            values = values.reshape([shape["TCZYX".index(axis)] for axis in axes])
            return values.transpose([axes.index(axis) for axis in "TCZYX"]), tuple(
                known[f"PhysicalSize{axis}"] for axis in "ZYX"
            )
        known = file.imagej_metadata if file.is_imagej else file.shaped_metadata[0]
        assert known["unit"] in ("um", "\\u00B5m")
        axes = "TZCYX" if file.is_imagej else known["axes"]
        sizes = [shape["TCZYX".index(axis)] for axis in axes]
        values = values.reshape(sizes).transpose([axes.index(axis) for axis in "TCZYX" if axis in axes]).reshape(shape)
        z = known["spacing"] if file.is_imagej else known["spacing"][0]
        return values, (z, *resolution(file))


def resolution(file):
    """Size of a pixel (Y, X) in micrometres by the tags that every reader of TIFF knows."""
    tags = file.pages[0].tags
    unit = {1: 1.0, 3: 1e4}[int(tags["ResolutionUnit"].value)]
    return tuple(unit * tags[tag].value[1] / tags[tag].value[0] for tag in ("YResolution", "XResolution"))


def random_regions(shape, count, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ends = [sorted(rng.integers(0, size + 1, 2)) for size in shape]
        yield Region(tuple(int(a) for a, _ in ends), tuple(int(b) for _, b in ends))


def blocks(shape, step, seed=2):
    """Regions that tile a volume, shuffled."""
    tiles = [
        Region(start, tuple(min(a + s, size) for a, s, size in zip(start, step, shape, strict=True)))
        for start in (
            tuple(i * s for i, s in zip(index, step, strict=True))
            for index in np.ndindex(*(-(-size // s) for size, s in zip(shape, step, strict=True)))
        )
    ]
    np.random.default_rng(seed).shuffle(tiles)
    return tiles


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=WRITTEN)
def kind(request):
    return WRITTEN[request.param]


#: One of each suffix: how a file is stored matters to these tests only when it is written.
SUFFIXES = {name: kind for name, kind in {**WRITTEN, **READ}.items() if not kind.options}


@pytest.fixture(params=[name for name, kind in WRITTEN.items() if not kind.folder])
def single(request):
    """Kinds that are one file."""
    return WRITTEN[request.param]


@pytest.fixture(params=SUFFIXES)
def readable(request):
    return SUFFIXES[request.param]


def cases(kinds, what, rare=lambda kind, value: False):  # noqa: ARG005
    """Every kind with each of its values; the rare ones are slow tests."""
    return [
        pytest.param(kind, value, id=f"{name} {value}", marks=[pytest.mark.slow] if rare(kind, value) else [])
        for name, kind in kinds.items()
        for value in what(kind)
    ]


def is_rare(kind, case):
    """Neither of the kind's first shape nor of its first dtype."""
    shape, dtype = case
    return shape != kind.shapes[0] and dtype != kind.dtypes[0]


def created(path, kind, **arguments):
    return create_volume(path, options=kind.options, **arguments)


def contents(path):
    """All bytes of a file, or of the files of a folder."""
    path = Path(path)
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("kind", "shape"), cases(SUFFIXES, lambda kind: kind.shapes))
@pytest.mark.parametrize("byteorder", "<>")
def test_regions_read_in_any_order_equal_slices(tmp_path, kind, shape, byteorder):
    array, path = volume(shape, "uint16" if "uint16" in kind.dtypes else "float32"), kind.name(tmp_path)
    library_write(path, array, byteorder)
    with open_volume(path) as source:
        assert isinstance(source, OpenVolume)
        assert isinstance(source, Source)
        assert source.info.shape == shape
        assert source.info.dtype == array.dtype
        assert source.info.dtype.isnative
        assert not source.info.access.in_memory
        assert source.info.geometry.unit == ("mm" if ".mg" in path else "um")
        np.testing.assert_allclose(source.info.geometry.spacing, SPACING, rtol=1e-6)
        assert set(source.info.axes) <= set("TNCSZYX")
        assert source.info.access.chunk is None or all(size >= 1 for size in source.info.access.chunk)
        for region in random_regions(shape, 40):
            got = source.read(region)
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array[region.slices])
        np.testing.assert_array_equal(source.numpy(), array)


@pytest.mark.parametrize(
    ("kind", "case"), cases(WRITTEN, lambda kind: [(s, d) for s in kind.shapes for d in kind.dtypes], is_rare)
)
def test_blocks_written_in_any_order_are_read_by_the_library(tmp_path, kind, case):
    shape, dtype = case
    array, path = volume(shape, dtype), kind.name(tmp_path)
    request = {"shape": shape, "dtype": dtype, "geometry": GEOMETRY}
    foretold = describe_volume(path, options=kind.options, **request)
    assert names(tmp_path) == []
    with created(path, kind, **request) as sink:
        assert sink.info == foretold
        assert isinstance(sink, NewVolume)
        assert isinstance(sink, Sink)
        assert sink.view(Region.whole(shape)) is None
        for region in blocks(shape, (1, 2, 3, 2, 4)):
            sink.write(region, array[region.slices])
    values, spacing = library_read(path, shape)
    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)
    np.testing.assert_allclose(spacing, SPACING, rtol=1e-6)
    with open_volume(path) as source:
        assert source.info.geometry.unit == "um"
        np.testing.assert_allclose(source.info.geometry.spacing, SPACING, rtol=1e-6)
        np.testing.assert_array_equal(source.numpy(), array)
    assert names(tmp_path) == [Path(path).name]


def test_non_contiguous_values_are_written_as_they_are(tmp_path, kind):
    array = volume((1, 1, 4, 5, 6), "float32")
    path = kind.name(tmp_path)
    with created(path, kind, shape=(1, 1, 4, 6, 5), dtype="float32") as sink:
        sink.write(Region.whole((1, 1, 4, 6, 5)), array.transpose(0, 1, 2, 4, 3))
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy(), array.transpose(0, 1, 2, 4, 3))


def test_bool_is_kept_as_uint8(tmp_path, kind):
    path = kind.name(tmp_path)
    with created(path, kind, shape=(1, 1, 2, 2, 2), dtype=bool) as sink:
        assert sink.info.dtype == np.uint8
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    with open_volume(path) as source:
        assert source.info.dtype == np.uint8


def test_nothing_is_visible_before_the_commit(tmp_path, kind):
    path = kind.name(tmp_path)
    sink = created(path, kind, shape=(1, 1, 2, 3, 4), dtype="uint8")
    sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    assert not Path(path).exists()
    (temporary,) = names(tmp_path)
    assert temporary.startswith(f".{Path(path).name}.volconv-{os.getpid()}-")
    assert temporary.endswith(".tmp")
    sink.commit()
    assert names(tmp_path) == [Path(path).name]
    sink.abort()
    sink.commit()
    assert names(tmp_path) == [Path(path).name]


def test_abort_leaves_nothing(tmp_path, kind):
    sink = created(kind.name(tmp_path), kind, shape=(1, 1, 2, 3, 4), dtype="uint8")
    sink.abort()
    sink.abort()
    assert names(tmp_path) == []


def test_an_exception_in_between_leaves_nothing(tmp_path, kind):
    def fail():
        with created(kind.name(tmp_path), kind, shape=(1, 1, 2, 3, 4), dtype="uint8") as sink:
            sink.write(Region((0, 0, 0, 0, 0), (1, 1, 1, 3, 4)), np.ones((1, 1, 1, 3, 4), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_an_exception_keeps_the_old_file(tmp_path, single):
    path = Path(single.name(tmp_path))
    library_write(path, volume((1, 1, 3, 4, 5)))
    before = path.read_bytes()

    def fail():
        with created(path, single, shape=(1, 1, 2, 3, 4), dtype="uint8", overwrite=True) as sink:
            sink.write(Region((0, 0, 0, 0, 0), (1, 1, 1, 3, 4)), np.ones((1, 1, 1, 3, 4), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def test_an_existing_output_is_refused(tmp_path, single):
    path = Path(single.name(tmp_path))
    path.write_bytes(b"mine")
    for attempt in (create_volume, describe_volume):
        with pytest.raises(OutputExistsError, match="already exists; pass -f/--overwrite") as caught:
            attempt(path, shape=(1, 1, 2, 3, 4), dtype="uint8", options=single.options)
        assert str(path) in caught.value.message
        assert path.read_bytes() == b"mine"
    with created(path, single, shape=(1, 1, 2, 3, 4), dtype="uint8", overwrite=True) as sink:
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    with open_volume(path) as source:
        assert source.numpy().sum() == 24


def test_a_folder_that_holds_something_is_never_replaced(tmp_path, kind):
    folder = Path(kind.name(tmp_path))
    folder.mkdir()
    (folder / "mine").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(WriteError, match=r"non-empty folder is never replaced|a folder is never replaced"):
            created(kind.name(tmp_path), kind, shape=(1, 1, 2, 3, 4), dtype="uint8", overwrite=overwrite)
    assert contents(folder) == {"mine": b"mine"}
    assert names(tmp_path) == [folder.name]


def test_input_and_output_may_be_the_same_path(tmp_path, single):
    array, path = volume((1, 1, 6, 4, 5)), single.name(tmp_path)
    library_write(path, array)
    with (
        open_volume(path) as source,
        created(path, single, shape=array.shape, dtype=array.dtype, like=source.info, overwrite=True) as sink,
    ):
        for region in blocks(array.shape, (1, 1, 2, 4, 5)):
            sink.write(region, source.read(region) + np.uint16(1))
    with open_volume(path) as source:
        np.testing.assert_array_equal(source.numpy(), array + 1)
        assert source.info.geometry.unit == "um"
        np.testing.assert_allclose(source.info.geometry.spacing, SPACING, rtol=1e-6)


def test_bytes_are_reproducible(tmp_path, kind):
    array = volume(kind.shapes[-1])
    for name in "ab":
        (tmp_path / name).mkdir()
        path = kind.name(tmp_path / name)
        with created(path, kind, shape=array.shape, dtype=array.dtype, geometry=GEOMETRY, note="n") as sink:
            sink.write(Region.whole(array.shape), array)
    assert contents(kind.name(tmp_path / "a")) == contents(kind.name(tmp_path / "b"))


def test_a_note_is_kept(tmp_path, kind):
    with created(kind.name(tmp_path), kind, shape=(1, 1, 2, 3, 4), dtype="uint8", note="of a long journey") as sink:
        sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    path = Path(kind.name(tmp_path))
    path = path if path.is_file() else next(file for file in sorted(path.rglob("*")) if file.is_file())
    if kind.suffix == ".zarr":
        assert zarr.open_group(kind.name(tmp_path)).attrs["volconv"] == "of a long journey"
        return
    packed = path.read_bytes()
    assert b"of a long journey" in (gzip.decompress(packed) if path.suffix == ".gz" else packed.replace(b"\0", b""))


def test_what_a_sink_is_given_must_fit(tmp_path, kind):
    with created(kind.name(tmp_path), kind, shape=(1, 1, 2, 3, 4), dtype="uint8") as sink:
        whole = Region.whole(sink.info.shape)
        with pytest.raises(ValueError, match="sink's dtype uint8"):
            sink.write(whole, np.ones(whole.shape))
        with pytest.raises(ValueError, match="region's shape"):
            sink.write(whole, np.ones((1, 1, 2, 3, 3), np.uint8))
        with pytest.raises(ValueError, match="within the volume"):
            sink.write(Region((0, 0, 2, 0, 0), (1, 1, 3, 3, 4)), np.ones((1, 1, 1, 3, 4), np.uint8))


def test_reads_out_of_bounds_and_after_close_are_errors(tmp_path, readable):
    path = readable.name(tmp_path)
    library_write(path, volume((1, 1, 3, 4, 5), "uint8"))
    with open_volume(path) as source:
        with pytest.raises(ValueError, match="within the volume"):
            source.read(Region((0, 0, 0, 0, 0), (1, 1, 4, 4, 5)))
        source.read(Region.whole(source.info.shape))
    with pytest.raises((ValueError, VolconvError)):
        source.read(Region.whole(source.info.shape))


def test_what_a_file_holds_can_be_listed(tmp_path, readable):
    path, shape = readable.name(tmp_path), (1, 1, 3, 4, 5)
    library_write(path, volume(shape, "uint8"))
    (entry,) = list_contents(path)
    assert math.prod(entry.shape) == math.prod(shape)
    assert np.dtype(entry.dtype) == np.uint8
    with open_volume(entry.name) as source:
        assert source.info.shape == shape
        assert entry.axes in ("", source.info.axes)


FILES = {name: kind for name, kind in SUFFIXES.items() if not kind.folder}


@pytest.mark.parametrize("kind", FILES.values(), ids=FILES)
@pytest.mark.parametrize("content", [b"", b"\0" * 600, b"hello " * 200], ids=["empty", "zeros", "text"])
def test_junk_is_one_line(tmp_path, kind, content):
    path = Path(kind.name(tmp_path))
    path.write_bytes(content)
    with pytest.raises(ReadError) as caught:
        open_volume(path)
    assert caught.value.message.startswith(f"{path}: is ")
    assert "\n" not in str(caught.value)
    if not content:
        assert caught.value.message == f"{path}: is empty"


@pytest.mark.parametrize("kind", FILES.values(), ids=FILES)
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.3, 0.6, 0.8])
def test_truncated_files_are_read_errors(tmp_path, kind, kept):
    path = Path(kind.name(tmp_path))
    library_write(path, volume((1, 1, 30, 20, 25), "uint8"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    def read():
        with open_volume(path) as source:
            source.numpy()

    with pytest.raises(ReadError) as caught:
        read()
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FILES.values(), ids=FILES)
@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_give_values_or_one_line(tmp_path, kind, seed):
    path, rng = Path(kind.name(tmp_path)), np.random.default_rng(seed)
    library_write(path, volume((2, 1, 3, 4, 5), "uint8"))
    content = bytearray(path.read_bytes())
    for place in rng.integers(min(len(content), 400), size=3):
        content[place] = rng.choice([0, 1, 127, 128, 255])
    path.write_bytes(content)
    try:
        list_contents(path)
        with open_volume(path) as source:
            source.read(Region((0, 0, 0, 0, 0), tuple(min(size, 2) for size in source.info.shape)))
    except VolconvError as error:
        told = str(error)
    else:
        told = str(path)
    assert path.stem in told
    assert "\n" not in told


def test_long_doubles_are_refused(tmp_path, kind):
    path = kind.name(tmp_path)
    with pytest.raises(WriteError, match=r"cannot hold dtype longdouble|cannot hold dtype float128") as caught:
        create_volume(path, shape=(1, 1, 1, 1, 1), dtype=np.longdouble)
    assert "uint8" in caught.value.message
    assert "--dtype" in caught.value.hint
    assert not isinstance(caught.value, DtypeError)
    assert names(tmp_path) == []


def test_unknown_suffixes_and_missing_files(tmp_path):
    (tmp_path / "v.xyz").write_bytes(b"")
    with pytest.raises(
        ReadError, match=r"v\.xyz: the suffix names no known kind of volume \(known: \.nii, \.nii\.gz, "
    ):
        open_volume(tmp_path / "v.xyz")
    with pytest.raises(ReadError, match=r"nowhere\.nii: no such file"):
        open_volume(tmp_path / "nowhere.nii")
    with pytest.raises(ReadError, match=r"nowhere\.h5:/a: no such file"):
        open_volume(f"{tmp_path}/nowhere.h5:/a")


def test_importing_the_package_loads_no_format_library():
    code = "import sys, volconv.io; print({'nibabel', 'h5py', 'tifffile', 'zarr', 'fsspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
