"""A real GPU, through CuPy: the only module beside ``probe`` that imports it."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.gpu.kernels import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

#: Fused multiply-adds, as the error bound counts them; subnormals stay, and division and roots are exact.
OPTIONS = ("-std=c++17", "--fmad=true", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


class CupyDevice:
    """See :class:`volconv.engines.gpu.device.Device`.

    Parameters
    ----------
    memory : int
        Most bytes that arrays on the device may take.
    allow_tf32 : bool
        Whether products of float32 matrices may be rounded to 10 bits on the way.
    """

    def __init__(self, memory: int, *, allow_tf32: bool = False) -> None:
        # One size of workspace, so that sums come in one order: cuBLAS reads it when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        import cupy

        self.xp: Any = cupy
        self._allow_tf32 = allow_tf32
        self._pool = cupy.cuda.MemoryPool()
        self._pool.set_limit(size=memory)
        self._kernel = cache(self._compiled)
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        self.name: str = properties["name"].decode()
        self.capability: tuple[int, int] = (properties["major"], properties["minor"])
        self.multiprocessors: int = properties["multiProcessorCount"]

    def _compiled(self, expression: str) -> Any:
        from cupy.cuda import compiler, function

        # Not by RawModule, which puts an option behind these that takes subnormal numbers for 0.
        source = SOURCE.read_text(encoding="utf-8")
        binary, names = compiler.compile_using_nvrtc(source, OPTIONS, None, "kernels.cu", (expression,))
        module = function.Module()
        module.load(binary)
        return module.get_function(names[expression])

    def function(self, expression: str) -> Callable[..., None]:
        """See :meth:`volconv.engines.gpu.device.Device.function`."""

        def launch(
            stream: CupyStream, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0
        ) -> None:
            # CuPy takes a struct by value where it is an array of one.
            args = [np.array([arg]) if isinstance(arg, np.void) else arg for arg in args]
            with stream.used:
                self._kernel(expression)(tuple(grid), tuple(block), tuple(args), shared)

        return launch

    def stream(self) -> CupyStream:
        """See :meth:`volconv.engines.gpu.device.Device.stream`."""
        return CupyStream(self)

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        """See :meth:`volconv.engines.gpu.device.Device.empty`."""
        with self.memory():
            return self.xp.empty(tuple(shape), dtype)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """See :meth:`volconv.engines.gpu.device.Device.pinned`."""
        with out_of_memory():
            memory = self.xp.cuda.alloc_pinned_memory(max(1, nbytes))
        return np.frombuffer(memory, np.uint8, nbytes)

    def upload(self, stream: CupyStream, host: NDArray[Any], device_array: Any) -> None:
        """See :meth:`volconv.engines.gpu.device.Device.upload`."""
        runtime = self.xp.cuda.runtime
        places = device_array.data.ptr, host.ctypes.data
        runtime.memcpyAsync(*places, host.nbytes, runtime.memcpyHostToDevice, stream.used.ptr)

    def download(self, stream: CupyStream, device_array: Any, host: NDArray[Any]) -> None:
        """See :meth:`volconv.engines.gpu.device.Device.download`."""
        runtime = self.xp.cuda.runtime
        places = host.ctypes.data, device_array.data.ptr
        runtime.memcpyAsync(*places, host.nbytes, runtime.memcpyDeviceToHost, stream.used.ptr)

    def matmul(self, first: Any, second: Any) -> Any:
        """See :meth:`volconv.engines.gpu.device.Device.matmul`."""
        core, kinds = self.xp._core, self.xp._core._routines_linalg
        before = core.get_compute_type(np.float32)
        core.set_compute_type(np.float32, kinds.COMPUTE_TYPE_TF32 if self._allow_tf32 else kinds.COMPUTE_TYPE_FP32)
        try:
            return self.xp.matmul(first, second)
        finally:
            core.set_compute_type(np.float32, before)

    def elapsed(self, first: Any, last: Any) -> float:
        """See :meth:`volconv.engines.gpu.device.Device.elapsed`."""
        return float(self.xp.cuda.get_elapsed_time(first, last)) / 1e3

    def free_bytes(self) -> int:
        """See :meth:`volconv.engines.gpu.device.Device.free_bytes`."""
        return int(self.xp.cuda.runtime.memGetInfo()[0])

    @contextlib.contextmanager
    def memory(self) -> Iterator[None]:
        """Arrays are taken from this device's share, and running out of it is a MemoryError."""
        with out_of_memory(), self.xp.cuda.using_allocator(self._pool.malloc):
            yield

    def free(self) -> None:
        """See :meth:`volconv.engines.gpu.device.Device.free`."""
        self._pool.free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()
        self.xp.fft.config.get_plan_cache().clear()


class CupyStream:
    """See :class:`volconv.engines.gpu.device.Stream`."""

    def __init__(self, device: CupyDevice) -> None:
        self._device, self._cuda = device, device.xp.cuda
        self.used = self._cuda.Stream(non_blocking=True)

    def enqueue(self, work: Callable[[], None]) -> None:
        """See :meth:`volconv.engines.gpu.device.Stream.enqueue`."""
        with self._device.memory(), self.used:
            work()

    def record(self) -> Any:
        """See :meth:`volconv.engines.gpu.device.Stream.record`."""
        return self.used.record(self._cuda.Event(disable_timing=False))

    def wait(self, event: Any) -> None:
        """See :meth:`volconv.engines.gpu.device.Stream.wait`."""
        self.used.wait_event(event)

    def synchronize(self) -> None:
        """See :meth:`volconv.engines.gpu.device.Stream.synchronize`."""
        with out_of_memory():
            self.used.synchronize()


@contextlib.contextmanager
def out_of_memory() -> Iterator[None]:
    """Have every library's way to say that memory ran out be a MemoryError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # each library has a kind of its own, and words in common
        said = f"{type(error).__name__}: {error}".lower()
        if any(word in said for word in ("alloc_failed", "memoryallocation", "out of memory", "outofmemory")):
            raise MemoryError(str(error)) from error
        raise
