"""What is installed here, what would a run take of this machine, and is there a GPU? ``volconv doctor`` shows it."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volconv import __version__
from volconv.engines.cpu.native import code_folder
from volconv.engines.cpu.simd import register_bytes
from volconv.engines.cpu.workers import thread_count
from volconv.engines.gpu.probe import probe
from volconv.memory import default_memory, free_memory

if TYPE_CHECKING:
    from volconv.engines.gpu.probe import Probe

#: Of the keys of :meth:`Installation.as_dict`, and of their meaning.
SCHEMA_VERSION = 1

#: Extras that are for volconv's own tests and benchmarks.
_OURS = {"test", "bench", "dev"}

#: What a run, or its libraries, would listen to. No other variable is told: some hold secrets.
ENVIRONMENT = (
    "VOLCONV_THREADS",
    "VOLCONV_MEMORY",
    "NUMBA_CACHE_DIR",
    "XDG_CACHE_HOME",
    "TMPDIR",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_PATH",
    "CUPY_CACHE_DIR",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """What :func:`examine` finds.

    Parameters
    ----------
    versions : dict of str to str or None
        Of volconv, of Python and of the libraries that volconv needs; None where one is missing.
    extras : dict of str to dict
        Of each extra its packages, with their versions, or None where one is missing.
    system : str
        Name and release, as in "Linux 6.8.0, x86_64".
    cpu : str or None
        The processor's own name.
    vector_bytes : int
        Bytes of a vector register, which compiled loops use.
    threads : int
        Of a run where nobody says: the cores that this process may use.
    memory_bytes : int
        Of a run where nobody says.
    free_bytes : int
        What machine, container and limits leave now.
    compiled : str or None
        Folder where compiled loops are kept; None where they cannot be.
    compiled_count : int
        How many are there.
    environment : dict of str to str
        Those of :data:`ENVIRONMENT` that are set.
    gpu : Probe
    """

    versions: dict[str, str | None]
    extras: dict[str, dict[str, str | None]]
    system: str
    cpu: str | None
    vector_bytes: int
    threads: int
    memory_bytes: int
    free_bytes: int
    compiled: str | None
    compiled_count: int
    environment: dict[str, str]
    gpu: Probe

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self)


#: Keys of :meth:`Installation.as_dict`, in order.
FIELDS = ("schema_version", *Installation.__dataclass_fields__)


def examine() -> Installation:
    """Look at what is installed and at the machine; CuPy alone is imported, where it is there.

    Examples
    --------
    >>> found = examine()
    >>> found.versions["volconv"] is not None and found.threads >= 1
    True
    """
    needed, extras = _requirements()
    folder = code_folder()
    versions: dict[str, str | None] = {"volconv": __version__, "python": platform.python_version()}
    return Installation(
        versions=versions | {name: _version(name) for name in needed},
        extras={extra: {name: _version(name) for name in names} for extra, names in extras.items()},
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cpu=_cpu(),
        vector_bytes=register_bytes(),
        threads=thread_count(None),
        memory_bytes=default_memory(),
        free_bytes=free_memory(),
        compiled=None if folder is None else str(folder),
        compiled_count=0 if folder is None else sum(1 for _ in folder.glob("*.o")),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        gpu=probe(),
    )


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages that volconv needs, and of those that each extra brings, as its own metadata say."""
    needed: list[str] = []
    package = metadata.distribution("volconv")
    extras: dict[str, list[str]] = {
        name: [] for name in package.metadata.get_all("Provides-Extra") or () if name not in _OURS
    }
    for line in package.requires or ():
        requirement, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", requirement.strip())
        extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", marker)
        if name is not None and (names := extras.get(extra[1]) if extra else needed) is not None:
            names.append(name[0])
    return needed, extras


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu(info: Path = Path("/proc/cpuinfo")) -> str | None:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M):
            return found[1].strip()
    return platform.processor() or None
