"""How an OME-Zarr image is written."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.errors import OutputExistsError, ParameterError, WriteError
from volconv.io.checks import check_block
from volconv.io.formats import Url
from volconv.io.omezarr.codecs import Packing, settled_packing
from volconv.io.omezarr.level import AS_IT_IS, LevelArray, Ranges, in_file, opened_array, remove_partial
from volconv.io.omezarr.metadata import new_attributes, new_channels, parse_version
from volconv.io.omezarr.pieces import held_bytes, within
from volconv.io.omezarr.source import open_level
from volconv.io.omezarr.store import library_bytes, load_zarr, opened_store, together, writing
from volconv.io.omezarr.unfinished import Unfinished
from volconv.io.target import FolderTarget, check_folder_target
from volconv.io.volume import Access, NewVolume, VolumeInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.geometry import Geometry
    from volconv.io.omezarr.source import ZarrHeader, ZarrSource
    from volconv.io.volume import Request
    from volconv.region import Index5, Region

#: Chunks (D, H, W) for which nobody chose any: some 1 to 4 MB, which an object store hands out in one request.
_DEFAULT_CHUNK = (64, 128, 128)

#: Bound of blosc, and of what is sensible, on the bytes of a chunk.
_CHUNK_BYTES = (2 << 30) - 1


class Layout(NamedTuple):
    """How the arrays are laid out."""

    version: str
    letters: str
    chunk: Index5
    shard: Index5 | None
    packing: Packing | None
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> Index5:
        """What is one object of the store."""
        return self.shard or self.chunk


def describe_new(request: Request) -> VolumeInfo:
    """Check a new image, and tell what it will be."""
    if request.key is not None:
        raise ParameterError(
            f"output must be an image, and not one level of it (got {request.path}:{request.key})",
            hint="leave out the number",
        )
    load_zarr(str(request.path), WriteError)
    if isinstance(request.path, Url):
        _check_url(request.path, shared=request.shared)
    else:
        check_folder_target(request.path, mkdir=request.mkdir)
    layout = _laid_out(request)
    held = library_bytes(request.path) + held_bytes(layout.unit, request.dtype.itemsize)
    channels = _carried_channels(request)[1]
    return VolumeInfo(
        request.shape,
        request.dtype,
        request.geometry,
        time_step=request.time_step,
        format="zarr",
        axes=layout.letters,
        compression=layout.packing.name if layout.packing else None,
        access=Access(layout.unit, packed=layout.packing is not None, held_bytes=held),
        notes=layout.notes + channels,
    )


def create_file(request: Request, info: VolumeInfo) -> ZarrSink:
    """Create an image of one level."""
    return ZarrSink(request, info)


class ZarrSink(NewVolume):
    """An image being written: chunks first, and what makes an image of them last.

    A folder gets its name when it is complete. An object store has no names to give: there the group's metadata are
    written last, and a group without them is no image; whatever was written before is removed if the run fails, and
    stays, as no image, where the process is killed. Of a shared image (:class:`SharedLevel` is how others write to it)
    it stays in any case, for another run to go on with.

    Parameters
    ----------
    request : Request
    info : VolumeInfo
        As :func:`describe_new` tells it.

    Raises
    ------
    WriteError
        It cannot be made there.
    """

    def __init__(self, request: Request, info: VolumeInfo) -> None:
        self.info = info
        self._request, self._layout = request, _laid_out(request)
        self._name = str(request.path)
        self._channels = _carried_channels(request)[0]
        self.ranges = Ranges(info.shape[1])
        self._levels: list[tuple[LevelArray, Geometry]] = []
        self._done = False
        self._unfinished = Unfinished(request.path) if request.shared else None
        self._target = None
        if not isinstance(request.path, Url):
            self._target = FolderTarget(request.path, None if self._unfinished is None else self._unfinished.image)
        self._where = request.path if self._target is None else self._target.temporary
        try:
            with writing(self._name):
                self._store = opened_store(self._where, WriteError, read_only=False)
            self._add(info.shape, info.geometry)
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        self.write_level(0, region, values)
        if self._channels:
            self.ranges.widen(region, values)

    def write_level(self, level: int, region: Region, values: NDArray[Any]) -> None:
        """Store values in one of the levels."""
        self._levels[level][0].write(region, values)

    def keep(self, level: int, cache_bytes: int) -> None:
        """Keep pieces of a level until they are complete, in so much memory."""
        self._levels[level][0].cache_bytes = cache_bytes

    @property
    def attributes(self) -> dict[str, Any]:
        """What makes it an image, with the levels and the values that there are so far."""
        ranges = [pair or (0, 1) for pair in self.ranges.known()]
        levels = [(str(number), geometry) for number, (_, geometry) in enumerate(self._levels)]
        request, layout = self._request, self._layout
        channels = new_channels(self._channels, ranges, copied=request.copied) if self._channels else ()
        name = request.path.name.removesuffix(".zarr").removesuffix(".ome")
        return new_attributes(layout.version, layout.letters, levels, request.time_step, channels, name, request.note)

    @property
    def level_chunk(self) -> tuple[int, int, int]:
        """Chunk (D, H, W) of every level: of one that fits in it no coarser one is made."""
        return self._layout.chunk[2:]

    def last_level(self) -> ZarrSource:
        """The last level that was made, complete by now, to be read."""
        self._levels[-1][0].flush()
        return open_level(self._where, self.attributes, len(self._levels) - 1)

    def add_level(self, shape: Index5, geometry: Geometry) -> LevelSink:
        """Make the next level, coarser than the last."""
        self._add(shape, geometry)
        return LevelSink(self, len(self._levels) - 1, shape, geometry)

    def commit(self) -> None:
        """Write the metadata that make it an image, and put it in place."""
        if self._done:
            return
        try:
            self._levels[-1][0].flush()
            with writing(self._name):
                zarr = load_zarr(self._name, WriteError)
                group = zarr.open_group(self._store, mode="r+", zarr_format=_zarr_format(self._layout))
                group.update_attributes(self.attributes)
            if self._target is not None:
                if self._unfinished is not None:
                    remove_partial(self._target.temporary)
                self._target.commit()
            if self._unfinished is not None:
                with contextlib.suppress(WriteError):  # the image is there
                    self._unfinished.remove()
        except BaseException:
            self.abort()
            raise
        self._done = True

    def abort(self) -> None:
        """Remove what was written, unless others may go on with it."""
        if self._done or self._unfinished is not None:
            return
        self._done = True
        if self._target is not None:
            self._target.abort()
        elif hasattr(self, "_store"):
            # What cannot be removed is no image, and no reason to hide why this ends.
            with contextlib.suppress(WriteError), writing(self._name):
                together([self._store.delete_dir("")])

    def _add(self, shape: Index5, geometry: Geometry) -> None:
        """Make the array of the next level."""
        layout, path = self._layout, str(len(self._levels))
        zarr, sizes = load_zarr(self._name, WriteError), in_file(shape, layout.letters)
        later: dict[str, Any] = {}
        if layout.version == "0.4":
            later["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        else:
            later["dimension_names"] = list(layout.letters.lower())
        with writing(self._name):
            try:
                array = zarr.create_array(
                    self._store,
                    name=path,
                    shape=sizes,
                    chunks=in_file(layout.chunk if layout.shard else within(layout.chunk, shape), layout.letters),
                    shards=in_file(layout.shard, layout.letters) if layout.shard else None,
                    dtype=self.info.dtype.newbyteorder("<"),
                    filters=None,
                    compressors=layout.packing.codec(layout.version) if layout.packing else None,
                    fill_value=0,
                    zarr_format=_zarr_format(layout),
                    config=AS_IT_IS,
                    **later,
                )
            except zarr.errors.ContainsArrayError:
                if self._unfinished is None:
                    raise
                array = opened_array(self._store, path)
        level = LevelArray(array, layout.letters, self._name, 0 if self._levels else self._request.cache_bytes or 0)
        self._levels.append((level, geometry))


class LevelSink(NewVolume):
    """A coarser level of an image that is being written: it is there with the image, or not at all."""

    def __init__(self, sink: ZarrSink, number: int, shape: Index5, geometry: Geometry) -> None:
        self._sink, self.number = sink, number
        chunk = within(sink.info.access.chunk or shape, shape)
        access = replace(sink.info.access, chunk=chunk)
        self.info = replace(sink.info, shape=shape, geometry=geometry, access=access)

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        self._sink.write_level(self.number, region, values)

    def keep(self, cache_bytes: int) -> None:
        """Keep pieces until they are complete, in so much memory."""
        self._sink.keep(self.number, cache_bytes)


def _laid_out(request: Request) -> Layout:
    """Axes, chunks, shards and packing by the creation options, and otherwise as the input has them.

    Raises
    ------
    ParameterError
        An option has a value that it does not take.
    """
    header: ZarrHeader | None = request.carried("zarr")
    version, options = parse_version(request.options), request.options
    letters = _letters(request.shape, header)
    shape, itemsize = request.shape, request.dtype.itemsize
    chunk = header.chunk if header else (1, 1, *_DEFAULT_CHUNK)
    shard = header.shard if header and version == "0.5" and "chunks" not in options else None
    if "chunks" in options:
        chunk = (1, 1, *_three(options["chunks"], "chunks"))
    asked = options.get("shards", "").strip().lower()
    if asked == "none":
        shard = None
    elif asked:
        if version == "0.4":
            raise ParameterError(f"shards must be left out with version=0.4 (got shards={asked})")
        shard = (1, 1, *_three(asked, "shards"))
        if "chunks" not in options:
            chunk = _divisors(shard, chunk)
        if any(whole % part for whole, part in zip(shard, chunk, strict=True)):
            shown = ",".join(map(str, chunk[2:]))
            raise ParameterError(f"shards must be multiples of chunks (got shards={asked}, chunks={shown})")
    if shard is None:
        chunk = within(chunk, shape)
    notes: tuple[str, ...] = ()
    if math.prod(shard or chunk) * itemsize > _CHUNK_BYTES:
        if "chunks" in options or asked:
            size = math.prod(shard or chunk) * itemsize
            raise ParameterError(f"chunks and shards must take less than 2 GB each (got {size} bytes)")
        chunk, shard = within((1, 1, *_DEFAULT_CHUNK), shape), None
    compression = header.compression if header else None
    packing = settled_packing(options, compression, header.packing if header else None)
    if "compression" not in options and header and header.packing is None and compression != "none":
        notes = (f"{request.path.name}: {compression} is not written, so its voxels are packed by zstd",)
    return Layout(version, letters, chunk, shard, packing, notes)


def _divisors(shard: Index5, wanted: Index5) -> Index5:
    """The largest chunk, up to another one, that a shard is a multiple of."""
    n, c, d, h, w = (
        max(edge for edge in range(1, min(most, whole) + 1) if whole % edge == 0)
        for whole, most in zip(shard, wanted, strict=True)
    )
    return n, c, d, h, w


def _letters(shape: Index5, header: ZarrHeader | None) -> str:
    """3 axes where that is all there is, but those of size 1 that the input had stay."""
    had = header.letters.translate(str.maketrans("NSDHW", "TCZYX")) if header else ""
    return "".join(
        letter for letter, size in zip("TCZYX", shape, strict=True) if letter in "ZYX" or size > 1 or letter in had
    )


def _carried_channels(request: Request) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """What is known of the output's channels, and a note where what was known of the input's is left out."""
    header: ZarrHeader | None = request.carried("zarr")
    channels = header.channels if header else ()
    if not channels or len(channels) == request.shape[1]:
        return channels, ()
    return (), (f"{request.path.name}: names and colours of {len(channels)} channels are left out",)


def _three(text: str, option: str) -> tuple[int, int, int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        also = ", or none" if option == "shards" else ""
        raise ParameterError(f"{option} must be three positive integers D,H,W{also} (got {text!r})")
    d, h, w = (int(part) for part in parts)
    return d, h, w


def _zarr_format(layout: Layout) -> int:
    return 2 if layout.version == "0.4" else 3


def _check_url(url: Url, *, shared: bool) -> None:
    """Refuse a URL at which something lies, unless it is what a run left that may be gone on with.

    Raises
    ------
    OutputExistsError
    ParameterError
        Its name would be taken for a pattern, by which objects of others might be removed.
    WriteError
        The store cannot be asked.
    """
    if any(mark in str(url) for mark in "*?["):
        raise ParameterError(f"a URL to write to must hold none of * ? [ (got {url})")
    unfinished = Unfinished(url)
    if unfinished.facts() is not None:
        if shared:
            return
        raise OutputExistsError(
            f"{url}: a run of several processes did not finish it, and left {unfinished.root}",
            hint=f"--workers N --resume (workers=, resume=) goes on with it; or remove {unfinished.root} and {url}",
        )
    with writing(str(url)):
        store = opened_store(url, WriteError, read_only=False)
        (empty,) = together([store.is_empty("")])
    if not empty:
        raise OutputExistsError(
            f"{url}: is not empty, and what lies at a URL is never replaced", hint="remove it, or name a new one"
        )
