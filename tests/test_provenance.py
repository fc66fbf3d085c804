"""The note in an output of how it was made, and what --skip-existing makes of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import volconv as library
from command import ANISO, make_nifti, names, noise, volconv
from volconv import provenance
from volconv.errors import OutputExistsError
from volconv.io import open_volume

OUTPUTS = ["o.nii", "o.nii.gz", "o.tif", "o.ome.tif", "o.h5", "o.h5:/a/b", "o/"]
LINE = ["-k", "box:size=3", "--padding", "same"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_nifti("in.nii", noise())


def facts_of(path):
    """The facts in an output's note."""
    with open_volume(path) as volume:
        text = volume.info.provenance
    assert text.startswith(f"volconv {library.__version__}: conv3d of ")
    return json.JSONDecoder().raw_decode(text[text.index("; {") + 2 :])[0]


def state(path="."):
    """Every file, with content and inode."""
    files = [file for file in sorted(Path(path).rglob("*")) if file.is_file()]
    return [(str(file), file.stat().st_ino, file.read_bytes()) for file in files]


# --- the note


def test_what_it_says():
    np.save("w.npy", np.ones((2, 1, 3, 3, 3), np.float32))
    line = ["-k", "w.npy", "-b", "0.5", "--stride", "1,2,2", "--time", "0:1", "--flip-kernel", "--dtype", "int16"]
    volconv("apply", "in.nii", *line, "-o", "o.h5", "--co", "compression=gzip", "--padding", "same", code=2)
    volconv("apply", "in.nii", *line, "-o", "o.h5", "--co", "compression=gzip", "--padding", "1", "--algorithm", "gemm")
    facts = facts_of("o.h5")
    digest = hashlib.sha256(np.ones((2, 1, 3, 3, 3), np.float32).tobytes()).hexdigest()
    assert facts["input"] == [
        {"bytes": Path("in.nii").stat().st_size, "sha256": hashlib.sha256(Path("in.nii").read_bytes()).hexdigest()}
    ]
    assert facts["kernel"] == {"shape": [2, 1, 3, 3, 3], "dtype": "float32", "sha256": digest}
    assert facts["bias"]["shape"] == [2]
    assert (facts["stride"], facts["padding_low"], facts["padding_high"]) == ([1, 2, 2], [1, 1, 1], [1, 1, 1])
    assert (facts["flip_kernel"], facts["algorithm"], facts["dtype"]) == (True, "gemm", "int16")
    assert (facts["reading"], facts["co"]) == ({"time": "0:1"}, {"compression": "gzip"})


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_format_keeps_it(capsys, output):
    volconv("apply", "in.nii", *LINE, "-o", output, "-q")
    assert facts_of(output)["kernel"]["shape"] == [3, 3, 3]
    volconv("info", output, "--field", "provenance")
    assert capsys.readouterr().out.startswith(f"volconv {library.__version__}: conv3d of in.nii with box:size=3; {{")
    volconv("info", output)
    assert re.search(r"\nmade by +volconv ", capsys.readouterr().out)


def test_it_does_not_depend_on_where_the_input_lies_or_when_it_was_made():
    Path("elsewhere").mkdir()
    shutil.copyfile("in.nii", "elsewhere/in.nii")
    os.utime("elsewhere/in.nii", (1, 1))
    for source, output in (("in.nii", "a.nii"), ("elsewhere/in.nii", "b.nii")):
        volconv("apply", source, *LINE, "-o", output, "-q")
    assert Path("a.nii").read_bytes() == Path("b.nii").read_bytes()


def test_the_short_description_of_nifti_is_the_sentence():
    volconv("apply", "in.nii", *LINE, "-o", "o.nii")
    sentence = f"volconv {library.__version__}: conv3d of in.nii with box:size=3"
    assert nibabel.load("o.nii").header["descrip"].item().decode() == sentence


@pytest.mark.parametrize("name", ['; {"volconv": .nii', "a; {}.nii", 'µ "q" <x>.nii'])
def test_names_that_look_like_facts(name):
    shutil.copyfile("in.nii", name)
    for output in ("o.ome.tif", "o.tif", "o.nii"):
        volconv("apply", name, *LINE, "-o", output)
        before = state()
        volconv("apply", name, *LINE, "-o", output, "--skip-existing", code=4 if name.startswith(";") else 0)
        assert state() == before


