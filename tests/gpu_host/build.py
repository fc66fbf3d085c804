"""Compile expressions of kernels.cu with g++ into shared libraries, kept under a digest of all they are made of."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from volconv.engines.gpu.kernels import SOURCE

HEADER = Path(__file__).with_name("cuda_host.h")
FLAGS = ("-std=c++17", "-O1", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-Wno-unknown-pragmas")
SANITIZE = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g")


def missing() -> str:
    """Why nothing can be compiled; empty if it can."""
    return "" if shutil.which("g++") else "needs g++"


def sanitized() -> bool:
    """Whether this process has AddressSanitizer, which libraries are then compiled for."""
    return "libasan" in os.environ.get("LD_PRELOAD", "")


def folder() -> Path:
    """Where libraries are kept: on this machine, since they are compiled for its processor."""
    path = Path(tempfile.gettempdir()) / f"volconv-gpu-host-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    assert path.stat().st_uid == os.getuid(), f"{path} is someone else's"
    return path


def program(expressions: tuple[str, ...]) -> str:
    """One translation unit with an entry, and the sizes of its parameters, for each expression."""
    lines = [f'#include "{HEADER}"', f'#include "{SOURCE}"']
    for i, expression in enumerate(expressions):
        lines.append(
            f'extern "C" int launch_{i}(const unsigned *grid, const unsigned *block, void **args, int order) '
            f"{{ return host::launch(&{expression}, grid, block, args, order); }}\n"
            f'extern "C" int parameter_{i}(int which) {{ return host::parameter(&{expression}, which); }}'
        )
    return "\n".join(lines) + "\n"


def library(expressions: tuple[str, ...]) -> Path:
    """The shared library of these expressions, compiled if it is not there yet."""
    text = program(expressions)
    flags = FLAGS + (SANITIZE if sanitized() else ())
    parts = (text, HEADER.read_text(), SOURCE.read_text(), " ".join(flags))
    target = folder() / (hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32] + ".so")
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as work:
            unit = Path(work) / "unit.cpp"
            unit.write_text(text)
            made = Path(work) / "unit.so"
            done = subprocess.run(["g++", *flags, "-o", made, unit], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[:4000]
            made.rename(target)
    return target


def load(groups: list[tuple[str, ...]]) -> dict[str, tuple[ctypes.CDLL, int]]:
    """Library and number of every expression; groups are compiled side by side."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        paths = list(pool.map(library, groups))
    found = {}
    for group, path in zip(groups, paths):
        loaded = ctypes.CDLL(str(path))
        found |= {expression: (loaded, i) for i, expression in enumerate(group)}
    return found
