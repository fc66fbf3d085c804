"""``volconv apply`` with many files: names, lists, several at once, the table and the report at the end."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from command import ANISO, NUCLEI, ROOT, make_nifti, names, noise, read, volconv

SCRIPT = Path(sys.executable).parent / "volconv"
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text())
LINE = ["-k", "box:size=3", "--padding", "same"]

#: Seconds after which a test gives up: machines may stand still for a while.
PATIENCE = 120


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOLCONV_THREADS", raising=False)


def study(count=3):
    """Subjects' folders with a volume each."""
    files = []
    for i in range(1, count + 1):
        folder = Path(f"sub-{i:02}/anat")
        folder.mkdir(parents=True)
        files.append(str(make_nifti(folder / f"sub-{i:02}_T1w.nii.gz", noise((12, 13, 14), "uint8", seed=i))))
    return files


def tree(folder="."):
    """Every file in a folder, those that are hidden too."""
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def feed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# --- names


def test_a_study(capsys):
    files = study()
    template = "derivatives/{parent}/{stem}_smooth{ext}"
    line = ["apply", *files, "--config", ROOT / "configs/gaussian.toml", "-o", template]
    volconv(*line, code=1)
    derivatives = Path.cwd() / "derivatives"
    assert capsys.readouterr().err == (
        "volconv: error: derivatives/sub-01/anat/sub-01_T1w_smooth.nii.gz: the output's folder does not exist "
        f"(got {derivatives}/sub-01/anat and 2 more); create it first, or pass --mkdir (mkdir=True)\n"
    )
    volconv(*line, "--mkdir", "-n")
    out, _ = capsys.readouterr()
    for file in files:
        assert f"{file} -> derivatives/{file.replace('T1w', 'T1w_smooth')}: 1,1,12,13,14" in out
    assert tree() == files
    volconv(*line, "--mkdir")
    assert tree("derivatives") == [f"derivatives/{file.replace('T1w', 'T1w_smooth')}" for file in files]
    volconv(*line, "--skip-existing")
    assert " skipped       3  made in the same way before\n" in capsys.readouterr().err


def test_one_file_and_a_missing_folder(capsys):
    volconv("apply", ANISO, *LINE, "-o", "a/b/o.nii", code=1)
    assert "a/b/o.nii: the output's folder does not exist (got" in capsys.readouterr().err
    volconv("apply", ANISO, *LINE, "-o", "a/b/o.nii", "--mkdir", "-n")
    assert names(".") == []
    volconv("apply", ANISO, *LINE, "-o", "a/b/o.nii", "--mkdir")
    volconv("apply", ANISO, *LINE, "-o", "a/c/o/", "--mkdir")
    assert len(names("a/c/o")) == 24
    volconv("apply", ANISO, *LINE, "-o", "a/b/o.nii/p.nii", "--mkdir", code=1)
    assert f"p.nii: the output's folder is a file (got {Path.cwd()}/a/b/o.nii); name another" in capsys.readouterr().err


def test_inputs_of_several_formats(capsys):
    shutil.copy(ANISO, "a.nii.gz")
    shutil.copy(NUCLEI, "b.tif")
    Path("out").mkdir()
    volconv("apply", "a.nii.gz", "b.tif", "-k", "box:size=3", "-o", "out/{stem}_mean{ext}")
    volconv("apply", "a.nii.gz", "b.tif", "-k", "box:size=3", "-o", "out/{name}.h5")
    assert names("out") == ["a.nii.gz.h5", "a_mean.nii.gz", "b.tif.h5", "b_mean.tif"]
    np.testing.assert_array_equal(read("out/b_mean.tif"), read("out/b.tif.h5"))
    done = [line for line in capsys.readouterr().err.splitlines() if " -> " in line]
    assert [line.split(": ")[0] for line in done][:2] == [
        "a.nii.gz -> out/a_mean.nii.gz",
        "b.tif -> out/b_mean.tif",
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("out.nii", r"outputs must have names of their own \(got out.nii for a/in.nii and b/in.nii\); use a template"),
        ("{stem}.nii", r"\(got in.nii for a/in.nii and b/in.nii\)"),
        (
            "{parent}/{stem}_s{ext}",
            r"output must not be an input of another output \(got .*in_s.nii, made of a/in.nii\)",
        ),
        ("{steam}.nii", r"output may use {parent}, {name}, {stem} and {ext} \(got {steam} in '{steam}.nii'\); write"),
    ],
)
def test_templates_that_do_not_work(capsys, template, message):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        make_nifti(f"{folder}/in.nii", noise())
    make_nifti("a/in_s.nii", noise())
    before = tree()
    more = ["a/in_s.nii"] if "_s" in template else []
    volconv("apply", "a/in.nii", "b/in.nii", *more, "-k", "identity", "-o", template, "-f", code=2)
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert tree() == before