def test_inputs_of_several_files():
    Path("slices").mkdir()
    for i in range(11):
        tifffile.imwrite(f"slices/s{i}.tif", noise((10, 11), "uint8", seed=i), photometric="minisblack")
    volconv("apply", "slices/", "-k", "identity", "-o", "o.nii")
    together = b"".join(Path(f"slices/s{i}.tif").read_bytes() for i in range(11))
    assert facts_of("o.nii")["input"] == [{"bytes": len(together), "sha256": hashlib.sha256(together).hexdigest()}]
    volconv("apply", "slices/", "-k", "identity", "-o", "o.nii", "--skip-existing")
    Path("slices/s10.tif").unlink()
    volconv("apply", "slices/", "-k", "identity", "-o", "o.nii", "--skip-existing", code=4)
    nibabel.Nifti1Pair(noise(), np.eye(4)).to_filename("p.img")
    volconv("apply", "p.hdr", "-k", "identity", "-o", "p.nii")
    assert facts_of("p.nii")["input"][0]["bytes"] == sum(Path(f"p.{e}").stat().st_size for e in ("hdr", "img"))
    volconv("apply", "--stack", "in.nii", "in.nii", "-k", "identity", "-o", "s.nii")
    assert len(facts_of("s.nii")["input"]) == 2


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4), most=st.sampled_from([8, 16, 32]))
def test_a_digest_reads_all_of_small_inputs_and_pieces_of_large_ones(tmp_path_factory, sizes, most):
    folder = tmp_path_factory.mktemp("pieces")
    files = [folder / f"{i}" for i in range(len(sizes))]
    content = np.random.default_rng(0).bytes(sum(sizes))
    begin = 0
    for file, size in zip(files, sizes):
        file.write_bytes(content[begin : begin + size])
        begin += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "DIGEST_BYTES", most)
        patch.setattr(provenance, "_PIECE", 4)
        read = b"".join(provenance._pieces(files, sizes))
    if len(content) <= most:
        assert read == content
    else:
        assert len(read) == most
        assert read[:4] == content[:4]
        assert read[-4:] == content[-4:]


# --- what is skipped


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_made_in_the_same_way_is_left_alone(capsys, output):
    line = ["apply", "in.nii", *LINE, "-o", output, "--skip-existing"]
    volconv(*line)
    assert "skipped" not in capsys.readouterr().err
    before = state()
    volconv(*line)
    assert capsys.readouterr() == ("", f"in.nii -> {output}: skipped, was made in the same way\n")
    volconv(*line, "-f")
    volconv(*line, "-n")
    assert state() == before
    volconv(*line, "--json", "-q")
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["status"], run["seconds"], run["target"]["shape"]) == ("skipped", None, [1, 1, 9, 10, 11])


CHANGES = [
    (["-k", "box:size=5"], r"kernel 3,3,3 sha256 \w{8} \(now 5,5,5 sha256 \w{8}\)"),
    (["-k", "k.npy"], r"kernel 3,3,3 sha256 \w{8} \(now 3,3,3 sha256 \w{8}\)"),
    (["--stride", "2", "--padding", "1"], r"stride 1,1,1 \(now 2,2,2\)"),
    (["--padding", "0"], r"padding low 1,1,1 \(now 0,0,0\), padding high 1,1,1 \(now 0,0,0\)"),
    (["--dilation", "2"], r"dilation 1,1,1 \(now 2,2,2\)"),
    (["--padding-mode", "reflect"], r"padding mode zeros \(now reflect\)"),
    (["--padding-value", "-1000"], r"padding value 0.0 \(now -1000.0\)"),
    (["-b", "1"], r"bias none \(now 1 sha256 \w{8}\)"),
    (["--flip-kernel"], r"flip kernel no \(now yes\)"),
    (["--dtype", "int16"], r" dtype float32 \(now int16\)"),
    (["--compute-dtype", "float64"], r"compute dtype float32 \(now float64\)"),
    (["--algorithm", "gemm"], r"algorithm auto \(now gemm\)"),
    (["--time", "0"], r"reading none \(now time=0\)"),
    (["--spacing", "2,1,1um"], r"reading none \(now spacing=2.0,1.0,1.0,um\)"),
    (["--co", "compression=gzip"], r"co none \(now compression=gzip\)"),
]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(*change, id=" ".join(change[0]), marks=[pytest.mark.slow] if number % 3 else [])
        for number, change in enumerate(CHANGES)
    ],
)
def test_what_differs_is_told_and_nothing_is_replaced(capsys, options, said):
    np.save("k.npy", np.full((3, 3, 3), 0.5, np.float32))
    volconv("apply", "in.nii", *LINE, "-o", "o.h5", "-q")
    before = state()
    line = ["apply", "in.nii", *LINE, "-o", "o.h5", "--skip-existing", *options]
    for more in ([], ["-n"]):
        volconv(*line, *more, code=4)
        assert state() == before
        err = capsys.readouterr().err
        start = "volconv: error: o.h5: the output already exists, and is not skipped: "
        assert err.startswith(start)
        assert err.endswith("; pass -f/--overwrite (overwrite=True) to replace it\n")
        assert re.search(said, err), err
    volconv(*line, "-f")
    assert re.search(f"  note: replaces what was there: .*{said.strip()}", capsys.readouterr().err)
    assert state() != before
    volconv(*line)
    assert ": skipped, was made in the same way" in capsys.readouterr().err


