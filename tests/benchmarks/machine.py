"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

SIMD = ("avx", "avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", "asimd", "sve")
LIBRARIES = ("volconv", "numpy", "numba", "torch", "scipy", "SimpleITK", "nibabel")


def describe() -> dict[str, str]:
    """Facts by name; those that this system does not tell are left out."""
    cpu = _cpu()
    flags = cpu.get("flags", cpu.get("features", "")).split()
    facts = {
        "CPU": cpu.get("model name", platform.processor()),
        "cores": str(os.cpu_count()),
        "caches": _caches(),
        "SIMD": ", ".join(flag for flag in SIMD if flag in flags),
        "RAM": _memory(),
        "system": _system(),
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {v}" for name in LIBRARIES if (v := _version(name))),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    return {name: fact for name, fact in facts.items() if fact}


class OtherLoad:
    """How much of the machine others took since this was made: what is told of /proc/stat less our own."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._before = self._seconds()

    def part(self) -> float | None:
        """CPU time of other processes, and of other guests, as a part of all cores' time; None if unknown."""
        before, after = self._before, self._seconds()
        if before is None or after is None:
            return None
        return max(0.0, (after - before) / (perf_counter() - self._start) / (os.cpu_count() or 1))

    @staticmethod
    def _seconds() -> float | None:
        try:
            user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except OSError:
            return None
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy - sum(os.times()[:4])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def _cpu() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = [line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines()]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, shared = (
            (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}{' shared' if set(shared) & set(',-') else ' a core'}")
    return ", ".join(found)


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return ""