# --- lists


@pytest.mark.parametrize("listed", ["{}\n{}\n", "{}\n\n{}", "{}\r\n{}\r\n", "{}\0{}\0"])
def test_names_from_stdin(monkeypatch, listed):
    first, second = "a name.nii", "é.nii"
    for i, name in enumerate((first, second, "last.nii")):
        make_nifti(name, noise(seed=i))
    feed(monkeypatch, listed.format(first, second).encode())
    volconv("apply", "-", "last.nii", *LINE, "-o", "o/{name}", "--mkdir")
    assert names("o") == sorted([first, second, "last.nii"])


def test_one_name_and_no_name_from_stdin(monkeypatch, capsys):
    make_nifti("a.nii", noise())
    feed(monkeypatch, b"a.nii\n")
    volconv("apply", "-", *LINE, "-o", "o.nii")
    assert "result" not in capsys.readouterr().err
    feed(monkeypatch, b"gone.nii\n")
    volconv("apply", "-", *LINE, "-o", "o.nii", code=3)  # of one file, the code says what was wrong
    feed(monkeypatch, b"\n")
    volconv("apply", "-", *LINE, "-o", "o.nii", code=2)
    assert "'-' takes names of inputs from stdin, one a line (got none)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    volconv("apply", "-", *LINE, "-o", "o.nii", code=2)


def test_channels_named_by_stdin(monkeypatch):
    for i in range(2):
        make_nifti(f"{i}.nii", noise(seed=i))
    feed(monkeypatch, b"0.nii\n1.nii\n")
    volconv("apply", "--stack", "-", "-k", "identity", "-o", "o.nii")
    assert read("o.nii").shape == (1, 2, 9, 10, 11)


@pytest.mark.slow
def test_names_that_are_no_text():
    """As file systems of Linux allow them: bytes, whatever they are."""
    name = b"a\xff\x80\n.nii"
    make_nifti("a.nii", noise())
    os.rename(b"a.nii", name)  # noqa: PTH104  # bytes
    for more in (["-n"], ["--report", "r.jsonl"], ["--skip-existing"]):
        command = [SCRIPT, "apply", "-", *LINE, "-o", "o_{stem}.nii", *more]
        strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
        done = subprocess.run(command, input=name + b"\0", env=strict, capture_output=True)
        assert done.returncode == 0, done.stderr
        if more == ["-n"]:
            assert done.stdout.startswith(name + b" -> o_a\xff\x80\n.nii: ")
    assert b"o_a\xff\x80\n.nii" in os.listdir(b".")  # noqa: PTH208  # bytes
    assert len(Path("r.jsonl").read_text().splitlines()) == 1


# --- the table


