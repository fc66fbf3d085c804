"""Names of files, letters of axes, and the table of formats."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volconv.errors import ParameterError, ReadError, WriteError
from volconv.io import FORMATS, create_volume, open_volume, output_format, split_path, stem_and_ext
from volconv.io.axes import AXIS, arrange, parse_axes
from volconv.io.formats import SUFFIXES, Url, format_of, widened


@pytest.mark.parametrize(
    ("path", "file", "key"),
    [
        ("a/b.h5:/c/d", "a/b.h5", "/c/d"),
        ("b.HDF5:c/", "b.HDF5", "/c"),
        ("b.h5:", "b.h5", None),
        ("b.h5:/x.h5:y", "b.h5", "/x.h5:y"),
        ("x:y.nii", "x:y.nii", None),
        ("c.ome.tif:1", "c.ome.tif", "1"),
        ("c.TIFF:12", "c.TIFF", "12"),
        ("c.tif:one", "c.tif:one", None),
        ("d.zarr:2", "d.zarr", "2"),
        ("d.ome.ZARR/0:2", "d.ome.ZARR/0", "2"),
        ("d.zarr:/0", "d.zarr:/0", None),
        ("s3.zarr", "s3.zarr", None),
    ],
)
def test_what_is_meant_inside_a_file(path, file, key):
    assert split_path(path) == (Path(file), key)


@pytest.mark.parametrize(
    ("path", "stem", "ext"),
    [
        ("a/b.NII.GZ", "b", ".NII.GZ"),
        ("a/b.c.ome.tiff", "b.c", ".ome.tiff"),
        ("b.img.gz", "b", ".img.gz"),
        (".nii.gz", ".nii", ".gz"),
        ("b", "b", ""),
        ("b.txt", "b", ".txt"),
        ("c.ome.tif:1", "c", ".ome.tif"),
        ("slices/", "slices", "/"),
        ("d.zarr/", "d", ".zarr"),
        ("s3://b/d.ome.zarr:1", "d", ".ome.zarr"),
    ],
)
def test_stems(path, stem, ext):
    assert stem_and_ext(path) == (stem, ext)


def test_urls_keep_their_slashes():
    for text, key in (("s3://bucket/a/d.zarr", None), ("s3://bucket/a/d.zarr:1", "1"), ("memory://d.zarr", None)):
        url, found = split_path(text)
        assert (str(url), found) == (text.removesuffix(":1"), key)
        assert isinstance(url, Url)
        assert str(url.parent) == str(url).removesuffix(f"/{url.name}") or url.name == "d.zarr"
    assert not isinstance(split_path("s3:/a.zarr")[0], Url)


def test_urls_are_of_zarr_alone():
    with pytest.raises(ParameterError, match=r"output may be a URL for OME-Zarr alone \(got 's3://b/a\.nii'\)"):
        output_format("s3://b/a.nii")
    with pytest.raises(ReadError, match=r"s3://b/a\.nii: a URL must be that of an OME-Zarr image"):
        open_volume("s3://b/a.nii")


def test_the_longest_suffix_counts():
    assert format_of(Path("a.nii.gz")).name == "nifti"
    assert format_of(Path("a.mgh.gz")).name == "mgh"
    assert format_of(Path("a.gz")) is None


def test_the_table_is_whole():
    assert len({form.name for form in FORMATS}) == len(FORMATS)
    assert len(SUFFIXES) == sum(len(form.suffixes) for form in FORMATS)
    for form in FORMATS:
        assert all(np.dtype(name).name == name for name in form.dtypes)
        assert form.writes or form.options is None


@pytest.mark.parametrize("form", [form for form in FORMATS if form.writes], ids=lambda form: form.name)
def test_a_format_holds_the_dtypes_that_its_row_says(tmp_path, form):
    suffix = form.suffixes[0] if form.suffixes else "/"
    codes = np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
    for dtype in {np.dtype(code).name: np.dtype(code) for code in codes}.values():
        path = f"{tmp_path}/{dtype.name}{suffix}"
        if dtype.name in form.dtypes:
            with create_volume(path, shape=(1, 1, 1, 2, 3), dtype=dtype) as sink:
                assert sink.info.dtype == dtype
        else:
            with pytest.raises(WriteError, match=f"{form.title} cannot hold dtype {dtype.name} "):
                create_volume(path, shape=(1, 1, 1, 2, 3), dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "suffix", "expected"),
    [
        ("float16", ".nii", "float32"),
        ("bool", ".nii", "uint8"),
        (">i2", ".tif", "int16"),
        ("uint32", ".mgh", None),
        ("int8", ".mgh", "int16"),
        ("float64", ".mgh", None),
        ("longdouble", ".h5", None),
    ],
)
def test_the_next_dtype_that_holds_all_values(dtype, suffix, expected):
    found = widened(np.dtype(dtype), SUFFIXES[suffix])
    assert found == (None if expected is None else np.dtype(expected))
    assert found is None or found.isnative


@pytest.mark.parametrize("name", ["a.xyz", "a", "nii"])
def test_outputs_of_no_format(name):
    with pytest.raises(ParameterError, match=rf"must have a suffix that names a format: \.nii, .*\(got '{name}'\)"):
        output_format(name)


@pytest.mark.parametrize("name", ["a.mgz", "a.img", "a.hdr"])
def test_formats_that_are_only_read(name):
    with pytest.raises(
        ParameterError, match=rf"must be of a format that is written: .*\(got '{name}'; .* is only read\)"
    ):
        output_format(name)


def test_options_that_a_format_does_not_have(tmp_path):
    with pytest.raises(
        ParameterError, match=r"must be one of compression, predictor, tile for .*\(got 'tiles'\); did you mean tile\?"
    ):
        create_volume(tmp_path / "a.tif", shape=(1, 1, 1, 1, 1), dtype="uint8", options={"tiles": "16"})
    assert list(tmp_path.iterdir()) == []


orders = st.permutations("TCZYX").flatmap(lambda order: st.integers(1, 5).map(lambda count: "".join(order[:count])))


@given(orders, st.tuples(*[st.integers(1, 9)] * 5))
def test_an_arrangement_is_a_transposition(axes, sizes):
    sizes = sizes[: len(axes)]
    shape, order = arrange(axes, sizes)
    assert sorted(order) == [0, 1, 2, 3, 4]
    padded = (1,) * (5 - len(sizes)) + sizes
    assert tuple(shape[axis] for axis in order) == padded
    assert [shape[AXIS[letter]] for letter in axes] == list(sizes)


@pytest.mark.parametrize("text", ["tzyx", "NDHW", "TZYX"])
def test_letters(text):
    assert parse_axes(text, (2, 3, 4, 5), "v.h5") == text.upper()


@pytest.mark.parametrize("text", ["ZYX", "ZYXQ", "ZZYX", "ZDYX", "TNYX", "CSYX", ""])
def test_letters_that_name_no_axes(text):
    with pytest.raises(
        ParameterError, match=r"axes must name each of the 4 axes of v\.h5, shape \(2, 3, 4, 5\), once \(got "
    ):
        parse_axes(text, (2, 3, 4, 5), "v.h5")
