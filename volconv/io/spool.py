"""A volume that a format takes only from start to end, given in any order: what is early waits in a temporary file."""

from __future__ import annotations

import math
import tempfile
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from volconv.io.raw import COPY_BYTES, RawFile, in_file_order, runs
from volconv.region import NCDHW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from volconv.region import Index5, Region


class Spool:
    """Room for a volume, to be written in any order and then taken from start to end.

    Parameters
    ----------
    folder : Path
        Where it lies; see :func:`volconv.io.room.spool_folder`.
    dtype : numpy.dtype
    shape : tuple of 5 ints
        (N, C, D, H, W).
    order : tuple of 5 ints
        Axes in the order in which they follow each other, slowest first.
    name : str
        The target's name, for messages.

    Attributes
    ----------
    raw : RawFile
        To read and write regions.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], shape: Index5, order: Index5 = NCDHW, *, name: str) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  # it lives until close()
        self.raw = RawFile(self._file, 0, dtype, shape, order, name=name)
        try:
            self._file.truncate(self.raw.nbytes)
        except BaseException:
            self.close()
            raise

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """All bytes from start to end, or from byte ``start``."""
        self._file.seek(start)
        while piece := self._file.read(COPY_BYTES):
            yield piece

    def close(self) -> None:
        """Let go of it; once is enough."""
        self._file.close()


class InTurn:
    """A volume that a format takes from start to end, and that is given in any order.

    What comes in turn is handed on at once; from the first region on that does not, all waits in a :class:`Spool`.

    Parameters
    ----------
    folder, dtype, shape, order, name
        As of a :class:`Spool`.
    take : callable
        Is given the bytes, in pieces.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[Any],
        shape: Index5,
        order: Index5,
        *,
        name: str,
        take: Callable[[memoryview | bytes], None],
    ) -> None:
        self._new_spool = partial(Spool, folder, dtype, shape, order, name=name)
        self._dtype, self._shape, self._order = dtype, shape, order
        self._take = take
        self._taken = 0
        self._spool: Spool | None = None

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Hand on, or keep, the values of a region.

        Raises
        ------
        WriteError, OSError
        """
        if self._spool is None:
            where = runs(region, self._shape, self._order, self._dtype.itemsize)
            if not where.run:
                return
            if where.rows == 1 and list(islice(where.positions, 2)) == [self._taken]:
                self._take(in_file_order(values, self._dtype, self._order))
                self._taken += where.run
                return
            self._spool = self._new_spool()
        self._spool.raw.write(region, values)

    def finish(self) -> None:
        """Hand on the rest; what was never written is zeros."""
        left = math.prod(self._shape) * self._dtype.itemsize - self._taken
        if self._spool is None and left:
            self._spool = self._new_spool()
        if self._spool is not None:
            for piece in self._spool.pieces(self._taken):
                self._take(piece)
        self.close()

    def close(self) -> None:
        """Let go of what was kept; once is enough."""
        if self._spool is not None:
            self._spool.close()
