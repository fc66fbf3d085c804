"""TIFF stacks whose pages are compressed or tiled, packed as they come."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import tifffile

from volconv.io.checks import check_block
from volconv.io.room import spool_folder
from volconv.io.spool import InTurn
from volconv.io.target import FolderTarget, Target, translated
from volconv.io.tiff.words import Layout, words_of
from volconv.io.volume import NewVolume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volconv.io.tiff.packing import Packing
    from volconv.io.volume import Request, VolumeInfo
    from volconv.region import Index5, Region

#: Says that nothing follows, and that all is to be given up.
_END, _GIVE_UP = object(), object()


class InPlanes(NewVolume):
    """What is packed plane by plane: planes that come in the file's order at once, and the others at the commit.

    Parameters
    ----------
    info : VolumeInfo
    target : Target or FolderTarget
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) in which planes (H, W) are taken, slowest first.
    """

    def __init__(self, info: VolumeInfo, target: Target | FolderTarget, order: Index5) -> None:
        self.info = info
        self._target: Target | FolderTarget = target
        self._done = False
        self._plane = info.shape[3:]
        self._size = self._plane[0] * self._plane[1] * info.dtype.itemsize
        self._begun = bytearray()
        folder = spool_folder(target.path)
        self._voxels = InTurn(folder, info.dtype, info.shape, order, name=target.name, take=self._take)

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        with translated(self._target.name):
            self._voxels.write(region, values)

    def commit(self) -> None:
        """Pack what is left, and put the output in place."""
        if self._done:
            return
        try:
            with translated(self._target.name):
                self._voxels.finish()
                self.end()
            self._target.commit()
        except BaseException:
            self.abort()
            raise
        self._done = True

    def abort(self) -> None:
        """Remove what was written."""
        self._done = True
        self.give_up()
        self._voxels.close()
        self._target.abort()

    def pack(self, plane: NDArray[Any]) -> None:
        """Pack the next plane (H, W), whose memory may change afterwards."""
        raise NotImplementedError

    def end(self) -> None:
        """Complete the temporary file or folder."""

    def give_up(self) -> None:
        """Stop packing."""

    def _take(self, data: memoryview | bytes) -> None:
        """Cut what follows into planes."""
        view = memoryview(data).cast("B")
        while view:
            if not self._begun and len(view) >= self._size:
                self.pack(self._as_plane(view[: self._size]))
                view = view[self._size :]
                continue
            missing = self._size - len(self._begun)
            self._begun += view[:missing]
            view = view[missing:]
            if len(self._begun) == self._size:
                self.pack(self._as_plane(self._begun))
                self._begun = bytearray()

    def _as_plane(self, data: memoryview | bytearray) -> NDArray[Any]:
        return np.frombuffer(data, self.info.dtype).reshape(self._plane)


class PackedTiffSink(InPlanes):
    """A TIFF stack whose pages are compressed or tiled."""

    def __init__(self, request: Request, info: VolumeInfo, packing: Packing, layout: Layout) -> None:
        target = Target(request.path, overwrite=request.overwrite)
        super().__init__(info, target, layout.order)
        self._packer = _Pulling(lambda planes: pack(target.file, request, layout, packing, planes))

    def pack(self, plane: NDArray[Any]) -> None:
        """Pack the next plane."""
        self._packer.push(plane)

    def end(self) -> None:
        """Complete the file."""
        self._packer.end()

    def give_up(self) -> None:
        """Stop packing."""
        self._packer.give_up()


class _GivenUp(BaseException):
    """Ends what pulls, whatever it would do about an error."""


class _Pulling:
    """A function that pulls what it needs from an iterator, in a thread of its own, fed by whoever has it."""

    def __init__(self, function: Callable[[Iterator[Any]], None]) -> None:
        self._function = function
        self._pushed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: None where an item was used, what ended the function where something did.
        self._told: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._ended: object = None
        self._thread = threading.Thread(target=self._run, name="volconv-pack", daemon=True)
        self._thread.start()

    def push(self, item: Any) -> None:
        """Hand over one item, and wait until it was used."""
        if self._ended is None:
            self._pushed.put(item)
            self._ended = self._told.get()
        if isinstance(self._ended, BaseException):
            raise self._ended

    def end(self) -> None:
        """Say that there is no more, unless that is known, and wait until the function has returned."""
        self.push(_END)
        self._thread.join()

    def give_up(self) -> None:
        """End the function, whatever it is at; once is enough."""
        self._pushed.put(_GIVE_UP)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._function(self._items())
        except _GivenUp:
            return
        except BaseException as error:  # noqa: BLE001  # it is raised where items come from
            self._told.put(error)
        else:
            self._told.put(_END)

    def _items(self) -> Iterator[Any]:
        while (item := self._pushed.get()) is not _END:
            if item is _GIVE_UP:
                raise _GivenUp
            yield item
            self._told.put(None)


def pack(file: BinaryIO, request: Request, layout: Layout, packing: Packing, planes: Iterator[NDArray[Any]]) -> None:
    """Write a whole file of packed pages.

    Parameters
    ----------
    file : binary file
    request : Request
        Of what this file holds.
    layout : Layout
    packing : Packing
    planes : iterator of (H, W) arrays
        In the order of the file.
    """
    with tifffile.TiffWriter(file, **layout.writer_arguments()) as writer:
        writer.write(
            planes if packing.tile is None else _tiles(planes, *packing.tile),
            **words_of(request, layout),
            **packing.arguments(),
            maxworkers=1,  # more of them would hold half a gigabyte, and follow no --threads
        )


def _tiles(planes: Iterator[NDArray[Any]], tall: int, wide: int) -> Iterator[NDArray[Any]]:
    """Tiles (H, W, 1) of all planes, filled up with zeros."""
    for plane in planes:
        for y in range(0, plane.shape[0], tall):
            for x in range(0, plane.shape[1], wide):
                piece = plane[y : y + tall, x : x + wide]
                tile = np.zeros((tall, wide, 1), plane.dtype)
                tile[: piece.shape[0], : piece.shape[1], 0] = piece
                yield tile
