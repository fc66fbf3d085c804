"""NVIDIA's run-time compiler by itself, as CuPy calls it: it needs neither a GPU nor a driver."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from volconv.engines.gpu.kernels import SOURCE


@cache
def load():
    """The library from the package nvidia-cuda-nvrtc-cu12 or nvidia-cuda-nvrtc, None if neither is there."""
    spec = find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else []:
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return ctypes.CDLL(str(path))
    return None


def supported():
    """Compute capabilities that it compiles for, as 75 for 7.5."""
    library, number = load(), ctypes.c_int()
    assert library.nvrtcGetNumSupportedArchs(ctypes.byref(number)) == 0
    found = (ctypes.c_int * number.value)()
    assert library.nvrtcGetSupportedArchs(found) == 0
    return list(found)


def compile_for(architecture, expressions):
    """What the compiler says when it compiles kernels for ``sm_<architecture>``; an AssertionError if it fails."""
    library, program = load(), ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), b"kernels.cu", 0, None, None) == 0
    try:
        for expression in expressions:
            assert library.nvrtcAddNameExpression(program, expression.encode()) == 0
        options = [b"-std=c++17", f"-arch=sm_{architecture}".encode(), b"--ptxas-options=-v"]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        text = log.value.decode()
        assert status == 0, text
        for expression in expressions:
            name = ctypes.c_char_p()
            assert library.nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(name)) == 0, expression
        assert library.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
        assert size.value > 0
        return text
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def usage(log):
    """Registers, and bytes spilled, of each kernel that ``ptxas -v`` tells of, by its mangled name."""
    pattern = r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    return {
        name: (int(registers), int(stored) + int(loaded))
        for name, stored, loaded, registers in re.findall(pattern, log, re.DOTALL)
    }
