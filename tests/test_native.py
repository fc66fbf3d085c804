"""Compiled loops are kept; a place to keep them that does not work costs time and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
