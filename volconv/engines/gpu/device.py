"""What the engine asks of a GPU: compiled kernels, streams, copies. One more that has all this is in the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

#: An array in a device's memory: ``cupy.ndarray``, or NumPy's on the host.
Array = Any


class Event(Protocol):
    """A point in a stream's work."""

    def synchronize(self) -> None:
        """Return when the work before it is done."""
        ...


class Stream(Protocol):
    """Work that is done in order."""

    def enqueue(self, work: Callable[[], None]) -> None:
        """Have arrays computed with: all that ``work`` does with ``xp`` and kernels is done in this stream."""
        ...

    def wait(self, event: Event) -> None:
        """Do nothing more before the work that an event stands behind is done."""
        ...

    def record(self) -> Event:
        """The point behind all work so far."""
        ...

    def synchronize(self) -> None:
        """Return when all work is done."""
        ...


class Function(Protocol):
    """A compiled kernel."""

    def __call__(
        self,
        stream: Stream,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Array | np.generic],
        shared: int = 0,
    ) -> None:
        """Launch it.

        Parameters
        ----------
        stream : Stream
        grid, block : tuple of 3 ints
            Blocks, and threads of each, along x, y, z.
        args : sequence
            NumPy scalars of the exact C type, structured ones (``numpy.void``) by value, and device arrays as pointers.
        shared : int
            Bytes of shared memory beside what the kernel declares.
        """
        ...


class Device(Protocol):
    """A GPU.

    Attributes
    ----------
    xp : module
        What makes and computes with arrays in its memory: ``cupy``.
    name : str
    capability : tuple of 2 ints
        Compute capability, major and minor.
    multiprocessors : int
    """

    xp: Any
    name: str
    capability: tuple[int, int]
    multiprocessors: int

    def function(self, expression: str) -> Function:
        """A kernel of ``kernels.cu`` by its C++ name, ``"generic<short, float>"``: compiled on first use, and kept."""
        ...

    def stream(self) -> Stream:
        """A new stream."""
        ...

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new array, with whatever memory holds.

        Raises
        ------
        MemoryError
        """
        ...

    def free(self) -> None:
        """Give back memory that no array takes."""
        ...

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Host memory that copies run from and to at full speed.

        Raises
        ------
        MemoryError
        """
        ...

    def upload(self, stream: Stream, host: NDArray[Any], device_array: Array) -> None:
        """Copy to the device; both contiguous, of one dtype and shape. Returns before it is done."""
        ...

    def download(self, stream: Stream, device_array: Array, host: NDArray[Any]) -> None:
        """Copy from the device, likewise."""
        ...

    def matmul(self, first: Array, second: Array) -> Array:
        """Product of matrices; rounded to less on the way only where that was allowed."""
        ...

    def elapsed(self, first: Event, last: Event) -> float:
        """Seconds between two events, when both have come."""
        ...

    def free_bytes(self) -> int:
        """Memory that could be allocated now."""
        ...
