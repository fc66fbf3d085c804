"""The kernels of a GPU go through NVIDIA's compiler for every architecture, and touch no memory that is not theirs."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_host import build, nvrtc

needs_nvrtc = pytest.mark.skipif(nvrtc.load() is None, reason="needs nvidia-cuda-nvrtc-cu12 or nvidia-cuda-nvrtc")

ARCHITECTURES = [75, 80, 86, 90, 100, 120]

#: Stored dtype and what is computed in, and kernels of each that take the most registers or are used the most.
NUMBERS = ["unsigned char, float", "double, double"]
TYPICAL = [
    "gather<Half, float>",
    "generic<float, float, 4>",
    "columns<short, float, Half>",
    "small<float, float, 3, 3, 3>",
    "along_lines<float, float, 0, 13, 1>",
    "along_voxels<unsigned char, float, 13, 1>",
    "channels<float, float, 3, 3, 1, 1, 8, 2>",
]
LARGE = [
    "products<float>",
    "products<double>",
    *(
        f"{name}<{numbers}{rest}>"
        for numbers in NUMBERS
        for name, rest in (
            ("gather", ""),
            ("generic", ", 4"),
            ("columns", f", {numbers.split(', ')[1]}"),
            *(
                ("small", f", {kd}, {kh}, {kw}")
                for kd, kh, kw in ((3, 3, 3), (5, 5, 5), (7, 7, 7), (1, 7, 7), (7, 1, 1))
            ),
            *(("along_lines", f", {axis}, {taps}, {s}") for axis, taps, s in ((0, 31, 1), (1, 127, 2))),
            *(("along_voxels", f", {taps}, {s}") for taps, s in ((31, 1), (127, 2))),
            *(
                ("channels", f", {k}, {k}, {s}, {s}, 8, {g}")
                for (k, s), g in itertools.product(((1, 1), (3, 1), (7, 1), (3, 2), (7, 2)), (1, 2, 4))
            ),
        )
    ),
]


#: Bytes that may be spilled: some words that are needed only before and after a kernel's loops.
SPILLED = 32


def check(architecture, expressions):
    """Kernels leave room for two blocks of 256 threads; those with strides along both H and W, or doubles, may not."""
    if architecture not in nvrtc.supported():
        pytest.skip(f"this compiler knows nothing of sm_{architecture}")
    found = nvrtc.usage(nvrtc.compile_for(architecture, expressions))
    assert len(found) == len(expressions)
    assert {name: spilled for name, (_, spilled) in found.items() if spilled > SPILLED} == {}
    doubles = {name for name in found if "Idd" in name}
    strided = {name for name in found if "channels" in name and "ELi2ELi2ELi" in name}
    assert {name: number for name, (number, _) in found.items() if number > 128 and name not in doubles | strided} == {}


@needs_nvrtc
class TestNvidiasCompiler:
    def test_it_takes_the_kernels(self):
        check(90, TYPICAL)

    @pytest.mark.slow
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_it_takes_all_for_every_architecture(self, architecture):
        check(architecture, LARGE)

    def test_it_says_what_is_wrong(self):
        with pytest.raises(AssertionError, match="error"):
            nvrtc.compile_for(90, ["small<float, float, 3>"])


#: A kernel that writes 8 numbers into an array of 7.
OVERFLOW = """
import numpy as np
from gpu_host.device import HostDevice
from volconv.engines.gpu import kernels
from volconv.engines.gpu.source import Source
out = np.lib.stride_tricks.as_strided(np.zeros(1024 + 7, np.float32), (1, 1, 1, 1024 + 8), (4, 4, 4, 4))
device = HostDevice()
kernels.gather(device, device.stream(), Source(np.zeros((1, 1, 1, 1024 + 8), np.float32)), out)
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(build.missing()), reason=build.missing())
class TestAddressSanitizer:
    """In a process of its own: it must be there before Python is."""

    def run(self, *command):
        runtime = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        if not Path(runtime.stdout.strip()).is_absolute():
            pytest.skip("needs libasan")
        changed = {
            "LD_PRELOAD": runtime.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, env={**os.environ, **changed}
        )

    def test_no_kernel_touches_memory_that_is_not_its_own(self):
        tests = Path(__file__).with_name("test_gpu_kernels.py")
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests))
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert "passed" in done.stdout

    def test_one_that_does_is_found(self):
        done = self.run("-c", OVERFLOW)
        assert done.returncode != 0
        assert "heap-buffer-overflow" in done.stderr
