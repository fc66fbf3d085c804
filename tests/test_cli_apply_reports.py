"""What ``volconv apply`` tells of a run: reports, dry runs, the options in effect; and what it reads of its inputs."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import pytest
import tifffile

import volconv as library
from command import ANISO, NUCLEI, ROOT, make_nifti, names, noise, read, volconv
from volconv.config import KEYS
from volconv.io import open_volume
from volconv.report import peak_memory
from volconv_cli import apply, options
from watched import SCRIPT, watched

OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag([0.5, 0.75, 2.5]), [1, 2, 3]
)
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOLCONV_THREADS", raising=False)


def checked(text):
    """A report that keeps to the schema; its runs."""
    document = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    return document["runs"]


# --- reports


def test_a_report_says_what_was_done(capsys):
    weight = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    np.save("k.npy", weight)
    line = ["-k", "k.npy", "-b", "1.5", "--stride", "2", "--padding", "1,2,0", "--dtype", "uint8", "-o", "o.nii"]
    volconv("apply", ANISO, *line, "--report", "r.json", "--json", "-q")
    out, err = capsys.readouterr()
    assert out == Path("r.json").read_text()
    assert err == ""
    (run,) = checked(out)
    assert run["status"] == "done"
    assert run["inputs"] == [str(ANISO)]
    assert run["output"] == "o.nii"
    assert run["source"]["shape"] == [1, 1, 24, 58, 58]
    assert run["source"]["axes"] == "XYZ"
    np.testing.assert_allclose(run["source"]["geometry"]["spacing"], [5, 4, 4], rtol=1e-6)
    np.testing.assert_array_equal(run["source"]["geometry"]["affine"], nibabel.load(ANISO).affine)
    written = nibabel.load("o.nii")
    assert run["target"]["shape"] == list(read("o.nii").shape)
    assert run["target"]["dtype"] == "uint8"
    assert run["target"]["bytes"] == read("o.nii").nbytes
    np.testing.assert_allclose(run["target"]["geometry"]["affine"], written.affine, rtol=1e-6)
    np.testing.assert_allclose(run["target"]["geometry"]["spacing"], [10, 8, 8], rtol=1e-6)
    assert run["parameters"] == {
        "in_channels": 1,
        "out_channels": 1,
        "kernel_size": [3, 2, 4],
        "effective_kernel": [3, 2, 4],
        "stride": [2, 2, 2],
        "padding_low": [1, 2, 0],
        "padding_high": [1, 2, 0],
        "dilation": [1, 1, 1],
        "groups": 1,
        "padding_mode": "zeros",
        "padding_value": 0.0,
        "flip_kernel": False,
        "weight_layout": None,
    }
    digest = hashlib.sha256(weight.tobytes()).hexdigest()
    assert run["kernel"] == {"spec": "k.npy", "shape": [3, 2, 4], "dtype": "float32", "sha256": digest}
    assert run["bias"]["spec"] == "1.5"
    assert run["weights"] == weight.size + 1
    assert run["multiply_adds"] == weight.size * read("o.nii").size
    assert run["algorithm"]["name"] in run["algorithm"]["predicted_seconds"]
    assert run["compute_dtype"] == "float32"
    assert run["counts"]["saturated"] > 0
    assert run["seconds"]["total"] >= run["seconds"]["compute"] > 0
    assert run["peak_memory"] > 10e6


def test_the_most_memory_is_that_of_the_run_and_not_of_what_started_it():
    make_nifti("in.nii", noise())
    line = [SCRIPT, "apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "--json", "-q"]
    held = np.ones(60_000_000)  # 480 MB
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    del held
    (run,) = checked(done.stdout)
    assert 10e6 < run["peak_memory"] < 300e6
    seen = watched(".", *line[1:], "-f")
    assert abs(checked(seen.out)[0]["peak_memory"] - seen.peak) < 8e6


def test_the_most_memory_where_the_system_does_not_tell_it_by_name(tmp_path):
    assert peak_memory(tmp_path) >= peak_memory() > 10e6


@pytest.mark.parametrize(("value", "shown"), [("-1000", -1000.0), ("nan", "nan"), ("inf", "inf"), ("1+2j", [1.0, 2.0])])
def test_numbers_that_json_lacks(capsys, value, shown):
    line = ["-k", "identity", "-o", "o.nii", "--compute-dtype", "complex64", "--json", "-q"]
    volconv("apply", ANISO, *line, "--padding", "1", "--padding-value", value)
    (run,) = checked(capsys.readouterr().out)
    assert run["parameters"]["padding_value"] == shown


def test_voxels_that_are_not_finite_are_counted(capsys):
    values = np.ones((3, 4, 5), np.float32)
    values[1, 2, 3] = np.nan
    values[0, 0, 0] = np.inf
    make_nifti("in.nii", values)
    volconv("apply", "in.nii", "-k", "box:size=1/1/2", "-o", "o.nii", "--json")
    out, err = capsys.readouterr()
    assert checked(out)[0]["counts"] == {"saturated": 0, "not_a_number": 0, "non_finite": 3}
    assert "  3 voxels not finite in float32\n" in err
    assert np.count_nonzero(~np.isfinite(read("o.nii"))) == 3


def test_large_values_are_finite_though_their_sum_is_not(capsys):
    make_nifti("in.nii", np.full((3, 4, 5), 3e38, np.float32))
    volconv("apply", "in.nii", "-k", "identity", "-o", "o.nii", "--json")
    assert checked(capsys.readouterr().out)[0]["counts"]["non_finite"] == 0


def test_failures_are_in_the_report_too(capsys):
    make_nifti("a.nii", noise())
    volconv("apply", "gone.nii", "a.nii", "-k", "identity", "-o", "o_{stem}.h5", "--report", "r.json", code=1)
    failed, done = checked(Path("r.json").read_text())
    assert (failed["status"], failed["error"]["kind"], failed["output"]) == ("failed", "ReadError", "o_gone.h5")
    assert (done["status"], done["inputs"]) == ("done", ["a.nii"])
    capsys.readouterr()
    volconv("apply", "gone.nii", "-k", "identity", "-o", "o.h5", "--json", code=3)
    out, err = capsys.readouterr()
    assert checked(out)[0]["error"]["message"] == "gone.nii: no such file"
    assert err == "volconv: error: gone.nii: no such file\n"


def test_an_existing_report_is_refused_before_any_work(capsys):
    Path("r.json").write_text("mine")
    line = ["apply", ANISO, "-k", "identity", "-o", "o.nii", "--report", "r.json"]
    volconv(*line, code=4)
    assert "r.json: the output already exists" in capsys.readouterr().err
    assert names(".") == ["r.json"]
    assert Path("r.json").read_text() == "mine"
    volconv(*line, "-f")
    checked(Path("r.json").read_text())
    assert names(".") == ["o.nii", "r.json"]
    volconv(*line[:-1], "none/r.json", code=1)
    assert "none/r.json: the output's folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("report", ["o.nii", "in.nii", "./in.nii"])
def test_a_report_takes_the_place_of_no_volume(capsys, report):
    make_nifti("in.nii", noise())
    before = Path("in.nii").read_bytes()
    volconv("apply", "in.nii", "-k", "identity", "-o", "o.nii", "--report", report, "-f", code=2)
    assert "--report must be a file of its own, neither input nor output" in capsys.readouterr().err
    assert names(".") == ["in.nii"]
    assert Path("in.nii").read_bytes() == before


# --- dry runs


def test_a_dry_run_touches_nothing_and_says_what_would_be(capsys):
    line = [ANISO, "-k", "gaussian:sigma=4mm", "--padding", "same", "--stride", "1"]
    volconv("apply", *line, "-o", "o.tif", "-n")
    out, err = capsys.readouterr()
    assert names(".") == []
    assert err == ""
    assert out.startswith(f"{ANISO} -> o.tif: 1,1,24,58,58, 5x4x4 mm, separable\n")
    assert all(len(line) <= 80 for line in out.splitlines()[1:] if "note" not in line)
    told = dict(line.split(None, 1) for line in out.splitlines() if line.startswith("  ") and line[2] != " ")
    assert told["kernel"] == "gaussian:sigma=4mm: 7,9,9, stride 1,1,1, dilation 1,1,1, groups 1"
    assert told["padding"] == "3,4,4 before and 3,4,4 after, zeros"
    assert told["reads"] == "161 kB of int16 (nifti), nothing twice"
    assert told["writes"] == "323 kB of float32 (tiff)"
    assert told["blocks"] == "1"
    assert re.fullmatch(r"\d+M at most, of \d+[MG] \(libraries 120M, .*", told["memory"])
    assert told["temporary"] == "no files"
    assert re.fullmatch(r"about [\d.e-]+ s", told["time"])
    assert told["predicted"].startswith("on one thread: direct ")
    assert told["note:"].startswith("o.tif: TIFF holds no orientation")


def test_a_dry_run_tells_of_blocks_halos_and_temporary_files(capsys, monkeypatch):
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 1 << 20)
    make_nifti("in.nii.gz", noise((60, 200, 300), "uint8"))
    line = ["apply", "in.nii.gz", "-k", "sobel", "--padding", "1", "--padding-mode", "circular", "-o", "o.nii.gz"]
    volconv(*line, "-n", "--memory", "512M")
    out = capsys.readouterr().out
    assert re.search(r"^  reads      3\.\d+ MB of uint8 \(nifti\), \d+\.\d% of it as halos$", out, re.MULTILINE)
    assert re.search(r"^  blocks     \d+ of \d+,200,300 outputs \(D,H,W\), two held at a time$", out, re.MULTILINE)
    assert f"  temporary  3.6 MB for the input and 43.2 MB for the output, in\n             {Path.cwd()}\n" in out
    volconv(*line, "-n", "--memory", "512M", "--json")
    (run,) = checked(capsys.readouterr().out)
    plan = run["plan"]
    assert plan["spool"] == {"source": 3_600_000, "mask": 0, "target": 43_200_000, "folder": str(Path.cwd())}
    assert plan["traffic"]["in_turn"] is False
    assert 3_600_000 < plan["traffic"]["read_bytes"] < 4_000_000
    assert plan["traffic"]["written_bytes"] == 43_200_000
    assert plan["traffic"]["halo"] > 0
    assert plan["memory"]["bound"] == 512 << 20
    parts = ("libraries", "weights", "threads", "files", "blocks")
    assert plan["memory"]["peak"] == sum(plan["memory"][part] for part in parts) <= 512 << 20
    monkeypatch.setenv("TMPDIR", "/")
    volconv(*line, "-n", "--memory", "512M")
    assert "for the output, in /\n" in capsys.readouterr().out


def test_facts_of_a_spooled_run_by_hand(capsys, monkeypatch):
    """12 planes of 600 voxels, in slabs of 8 and 4; planes from beyond the other end are read for each."""
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 1)
    make_nifti("in.nii.gz", noise((12, 20, 30), "uint8"))
    where = ["--padding", "1", "--padding-mode", "circular", "--algorithm", "direct"]
    line = ["in.nii.gz", "-k", "box:size=3", *where, "-o", "o.nii.gz"]
    volconv("apply", *line, "-n")
    told = " ".join(capsys.readouterr().out.split())
    assert "reads 9.6 kB of uint8 (nifti), 33.3% of it as halos writes 28.8 kB of float32 (nifti)" in told
    assert "blocks 2 of 8,20,30 outputs (D,H,W), two held at a time" in told
    assert f"temporary 7.2 kB for the input, in {Path.cwd()}" in told
    volconv("apply", *line, "--json")
    (run,) = checked(capsys.readouterr().out)
    plan = run["plan"]
    assert (plan["blocks"], plan["block_shape"], plan["blocks_held"]) == (2, [1, 1, 8, 20, 30], 2)
    assert plan["traffic"]["read_bytes"] == (1 + 9) * 600 + (1 + 4 + 1) * 600
    assert plan["traffic"]["halo"] == pytest.approx((10 + 6) / 12 - 1)
    assert plan["traffic"]["written_bytes"] == 12 * 600 * 4
    assert plan["spool"] == {"source": 12 * 600, "mask": 0, "target": 0, "folder": str(Path.cwd())}
    assert plan["memory"]["blocks"] == 2 * (10 * 600 + 8 * 600 * 4)
    assert plan["memory"]["libraries"] == 120 << 20
    assert plan["predicted_seconds"] > 0
    assert run["seconds"]["total"] > 0


def test_temporary_files_that_do_not_fit_are_told_of_before_any_work(capsys, monkeypatch):
    import shutil

    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 1 << 20)
    make_nifti("in.nii", noise((60, 200, 300), "uint8"))
    usage = shutil.disk_usage(".")._replace(free=40_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for how in (["-n"], []):
        volconv("apply", "in.nii", "-k", "sobel", "--padding", "1", "-o", "o.nii.gz", *how, code=1)
        assert capsys.readouterr().err == (
            f"volconv: error: o.nii.gz: temporary files take 43200000 bytes, and {Path.cwd()} has room for 40000000; "
            "set TMPDIR to a folder with more room\n"
        )
    assert names(".") == ["in.nii"]


def test_nothing_that_fits_names_what_would(capsys):
    make_nifti("in.nii", noise((10, 20, 30)))
    volconv("apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "--memory", "121M", code=6)
    err = capsys.readouterr().err
    found = re.fullmatch(
        r"volconv: error: in\.nii: memory must be at least (\d+)M for this volume and kernel \(got 121M\); "
        r"pass --memory (\d+)M \(memory=\)\n",
        err,
    )
    assert found
    assert found[1] == found[2]
    assert names(".") == ["in.nii"]
    volconv("apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "--memory", f"{found[1]}M")


def test_a_dry_run_is_what_the_run_does_then(capsys):
    line = ["apply", ANISO, "-k", "sobel", "--padding", "1", "--dtype", "int16", "-o", "o.h5", "--json", "-q"]
    volconv(*line, "-n")
    (planned,) = checked(capsys.readouterr().out)
    volconv(*line)
    (done,) = checked(capsys.readouterr().out)
    assert (planned["status"], done["status"]) == ("planned", "done")
    for key in ("seconds", "counts", "peak_memory", "levels"):
        assert planned[key] is None
        assert done[key] is not None
    same = set(planned) - {"status", "seconds", "counts", "peak_memory", "levels"}
    assert {key: planned[key] for key in same} == {key: done[key] for key in same}


@pytest.mark.parametrize("output", ["o.nii", "o.nii.gz", "o.tif", "o.ome.tif", "o.h5", "o.h5:/a/b", "o/", "o.zarr"])
def test_a_dry_run_of_every_format(capsys, output):
    line = ["apply", ANISO, "-k", "box:size=3", "-o", output, "--json", "-q"]
    volconv(*line, "-n")
    assert names(".") == []
    (planned,) = checked(capsys.readouterr().out)
    volconv(*line)
    (done,) = checked(capsys.readouterr().out)
    assert planned["target"] == done["target"]
    assert planned["notes"] == done["notes"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([ANISO, "-o", "old.nii"], 4, "old.nii: the output already exists"),
        ([ANISO, "-o", "none/o.nii"], 1, "the output's folder does not exist"),
        ([ANISO, "-o", "o.nii", "--dtype", "float16"], 1, "cannot hold dtype float16"),
        ([ANISO, "-o", "o.h5", "--co", "chunk=8"], 2, "(got 'chunk'); did you mean chunks?"),
        (["gone.nii", "-o", "o.nii"], 3, "gone.nii: no such file"),
        ([ANISO, "-o", "o.nii", "--stride", "2", "--padding", "same"], 2, "padding='same' needs stride 1"),
    ],
)
def test_a_dry_run_fails_where_the_run_would(capsys, arguments, code, message):
    make_nifti("old.nii", noise())
    for more in (["-n"], []):
        volconv("apply", *arguments, "-k", "identity", *more, code=code)
        assert message in capsys.readouterr().err
        assert names(".") == ["old.nii"]


# --- the options in effect


def test_the_options_in_effect_can_be_kept(capsys, monkeypatch):
    np.save("k.npy", np.ones((3, 3, 3)))
    Path("deep").mkdir()
    Path("deep/a.toml").write_text(
        'kernel = "../k.npy"\nstride = [1, 2, 2]\npadding = 1\nco = {compression = "gzip"}\n'
    )
    monkeypatch.setenv("VOLCONV_THREADS", "2")
    line = ["--config", "deep/a.toml", "--padding", "2,1,1", "--spacing", "2,1,1um", "--time", "0:1", "-o", "o.h5"]
    volconv("apply", *line, "--print-config")
    text = capsys.readouterr().out
    effective = tomllib.loads(text)
    assert effective["kernel"] == str(Path.cwd() / "deep" / ".." / "k.npy")
    assert effective["padding"] == [2, 1, 1]
    assert effective["stride"] == [1, 2, 2]
    assert effective["threads"] == 2
    assert effective["spacing"] == "2,1,1um"
    assert effective["time"] == "0:1"
    assert effective["co"] == {"compression": "gzip"}
    assert effective["output"] == str(Path.cwd() / "o.h5")
    assert not {"quiet", "flip-kernel", "groups"} & set(effective)
    volconv("apply", ANISO, *line, "-q")
    Path("elsewhere").mkdir()
    Path("elsewhere/b.toml").write_text(text)
    volconv("apply", ANISO, "--config", "elsewhere/b.toml", "-o", "again.h5", "-q")
    assert Path("o.h5").read_bytes() == Path("again.h5").read_bytes()


def test_creation_options_of_a_config_stay_where_others_are_given(capsys):
    Path("a.toml").write_text('kernel = "identity"\nco = {compression = "zlib", tile = 16}\nquiet = true\n')
    volconv("apply", NUCLEI, "--config", "a.toml", "-o", "o.tif", "--co", "compression=lzw", "-v")
    assert "predicted  on one thread" in capsys.readouterr().err  # -v wins over the config's quiet
    with tifffile.TiffFile("o.tif") as file:
        assert file.pages[0].is_tiled
        assert file.pages[0].compression == tifffile.COMPRESSION.LZW
    volconv("apply", NUCLEI, "-k", "identity", "-o", "p.tif", "-q", "-v", code=2)


def test_a_report_of_a_series_without_spacing(capsys):
    nibabel.Nifti1Image(np.zeros((4, 5, 6, 3), np.uint8), np.eye(4)).to_filename("a.nii")
    with open_volume("a.nii") as volume:
        assert volume.info.time_step == 1.0
    volconv("apply", "a.nii", "-k", "identity", "-o", "o.nii", "--json", "-q")
    (run,) = checked(capsys.readouterr().out)
    assert run["source"]["time_step"] == run["target"]["time_step"] == 1.0
    volconv("apply", NUCLEI, "-k", "identity", "-o", "o.tif", "--json", "-q")
    (run,) = checked(capsys.readouterr().out)
    for volume in (run["source"], run["target"]):
        assert volume["time_step"] is None
        assert volume["geometry"]["unit"] is volume["geometry"]["spacing"] is volume["geometry"]["origin"] is None


def test_what_a_header_says_is_carried_on_and_a_slope_where_the_dtype_is_the_same():
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(stored, OBLIQUE)
    image.header["descrip"] = b"of my own"
    image.header["intent_code"] = 1002
    image.header.set_xyzt_units("mm")
    image.to_filename("in.nii")
    content = bytearray(Path("in.nii").read_bytes())
    content[112:120] = np.array([0.5, 10], "<f4").tobytes()
    Path("in.nii").write_bytes(content)
    volconv("apply", "in.nii", "-k", "identity", "-o", "o.nii", "--dtype", "same")
    header = nibabel.load("o.nii").header
    assert header["descrip"].item() == b"of my own"
    assert header["intent_code"] == 1002
    assert header.get_data_dtype() == np.int16
    kept = nibabel.load("o.nii").dataobj
    assert (kept.slope, kept.inter) == (0.5, 10)
    np.testing.assert_array_equal(np.asarray(nibabel.load("o.nii").dataobj), stored * 0.5 + 10)
    volconv("apply", "in.nii", "-k", "identity", "-o", "p.nii")
    np.testing.assert_array_equal(np.asarray(nibabel.load("p.nii").dataobj), stored * 0.5 + 10)
    real = nibabel.load("p.nii").dataobj
    assert (real.slope, real.inter) == (1, 0)


def test_blocks_end_between_the_chunks_of_the_output(monkeypatch):
    make_nifti("in.nii", noise((40, 16, 16)))
    monkeypatch.setattr("volconv.budget.BLOCK_BYTES", 23000)  # ten planes, and their halo
    for chunks, thickness in (("4,8,8", 8), ("none", 10)):
        how = {"options": {"chunks": chunks}, "algorithm": "direct", "overwrite": True}
        report = library.apply("in.nii", "o.h5", "box:size=3", padding=1, **how)
        assert [block.start[2] for block in report.plan.blocks] == list(range(0, 40, thickness))


def test_a_folder_gives_its_name_to_its_output():
    volconv("convert", NUCLEI, "slices/", "-q")
    volconv("apply", "slices", "-k", "identity", "-o", "{stem}_same{ext}", "-q")
    assert len(names("slices_same")) == 31


def test_every_option_has_a_key():
    names = {parameter.opts[-1] for parameter in apply.command.params if parameter.opts[-1].startswith("--")}
    names -= {"--config", "--print-config", "--debug"}
    assert names == {f"--{key}" for key in KEYS}
    by_name = {parameter.name for parameter in apply.command.params}
    assert {options._RENAMED.get(key, key.replace("-", "_")) for key in KEYS} <= by_name


def test_a_kernel_of_numbers_in_a_config(capsys):
    Path("a.toml").write_text("kernel = [[[1, 0, -1]]]\nbias = [0.5]\n")
    volconv("apply", ANISO, "--config", "a.toml", "-o", "o.nii", "--json", "-q")
    expected = library.conv3d(
        read(ANISO).astype(np.float32), np.array([1, 0, -1.0], np.float32).reshape(1, 1, 1, 1, 3), [0.5]
    )
    np.testing.assert_array_equal(read("o.nii"), expected)
    (run,) = checked(capsys.readouterr().out)
    assert run["kernel"]["spec"] is None
    assert run["kernel"]["shape"] == [1, 1, 3]
    volconv("apply", ANISO, "--config", "a.toml", "-o", "p.nii", "--print-config")
    assert tomllib.loads(capsys.readouterr().out)["kernel"] == [[[1, 0, -1]]]
    volconv("shape", ANISO, "--config", "a.toml", "--json")
    assert json.loads(capsys.readouterr().out)["kernel_size"] == [1, 1, 3]


def test_an_output_in_a_config_lies_beside_it(capsys):
    Path("deep").mkdir()
    Path("deep/a.toml").write_text('kernel = "identity"\noutput = "{stem}_o.nii"\njson = true\nquiet = true\n')
    volconv("apply", ANISO, "--config", "deep/a.toml")
    assert names("deep") == ["a.toml", "aniso_vox_o.nii"]
    checked(capsys.readouterr().out)


# --- what is read of the inputs


def test_files_as_channels():
    images = {name: noise(dtype=dtype, seed=i) for i, (name, dtype) in enumerate([("a", "int16"), ("b", "int16")])}
    for name, values in images.items():
        make_nifti(f"{name}.nii", values)
    weight = np.random.default_rng(0).standard_normal((4, 2, 3, 3, 3)).astype(np.float32)
    np.save("w.npy", weight)
    volconv("apply", "--stack", "a.nii", "b.nii", "-k", "w.npy", "-o", "o.nii")
    x = np.stack(list(images.values()))[np.newaxis].astype(np.float32)
    np.testing.assert_array_equal(read("o.nii"), library.conv3d(x, weight))


def test_files_as_channels_with_slopes_and_dtypes_of_their_own():
    a, b = noise(dtype="int16"), noise(seed=1)
    make_nifti("b.nii", b)
    image = nibabel.Nifti1Image(a.transpose(), np.eye(4), dtype=np.int16)
    image.header.set_slope_inter(0.25, 3)
    image.header.set_xyzt_units("mm")
    stored = nibabel.Nifti1Image(image.dataobj, image.affine, image.header)
    stored.to_filename("a.nii")
    real = np.asarray(nibabel.load("a.nii").dataobj, dtype=np.float64).transpose()
    volconv("apply", "--stack", "a.nii", "b.nii", "-k", "identity", "-o", "o.nii")
    assert read("o.nii").dtype == np.float32
    np.testing.assert_allclose(read("o.nii")[0, 0], real, rtol=1e-6)
    np.testing.assert_array_equal(read("o.nii")[0, 1], b)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: make_nifti("b.nii", noise((9, 10, 12))),
            r"one size (N, D, H, W) (got a.nii (1, 9, 10, 11), b.nii (1, 9",
        ),
        (
            lambda: make_nifti("b.nii", noise(), np.diag([1, 1, 2, 1])),
            "got a.nii affine [1 0 0 0; 0 1 0 0; 0 0 1 0] mm, b.nii affine [1 0 0 0; 0 1 0 0; 0 0 2 0] mm)",
        ),
    ],
)
def test_files_that_are_no_channels_of_one_volume(capsys, other, message):
    make_nifti("a.nii", noise())
    other()
    volconv("apply", "--stack", "a.nii", "b.nii", "-k", "identity", "-o", "o.nii", code=5)
    assert message in capsys.readouterr().err


def test_a_part_of_the_time_and_of_the_channels():
    x = noise((5, 3, 6, 7, 8), "int16")
    nibabel.Nifti1Image(x.transpose(4, 3, 2, 0, 1), np.eye(4)).to_filename("in.nii")
    for options_, part in (
        (["--time", "1:4"], x[1:4]),
        (["--time", "3:"], x[3:]),
        (["--channel", "2"], x[:, 2:3]),
        (["--time", "0", "--channel", ":2"], x[:1, :2]),
    ):
        volconv("apply", "in.nii", "-k", "box:size=3", "-o", "o.nii", "-f", *options_)
        weight = np.full((part.shape[1], 1, 3, 3, 3), 1 / 27, np.float32)
        np.testing.assert_array_equal(
            read("o.nii"), library.conv3d(part.astype(np.float32), weight, groups=len(weight))
        )


def test_spacing_wins_over_what_the_file_says(capsys):
    volconv("apply", ANISO, "-k", "gaussian:sigma=4um", "--spacing", "2um", "-o", "o.nii", "--json", "-q")
    (run,) = checked(capsys.readouterr().out)
    assert run["source"]["geometry"]["spacing"] == [2.0, 2.0, 2.0]
    assert run["source"]["geometry"]["unit"] == "um"
    assert run["parameters"]["kernel_size"] == [17, 17, 17]
    np.testing.assert_allclose(nibabel.load("o.nii").header.get_zooms(), 2, rtol=1e-6)
    assert nibabel.load("o.nii").header.get_xyzt_units()[0] == "micron"
    # A TIFF without any takes it, and its unit must be said.
    volconv("apply", NUCLEI, "-k", "gaussian:sigma=0.5um", "--spacing", "1,0.5,0.5um", "-o", "o.tif", "-q")
    with library.open_volume("o.tif") as volume:
        np.testing.assert_allclose(volume.info.geometry.spacing, (1, 0.5, 0.5), rtol=1e-6)
    volconv("apply", NUCLEI, "-k", "identity", "--spacing", "1,0.5,0.5", "-o", "p.tif", code=2)
    assert (
        f"spacing must have a unit, as {NUCLEI} states none (got 1,0.5,0.5); as in 1,0.5,0.5um"
        in capsys.readouterr().err
    )


def test_channels_that_were_taken_for_time_are_told(capsys):
    nibabel.Nifti1Image(noise((8, 7, 6, 4), "int16"), np.eye(4)).to_filename("brats.nii")
    np.save("w.npy", np.ones((2, 4, 1, 1, 1), np.float32))
    volconv("apply", "brats.nii", "-k", "w.npy", "-o", "o.nii", code=5)
    assert "its volumes in time may be channels: --axes XYZC" in capsys.readouterr().err
    volconv("apply", "brats.nii", "-k", "w.npy", "-o", "o.nii", "--axes", "XYZC")


def test_axes_win_over_what_the_file_says(capsys):
    x = noise((6, 7, 8, 4), "int16")  # D, H, W, C in numpy's order: a NIfTI whose 4th axis is channels
    nibabel.Nifti1Image(x.transpose(2, 1, 0, 3), np.eye(4)).to_filename("brats.nii")
    volconv("apply", "brats.nii", "--axes", "XYZC", "-k", "identity", "-o", "o.nii", "--json", "-q")
    (run,) = checked(capsys.readouterr().out)
    assert run["source"]["shape"] == [1, 4, 6, 7, 8]
    np.testing.assert_array_equal(read("o.nii")[0], x.transpose(3, 0, 1, 2))
    tifffile.imwrite("q.tif", x[..., 0], photometric="minisblack")
    volconv("shape", "q.tif", "--axes", "TYX", "-k", "box:size=1", "--json")
    assert json.loads(capsys.readouterr().out)["input_shape"] == [6, 1, 1, 7, 8]


def test_colours_as_channels(capsys):
    x = noise((5, 6, 7, 3), "uint8")
    tifffile.imwrite("rgb.tif", x, photometric="rgb", metadata={"axes": "ZYXS"})
    volconv("apply", "rgb.tif", "-k", "identity", "-o", "o.nii", code=3)
    assert "pass --rgb (rgb=True) to take them as channels" in capsys.readouterr().err
    volconv("apply", "rgb.tif", "-k", "identity", "-o", "o.nii", "--rgb")
    np.testing.assert_array_equal(read("o.nii")[0], x.transpose(3, 0, 1, 2))


def test_what_an_output_cannot_hold_is_told_and_kept(capsys):
    volconv("apply", ANISO, "-k", "identity", "-o", "o.ome.tif")
    err = capsys.readouterr().err
    assert "  note: o.ome.tif: OME-TIFF holds no orientation, only spacing: dropped affine [-3.99979 " in err
    with tifffile.TiffFile("o.ome.tif") as file:
        assert "dropped affine [-3.99979 " in file.ome_metadata
        assert "conv3d of aniso_vox.nii.gz with identity" in file.ome_metadata
