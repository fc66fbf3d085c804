"""The command under a watch of its memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(sys.executable).parent / "volconv"

#: A small process between: what Linux tells of a child's memory begins with that of the process it was forked from.
BETWEEN = """
import os, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Watched:
    """How a run ended, what it said, and the most bytes that it, or a child of its own, had resident."""

    code: int
    out: str
    said: str
    peak: int


def watched(folder, *arguments):
    """Run the installed ``volconv ...`` in a folder."""
    told = Path(folder) / ".peak"
    command = [sys.executable, "-I", "-S", "-c", BETWEEN, told, SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    peak = int(told.read_text())
    told.unlink()
    return Watched(done.returncode, done.stdout, done.stderr, peak)
