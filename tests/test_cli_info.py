"""``volconv info``: facts for people, for scripts, and the table of formats."""

from __future__ import annotations

import json
import re

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from command import ANISO, NUCLEI, ROOT, make_nifti, noise, volconv
from volconv.describe import FIELDS, describe, dtypes_in_words, formats, formats_markdown, keeps_in_words
from volconv.io import FORMATS

BRAIN = ROOT / "sample_data" / "mni152_t1.nii.gz"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys):
    """What a call prints to stdout; nothing goes to stderr."""

    def call(*arguments, code=0):
        volconv("info", *arguments, code=code)
        out, err = capsys.readouterr()
        assert (err == "") == (code == 0)
        return out if code == 0 else err

    return call


def pairs_of(text):
    """Names and values; further lines of a value are joined by a bar."""
    found = {}
    name = None
    for line in text.splitlines():
        if line[0] != " ":
            name, _, value = line.partition("  ")
            found.setdefault(name, []).append(value.strip())
        else:
            found[name][-1] += f" | {line.strip()}"
    return found


def make_series():
    affine = np.array([[-1, 0, 0, 10], [0, 0, 3, -20], [0, 2, 0, 30.5], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(noise((4, 5, 6, 7), "int16").transpose(), affine)
    image.header.set_slope_inter(0.5, -3)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((1, 2, 3, 2.5))
    image.to_filename("series.nii.gz")
    return "series.nii.gz"


def make_datasets(count=2):
    with h5py.File("a.h5", "w") as file:
        for i in range(count):
            file[f"raw{i:02d}"] = noise((3, 4, 5 + i), "uint16")


def test_facts_for_people(printed):
    text = printed(make_series())
    size = (describe("series.nii.gz").file_bytes, 4 * 5 * 6 * 7 * 2)
    assert pairs_of(text) == {
        "file": ["series.nii.gz"],
        "format": ["nifti (NIfTI-1, little-endian)"],
        "axes": ["XYZT 7,6,5,4"],
        "shape": ["4,1,5,6,7  (N,C,D,H,W)"],
        "dtype": ["int16"],
        "scaling": ["stored * 0.5 + -3"],
        "spacing": ["3,2,1 mm  (D,H,W)"],
        "origin": ["30.5,-20,10 mm  (D,H,W)"],
        "affine": ["-1     0     0    10 | 0     0     3   -20 | 0     2     0  30.5 | 0     0     0     1"],
        "orientation": ["LSA"],
        "time step": ["2.5 s"],
        "compression": ["gzip"],
        "size": [f"{size[0] / 1000:.3g} kB on disk, {size[1] / 1000:.3g} kB uncompressed"],
    }
    # values stand below each other, and so do the numbers of the affine
    assert {line[:13].strip() for line in text.splitlines()} == {*pairs_of(text), ""}
    assert len({len(line) for line in text.splitlines() if line.startswith(("affine", " "))}) == 1


def test_what_is_not_known_is_left_out(printed):
    tifffile.imwrite("a.tif", noise((3, 4, 5), "uint8"), photometric="minisblack", metadata={"axes": "ZYX"})
    found = pairs_of(printed("a.tif"))
    assert not set(found) & {"scaling", "origin", "affine", "orientation", "time step", "compression", "series", "note"}
    assert found["spacing"] == ["not stated"]


def test_notes_are_wrapped(printed):
    name = "a_file_of_a_rather_long_name_without_any_units_in_its_header.nii"
    make_nifti(name, noise(), unit="unknown")
    text = printed(name)
    assert max(map(len, text.splitlines())) <= 80
    (note,) = pairs_of(text)["note"]
    assert note.replace(" | ", " ") == describe(name).notes[0]


def test_datasets_are_listed(printed):
    make_datasets()
    found = pairs_of(printed("a.h5"))
    assert list(found) == ["file", "format", "size", "note", "datasets"]
    assert found["datasets"] == ["a.h5:/raw00  3,4,5  uint16 | a.h5:/raw01  3,4,6  uint16"]
    found = pairs_of(printed("a.h5:/raw01"))
    assert found["shape"] == ["1,1,3,4,6  (N,C,D,H,W)"]
    assert "a.h5:/raw00" in found["datasets"][0]
    make_datasets(1)
    assert "datasets" not in pairs_of(printed("a.h5"))


def test_a_row_of_datasets_is_never_broken(printed):
    long = "very_" * 12
    with h5py.File("a.h5", "w") as file:
        file[f"{long}long"] = noise((3, 4, 5))
        file[f"{long}long_too"] = noise((3, 4, 5), "uint8")
    lines = printed("a.h5").splitlines()
    assert lines[-2:] == [
        f"datasets  a.h5:/{long}long      3,4,5  float32",
        f"          a.h5:/{long}long_too  3,4,5  uint8",
    ]


def test_a_file_without_datasets(printed):
    h5py.File("a.h5", "w").close()
    assert pairs_of(printed("a.h5"))["datasets"] == ["none"]


def test_very_many_datasets(printed):
    make_datasets(43)
    text = printed("a.h5")
    assert text.endswith("and 3 more (--json has all)\n")
    assert text.count("a.h5:/raw") == 40 + describe("a.h5").notes[0].count("a.h5:/raw")
    assert len(json.loads(printed("a.h5", "--json"))["contents"]) == 43


def test_series_are_listed(printed):
    with tifffile.TiffWriter("a.ome.tif", ome=True) as file:
        for shape in ((3, 4, 5), (6, 7, 8)):
            file.write(noise(shape, "uint8"), photometric="minisblack", metadata={"axes": "ZYX"})
    assert pairs_of(printed("a.ome.tif"))["series"] == [
        "a.ome.tif:0  3,4,5  uint8  ZYX | a.ome.tif:1  6,7,8  uint8  ZYX"
    ]


@pytest.mark.parametrize("path", [BRAIN, ANISO, NUCLEI], ids=lambda path: path.name)
def test_json(printed, path):
    text = printed(path, "--json")
    assert text.count("\n") == 1
    assert json.loads(text) == json.loads(json.dumps(describe(path).as_dict()))
    assert tuple(json.loads(text)) == FIELDS


def test_fields(printed):
    name = make_series()
    affine = "[[-1.0, 0.0, 0.0, 10.0], [0.0, 0.0, 3.0, -20.0], [0.0, 2.0, 0.0, 30.5], [0.0, 0.0, 0.0, 1.0]]"
    for field, expected in {
        "schema_version": "1",
        "file": name,
        "format": "nifti",
        "shape": "4,1,5,6,7",
        "file_shape": "7,6,5,4",
        "dtype": "int16",
        "slope": "0.5",
        "spacing": "3.0,2.0,1.0",
        "unit": "mm",
        "orientation": "LSA",
        "chunks": "",
        "affine": affine,
        "notes": "",
        "data_bytes": "1680",
    }.items():
        assert printed(name, "--field", field) == f"{expected}\n", field
    assert json.loads(printed(name, "--field", "contents"))[0]["axes"] == "XYZT"
    make_nifti("a.nii", noise(), unit="unknown")
    assert json.loads(printed("a.nii", "--field", "notes")) == list(describe("a.nii").notes) != []
    for field in FIELDS:
        assert printed(name, "--field", field).count("\n") == 1
        assert json.loads(printed(name, "--field", field, "--json")) == json.loads(
            json.dumps(describe(name).as_dict()[field])
        )
    assert printed(name, "--field", "chunks", "--json") == "null\n"


def test_a_field_is_full_of_digits(printed):
    assert printed(ANISO, "--field", "spacing") == ",".join(map(repr, describe(ANISO).spacing)) + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [NUCLEI, "--field", "spacng"],
            r"must be one of schema_version, .*, contents \(got 'spacng'\); did you mean spacing\?",
        ),
        ([NUCLEI, "--field", "xyz"], r"must be one of .*, contents \(got 'xyz'\) \(see"),
        ([], "give either FILE or --formats"),
        ([NUCLEI, "--formats"], "give either FILE or --formats"),
        (["--formats", "--field", "shape"], "--formats goes with --json alone"),
        (["--formats", "--time", "0"], "--formats goes with --json alone"),
        (["--formats", "--rgb"], "--formats goes with --json alone"),
    ],
)
def test_wrong_usage(printed, arguments, message):
    text = printed(*arguments, code=2)
    assert re.search(message, text), text
    assert text.count("\n") == 1


