"""A file that HDF5 writes to and that can fail without harm."""

from __future__ import annotations

import os
from typing import Any


class Output:
    """What HDF5 sees in place of a file.

    HDF5 keeps chunks to write them later. Where it cannot, as on a full disk, it tries again at the end of the process,
    and brings that down by a segmentation fault. So it is never told: after a first error, or once given up, nothing is
    written any more, and all seems well to HDF5. No method raises, not even where a user interrupts it: HDF5 would
    carry on with the exception set.

    Parameters
    ----------
    descriptor : int
        Of a new file, open for reading and writing; the caller closes it.

    Attributes
    ----------
    error : OSError, KeyboardInterrupt or None
        The first one; the file is incomplete then.
    """

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | KeyboardInterrupt | None = None
        self._descriptor = descriptor
        self._given_up = False
        self._place = 0
        self._size = 0

    def give_up(self) -> None:
        """Write nothing from here on."""
        self._given_up = True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """Tell the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        memory = memoryview(buffer).cast("B")
        done = 0
        try:
            while done < len(memory) and (got := os.preadv(self._descriptor, [memory[done:]], self._place + done)):
                done += got
        except (OSError, KeyboardInterrupt) as error:
            self._failed(error)
        self._place += done
        return done

    def read(self, size: int) -> bytes:
        """Read as every file can; HDF5 only asks for :meth:`readinto`."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def write(self, data: Any) -> int:
        """Write, if it still makes sense."""
        memory = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(memory) and not self._given_up:
                done += os.pwrite(self._descriptor, memory[done:], self._place + done)
        except (OSError, KeyboardInterrupt) as error:
            self._failed(error)
        self._place += len(memory)
        self._size = max(self._size, self._place)
        return len(memory)

    def truncate(self, size: int) -> int:
        """Cut off or extend, if it still makes sense."""
        try:
            if not self._given_up:
                os.ftruncate(self._descriptor, size)
        except (OSError, KeyboardInterrupt) as error:
            self._failed(error)
        self._size = size
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def _failed(self, error: OSError | KeyboardInterrupt) -> None:
        self.error = self.error or error
        self._given_up = True
