"""A device whose memory is the host's and whose kernels are compiled by g++."""

from __future__ import annotations

import ctypes
import threading

import numpy as np

from gpu_host import build

#: What a block shares is static, and so are the fibers.
_ONE = threading.Lock()


class HostEvent:
    """A point in a stream."""

    def synchronize(self):
        """Nothing: all is done."""


class HostStream:
    """Work is done when it is asked for, so there is never anything to wait for."""

    def enqueue(self, work):
        work()

    def wait(self, event):
        """Nothing: what the event stands behind is done."""

    def record(self):
        """A point that all later work lies behind."""
        return HostEvent()

    def synchronize(self):
        """Nothing: all is done."""


class HostDevice:
    """What a device is to the engine, with NumPy for CuPy.

    Parameters
    ----------
    expressions : lists of str
        Kernels compiled together before the first is called; others are compiled when they are.
    order : int
        In which order threads and blocks run: 0 as they are, 1 backwards, 2 permuted.
    """

    xp = np
    name = "host"
    capability = (9, 0)
    multiprocessors = 2

    def __init__(self, expressions=(), order=0):
        self.order = order
        self._known = build.load([tuple(group) for group in expressions])

    def function(self, expression):
        if expression not in self._known:
            self._known |= build.load([(expression,)])
        library, number = self._known[expression]
        launch, parameter = getattr(library, f"launch_{number}"), getattr(library, f"parameter_{number}")

        def run(stream, grid, block, args, shared=0):  # noqa: ARG001 - one stream is as good as another
            assert shared == 0, "no kernel takes shared memory at launch"
            assert len(grid) == len(block) == 3
            assert all(0 < n <= most for n, most in zip(grid, (2**31 - 1, 65535, 65535))), grid
            assert 0 < block[0] * block[1] * block[2] <= 1024, block
            held = [_bytes(arg) for arg in args]
            sizes = [parameter(i) for i in range(len(held))]
            assert [len(each) for each in held] == sizes, f"{expression} takes {sizes}"
            assert parameter(len(held)) == 0, f"{expression} takes more than {len(held)} arguments"
            pointers = (ctypes.c_void_p * len(held))(
                *(ctypes.cast(ctypes.c_char_p(each), ctypes.c_void_p).value for each in held)
            )
            triples = [(ctypes.c_uint * 3)(*each) for each in (grid, block)]
            with _ONE:
                assert launch(*triples, pointers, self.order) == 0, "a barrier that only some threads reach"

        return run

    def stream(self):
        return HostStream()

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def free(self):
        """Nothing to give back."""

    def pinned(self, nbytes):
        return np.empty(nbytes, np.uint8)

    def upload(self, stream, host, device_array):  # noqa: ARG002
        np.copyto(device_array, host, casting="no")

    def download(self, stream, device_array, host):  # noqa: ARG002
        np.copyto(host, device_array, casting="no")

    def matmul(self, first, second):
        return np.matmul(first, second)

    def elapsed(self, first, last):  # noqa: ARG002
        return 0.0

    def free_bytes(self):
        return 1 << 30


def _bytes(arg):
    """What is handed to a kernel: a pointer, or a value as it lies in memory."""
    if isinstance(arg, np.ndarray):
        return np.uintp(arg.ctypes.data).tobytes()
    assert isinstance(arg, np.generic), f"neither an array nor a NumPy scalar: {arg!r}"
    return arg.tobytes()
