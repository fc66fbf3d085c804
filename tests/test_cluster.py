"""Outputs that several processes make, but for the processes: tasks are done here, one by one, in any order."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

import volconv
from cases import few
from command import make_nifti, names, noise
from command import volconv as command
from volconv.cluster import work as working
from volconv.errors import ClusterError, OutOfMemoryError, OutputExistsError, ParameterError, ReadError, WriteError
from volconv.geometry import Geometry
from volconv.io import Region, create_volume, list_contents, open_volume
from volconv.io.formats import as_path
from volconv.io.omezarr.unfinished import Unfinished

CHUNKS = {"chunks": "6,7,11"}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Here:
    """What does tasks in the place of Dask's workers; it fails at one of them, or does something, if that is said."""

    def __init__(self):
        self.done, self.fail_at, self.error = [], None, ReadError("a.zarr: is gone")
        self.at, self.works = {}, []

    @contextlib.contextmanager
    def connected(self, *_):
        yield self

    def results(self, client, work, tasks, output):
        assert client is self
        assert output.endswith(".zarr")
        waiting = list(tasks)
        for name, part in waiting[::-1]:
            if len(self.done) == self.fail_at:
                raise self.error
            self.at.get(len(self.done), lambda: None)()
            self.works.append((work, name, part))
            done = working.compute(pickle.loads(pickle.dumps(work)), name, part)  # noqa: S301
            self.done.append(name)
            yield part, done


def tasks_done_here(patch):
    worker = Here()
    patch.setattr("volconv.cluster.making.connected", worker.connected)
    patch.setattr("volconv.cluster.making.results", worker.results)
    patch.setattr("volconv.cluster.tasks.LEAST_BYTES", 1)
    patch.setattr("volconv.cluster.tasks.MOST_BYTES", 12000)
    return worker


@pytest.fixture
def here(monkeypatch):
    return tasks_done_here(monkeypatch)


def marks_of(output):
    return sorted(Path(f"{output}.unfinished").glob("*/done/*.json"))


def written(name, array, **options):
    geometry = Geometry.from_spacing((2.0, 0.5, 0.25), "um", (1.0, 2.0, 3.0))
    with create_volume(name, shape=array.shape, dtype=array.dtype, geometry=geometry, options=options) as sink:
        sink.write(Region.whole(array.shape), array)


def assert_same_image(one, other):
    """Every level's bytes, and all metadata but the image's name."""
    attributes = [dict(zarr.open_group(name, mode="r").attrs) for name in (one, other)]
    for found in attributes:
        multiscales = found.get("ome", found)["multiscales"]
        multiscales[0].pop("name", None)
    assert attributes[0] == attributes[1]
    levels = [list_contents(name) for name in (one, other)]
    assert len(levels[0]) == len(levels[1])
    for a, b in zip(*levels):
        with open_volume(a.name) as first, open_volume(b.name) as second:
            assert first.info.geometry == second.info.geometry
            assert first.numpy().tobytes() == second.numpy().tobytes()
        assert zarr.open_array(a.name.replace(":", "/")).metadata == zarr.open_array(b.name.replace(":", "/")).metadata


