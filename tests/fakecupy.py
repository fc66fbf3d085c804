"""A folder that looks like CuPy to Python, and behaves or fails as a test asks: for machines that have no GPU."""

from __future__ import annotations

#: Of a machine where all is well; each can be another value, or an exception to be raised.
WELL = {
    "on_import": None,
    "driver": 13000,
    "runtime": 13020,
    "count": 1,
    "compile": None,
    "launch": None,
    "factor": 2,
}

SOURCE = """
import types

import numpy


class CUDARuntimeError(RuntimeError):
    pass


class CompileException(Exception):
    pass


class DynamicLibNotFoundError(RuntimeError):
    pass


{settings}


def told(value):
    if isinstance(value, Exception):
        raise value
    return value


told(on_import)


class Array:
    def __init__(self, values):
        self.values = values

    def get(self):
        return self.values


def asarray(values):
    return Array(values)


def empty(size, dtype):
    return Array(numpy.full(size, numpy.nan, dtype))


class RawModule:
    def __init__(self, code, options):
        assert "volconv_probe" in code

    def get_function(self, name):
        told(compile)

        def launch(grid, block, arguments):
            told(launch_error)
            x, y = arguments
            y.values[:] = factor * x.values.astype(numpy.float32)

        return launch


def properties(index):
    return {{"name": b"Fake GPU", "major": 9, "minor": 0, "totalGlobalMem": 80 << 30}}


def available():
    try:
        return told(count) > 0
    except Exception:
        return False


cuda = types.SimpleNamespace(
    is_available=available,
    runtime=types.SimpleNamespace(
        runtimeGetVersion=lambda: told(runtime),
        driverGetVersion=lambda: told(driver),
        getDeviceCount=lambda: told(count),
        getDeviceProperties=properties,
        memGetInfo=lambda: (70 << 30, 80 << 30),
    ),
)
"""


def make_cupy(folder, packages=None, **settings):
    """Write the fake, and what an installer would note of it; a setting may be the text of an exception."""
    settings = WELL | settings
    settings["launch_error"] = settings.pop("launch")
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    (folder / "cupy").mkdir()
    (folder / "cupy" / "__init__.py").write_text(SOURCE.format(settings=lines))
    for name, version in ({"cupy-cuda13x": "14.2.0"} if packages is None else packages).items():
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