def test_another_input_or_part_of_it(capsys):
    with h5py.File("in.h5", "w") as file:
        file["a"], file["b"] = noise(), noise(seed=1)
    volconv("apply", "in.h5:/a", *LINE, "-o", "o.nii", "-q")
    volconv("apply", "in.h5:/b", *LINE, "-o", "o.nii", "--skip-existing", code=4)
    assert re.search(
        r"skipped: input \d+ bytes/a sha256 (\w{8}) \(now \d+ bytes/b sha256 \1\); ", capsys.readouterr().err
    )
    volconv("apply", "in.nii", *LINE, "-o", "p.nii", "-q")
    voxels = noise()
    voxels[4, 5, 6] += 1
    make_nifti("in.nii", voxels)
    volconv("apply", "in.nii", *LINE, "-o", "p.nii", "--skip-existing", code=4)
    assert re.search(
        r"skipped: input 4\d+ bytes sha256 \w{8} \(now 4\d+ bytes sha256 \w{8}\); ", capsys.readouterr().err
    )


def test_another_version(capsys, monkeypatch):
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "-q")
    monkeypatch.setattr(provenance, "__version__", "99.0")
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "--skip-existing", code=4)
    assert f"skipped: volconv {library.__version__} (now 99.0); " in capsys.readouterr().err


def test_an_output_without_a_note_or_that_cannot_be_read(capsys):
    make_nifti("o.nii", noise())
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "--skip-existing", code=4)
    assert "o.nii: the output already exists, and is not skipped: it has no note of how it was made; pass -f" in (
        capsys.readouterr().err
    )
    Path("o.nii").write_bytes(b"not at all")
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "--skip-existing", code=4)
    assert "is not skipped: it cannot be read (o.nii: is no NIfTI file); pass -f" in capsys.readouterr().err
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "--skip-existing", "-f")
    assert facts_of("o.nii")
    volconv("convert", "o.nii", "c.nii")
    volconv("apply", "in.nii", *LINE, "-o", "c.nii", "--skip-existing", code=4)
    assert "it has no note of how it was made" in capsys.readouterr().err


HOSTILE = ["{", "[]", "3", '{"volconv": ' * 9, '{"volconv": [[[]]], "input": 3}', '{"volconv": ' + "[" * 100_000]


@pytest.mark.parametrize("facts", HOSTILE, ids=range(len(HOSTILE)))
def test_notes_of_nonsense(facts):
    image = nibabel.Nifti1Image(noise().transpose(), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"volconv 1: x; {facts}".encode()))
    image.to_filename("o.nii")
    with pytest.raises(OutputExistsError, match="is not skipped"):
        library.apply("in.nii", "o.nii", "box:size=3", padding="same", skip_existing=True)


def test_a_folder_of_slices_is_not_replaced(capsys):
    volconv("apply", "in.nii", *LINE, "-o", "o/", "-q")
    volconv("apply", "in.nii", "-k", "identity", "-o", "o/", "--skip-existing", code=4)
    assert capsys.readouterr().err.endswith("; remove it, or name a new one\n")
    Path("empty").mkdir()
    volconv("apply", "in.nii", *LINE, "-o", "empty/", "--skip-existing")
    assert len(names("empty")) == 9


def test_a_filter_of_a_filtered_volume():
    """The input's note comes along, and is not the output's."""
    for once, twice in (("once.nii", "twice.nii"), ("once.nii", "twice.h5"), ("once.h5", "again.h5")):
        volconv("apply", "in.nii", *LINE, "-o", once, "-f")
        volconv("apply", once, *LINE, "-o", twice)
        volconv("apply", once, *LINE, "-o", twice, "--skip-existing")
        volconv("apply", "in.nii", *LINE, "-o", twice, "--skip-existing", code=4)
    volconv("apply", "once.nii", *LINE, "-o", "once.nii", "-f")
    volconv("apply", "once.nii", *LINE, "-o", "once.nii", "--skip-existing", code=4)


def test_a_large_input_must_not_have_changed_since(capsys, monkeypatch):
    monkeypatch.setattr(provenance, "DIGEST_BYTES", 64)
    monkeypatch.setattr(provenance, "_PIECE", 16)
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "-q")
    assert set(facts_of("o.nii")["input"][0]) == {"bytes", "sha256_of_samples"}
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "--skip-existing")
    assert "skipped, was made in the same way" in capsys.readouterr().err
    voxels = noise()
    voxels[4, 5, 6] += 1
    times = Path("in.nii").stat()
    make_nifti("in.nii", voxels)
    os.utime("in.nii", ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps its time
    volconv("apply", "in.nii", *LINE, "-o", "o.nii", "--skip-existing", code=4)
    assert "is not skipped: in.nii changed after it was made; pass -f" in capsys.readouterr().err


def test_the_function():
    library.apply("in.nii", "a/b/o.nii", "box:size=3", mkdir=True)
    report = library.apply("in.nii", "a/b/o.nii", "box:size=3", skip_existing=True)
    assert report.status == "skipped"
    again = library.apply("in.nii", "a/b/o.nii", "box:size=5", skip_existing=True, overwrite=True)
    assert again.status == "done"
    assert again.replaced[0].startswith("kernel 3,3,3 sha256 ")


def test_arrays_have_no_note_of_an_input():
    library.apply(ANISO, "o.nii", np.ones((3, 3, 3)))
    with open_volume("o.nii") as volume:
        assert "conv3d of aniso_vox.nii.gz with weights from an array; " in volume.info.provenance