def test_reading_options(printed):
    name = make_series()
    assert printed(name, "--time", "1:3", "--field", "shape") == "2,1,5,6,7\n"
    assert printed(name, "--axes", "XYZC", "--channel", "0", "--field", "shape") == "1,1,5,6,7\n"
    assert printed(name, "--spacing", "1,2,3um", "--field", "spacing") == "1.0,2.0,3.0\n"
    assert printed(name, "--spacing", "1,2,3um", "--field", "unit") == "um\n"
    tifffile.imwrite("rgb.tif", noise((3, 4, 5, 3), "uint8"), photometric="rgb", metadata={"axes": "ZYXS"})
    assert printed("rgb.tif", "--rgb", "--field", "shape") == "1,3,3,4,5\n"
    assert "--rgb" in printed("rgb.tif", code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone.nii"], 3, "gone.nii: no such file"),
        (["bad.nii"], 3, "bad.nii: "),
        (["bad.h5"], 3, "bad.h5: is no HDF5 file"),
        ([NUCLEI, "--time", "3"], 5, "time must be an index below 1"),
        ([NUCLEI, "--axes", "XYZ"], 0, ""),
        ([NUCLEI, "--axes", "XY"], 2, "axes must name each of the 3 axes"),
        ([NUCLEI, "--spacing", "1,2,3"], 2, "spacing must have a unit"),
    ],
)
def test_errors(capsys, arguments, code, message):
    for name in ("bad.nii", "bad.h5"):
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(b"neither")
    volconv("info", *arguments, code=code)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == (code != 0)


# --- formats


def test_formats(printed):
    text = printed("--formats")
    assert max(map(len, text.splitlines())) <= 80
    blocks = text.split("\n\n")
    assert len(blocks) == len(FORMATS)
    for block, form in zip(blocks, FORMATS):
        title, *lines = block.splitlines()
        assert title == f"{form.title} ({form.name}): {'read and written' if form.writes else 'only read'}"
        said = " ".join(" ".join(lines).split())
        assert f"suffixes {' '.join(form.suffixes)}" in said or not form.suffixes
        assert f"dtypes {dtypes_in_words(form)} axes {form.axes} keeps {keeps_in_words(form)}" in said
        for name, takes in (form.options or {}).items():
            assert f"--co {name}= {takes}" in said
        assert {len(re.match(r"  (--co \S+|\S+) +|   +", line)[0]) for line in lines} == {22}


def test_formats_as_json(printed):
    found = json.loads(printed("--formats", "--json"))
    assert found == json.loads(json.dumps({"schema_version": 1, "formats": formats()}))


# --- help


def test_every_field_is_in_the_help(printed):
    text = printed("--help")
    told = text.partition("names for --field:\n")[2].partition("\n\n")[0]
    names = [name for line in told.splitlines() for name in re.match(r" +([a-z_, ]+?)  ", line)[1].split(", ")]
    assert tuple(names) == FIELDS


def test_the_readme_shows_the_table_of_formats():
    assert formats_markdown() in (ROOT / "README.md").read_text()
