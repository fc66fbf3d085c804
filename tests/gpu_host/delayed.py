"""A device that does nothing before somebody waits for it, gives memory full of NaN, and may run out of it."""

from __future__ import annotations

import numpy as np

from gpu_host.device import HostDevice


class DelayedEvent:
    """A point in a stream."""

    def __init__(self, stream, position):
        self._stream, self._position = stream, position

    def synchronize(self):
        self._stream.run(self._position)


class DelayedStream:
    """Work that is done in order, when an event behind it is waited for; never before."""

    def __init__(self):
        self._work, self._done = [], 0

    def enqueue(self, work):
        self._work.append(work)

    def record(self):
        return DelayedEvent(self, len(self._work))

    def wait(self, event):
        self._work.append(event.synchronize)

    def synchronize(self):
        self.run(len(self._work))

    def run(self, position):
        while self._done < position:
            work, self._work[self._done] = self._work[self._done], None
            self._done += 1
            try:
                work()
            except MemoryError:  # a real device raises it where work is given, and has none of it
                self._work, self._done = [None] * len(self._work), len(self._work)
                raise


class DelayedDevice(HostDevice):
    """See above.

    Parameters
    ----------
    fails : callable
        Of the number of an allocation, from 1, and its size: whether memory has run out.
    """

    def __init__(self, fails=lambda number, size: False):  # noqa: ARG005
        super().__init__()
        self._fails, self.allocations, self.freed = fails, 0, 0

    def stream(self):
        return DelayedStream()

    def empty(self, shape, dtype):
        return self._poisoned(np.empty(shape, dtype))

    def pinned(self, nbytes):
        return self._poisoned(np.empty(nbytes, np.uint8))

    def free(self):
        self.freed += 1

    def upload(self, stream, host, device_array):
        stream.enqueue(lambda: np.copyto(device_array, host, casting="no"))

    def download(self, stream, device_array, host):
        stream.enqueue(lambda: np.copyto(host, device_array, casting="no"))

    def _poisoned(self, memory):
        self.allocations += 1
        if self._fails(self.allocations, memory.nbytes):
            raise MemoryError
        memory.reshape(-1).view(np.uint8)[:] = 0xFF  # NaN, and the largest of all integers
        return memory