@pytest.mark.parametrize(
    ("algorithm", "bad"),
    [
        ("direct", None),
        ("fft", np.nan),
        *(pytest.param(name, np.nan, marks=pytest.mark.slow) for name in ("separable", "winograd", "gemm", "channels")),
    ],
)
def test_bits_and_counts_are_those_of_one_process(here, algorithm, bad):
    channels = 8 if algorithm in ("winograd", "channels") else 1
    x = noise((1, channels, 17, 19, 31))
    if bad is not None:
        x[0, 0, ::7, 11, 3] = bad
    written("a.zarr", x, **CHUNKS)
    kernel = "gaussian:sigma=1"
    if channels > 1:
        kernel = noise((channels, channels, 3, 3, 3), seed=1) - 100
    how = {"kernel": kernel, "padding": "same", "algorithm": algorithm, "options": CHUNKS, "dtype": "uint8"}
    alone = volconv.apply("a.zarr", "one.zarr", **how)
    many = volconv.apply("a.zarr", "many.zarr", workers=3, **how)
    assert len(here.done) == many.cluster.tasks > 3
    assert many.counts == alone.counts
    assert many.plan.algorithm == algorithm
    assert_same_image("one.zarr", "many.zarr")
    assert names(".") == ["a.zarr", "many.zarr", "one.zarr"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "how",
    [
        {"kernel": "gaussian:sigma=1um", "padding": "same", "roi": "3:15,:,5:29", "pyramid": True},
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in (
                {"kernel": "box:size=3", "stride": 2, "padding": 1},
                {"kernel": "sobel:axis=x", "padding": "same", "padding_mode": "reflect", "reduce": "norm"},
                {
                    "kernel": "gradient:axis=y",
                    "padding": 2,
                    "padding_mode": "circular",
                    "options": {"version": "0.4"} | CHUNKS,
                },
                {"kernel": "box:size=3", "padding": "same", "mask": "m.zarr", "outside": 0},
                {"kernel": "box:size=3", "padding": "same", "nan": "ignore", "dtype": "same"},
                {"kernel": "box:size=3", "padding": "same", "options": {"chunks": "4,4,4", "shards": "8,8,16"}},
                {"kernel": np.ones((2, 2, 3, 1, 1), np.complex64), "padding": "same"},
            )
        ),
    ],
    ids=str,
)
def test_whatever_is_asked_for(how):
    written("a.zarr", noise((2, 2, 17, 13, 31), "uint8"), **CHUNKS)
    written("m.zarr", noise((1, 1, 17, 13, 31), "uint8") // 70, **CHUNKS)
    how = {"options": CHUNKS} | how
    alone = volconv.apply("a.zarr", "one.zarr", **how)
    many = volconv.apply("a.zarr", "many.zarr", workers=1, **how)
    assert (many.counts, many.levels) == (alone.counts, alone.levels)
    assert_same_image("one.zarr", "many.zarr")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("source", ["a.nii.gz", *(pytest.param(n, marks=pytest.mark.slow) for n in ("a.h5", "a.tif"))])
def test_sources_of_any_kind(source):
    volconv.convert(make_nifti("n.nii", noise((17, 19, 31))), source)
    for output, workers in (("one.zarr", None), ("many.zarr", 2)):
        volconv.apply(source, output, "gaussian:sigma=1", padding="same", workers=workers, options=CHUNKS)
    assert_same_image("one.zarr", "many.zarr")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_several_files_as_channels_and_a_part_of_them():
    for i in (1, 2):
        written(f"{i}.zarr", noise((3, 1, 17, 19, 31), seed=i), **CHUNKS)
    for output, workers in (("one.zarr", []), ("many.zarr", ["--workers", "2"])):
        line = ["apply", "--stack", "1.zarr", "2.zarr", "--time", "1:3", "--spacing", "1,1,1um", "-k", "sobel:axis=z"]
        command(*line, "--padding", "same", "-o", output, "--co", "chunks=6,7,11", *workers)
    assert_same_image("one.zarr", "many.zarr")


@pytest.mark.usefixtures("here")
def test_the_ranges_of_channels_are_those_of_all_tasks():
    written("a.zarr", noise((1, 1, 17, 19, 31), "uint8"), **CHUNKS)
    group = zarr.open_group("a.zarr", mode="r+")
    window = {"start": 0, "end": 9, "min": 0, "max": 9}
    facts = group.attrs["ome"] | {"omero": {"channels": [{"label": "GFP", "color": "00FF00", "window": window}]}}
    group.update_attributes({"ome": facts})
    for output, workers in (("one.zarr", None), ("many.zarr", 2)):
        volconv.apply("a.zarr", output, "sobel:axis=x", workers=workers, options=CHUNKS)
    assert_same_image("one.zarr", "many.zarr")
    assert zarr.open_group("many.zarr").attrs["ome"]["omero"]["channels"][0]["window"]["min"] < 0


# --- runs that did not finish


HOW = {"kernel": "gaussian:sigma=1", "padding": "same", "workers": 2, "options": CHUNKS}


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A folder in which a run ended after its first 5 tasks; how many it was to do, and which it did."""
    folder = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        worker = tasks_done_here(patch)
        written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
        volconv.apply("a.zarr", "one.zarr", pyramid=True, **HOW)
        total, worker.done[:] = len(worker.done), []
        worker.fail_at = 5
        with pytest.raises(ReadError):
            volconv.apply("a.zarr", "b.zarr", pyramid=True, **HOW)
        assert names(".") == ["a.zarr", "b.zarr.unfinished", "one.zarr"]
        with pytest.raises(ReadError):
            open_volume("b.zarr")
    return folder, total, set(worker.done)


@pytest.fixture
def unfinished(here, left):  # noqa: ARG001  # tasks are done here
    """A copy of it in the working folder."""
    folder, total, done = left
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    return total, done


def test_another_run_goes_on(here, unfinished):
    total, done = unfinished
    planned = volconv.apply("a.zarr", "b.zarr", pyramid=True, resume=True, dry_run=True, **HOW)
    assert planned.cluster.resumed == 5
    assert planned.as_dict()["cluster"]["resumed"] == 5
    told = []
    report = volconv.apply(
        "a.zarr", "b.zarr", pyramid=True, resume=True, progress=lambda now, all_: told.append((now, all_)), **HOW
    )
    assert not done & set(here.done)
    assert len(done) + len(here.done) == total
    assert report.cluster.resumed == 5
    assert told[-1] == (report.target.nbytes,) * 2
    assert_same_image("one.zarr", "b.zarr")
    assert names(".") == ["a.zarr", "b.zarr", "one.zarr"]


@pytest.mark.slow
@pytest.mark.usefixtures("unfinished")
def test_with_other_workers_and_other_memory():
    command(
        *("apply", "a.zarr", "-k", "gaussian:sigma=1", "--padding", "same", "--pyramid", "-o", "b.zarr", "--resume"),
        *("--scheduler", "tcp://elsewhere:8786", "--memory", "900M", "--threads", "1", "--co", "chunks=6,7,11"),
    )
    assert_same_image("one.zarr", "b.zarr")


@pytest.mark.usefixtures("unfinished")
def test_nothing_goes_on_unasked(capsys):
    before = sorted(map(str, Path("b.zarr.unfinished").rglob("*")))
    with pytest.raises(OutputExistsError) as error:
        volconv.apply("a.zarr", "b.zarr", pyramid=True, **HOW)
    assert str(error.value) == (
        "b.zarr: a run that did not finish it left b.zarr.unfinished; --resume (resume=True) goes on with it; or "
        "remove b.zarr.unfinished"
    )
    line = ["apply", "a.zarr", "-k", "gaussian:sigma=1", "-o", "b.zarr", "--workers", "2"]
    command(*line, code=4)
    assert capsys.readouterr().err.startswith("volconv: error: b.zarr: a run that did not finish it left")
    command(*line, "-n", code=4)
    assert sorted(map(str, Path("b.zarr.unfinished").rglob("*"))) == before


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": "gaussian:sigma=2"}, "kernel 9,9,9 sha256"),
        ({"padding": 0}, "padding low 4,4,4 (now 0,0,0)"),
        ({"options": {"chunks": "6,6,6"}}, "co chunks=6,7,11 (now chunks=6,6,6)"),
        ({"pyramid": False}, "pyramid yes (now none)"),
    ],
)
def test_another_run_is_not_gone_on_with(change, said):
    with pytest.raises(OutputExistsError) as error:
        volconv.apply("a.zarr", "b.zarr", resume=True, **({"pyramid": True} | HOW | change))
    assert error.value.message.startswith(f"b.zarr: the run that did not finish it was another one: {said}")
    assert error.value.hint == "remove b.zarr.unfinished"


def test_an_input_that_changed_is_another_run(here, monkeypatch):
    monkeypatch.setattr("volconv.provenance.DIGEST_BYTES", 0)
    monkeypatch.setattr("volconv.provenance._pieces", lambda *_: [])  # no sample falls on what changes
    make_nifti("a.nii", noise((17, 19, 31)))
    here.fail_at = 3
    with pytest.raises(ReadError):
        volconv.apply("a.nii", "b.zarr", **HOW)
    here.fail_at = None
    make_nifti("a.nii", noise((17, 19, 31), seed=1))
    with pytest.raises(OutputExistsError, match="was another one: its input changed since"):
        volconv.apply("a.nii", "b.zarr", resume=True, **HOW)


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize("text", ["", "[]", '{"note": 3}', '{"no'])
def test_nobody_knows_which_run(text):
    Path("b.zarr.unfinished/run.json").write_text(text)
    with pytest.raises(OutputExistsError, match="was another one: it has no note of how it was made"):
        volconv.apply("a.zarr", "b.zarr", pyramid=True, resume=True, **HOW)


def test_a_mark_that_was_cut_off_marks_nothing(here, unfinished):
    _, done = unfinished
    texts = ("", '{"counts": {"satu', "3", "{}", '{"counts": 3, "ranges": []}')
    for name, text in zip(sorted(done), texts, strict=True):
        (mark,) = (mark for mark in marks_of("b.zarr") if mark.stem == name)
        mark.write_text(text)
    report = volconv.apply("a.zarr", "b.zarr", pyramid=True, resume=True, **HOW)
    assert report.cluster.resumed == 0
    assert done <= set(here.done)
    assert_same_image("one.zarr", "b.zarr")


@pytest.mark.slow
@pytest.mark.usefixtures("unfinished")
def test_what_killed_workers_leave_is_no_part_of_the_image():
    chunk = next(Path("b.zarr.unfinished").rglob("image/0/c/*/*/*"))
    chunk.with_suffix(".0123.partial").write_bytes(b"half")
    chunk.write_bytes(b"half")  # of a task that is not marked, or written again
    for mark in marks_of("b.zarr"):
        mark.unlink()
    volconv.apply("a.zarr", "b.zarr", pyramid=True, resume=True, **HOW)
    assert_same_image("one.zarr", "b.zarr")
    assert not list(Path("b.zarr").rglob("*.partial"))


@pytest.mark.usefixtures("unfinished")
def test_what_appears_meanwhile_stays():
    Path("b.zarr").mkdir()
    volconv.apply("a.zarr", "b.zarr", pyramid=True, resume=True, **HOW)  # an empty folder is nothing
    shutil.move("b.zarr", "c.zarr")
    Path("b.zarr").mkdir()
    Path("b.zarr/mine").write_text("mine")
    with pytest.raises(OutputExistsError, match="is not empty"):
        volconv.apply("a.zarr", "b.zarr", resume=True, **HOW)
    assert Path("b.zarr/mine").read_text() == "mine"


def test_of_two_runs_at_once_one_goes_on(here, monkeypatch):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    begin = Unfinished.begin

    def overtaken(self, facts, *, instead):
        monkeypatch.setattr(Unfinished, "begin", begin)
        begin(self, {"note": "of another"})
        begin(self, facts, instead=instead)

    monkeypatch.setattr(Unfinished, "begin", overtaken)
    here.fail_at = 0
    with pytest.raises(OutputExistsError, match=r"b\.zarr\.unfinished: another run is at it"):
        volconv.apply("a.zarr", "b.zarr", **HOW)
    assert names(".") == ["a.zarr", "b.zarr.unfinished"]  # the other's


@pytest.mark.slow
def test_an_image_that_is_complete_stays_whatever_happens_then(here, monkeypatch, memory):
    system = fsspec.filesystem("memory")
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    remove = Unfinished.remove

    def gone(_):
        raise WriteError("the store is gone")

    for output in (f"{memory}/b.zarr", "b.zarr"):
        monkeypatch.setattr(Unfinished, "remove", gone)
        assert volconv.apply("a.zarr", output, **HOW).status == "done"
        with open_volume(output) as image:
            made = image.numpy()
        monkeypatch.setattr(Unfinished, "remove", remove)
        # The marks are still there; what they tell of goes, and is made anew.
        system.rm("/tests/b.zarr", recursive=True) if "//" in output else shutil.rmtree(output)
        here.done[:] = []
        report = volconv.apply("a.zarr", output, resume=True, **HOW)
        assert report.cluster.resumed == 0
        assert len(here.done) == report.cluster.tasks
        with open_volume(output) as image:
            np.testing.assert_array_equal(image.numpy(), made)
    assert not [name for name in system.find("/tests") if "unfinished" in name]
    assert not Path("b.zarr.unfinished").exists()


def test_a_run_that_did_nothing_leaves_nothing(here):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    here.fail_at = 0
    with pytest.raises(ReadError):
        volconv.apply("a.zarr", "b.zarr", **HOW)
    assert names(".") == ["a.zarr"]


def test_at_a_url(here, memory):
    system, source, one, output = fsspec.filesystem("memory"), *(f"{memory}/{name}.zarr" for name in ("a", "one", "b"))
    written(source, noise((1, 1, 17, 19, 31)), **CHUNKS)
    volconv.apply(source, one, pyramid=True, **HOW)
    here.fail_at, here.done[:] = 0, []
    with pytest.raises(ReadError):
        volconv.apply(source, output, **HOW)
    assert not [name for name in system.find("/tests") if "/b.zarr" in name]
    here.fail_at = 5
    with pytest.raises(ReadError):
        volconv.apply(source, output, pyramid=True, **HOW)
    here.fail_at = None
    with pytest.raises(ReadError, match="is no OME-Zarr image"):
        open_volume(output)
    alone = {"workers": None}
    for how in (HOW, HOW | alone, HOW | alone | {"skip_existing": True}):
        said = r"goes on with it; or remove memory://tests/b\.zarr\.unfinished and memory://tests/b\."
        with pytest.raises(OutputExistsError, match=said):
            volconv.apply(source, output, pyramid=True, **how)
    here.done[:] = []
    report = volconv.apply(source, output, pyramid=True, resume=True, skip_existing=True, **HOW)
    assert report.cluster.resumed == 5
    assert_same_image_at(one, output)
    assert not [name for name in system.find("/tests") if "unfinished" in name]


@pytest.mark.slow
@pytest.mark.parametrize("task", [0, 3])
def test_at_a_url_the_later_of_two_runs_goes_on(here, memory, task):
    output = f"{memory}/b.zarr"
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    here.at[task] = lambda: Unfinished(as_path(output)).begin({"note": "of another"})
    with pytest.raises(ClusterError, match=r"b\.zarr\.unfinished: is no longer that of this run"):
        volconv.apply("a.zarr", output, **HOW)
    assert Unfinished(as_path(output)).facts()["note"] == "of another"


def test_a_task_of_a_run_that_is_no_more_writes_nothing(here):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    here.fail_at = 3
    with pytest.raises(ReadError):
        volconv.apply("a.zarr", "b.zarr", **HOW)
    old, name, part = here.works[0]
    shutil.rmtree("b.zarr.unfinished")
    with pytest.raises(
        ClusterError, match=r"b\.zarr\.unfinished: is no longer that of this run: another was begun, or"
    ):
        working.compute(old, name, part)
    here.fail_at = 6
    with pytest.raises(ReadError):
        volconv.apply("a.zarr", "b.zarr", **HOW | {"kernel": "box:size=3"})
    before = {path: path.stat().st_mtime_ns for path in Path("b.zarr.unfinished").rglob("*")}
    with pytest.raises(ClusterError):
        working.compute(old, name, part)
    assert {path: path.stat().st_mtime_ns for path in Path("b.zarr.unfinished").rglob("*")} == before


@pytest.mark.slow
def test_a_task_notices_in_its_middle_that_its_run_is_no_more(here, monkeypatch):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    monkeypatch.setattr("volconv.io.omezarr.level._CHECKED_EVERY", 0)
    run, seen = working.run, []

    def removed_meanwhile(*ends):
        (folder,) = Path("b.zarr.unfinished").rglob("image/0")
        seen.append(folder)
        Path("b.zarr.unfinished/run.json").unlink()
        try:
            return run(*ends)
        finally:
            seen.extend(folder.glob("c/*"))

    monkeypatch.setattr(working, "run", removed_meanwhile)
    with pytest.raises(ClusterError, match="is no longer that of this run"):
        volconv.apply("a.zarr", "b.zarr", **HOW)
    assert len(seen) == 1  # and no chunk
    assert not here.done


@pytest.mark.slow
def test_a_run_that_another_process_goes_on_with_ends(here):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)

    def taken_over():
        unfinished = Unfinished(Path("b.zarr"))
        unfinished.go_on(unfinished.facts())

    here.at[3] = taken_over
    with pytest.raises(ClusterError, match=r"b\.zarr\.unfinished: another process goes on with this run"):
        volconv.apply("a.zarr", "b.zarr", **HOW)
    here.done[:] = []
    report = volconv.apply("a.zarr", "b.zarr", resume=True, **HOW)
    assert report.cluster.resumed == report.cluster.tasks
    assert not here.done
    assert names(".") == ["a.zarr", "b.zarr"]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_mask_is_what_was_opened():
    masks = np.zeros((2, 1, 17, 19, 31), np.uint8)
    masks[0, 0, 3:9, 4:, 5:20] = masks[1, 0, 2:, :11, 9:] = 1
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    written("masks.zarr", masks, **CHUNKS)
    for output, workers in (("one.zarr", None), ("many.zarr", 2)):
        with open_volume("masks.zarr", time=1) as mask:
            volconv.apply("a.zarr", output, **HOW | {"workers": workers}, mask=mask)
    assert_same_image("one.zarr", "many.zarr")


@pytest.mark.slow
def test_a_mask_that_changed_is_another_run(here, monkeypatch):
    monkeypatch.setattr("volconv.provenance.DIGEST_BYTES", 0)
    monkeypatch.setattr("volconv.provenance._pieces", lambda *_: [])  # no sample falls on what changes
    make_nifti("a.nii", noise((17, 19, 31)))
    make_nifti("m.nii", np.ones((17, 19, 31), np.uint8))
    here.fail_at = 3
    with pytest.raises(ReadError):
        volconv.apply("a.nii", "b.zarr", mask="m.nii", **HOW)
    here.fail_at = None
    make_nifti("m.nii", np.pad(np.ones((16, 19, 31), np.uint8), ((0, 1), (0, 0), (0, 0))))
    with pytest.raises(OutputExistsError, match="was another one: its input changed since"):
        volconv.apply("a.nii", "b.zarr", mask="m.nii", resume=True, **HOW)


@pytest.mark.parametrize("name", few(["x[1].zarr", "x::y.zarr", "x*.zarr", "link.zarr"], "x[1].zarr"))
def test_folders_of_any_name(here, name):
    Path("elsewhere").mkdir()
    Path("elsewhere/end").mkdir()
    Path("link.zarr").symlink_to("elsewhere/end")
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    volconv.apply("a.zarr", "one.zarr", **HOW)
    here.fail_at, here.done[:] = 3, []
    with pytest.raises(ReadError):
        volconv.apply("a.zarr", name, **HOW)
    at = "elsewhere/end.unfinished" if name == "link.zarr" else f"{name}.unfinished"
    assert Path(at, "run.json").is_file()  # where a link ends, so that the image can be put in its place
    here.fail_at = None
    assert volconv.apply("a.zarr", name, resume=True, **HOW).cluster.resumed == 3
    assert_same_image_at("one.zarr", name)
    assert not Path(at).exists()
    assert names("elsewhere") == ["end"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("workers", [None, 2])
def test_a_url_that_is_a_pattern_too(workers):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    with pytest.raises(ParameterError, match=r"a URL to write to must hold none of \* \? \[ \(got memory://tests/b\[1"):
        volconv.apply("a.zarr", "memory://tests/b[1].zarr", **HOW | {"workers": workers})


def assert_same_image_at(one, other):
    for a, b in zip(list_contents(one), list_contents(other), strict=True):
        with open_volume(a.name) as first, open_volume(b.name) as second:
            assert first.info.geometry == second.info.geometry
            assert first.numpy().tobytes() == second.numpy().tobytes()


# --- what workers refuse, and what is refused before


@pytest.mark.usefixtures("here")
def test_a_worker_that_sees_something_else(monkeypatch):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    np.save("k.npy", np.ones((3, 3, 3)))
    compute, how = working.compute, HOW | {"kernel": "k.npy"}

    def later(change):
        def computed(work, name, part):
            change()
            return compute(work, name, part)

        monkeypatch.setattr(working, "compute", computed)

    later(lambda: np.save("k.npy", np.full((3, 3, 3), 2.0)))
    with pytest.raises(ClusterError, match="a worker finds another kernel than the one that the run was planned for"):
        volconv.apply("a.zarr", "b.zarr", **how)
    later(lambda: monkeypatch.setattr(working, "__version__", "0.0"))
    with pytest.raises(ClusterError, match=r"a worker has volconv 0\.0 \(got "):
        volconv.apply("a.zarr", "b.zarr", **how)
    monkeypatch.setattr(working, "__version__", volconv.__version__)
    shutil.move("a.zarr", "c.zarr")
    written("a.zarr", noise((1, 1, 18, 19, 31)), **CHUNKS)
    shutil.move("a.zarr", "other.zarr")
    shutil.move("c.zarr", "a.zarr")

    def swap():
        if Path("other.zarr").exists():
            shutil.rmtree("a.zarr")
            shutil.move("other.zarr", "a.zarr")

    later(swap)
    with pytest.raises(ClusterError, match=r"a worker finds another input a\.zarr than"):
        volconv.apply("a.zarr", "b.zarr", **how)
    assert names(".") == ["a.zarr", "k.npy"]


ADDRESSES = ("", "nonsense", "tcp://", "udp://host:1", "tcp://host", "tcp://host:port")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"resume": True}, "resume must go with workers or a scheduler (got neither)"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "give either workers or a scheduler (got workers=2"),
        *(
            ({"scheduler": at}, f"scheduler must be an address such as tcp://host:8786 (got '{at}')")
            for at in ADDRESSES
        ),
        ({"workers": 0}, "workers must be an integer of at least 1 (got 0)"),
        ({"workers": 2, "backend": "cupy"}, "backend must be numpy with workers or a scheduler (got 'cupy')"),
        ({"workers": 2, "memory": "10M"}, "memory must be at least 120M"),
        ({"workers": 2, "destination": "b.nii"}, "output must be an OME-Zarr where several processes write it"),
    ],
)
def test_what_does_not_go_together(how, said):
    make_nifti("a.nii", noise())
    with pytest.raises(ParameterError) as error:
        volconv.apply("a.nii", **({"destination": "b.zarr", "kernel": "identity"} | how))
    assert error.value.message.startswith(said)


@pytest.mark.usefixtures("here")
def test_an_array_is_nothing_that_workers_could_open():
    make_nifti("a.nii", noise())
    with open_volume("a.nii") as volume:
        volume.names = ()
        with pytest.raises(ParameterError, match=r"source must be a file, which workers open \(got an array\)"):
            volconv.apply(volume, "b.zarr", "identity", workers=1)


@pytest.mark.usefixtures("here")
def test_too_little_memory_is_told_before_any_work():
    written("a.zarr", noise((1, 1, 40, 200, 200)), chunks="40,200,200")
    with pytest.raises(OutOfMemoryError, match=r"a\.zarr: memory must be at least"):
        volconv.apply("a.zarr", "b.zarr", "box:size=3", workers=1, memory="121M")
    assert names(".") == ["a.zarr"]


def test_without_dask(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    make_nifti("a.nii", noise())
    command("apply", "a.nii", "-k", "identity", "-o", "b.zarr", "--workers", "2", code=1)
    said = capsys.readouterr().err
    assert said.startswith("volconv: error: workers need packages that are not installed (")
    assert said.endswith("; pip install 'volconv[distributed]'\n")


def test_what_the_command_says(here, capsys):
    written("a.zarr", noise((1, 1, 17, 19, 31)), **CHUNKS)
    line = ["apply", "a.zarr", "-k", "box:size=3", "-o", "b.zarr", "--co", "chunks=6,7,11"]
    command(*line, "--workers", "2", "--jobs", "2", code=2)
    assert capsys.readouterr().err == (
        "volconv: error: jobs must be 1 with workers or a scheduler (got 2); they make one output after the other\n"
    )
    command(*line, "--workers", "2", "-n")
    told = " ".join(capsys.readouterr().out.split())
    assert "on 2 workers; what follows is of the first, " in told
    command(*line, "--workers", "2", "-v", "--report", "r.json")
    told = " ".join(capsys.readouterr().err.split())
    assert "on 2 workers; what follows is of the first, " in told
    (run,) = json.loads(Path("r.json").read_text())["runs"]
    assert run["cluster"]["workers"] == 2
    assert run["cluster"]["tasks"] == len(here.done)
    command("apply", "a.zarr", "-k", "box:size=3", "-o", "c.zarr", "--workers", "1", "--report", "r.html")
    assert "first of" in Path("r.html").read_text()
