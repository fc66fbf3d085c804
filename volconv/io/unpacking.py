"""Voxels of a gzipped file: in turn, while they are unpacked, or by region from a temporary file without a name."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from volconv.errors import ReadError, WriteError
from volconv.io.gzipped import check_promise, unpacked
from volconv.io.raw import COPY_BYTES, RawFile
from volconv.io.volume import Access

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Region

#: Unpacked bytes that wait to be read.
AHEAD_BYTES = 16 << 20


class Unpacked:
    """The voxels of a gzipped file, unpacked by a thread of its own.

    Where :meth:`expect` says that they are read in turn, they are read as they come, and nothing is kept. Otherwise, at
    the first read, all go into a temporary file.

    Parameters
    ----------
    file : binary file
        Open, and left alone by others from :meth:`begin` to :meth:`close`.
    voxels : RawFile
        Where they would lie if the file were unpacked.
    footer : int
        Of what follows them, up to so many bytes are kept in the temporary file too, as many as there are.

    Raises
    ------
    ReadError
        So many voxels cannot be in a file of this size.
    """

    def __init__(self, file: BinaryIO, voxels: RawFile, footer: int = 0) -> None:
        check_promise(voxels.offset, voxels.nbytes, file, voxels.name)
        self._packed = file
        self._voxels = voxels
        self._footer = footer
        self._folder: Path | None = None
        self._stream: _Stream | None = None
        self._spool: BinaryIO | None = None
        self._held: RawFile | None = None

    @property
    def access(self) -> Access:
        """What touching a region costs."""
        held = AHEAD_BYTES + 4 * COPY_BYTES
        return Access(order=self._voxels.order, in_turn=True, spool_bytes=self._voxels.nbytes, held_bytes=held)

    def begin(self) -> None:
        """Begin to unpack; once is enough."""
        if self._stream is None and self._spool is None:
            self._stream = _Stream(self._packed, self._voxels, self._footer)

    def expect(self, reading: Reading) -> None:
        """See :meth:`volconv.io.OpenVolume.expect`."""
        self._folder = reading.folder
        if reading.in_turn and self._spool is None:
            self._held = _InTurn(self)

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """Put the values of a region into an array.

        Raises
        ------
        ReadError
            The file is damaged or too short: anywhere, unless it is read in turn; or there is no room.
        """
        if self._held is None:
            self.file()
        assert self._held is not None  # noqa: S101  # by file()
        self._held.read_into(region, out)

    def stream(self, position: int) -> _Stream:
        """What is being unpacked, from a byte on that it has not passed yet: from the start, if it must."""
        if self._stream is not None and self._stream.position > position:
            self._stream.close()
            self._stream = None
        self.begin()
        assert self._stream is not None  # noqa: S101  # begun
        return self._stream

    def file(self) -> BinaryIO:
        """The temporary file, when all is unpacked; its first byte is that of the first voxel.

        Raises
        ------
        ReadError
            The file is damaged or too short, anywhere.
        WriteError
            There is no room.
        """
        if self._spool is None:
            folder = self._folder
            with contextlib.ExitStack() as undo:
                try:
                    folder = folder or Path(tempfile.gettempdir())
                    spool = cast("BinaryIO", tempfile.TemporaryFile(dir=folder, prefix="volconv-"))  # noqa: SIM115  # close() closes it
                    undo.callback(spool.close)
                    stream = self.stream(0)
                    for piece in stream.rest():
                        spool.write(piece)
                    spool.flush()
                except OSError as error:
                    into = f" into {folder}" if folder else ""
                    raise WriteError(
                        f"{self._voxels.name}: cannot be unpacked{into}: {error.strerror}",
                        hint=None if self._folder else "set TMPDIR to a folder with more room",
                    ) from error
                undo.pop_all()
            stream.close()
            self._spool, self._stream = spool, None
            v = self._voxels
            self._held = RawFile(spool, 0, v.dtype, v.shape, v.order, name=v.name)
        return self._spool

    def finish(self) -> None:
        """See :meth:`volconv.io.OpenVolume.finish`."""
        if self._stream is not None:
            for _ in self._stream.rest():
                pass

    def close(self) -> None:
        """Stop, and drop what was unpacked."""
        if self._stream is not None:
            self._stream.close()
        if self._spool is not None:
            self._spool.close()


class _InTurn(RawFile):
    """Voxels read from a stream: any region that begins where the last one ended, or later."""

    def __init__(self, owner: Unpacked) -> None:
        v = owner._voxels  # a part of it
        super().__init__(v.file, 0, v.dtype, v.shape, v.order, name=v.name)
        self._owner = owner

    def _read_into(self, target: memoryview, position: int) -> None:
        self._owner.stream(position).read_into(target, position)


class _Stream:
    """Bytes that a thread unpacks, in pieces of which a few wait; read to the end, where gzip has a checksum."""

    def __init__(self, packed: BinaryIO, voxels: RawFile, footer: int) -> None:
        self._packed, self._name = packed, voxels.name
        self._offset, self._size, self._footer = voxels.offset, voxels.nbytes, footer
        self._pieces: deque[memoryview] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: Exception | None = None
        #: Of the next byte to be read, counted from the first voxel.
        self.position = 0
        self._thread = threading.Thread(target=self._unpack, name="volconv-unpack", daemon=True)
        self._thread.start()

    def read_into(self, target: memoryview, position: int) -> None:
        """Fill memory with the bytes from a position on, which must not be passed yet."""
        while len(target):
            piece = self._next()
            if piece is None:
                raise ReadError(f"{self._name}: is truncated: the file ends at byte {self._offset + self.position}")
            skipped = min(position - self.position, len(piece))
            taken = piece[skipped : skipped + len(target)]
            target[: len(taken)] = taken
            target = target[len(taken) :]
            self.position += skipped + len(taken)
            position = self.position
            if left := piece[skipped + len(taken) :]:
                self._put_back(left)

    def rest(self) -> Iterator[memoryview]:
        """All pieces that are left.

        Raises
        ------
        ReadError
            The file is damaged or too short.
        """
        while (piece := self._next()) is not None:
            self.position += len(piece)
            yield piece
        if self.position < self._size:
            raise ReadError(f"{self._name}: is truncated: {self._size} bytes of voxels expected, {self.position} found")

    def close(self) -> None:
        """Stop, and wait until it is so."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        self._pieces.clear()

    def _next(self) -> memoryview | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended or self._stopped)
            if self._pieces:
                piece = self._pieces.popleft()
                self._waiting -= len(piece)
                self._changed.notify_all()
                return piece
            if self._stopped:
                raise ValueError(f"{self._name} is closed")
            if self._error is not None:
                raise self._error
            return None

    def _put_back(self, piece: memoryview) -> None:
        with self._changed:
            self._pieces.appendleft(piece)
            self._waiting += len(piece)

    def _unpack(self) -> None:
        try:
            with unpacked(self._packed, self._name, gzipped=True) as stream:
                stream.seek(self._offset)
                left = self._size + self._footer
                while not self._stopped and (piece := stream.read(COPY_BYTES)):
                    if left:  # the rest is only checked
                        self._hand_over(memoryview(piece)[:left])
                        left = max(0, left - len(piece))
        except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _hand_over(self, piece: memoryview) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < AHEAD_BYTES or self._stopped)
            self._pieces.append(piece)
            self._waiting += len(piece)
            self._changed.notify_all()
