"""How much memory a run may take: what was asked for, or a share of what the machine or its cgroup has free."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from volconv.errors import ParameterError

#: What the interpreter and the libraries take, before any voxel (set by tests/test_memory.py).
LIBRARIES = 120 << 20

#: By default a run may take a quarter of what is free, up to this.
MOST_BY_DEFAULT = 4 << 30

#: Powers of two.
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_memory(value: str | int, name: str = "memory") -> int:
    """Bytes, from a number of them or from text with a unit; units are powers of 1024.

    Raises
    ------
    ParameterError
        It says no number of bytes, or less than the libraries take alone.

    Examples
    --------
    >>> parse_memory("1.5G"), parse_memory("512 MiB")
    (1610612736, 536870912)
    """
    size = parse_size(value, name)
    if size < LIBRARIES:
        raise ParameterError(
            f"{name} must be at least {in_words(LIBRARIES)}, which the interpreter and the libraries take (got {value})"
        )
    return size


def parse_size(value: str | int, name: str) -> int:
    """Bytes, from a number of them or from text with a unit; units are powers of 1024.

    Raises
    ------
    ParameterError
        It says no number of bytes.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(?:([kmgt])(?:i?b)?|b)?\s*", str(value), re.I | re.A)
    if found is None or isinstance(value, bool | float):
        raise ParameterError(f"{name} must be a size such as 512M or 1.5G, or a number of bytes (got {value!r})")
    shift = _UNITS[(found[2] or "").lower()]
    return int(float(found[1]) * (1 << shift)) if "." in found[1] else int(found[1]) << shift


def in_words(size: int) -> str:
    """Bytes as :func:`parse_memory` takes them, rounded up.

    >>> in_words(120 << 20), in_words(3 << 30), in_words((1 << 30) + 1)
    ('120M', '3G', '1025M')
    """
    whole = -(-size // 2**20)
    return f"{whole // 1024}G" if whole % 1024 == 0 else f"{whole}M"


def default_memory() -> int:
    """Bytes that a run may take where nobody says: a quarter of what is free, at most 4 GiB."""
    return max(LIBRARIES, min(free_memory() // 4, MOST_BY_DEFAULT))


def memory_bound(memory: str | int | None) -> int:
    """Bytes that all runs of a process may take together: those asked for, or the default.

    Raises
    ------
    ParameterError
        As :func:`parse_memory`.
    """
    return default_memory() if memory is None else parse_memory(memory)


def share(bound: int, jobs: int) -> int:
    """The bound of each of several jobs that one process does at once: the libraries are there once for all."""
    return LIBRARIES + max(0, bound - LIBRARIES) // jobs


def give_back(bound: int, proc: Path = Path("/proc")) -> None:
    """Have the allocator return to the system what is not in use, where the process comes near a bound."""
    with contextlib.suppress(OSError, AttributeError):  # other systems have neither such a file nor such a function
        resident = int((proc / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > bound - (bound - LIBRARIES) // 4:
            import ctypes

            ctypes.CDLL(None).malloc_trim(0)


def free_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that the machine has free, or the cgroup or limit of this process, where that is less.

    Parameters
    ----------
    proc, cgroups : Path
        Where the system tells of processes and of cgroups, of version 1 or 2.
    """
    free = [_machine(proc), *_limits_of_process(proc)]
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                free += _cgroup(cgroups, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                free += _cgroup(cgroups / "memory", path, *names)
    return max(0, min(free))


def _machine(proc: Path) -> int:
    """Free memory, that of the page cache included; half of all where the system does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", (proc / "meminfo").read_text(), re.M)
        if found is not None:
            return int(found[1]) << 10
    with contextlib.suppress(OSError, ValueError, AttributeError):  # names and functions that a system may lack
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return MOST_BY_DEFAULT


def _limits_of_process(proc: Path) -> list[int]:
    """What is left of the limit on addresses (``ulimit -v``)."""
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int((proc / "self" / "statm").read_text().split()[0])
            return [limit - pages * resource.getpagesize()]
    return []


def _cgroup(root: Path, path: str, limit: str, usage: str, cache: str) -> list[int]:
    """What is left below the limits of a cgroup and of those that it lies in; cached files count as free."""
    left = []
    # A container often sees its own cgroup as the root, and yet is told its path from outside.
    folder = root / path.lstrip("/")
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):  # also "max"
            most, used = (int((place / name).read_text()) for name in (limit, usage))
            cached = re.search(rf"^{cache} (\d+)$", (place / "memory.stat").read_text(), re.M)
            left.append(most - used + (int(cached[1]) if cached else 0))
        if place == root:
            break
    return left
