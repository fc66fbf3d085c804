"""Run every shell command of README.md's tour, as a reader would, and fail at the first that fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

readme = Path("README.md").read_text(encoding="utf-8")
tour = readme.split("## A tour", 1)[1].split("## More", 1)[0]
environment = os.environ | {"PATH": f"{Path('.venv/bin').resolve()}:{os.environ['PATH']}"}
subjects = [f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in (1, 2)]
for file in subjects:  # what 'Many files' finds in a reader's folder
    Path(file).parent.mkdir(parents=True)
    shutil.copy("tests/data/aniso_vox.nii.gz", file)
Path("files.txt").write_text("".join(f"{file}\n" for file in subjects))
environment |= {"SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "2"}

for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", tour, re.MULTILINE | re.DOTALL):
    print(f"\n$ {block.strip()}", flush=True)
    if block.startswith("parallel ") and shutil.which("parallel") is None:
        print("left out: GNU parallel is not installed here")
        continue
    command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [".venv/bin/python", "-c", block]
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit("a command of README.md failed")
