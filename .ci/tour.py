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
for subject in ("sub-01", "sub-02"):  # what 'Many files' finds in a reader's folder
    shutil.copy("tests/data/aniso_vox.nii.gz", f"{subject}.nii.gz")

for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", tour, re.MULTILINE | re.DOTALL):
    print(f"\n$ {block.strip()}", flush=True)
    command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [".venv/bin/python", "-c", block]
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit("a command of README.md failed")
