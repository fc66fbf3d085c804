"""The README's recipes for many files, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import ROOT, make_nifti, noise

SECTION = (ROOT / "README.md").read_text(encoding="utf-8").split("\n### Many files\n")[1].split("\n### ")[0]
RECIPES = re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
FILES = [f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in (1, 2, 3)]

#: What each recipe begins with -> what it makes of a file.
MADE = {
    "volconv apply sub-*": lambda file: f"derivatives/{file.replace('_T1w', '_T1w_smooth')}",
    "find sub-* -name '*.nii.gz' -print0 | volconv": lambda file: f"derivatives/{file.replace('_T1w', '_T1w_smooth')}",
    "mkdir -p loop\nfor f in": lambda file: f"loop/{Path(file).name}",
    "find sub-* -name '*.nii.gz' -print0 |\n  xargs -0": lambda file: f"xargs/{file}",
    "parallel --jobs": lambda file: f"parallel/{file}",
    "#!/bin/bash\n#SBATCH": lambda file: f"slurm/{file}",
}


@pytest.fixture(autouse=True)
def _in_a_readers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, file in enumerate(FILES):
        Path(file).parent.mkdir(parents=True)
        make_nifti(file, noise((12, 13, 14), "uint8", seed=i))
    shutil.copytree(ROOT / "configs", "configs")
    Path("files.txt").write_text("".join(f"{file}\n" for file in FILES))


def shell(recipe, **environment):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", recipe]
    done = subprocess.run(command, env=os.environ | {"PATH": path} | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def recipe(start):
    return next(text for text in RECIPES if text.startswith(start))


def test_each_recipe_is_tested_once():
    assert [sum(text.startswith(start) for text in RECIPES) for start in MADE] == [1] * len(RECIPES)


@pytest.mark.parametrize("start", [start for start in MADE if not start.startswith("#!")], ids=range(len(MADE) - 1))
def test_a_recipe(start):
    if start.startswith("parallel") and shutil.which("parallel") is None:
        pytest.skip("GNU parallel is not installed")
    if "| volconv" in start:
        Path("derivatives/sub-01/anat").mkdir(parents=True)
        for number in (2, 3):
            Path(f"derivatives/sub-0{number}/anat").mkdir(parents=True)
    said = shell(recipe(start))
    made = [MADE[start](file) for file in FILES]
    assert all(Path(name).stat().st_size > 400 for name in made)
    assert len({Path(name).read_bytes() for name in made}) == len(FILES)
    assert "exit code" not in said


def test_the_loop_tells_exit_codes():
    Path(FILES[1]).write_bytes(b"damaged")
    assert f"{FILES[1]}: exit code 3\n" in shell(recipe("mkdir -p loop"))


def test_the_first_two_go_together():
    """What was made by one call is skipped by the next."""
    first, second = (recipe(start) for start in list(MADE)[:2])
    shell(first)
    assert " skipped       3  made in the same way before\n" in shell(second)
    assert len(Path("smooth.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_an_array_of_slurm():
    for number in (1, 3):
        shell(recipe("#!/bin/bash"), SLURM_ARRAY_TASK_ID=str(number), SLURM_CPUS_PER_TASK="2")
    assert [Path(f"slurm/{file}").exists() for file in FILES] == [True, False, True]
    assert "skipped" in shell(recipe("#!/bin/bash"), SLURM_ARRAY_TASK_ID="1", SLURM_CPUS_PER_TASK="2")
    with pytest.raises(AssertionError, match="volconv: error: "):
        shell(recipe("#!/bin/bash"), SLURM_ARRAY_TASK_ID="9", SLURM_CPUS_PER_TASK="2")
