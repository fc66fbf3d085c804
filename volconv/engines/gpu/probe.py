"""Is there a GPU that can be used, and if not, why, and what helps? Asked once a process."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

#: Oldest release of NVIDIA's driver for each CUDA that there is an extra for (NVIDIA's guide "CUDA compatibility",
#: minor version compatibility, table 1).
DRIVERS = {13: 580, 12: 525}

#: Releases of CuPy below the first, and all of the others, are not for us: see the extras in pyproject.toml.
OLDEST, EXCLUDED = (14, 0, 1), {(14, 1, 0)}

#: Doubles numbers. It is of halves so that CUDA's headers are needed.
_SOURCE = """
#include <cuda_fp16.h>
extern "C" __global__ void volconv_probe(const __half* x, float* y) {
    y[threadIdx.x] = 2.0f * __half2float(x[threadIdx.x]);
}
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Parameters
    ----------
    index : int
        CUDA's number of it, among those that this process may see.
    name : str
    compute_capability : tuple of 2 ints
    total_bytes : int
    free_bytes : int or None
        When it was asked for; None of GPUs other than the one that volconv computes on.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    total_bytes: int
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found out about GPUs.

    Parameters
    ----------
    usable : bool
        Whether a kernel could be compiled and run, and gave the right result.
    reason, remedy : str or None
        One line each where it is not usable: why, and the command or the step that helps.
    versions : dict
        Packages of CuPy that are installed, and their versions.
    driver : str or None
        Release of NVIDIA's driver, as in "580.65.06", where the system tells.
    driver_cuda : str or None
        Newest CUDA that the driver runs, as in "13.0".
    runtime : str or None
        CUDA that CuPy was built with.
    devices : tuple of Gpu
        The first is the one that volconv computes on.
    """

    usable: bool
    reason: str | None = None
    remedy: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    driver: str | None = None
    driver_cuda: str | None = None
    runtime: str | None = None
    devices: tuple[Gpu, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class _Unusable(Exception):  # noqa: N818  # it is an answer, no error
    """Why, and what helps."""


@cache
def probe() -> Probe:
    """Find out, once a process, whether a GPU can be used. It never raises.

    Where CuPy is not installed this takes about a millisecond; otherwise CuPy is imported, and a kernel of one line is
    compiled (or found in CuPy's cache) and run.

    Examples
    --------
    >>> found = probe()
    >>> found.usable or found.reason is not None
    True
    """
    found: dict[str, Any] = {}
    reason = remedy = None
    try:
        _examine(found)
    except _Unusable as why:
        reason, remedy = why.args
    except Exception as error:  # noqa: BLE001  # whatever ails an installation, the CPU is still there
        reason = f"CuPy fails: {_one_line(error)}"
        remedy = _replace(found)
    return Probe(reason is None, reason, remedy, **found)


def _examine(found: dict[str, Any]) -> None:
    """Fill in what is found, and raise :class:`_Unusable` at the first thing that is in the way."""
    driver = _driver_cuda()
    found |= {"driver": _driver_release(), "driver_cuda": _dotted(driver)}
    if not _is_installed():
        raise _Unusable("CuPy is not installed", _install(driver))
    versions = found["versions"] = _distributions()
    if len(versions) > 1:
        raise _Unusable(
            f"several packages bring CuPy, and one breaks the other: {', '.join(versions)}", _replace(found)
        )
    for name, version in versions.items():
        if "rocm" in name or "amd" in name:
            raise _Unusable(f"{name} is for AMD's GPUs, and volconv needs CUDA", _replace(found))
        if _is_excluded(version):
            raise _Unusable(
                f"volconv needs CuPy 14.0.1 or later, and not 14.1.0 (got {name} {version})", _replace(found)
            )
    cupy = _imported(found)
    runtime = cupy.cuda.runtime
    found["runtime"] = _dotted(runtime.runtimeGetVersion())
    cuda = _cuda_of(versions) or runtime.runtimeGetVersion() // 1000
    driver = runtime.driverGetVersion()  # 0 where there is none
    found["driver_cuda"] = _dotted(driver)
    if not driver:
        raise _Unusable("there is no NVIDIA driver", f"{_newer_driver(cuda)} (a container needs --gpus all)")
    if driver // 1000 < cuda:
        older = f", or {_replace(found)}" if driver // 1000 in DRIVERS else ""
        raise _Unusable(
            f"the NVIDIA driver is too old: it runs CUDA {_dotted(driver)}, and CuPy here needs CUDA {cuda}",
            f"{_newer_driver(cuda)}{older}",
        )
    found["devices"] = _devices(cupy)
    _launch(cupy, found)
    free, _ = runtime.memGetInfo()
    first, *others = found["devices"]
    found["devices"] = (replace(first, free_bytes=free), *others)


def _is_installed() -> bool:
    """Whether there is something to import; an empty folder that an uninstaller left is not."""
    from importlib.util import find_spec

    try:
        spec = find_spec("cupy")
    except ValueError:  # it is imported, and does not say from where
        return True
    return spec is not None and spec.origin is not None


def _distributions() -> dict[str, str]:
    """Packages that bring a module of CuPy's name, and their versions."""
    from importlib import metadata

    found = {}
    for package in metadata.distributions():
        # What an interrupted installation left has no name, which each reader of it says in a way of its own.
        with contextlib.suppress(KeyError, TypeError, OSError):
            name = str(package.metadata["Name"]).lower().replace("_", "-")
            if re.fullmatch(r"cupy|cupy-(cuda|rocm)[\w-]+|amd-cupy", name):
                found[name] = package.version
    return dict(sorted(found.items()))


def _imported(found: dict[str, Any]) -> Any:
    """CuPy, as a module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is worth telling is told by the probe
        try:
            import cupy
        except Exception as error:
            raise _Unusable(f"CuPy cannot be imported: {_one_line(_root(error))}", _replace(found)) from error
    return cupy


def _devices(cupy: Any) -> tuple[Gpu, ...]:
    """All GPUs that this process may see; to ask takes no context on them."""
    runtime = cupy.cuda.runtime
    if not cupy.cuda.is_available():
        try:
            runtime.getDeviceCount()
        except Exception as error:
            if "NoDevice" not in str(error):
                raise _Unusable(f"the NVIDIA driver fails: {_one_line(error)}", "see what nvidia-smi says") from error
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if seen is not None:
            raise _Unusable(f"no GPU is visible with CUDA_VISIBLE_DEVICES={seen!r}", "unset CUDA_VISIBLE_DEVICES")
        raise _Unusable("the NVIDIA driver finds no GPU", "see what nvidia-smi says (a container needs --gpus all)")
    devices = []
    for index in range(runtime.getDeviceCount()):
        facts = runtime.getDeviceProperties(index)
        capability = facts["major"], facts["minor"]
        devices.append(Gpu(index, facts["name"].decode(errors="replace"), capability, facts["totalGlobalMem"]))
    return tuple(devices)


def _launch(cupy: Any, found: dict[str, Any]) -> None:
    """Compile a kernel, run it, and look at its result."""
    import numpy as np

    try:
        kernel = cupy.RawModule(code=_SOURCE, options=("-std=c++17",)).get_function("volconv_probe")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        # With CuPy comes only what it was built with: its extra [ctk] brings the rest.
        if "libnvrtc" in text:
            raise _Unusable("NVRTC, CUDA's compiler, is not found", _replace(found)) from error
        if re.search(r"find CUDA headers|could not open source file|cannot open source file", text):
            raise _Unusable("CUDA's headers are not found", _replace(found)) from error
        raise _Unusable(f"a kernel cannot be compiled: {_one_line(error)}", _replace(found)) from error
    host = np.arange(32, dtype=np.float16)
    try:
        values, doubled = cupy.asarray(host), cupy.empty(32, np.float32)
        kernel((1,), (32,), (values, doubled))
        result = doubled.get()
    except Exception as error:
        raise _Unusable(f"a kernel cannot be run: {_one_line(error)}", "see who holds the GPU: nvidia-smi") from error
    if not (result == 2 * host.astype(np.float32)).all():
        raise _Unusable("a kernel gives wrong results", "see what the driver has logged: dmesg | grep NVRM")


# --- what helps


def _install(driver: int | None) -> str:
    """How to install CuPy, for a driver that runs this CUDA."""
    if not driver:
        ways = (f"'volconv[cuda{cuda}]' (driver {release} or later)" for cuda, release in DRIVERS.items())
        return f"where there is an NVIDIA GPU, pip install {' or '.join(ways)}"
    cuda = _extra(driver // 1000)
    command = f"pip install 'volconv[cuda{cuda}]'"
    return command if driver // 1000 >= cuda else f"{_newer_driver(cuda)}, then {command}"


def _replace(found: dict[str, Any]) -> str:
    """Put CuPy with all that it needs in the place of what is there."""
    names = found.get("versions", {})
    major = int(found["driver_cuda"].partition(".")[0]) if found.get("driver_cuda") else _cuda_of(names)
    extra = f"cuda{_extra(major)}"
    install = f"pip install -U 'volconv[{extra}]'"
    if not names or list(names) == [f"cupy-{extra}x"]:
        return install
    return f"pip uninstall -y {' '.join(names)} && {install}"


def _extra(major: int | None) -> int:
    """The CUDA to install: the newest that a driver for this one runs, or the oldest that there is an extra for."""
    return next((cuda for cuda in DRIVERS if not major or major >= cuda), min(DRIVERS))


def _newer_driver(cuda: int) -> str:
    return f"install NVIDIA's driver {DRIVERS.get(cuda, max(DRIVERS.values()))} or later"


# --- small facts


def _cuda_of(versions: dict[str, str]) -> int | None:
    """Major version of the CUDA that a wheel is for; CuPy from elsewhere does not say.

    >>> _cuda_of({"cupy-cuda13x": "14.2.0"})
    13
    """
    found = re.fullmatch(r"cupy-cuda(\d\d)x", next(iter(versions), ""))
    return int(found[1]) if found else None


def _is_excluded(version: str) -> bool:
    """Whether a release of CuPy is one that volconv cannot use.

    >>> [_is_excluded(v) for v in ("13.6.0", "14.0.0rc1", "14.0.1", "14.1.0", "14.1.1", "15.0")]
    [True, True, False, True, False, False]
    """
    parts = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    numbers = tuple(int(part or 0) for part in parts.groups()) if parts else OLDEST
    return numbers < OLDEST or numbers in EXCLUDED


def _driver_cuda() -> int | None:
    """Newest CUDA that the driver runs, as the driver writes it (13000), without CuPy; None if there is no driver."""
    import ctypes

    number = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)) == 0:
            return number.value or None
    return None


def _driver_release(module: Path = Path("/sys/module/nvidia/version")) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _one_line(module.read_text()) or None
    return None


def _dotted(version: int | None) -> str | None:
    """CUDA's way to write a version, as people do.

    >>> _dotted(12040)
    '12.4'
    """
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def _root(error: BaseException) -> BaseException:
    """What an error goes back to: CuPy wraps its import errors into a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_line(error: BaseException | str) -> str:
    """What an error says, on one line and not too long.

    >>> _one_line(ValueError("one\\n   two"))
    'ValueError: one two'
    """
    from volconv.errors import printable

    text = " ".join(str(error).split())
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return printable(text if len(text) <= 300 else text[:300] + "...")
