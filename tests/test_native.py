"""Compiled loops are kept; a place to keep them that does not work costs time and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from volconv.engines.cpu.native import Array, native

RUN = "import numpy as np, volconv, sys; ones = np.ones((1, 1, 3, 3, 3)); "
RUN += "print(volconv.conv3d(ones, ones, algorithm='direct').item()); print('numba' in sys.modules, file=sys.stderr)"


def run(cache, *, before=""):
    return subprocess.run(
        ["bash", "-c", f'{before} exec "$0" -c "$1"', sys.executable, RUN],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_what_is_kept_runs_without_numba(tmp_path):
    for compiled in ("True\n", "False\n"):
        ended = run(tmp_path)
        assert (ended.stdout, ended.stderr, ended.returncode) == ("27.0\n", compiled, 0)


@pytest.mark.slow
def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").touch()
    ended = run(tmp_path / "file" / "cache")
    assert (ended.stdout, ended.returncode) == ("27.0\n", 0), ended.stderr


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    ended = run(tmp_path, before="ulimit -f 8;")
    assert (ended.stdout, ended.returncode) == ("27.0\n", 0), ended.stderr


@pytest.mark.slow
def test_damaged_files(tmp_path):
    assert run(tmp_path).returncode == 0
    kept = [path for path in tmp_path.rglob("*") if path.suffix in (".o",)]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for anew in ("True\n", "False\n"):  # and kept again
        ended = run(tmp_path)
        assert (ended.stdout, ended.stderr, ended.returncode) == ("27.0\n", anew, 0)


@pytest.mark.slow
def test_many_processes_that_start_at_once_on_one_cache(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in started:
        out, err = process.communicate()
        assert (out, process.returncode) == ("27.0\n", 0), err
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".o"}  # and nothing half-written


def test_small_jobs_load_no_compiled_loops():
    code = "import numpy as np, volconv, sys; x = np.ones((1, 1, 40, 40, 40), np.float32); "
    code += "volconv.conv3d(x, x[:, :, :3, :3, :3]); print({'numba', 'llvmlite'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_a_loop_that_allocates_is_refused(tmp_path, monkeypatch):
    """Without numba its code would call what is nowhere."""

    def loop(array, many):
        array[0] = np.arange(many).sum()

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"loop allocates or calls Python: .*NRT_MemInfo_alloc"):
        native("loop", (Array(np.dtype(np.int64), 1), 1), lambda: loop)
    assert not list(tmp_path.iterdir())