def test_the_table(capsys):
    files = [*study(12), "gone.nii"]
    long = f"sub-13/ses-02_{'a' * 60}/sub-13_ses-02_acq-mprage_run-01_desc-preproc_T1w.nii.gz"
    Path(long).parent.mkdir(parents=True)
    make_nifti(long, noise((2, 2, 2)))
    for name in files[:12]:
        Path(name).write_bytes(Path(name).read_bytes()[:60])
    make_nifti("good.nii", noise())
    volconv("apply", *files, long, "good.nii", "-k", "box:size=3", "-o", "o/{parent}/{stem}.h5", "--mkdir", code=1)
    out, err = capsys.readouterr()
    assert out == ""
    head, _, table = err.partition("\n\n")
    assert head.count("volconv: error: ") == 14
    lines = table.splitlines()
    assert lines[:3] == [" result    files  why", f" {'─' * 78}", " done          1"]
    assert lines[3].startswith(" failed       12  is truncated: ")
    at = next(i for i, line in enumerate(lines) if line.startswith("                 - "))
    assert lines[at : at + 10] == [f"                 - {name}" for name in files[:10]]
    assert lines[at + 10] == "                   and 2 more"
    assert "\n failed        1  no such file\n                 - gone.nii\n" in table
    assert f"\n                 - {long}\n" in table
    assert re.fullmatch(r" 15 files in \d+\.\d s", lines[-1])
    assert all(len(line) <= 80 for line in lines if " - " not in line)
    capsys.readouterr()
    volconv("apply", *files, "-k", "box:size=3", "-o", "p/{parent}/{stem}.h5", "--mkdir", "-q", code=1)
    _, err = capsys.readouterr()
    assert err.splitlines()[-1] == "volconv: 13 of 13 inputs failed"
    assert "result" not in err


def test_one_failing_input_stops_no_other(capsys):
    make_nifti("a.nii", noise())
    make_nifti("small.nii", noise((2, 2, 2)))
    Path("torn.nii").write_bytes(Path("a.nii").read_bytes()[:200])
    make_nifti("z.nii", noise(seed=2))
    files = ["gone.nii", "a.nii", "small.nii", "torn.nii", "z.nii"]
    for jobs in (1, 3):
        volconv("apply", *files, "-k", "box:size=3", "-o", "out_{stem}{ext}", "-j", jobs, "-f", code=1)
        lines = capsys.readouterr().err.splitlines()
        assert names(".") == sorted(["a.nii", "small.nii", "torn.nii", "z.nii", "out_a.nii", "out_z.nii"])
        errors = [line for line in lines if line.startswith("volconv: error: ")]
        assert len(errors) == 3
        for name in ("gone.nii", "small.nii", "torn.nii"):
            assert any(name in line for line in errors)


def test_fail_fast(capsys):
    files = study()
    volconv("apply", "gone.nii", *files, *LINE, "-o", "o_{name}", "--fail-fast", "--report", "r.json", code=1)
    err = capsys.readouterr().err
    assert " left          3  not begun: the first failure was the last (--fail-fast)\n 4 files in " in err
    assert tree() == sorted([*files, "r.json"])
    runs = checked(json.loads(Path("r.json").read_text()))["runs"]
    assert [run["status"] for run in runs] == ["failed", "left", "left", "left"]
    volconv("apply", *files, *LINE, "-o", "o_{name}", "--fail-fast")


# --- reports


def checked(document):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_report_of_lines(capsys, jobs):
    files = study()
    line = ["apply", files[0], "gone.nii", *files[1:], *LINE, "-o", "o_{name}", "-j", jobs]
    volconv(*line, "--report", "r.jsonl", "--json", code=1)
    document = checked(json.loads(capsys.readouterr().out))
    runs = [checked(json.loads(line)) for line in Path("r.jsonl").read_text().splitlines()]
    assert {run["versions"]["volconv"] for run in runs} == {document["versions"]["volconv"]}
    key = lambda run: run["inputs"]  # noqa: E731
    assert [run["status"] for run in document["runs"]] == ["done", "failed", "done", "done"]
    assert sorted(
        ({k: v for k, v in run.items() if k not in ("schema_version", "versions")} for run in runs), key=key
    ) == sorted(document["runs"], key=key)
    volconv(*line, "--report", "r.jsonl", code=4)
    assert "r.jsonl: the output already exists" in capsys.readouterr().err
    volconv(*line, "--report", "r.jsonl", "-f", code=1)
    assert len(Path("r.jsonl").read_text().splitlines()) == 4


