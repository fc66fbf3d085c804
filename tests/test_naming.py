"""Outputs' names: templates, lists of files, and names that would take each other's place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volconv import naming
from volconv.errors import ParameterError, WriteError
from volconv.naming import Task, check_tasks, name_outputs, names_in


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def outputs(template, *inputs, **options):
    return [task.output for task in name_outputs(inputs, template, **options)]


# --- templates


@pytest.mark.parametrize(
    ("name", "parent", "full", "stem", "ext"),
    [
        ("sub-01/anat/T1w.nii.gz", "sub-01/anat", "T1w.nii.gz", "T1w", ".nii.gz"),
        ("T1w.nii", ".", "T1w.nii", "T1w", ".nii"),
        ("./T1w.nii", ".", "T1w.nii", "T1w", ".nii"),
        ("/data/cells.v2.ome.tif", "/data", "cells.v2.ome.tif", "cells.v2", ".ome.tif"),
        ("a/b.h5:/raw/x", "a", "b.h5", "b", ".h5"),
        ("a/b.ome.tif:1", "a", "b.ome.tif", "b", ".ome.tif"),
        ("a/{b}.mgz", "a", "{b}.mgz", "{b}", ".mgz"),
        ("slices", ".", "slices", "slices", "/"),
        ("x/slices/", "x", "slices", "slices", "/"),
    ],
)
def test_fields(name, parent, full, stem, ext):
    for folder in ("slices", "x/slices"):
        Path(folder).mkdir(parents=True)
    # The names of their own around fields keep paths from being made shorter.
    assert outputs("<{name}|{stem}|{ext}>", name) == [f"<{full}|{stem}|{ext}>"]
    assert outputs("{parent}", name) == [parent]


@pytest.mark.parametrize(
    ("template", "name", "output"),
    [
        ("derivatives/{parent}/{stem}_2mm{ext}", "sub-01/anat/T1w.nii.gz", "derivatives/sub-01/anat/T1w_2mm.nii.gz"),
        ("derivatives/{parent}/{name}", "T1w.nii.gz", "derivatives/T1w.nii.gz"),
        ("derivatives/{parent}/{name}", "/data/T1w.nii", "derivatives/data/T1w.nii"),
        ("{parent}/{stem}_smooth{ext}", "/data/T1w.nii", "/data/T1w_smooth.nii"),
        ("{parent}/{stem}_smooth{ext}", "T1w.nii", "T1w_smooth.nii"),
        ("{parent}/{stem}_smooth{ext}", "../raw/T1w.nii", "../raw/T1w_smooth.nii"),
        ("out/{parent}/{stem}/", "a/T1w.nii", "out/a/T1w/"),
        ("out/{parent}/{stem}.h5:/{stem}", "a/T1w.nii", "out/a/T1w.h5:/T1w"),
        ("out//{stem}{ext}", "a/T1w.nii", "out//T1w.nii"),
        ("{{{stem}}}.nii", "a/T1w.nii", "{T1w}.nii"),
        ("plain.nii", "a/T1w.nii", "plain.nii"),
    ],
)  # fmt: skip
def test_templates(template, name, output):
    assert outputs(template, name) == [output]


def test_several_inputs_and_channels_of_one():
    assert outputs("o/{stem}{ext}", "a.nii", "b/c.tif") == ["o/a.nii", "o/c.tif"]
    assert name_outputs(["a.nii", "b.nii"], "{stem}_both.h5", stack=True) == [Task(("a.nii", "b.nii"), "a_both.h5")]
    assert name_outputs(["a.nii", "b.nii"], "both.h5", stack=True) == [Task(("a.nii", "b.nii"), "both.h5")]


@pytest.mark.parametrize(
    ("template", "got"),
    [
        ("{subject}.nii", r"{subject} in '{subject}.nii'"),
        ("{Stem}{ext}", r"{Stem} in '{Stem}{ext}'"),
        ("{stem.size}{ext}", r"{stem.size} in "),
        ("{stem[0]}{ext}", r"{stem[0]} in "),
        ("{stem:>9}{ext}", r"{stem:>9} in "),
        ("{stem!r}{ext}", r"{stem!r} in "),
        ("{}.nii", r"{} in '{}.nii'"),
        ("{0}.nii", r"{0} in "),
        ("{stem.nii", r"'{stem.nii'"),
        ("{stem}}.nii", r"'{stem}}.nii'"),
    ],
)
def test_fields_that_there_are_not(template, got):
    said = "output may use {parent}, {name}, {stem} and {ext} (got " + got
    with pytest.raises(ParameterError, match=re.escape(said)) as caught:
        outputs(template, "a.nii")
    assert caught.value.hint == "write braces that are meant twice"


def test_a_parent_may_not_lead_out_of_the_folder_that_a_template_names():
    with pytest.raises(
        ParameterError,
        match=r"^output with {parent} must stay in derivatives/ \(got derivatives/../raw/a.nii for ../raw/a.nii\)",
    ):
        outputs("derivatives/{parent}/{name}", "../raw/a.nii")


# --- lists


@given(names=st.lists(st.binary(min_size=1).filter(lambda name: not set(name) & {0})))
def test_names_each_ended_by_nul(names):
    listed = b"".join(name + b"\0" for name in names)
    assert [os.fsencode(name) for name in names_in(listed)] == names


@given(
    names=st.lists(st.binary(min_size=1).filter(lambda name: not set(name) & set(b"\0\n\r"))),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    last=st.booleans(),
)
def test_names_one_a_line(names, end, last):
    listed = end.join(names) + (end if last else b"")
    assert [os.fsencode(name) for name in names_in(listed)] == names


# --- names that take each other's place


def tasks(*pairs):
    return [Task((source,) if isinstance(source, str) else source, output) for source, output in pairs]


def refused(found, message, kind=ParameterError, **options):
    with pytest.raises(kind, match=message):
        check_tasks(found, **options)


def test_names_of_their_own():
    Path("o").mkdir()
    check_tasks(tasks(("a.nii", "o/a.nii"), ("b.nii", "o/b.nii"), ("c.h5:/a", "o/c.nii"), ("c.h5:/b", "o/d.nii")))
    check_tasks(tasks(("a.nii", "a.nii"), ("b.nii", "b.nii")))  # each in its own place
    check_tasks(
        tasks(("A.nii", "o/A.nii"), ("a.nii", "o/a.nii"), ("é.nii", "o/é.nii"), ("e\u0301.nii", "o/e\u0301.nii"))
    )


@pytest.mark.parametrize("second", ["o/x.nii", "./o/x.nii", "o//x.nii", "o/../o/x.nii", "link/x.nii", "linked.nii"])
def test_one_output_for_two_inputs(second):
    Path("o").mkdir()
    Path("link").symlink_to("o")
    Path("linked.nii").symlink_to("o/x.nii")
    found = tasks(("a/x.nii", "o/x.nii"), ("c.nii", "o/y.nii"), ("b/x.nii", second))
    got = "and b/x.nii" if second == "o/x.nii" else f"and {second} for b/x.nii, which are one file"
    refused(found, rf"^outputs must have names of their own \(got o/x.nii for a/x.nii {got}\)")


def test_datasets_of_one_output_file_are_one_output():
    refused(
        tasks(("a.nii", "x.h5:/a"), ("b.nii", "x.h5:/b")),
        r"got x.h5:/a for a.nii and x.h5:/b for b.nii, which are one file",
    )


def test_one_input_twice():
    refused(tasks(("a.nii", "o.nii"), ("a.nii", "o.nii")), r"^inputs must be given once each \(got a.nii again\)")


@pytest.mark.parametrize("read", ["a_s.nii", "./a_s.nii", "link/a_s.nii"])
def test_an_output_that_is_anothers_input(read):
    Path("link").symlink_to(".")
    for found in (
        tasks(("a.nii", "a_s.nii"), (read, "b.nii")),
        tasks((("b.nii", read), "c.nii"), ("a.nii", "a_s.nii")),
    ):
        refused(found, r"^output must not be an input of another output \(got .*/a_s.nii, made of a.nii\)")
    refused(tasks(("a.nii", "x.h5:/a"), ("x.h5:/b", "c.nii")), "must not be an input of another output")


def test_where_case_does_not_count(monkeypatch):
    """File systems that ignore case find them to be one file."""
    monkeypatch.setattr(naming, "_ignores_case", lambda folder: folder == Path.cwd())
    refused(
        tasks(("A/x.nii", "X.nii"), ("a/x.nii", "x.nii")), r"got X.nii for A/x.nii and x.nii for a/x.nii, which are one"
    )
    refused(tasks(("a", "É.nii"), ("b", "e\u0301.nii")), "outputs must have names of their own")
    refused(tasks(("a.nii", "X.nii"), ("x.nii", "c.nii")), "must not be an input of another output")
    Path("o").mkdir()
    check_tasks(tasks(("A/x.nii", "o/X.nii"), ("a/x.nii", "o/x.nii")))


def test_whether_a_folder_ignores_case(tmp_path, monkeypatch):
    (tmp_path / "Sub").mkdir()
    (tmp_path / "Sub" / "1").touch()
    upper = (tmp_path / "SUB").exists()  # what the file system that tests run on does
    assert naming._ignores_case(tmp_path) == naming._ignores_case(tmp_path / "Sub" / "none" / "yet") == upper
    (tmp_path / "sUB").touch()  # as one that ignores case would let us find "Sub" by it
    monkeypatch.setattr(Path, "samefile", lambda *_: True)
    assert naming._ignores_case(tmp_path)


def test_formats_that_are_not_written():
    refused(
        tasks(("a.nii", "a_s.nii"), ("b.mgz", "b_s.mgz")), r"of a format that is written.*\(got 'b_s.mgz'; FreeSurfer"
    )
    refused(tasks(("a.nii", "a_s")), "output must have a suffix that names a format")


# --- folders


def test_missing_folders(tmp_path):
    found = tasks(("a", "o/a.nii"), ("b", "o/b.nii"), ("c", "o/p/c.h5:/x"), ("d", "q/d/"), ("e", "e.nii"))
    said = (
        rf"^o/a.nii: the output's folder does not exist \(got {tmp_path}/o and 2 more\); create it first, or pass --m"
    )
    refused(found, said, WriteError)
    check_tasks(found, mkdir=True)
    Path("o/p").mkdir(parents=True)
    refused(found, rf"^q/d/: the output's folder does not exist \(got {tmp_path}/q\); ", WriteError)
    Path("q").mkdir()
    check_tasks(found)
