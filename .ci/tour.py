"""Run every shell and Python block of the pages that are given, as a reader would, and fail at the first that fails.

Of README.md it is the tour, run in the checkout. Every other page gets a folder of its own, with the sample data, the
presets and two subjects in it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(sys.executable).parent.absolute()
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_CPUS_PER_TASK": "2",
    "PLANES": "96",  # of the stack in docs/scale.md
}


def main() -> None:
    """Run the pages."""
    root = Path.cwd()
    for page in sys.argv[1:]:
        text = Path(page).read_text(encoding="utf-8")
        if page == "README.md":
            run(page, text.split("## A tour", 1)[1].split("## More", 1)[0], root)
            continue
        with tempfile.TemporaryDirectory() as name:
            for folder in ("sample_data", "configs", "tests/data"):
                shutil.copytree(root / folder, Path(name, folder))
            run(page, text, Path(name))


def run(page: str, text: str, folder: Path) -> None:
    """Run the blocks of a page in a folder."""
    subjects = [f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in (1, 2)]
    for file in subjects:  # what 'Many files' finds in a reader's folder
        (folder / file).parent.mkdir(parents=True)
        shutil.copy("tests/data/aniso_vox.nii.gz", folder / file)
    (folder / "files.txt").write_text("".join(f"{file}\n" for file in subjects))
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        print(f"\n$ {block.strip()}", flush=True)
        if block.startswith("parallel ") and shutil.which("parallel") is None:
            print("left out: GNU parallel is not installed here")
            continue
        command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [BIN / "python", "-c", block]
        if subprocess.run(command, env=ENVIRONMENT, cwd=folder, check=False).returncode:
            sys.exit(f"a command of {page} failed")


if __name__ == "__main__":
    main()