def test_lines_are_there_as_soon_as_files_are(monkeypatch):
    """What is known of a batch that ends before its end."""
    from volconv import functional

    files, apply, seen = study(), functional.apply, []

    def look(*arguments, **options):
        seen.append(len(Path("r.jsonl").read_text().splitlines()))
        return apply(*arguments, **options)

    monkeypatch.setattr(functional, "apply", look)
    volconv("apply", *files, *LINE, "-o", "o_{name}", "--report", "r.jsonl")
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("report", ["o_a.nii", "a.nii", "./a.nii"])
def test_a_report_takes_the_place_of_no_volume(capsys, report):
    make_nifti("a.nii", noise())
    before = Path("a.nii").read_bytes()
    Path("l.jsonl").symlink_to(report)
    for name in (report, "l.jsonl"):
        volconv("apply", "a.nii", *LINE, "-o", "o_{name}", "--report", name, "-f", code=2)
        assert "--report must be a file of its own, neither input nor output" in capsys.readouterr().err
    assert Path("a.nii").read_bytes() == before
    assert names(".") == ["a.nii", "l.jsonl"]


# --- several at once


def on_a_terminal(command, interrupt_at=None, **environment):
    """What a command writes to a terminal, and its exit code; it gets Ctrl-C once it has written the given text."""
    terminal, end = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment
    process = subprocess.Popen(
        [SCRIPT, *map(str, command)], stdout=end, stderr=end, stdin=subprocess.DEVNULL, env=environment
    )
    os.close(end)
    shown = bytearray()
    try:
        while piece := os.read(terminal, 1 << 16):
            shown += piece
            if interrupt_at is not None and re.search(interrupt_at, shown.decode(errors="replace")):
                process.send_signal(signal.SIGINT)
                interrupt_at = None
    except OSError:  # as Linux tells that the other end is closed
        pass
    os.close(terminal)
    return shown.decode(), process.wait(PATIENCE)


def screen(shown):
    """Lines of a terminal in the end, down to the cursor's; all that it had on the way; whether the cursor is seen."""
    lines, row, column, cursor, ever = [""], 0, 0, True, set()
    for code, text in re.findall(r"(\x1b\[\??[\d;]*[a-zA-Z]|\r|\n)|([^\x1b\r\n]+)", shown):
        if text:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
            ever.add(lines[row])
        elif code == "\r":
            column = 0
        elif code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code == "\x1b[2K":
            lines[row] = ""
        elif code == "\x1b[1A":
            row -= 1
        elif code in ("\x1b[?25l", "\x1b[?25h"):
            cursor = code.endswith("h")
        else:
            assert code.endswith("m"), code  # colours
    assert not any(lines[row + 1 :])
    return lines[: row + 1], ever, cursor


#: A bar: name, bar, share, bytes, rate, time left.
BAR = r"(.+?) +[━╸╺]+ +(\d+)%( +([\d.]+ (kB|MB|B)(/[\d.]+ MB)?)( +[\d.]+ [kM]?B/s)?)?( +[-\d:]+)?"


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_on_a_terminal(jobs):
    files = [str(make_nifti(f"{'long' * 9}_{i}.nii", noise((160, 170, 180), seed=i))) for i in range(3)]
    shown, code = on_a_terminal(["apply", *files, "gone.nii", *LINE, "-o", "o_{name}", "-j", jobs])
    assert code == 1
    lines, ever, cursor = screen(shown)
    bars = [line.rstrip() for line in ever if "%" in line and re.search("[━╸╺]", line)]
    assert bars
    assert all(len(bar) <= 80 and re.fullmatch(BAR, bar) for bar in bars), bars
    assert any(re.match(r"\d of 4 files ", bar) for bar in bars)
    assert any(bar.startswith("longlong") for bar in bars)
    assert any(re.search(r" [\d.]+ MB/19\.6 MB ", bar) for bar in bars)
    # Bars have gone when the rest is shown: the screen has only what a file would.
    assert cursor
    assert [line.split(":")[0] for line in lines if " -> " in line] == sorted(
        (f"{file} -> o_{file}" for file in files), key=lambda text: [text in line for line in lines].index(True)
    )
    assert lines[-1] == ""
    assert not [line for line in lines if re.search("[━╸╺]", line)]


def test_progress_of_one_file():
    make_nifti("[red]a.nii", noise((160, 170, 180)))
    shown, code = on_a_terminal(["apply", "[red]a.nii", *LINE, "-o", "o.nii"])
    assert code == 0
    lines, ever, cursor = screen(shown)
    assert any(re.fullmatch(r"\[red\]a.nii +━{16} +100% 19.6 MB/19.6 MB.*", line) for line in ever)
    assert [line.partition(":")[0] for line in lines] == ["[red]a.nii -> o.nii", ""]
    assert cursor
    assert on_a_terminal(["apply", "[red]a.nii", *LINE, "-o", "o.nii", "-f", "-q"]) == ("", 0)
    shown, code = on_a_terminal(["apply", "[red]a.nii", *LINE, "-o", "o.nii", "-f"], TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown


@pytest.mark.parametrize("jobs", [1, 3])
def test_ctrl_c_leaves_a_terminal_clean(jobs):
    files = [str(make_nifti(f"{i}.nii", noise((200, 210, 220), seed=i))) for i in range(6)]
    command = ["apply", *files, *LINE, "-o", "o_{stem}.nii.gz", "-j", jobs]
    shown, code = on_a_terminal(command, interrupt_at=r"MB/\d")
    assert code == 130
    lines, _, cursor = screen(shown)
    assert cursor
    assert lines[-2].startswith("volconv: interrupted"), shown[-600:]
    assert all(" -> " in line or line.startswith("  note") for line in lines[:-2]), lines
    assert lines[-1] == ""


@pytest.mark.slow
def test_one_bound_on_memory_for_all():
    """Twice as much as it would be held, were all four volumes in memory."""
    files = [str(make_nifti(f"{i}.nii", noise((200, 250, 250), seed=i))) for i in range(4)]
    volconv("apply", *files, "-k", "gaussian:sigma=1.5", "-o", "warm_{name}", "-q")  # what is compiled is kept
    command = [SCRIPT, "apply", *files, "-k", "gaussian:sigma=1.5", "-o", "o_{name}", "-j", "4", "-q"]
    # Of a process that a large one starts, the system may count what that had.
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--memory", "256M"], check=True, stdout=subprocess.PIPE, text=True
    )
    assert 64 << 10 < int(done.stdout) <= 256 << 10
    for name in files:
        assert Path(f"o_{name}").read_bytes() == Path(f"warm_{name}").read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_ends_all(jobs):
    files = [str(make_nifti(f"{i}.nii", noise((200, 210, 220), seed=i))) for i in range(6)]
    command = [SCRIPT, "apply", *files, *LINE, "-o", "o_{stem}.nii.gz", "-j", str(jobs), "--report", "r.jsonl"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + PATIENCE
    while not any(name.endswith(".tmp") for name in names(".")) and time.monotonic() < limit:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert re.search(
        r"volconv: interrupted(; \d of 6 files were made, and --skip-existing goes on from there)?\n$", err
    )
    assert "Traceback" not in err
    left = set(names(".")) - {*files, "r.jsonl"}
    done = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert left >= {run["output"] for run in done}
    assert not done or f"; {len(done)} of 6 files were made" in err or f"; {len(done) - 1} of 6 files" in err
    assert all(re.fullmatch(r"o_\d\.nii\.gz", name) for name in left)
    assert len(left) < 6


@pytest.mark.slow
def test_a_cold_cache_with_several_at_once(tmp_path):
    """Each job waits for what another one compiles."""
    files = study(4)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for folder, jobs in (("a", 4), ("b", 1)):
        command = [SCRIPT, "apply", *files, *LINE, "-o", f"{folder}/{{name}}", "-j", str(jobs), "--mkdir"]
        command += ["--algorithm", "direct"]
        subprocess.run(command, env=environment if jobs > 1 else None, check=True, timeout=10 * PATIENCE)
    for name in names("a"):
        assert (Path("a") / name).read_bytes() == (Path("b") / name).read_bytes()


def test_one_bad_volume_among_threads_is_the_only_one(capsys):
    """Warnings, errors and counts stay with their own file."""
    values = noise((30, 31, 32))
    files = []
    for i in range(8):
        values[0, 0, 0] = np.nan if i == 5 else 1
        files.append(str(make_nifti(f"{i}.nii", values)))
    volconv("apply", *files, "-k", "identity", "-o", "o_{name}", "-j", "4", "--json")
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["counts"]["non_finite"] for run in runs] == [1 if i == 5 else 0 for i in range(8)]
