"""Volumes in files: :func:`open_volume` and :func:`create_volume` pick the format by the name's suffix.

Importing this package loads no file format's library; each format is one module, imported when a name asks for it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from volconv.errors import OutOfMemoryError, ParameterError, ReadError
from volconv.geometry import Geometry
from volconv.io.array import ArraySink, ArraySource
from volconv.io.combine import Selected, Stacked
from volconv.io.files import is_zarr
from volconv.io.formats import (
    FORMATS,
    SLICES,
    ZARR,
    Format,
    Url,
    format_of,
    known_suffixes,
    split_path,
    stem_and_ext,
    widened,
)
from volconv.io.request import make_request, output_format
from volconv.io.room import check_room
from volconv.io.target import make_folder
from volconv.io.volume import (
    Access,
    Entry,
    NewVolume,
    OpenVolume,
    Scaling,
    Sink,
    Source,
    VolumeInfo,
    real_values,
)
from volconv.region import Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike

    from volconv.io.volume import Request
    from volconv.region import Index5

#: Distances between voxels beyond these, in any unit, are damage.
_LEAST, _MOST = 1e-9, 1e9

__all__ = [
    "FORMATS",
    "Access",
    "ArraySink",
    "ArraySource",
    "Entry",
    "Format",
    "NewVolume",
    "OpenVolume",
    "Region",
    "Scaling",
    "Sink",
    "Source",
    "VolumeInfo",
    "create_volume",
    "describe_volume",
    "list_contents",
    "open_stack",
    "open_volume",
    "opened",
    "output_format",
    "real_values",
    "split_path",
    "stem_and_ext",
    "widened",
]


def open_volume(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    spacing: tuple[tuple[float, float, float], str | None] | None = None,
    rgb: bool = False,
    time: int | slice | None = None,
    channel: int | slice | None = None,
) -> OpenVolume:
    """Open a volume for reading by region.

    Parameters
    ----------
    path : str or path
        A NIfTI, MGH, HDF5 (``file.h5`` or ``file.h5:/path/of/dataset``) or TIFF file (``file.ome.tif:1`` for its second
        series), an OME-Zarr folder or URL (``image.zarr:1`` for its second level), or a folder or pattern
        (``slices/z*.tif``) of TIFF slices.
    axes : str, optional
        What the file's axes are, in its own order: ``"XYZC"`` for a NIfTI whose 4th axis is channels, ``"ZCYX"``.
    spacing : ((D, H, W) floats, unit), optional
        Takes the place of what the file says; the unit ("mm", "um", "nm", "m") may be None where the file states one.
    rgb : bool
        Take colours as 3 or 4 channels.
    time, channel : int or slice, optional
        Read only that: an index from 0, or a slice of step 1.

    Returns
    -------
    OpenVolume
        A :class:`Source`; use it in ``with``, or close it.

    Raises
    ------
    ReadError
        There is no such file, its kind is unknown, or it is damaged.
    ParameterError, ShapeError
        Axes, spacing, time or channel do not fit the file.

    Examples
    --------
    >>> with open_volume("sample_data/mni152_t1.nii.gz") as brain:  # doctest: +SKIP
    ...     brain.info.shape, brain.info.geometry.spacing
    ((1, 1, 189, 233, 197), (1.0, 1.0, 1.0))
    """
    file, key, form = _existing(path)
    volume = cast("OpenVolume", _module(form).open_file(file, key, axes=axes, rgb=rgb))
    with contextlib.ExitStack() as undo:
        undo.callback(volume.close)
        if spacing is not None:
            info = volume.info
            volume.info = replace(
                info,
                geometry=_respaced(info, spacing, str(path)),
                notes=tuple(note for note in info.notes if note not in info.spacing_notes),
            )
        _check_spacing(volume.info.geometry, str(path))
        if time is not None or channel is not None:
            volume = Selected(volume, time, channel, str(path))
        undo.pop_all()
    volume.names = (str(path),)
    asked = {"axes": axes, "spacing": spacing, "rgb": rgb or None, "time": time, "channel": channel}
    volume.reading = {name: value for name, value in asked.items() if value is not None}
    return volume


def open_stack(paths: Sequence[str | os.PathLike[str]], **options: Any) -> OpenVolume:
    """Open several files as the channels of one volume, in their order.

    Parameters
    ----------
    paths : sequence of paths
        Of one size and geometry.
    **options
        As :func:`open_volume`'s, for each of them.

    Raises
    ------
    ShapeError
        Sizes or geometries differ.
    """
    with contextlib.ExitStack() as undo:
        volumes = []
        for path in paths:
            volumes.append(open_volume(path, **options))
            undo.callback(volumes[-1].close)
        stacked = Stacked(volumes, [str(path) for path in paths])
        undo.pop_all()
    stacked.names = tuple(str(path) for path in paths)
    stacked.reading = volumes[0].reading
    return stacked


@contextlib.contextmanager
def opened(source: str | os.PathLike[str] | OpenVolume) -> Iterator[tuple[OpenVolume, str]]:
    """An open volume and its name for messages; closed afterwards where it was opened here.

    Raises
    ------
    OutOfMemoryError
        What is done meanwhile needs more memory than there is.
    """
    with contextlib.ExitStack() as files:
        volume = source if isinstance(source, OpenVolume) else files.enter_context(open_volume(source))
        name = " + ".join(volume.names) or "volume"
        try:
            yield volume, name
        except MemoryError as error:
            if not isinstance(error, OutOfMemoryError):
                raise OutOfMemoryError(f"{name}: needs more memory than there is") from error
            if name in error.message:
                raise
            raise OutOfMemoryError(f"{name}: {error.message}", hint=error.hint) from error


def list_contents(path: str | os.PathLike[str]) -> list[Entry]:
    """What a file holds that could be opened by itself: datasets of HDF5, series of TIFF, levels of OME-Zarr.

    One entry otherwise.

    Raises
    ------
    ReadError
        As :func:`open_volume`.
    """
    file, _, form = _existing(path)
    return cast("list[Entry]", _module(form).list_contents(file))


def create_volume(
    path: str | os.PathLike[str],
    *,
    shape: Index5,
    dtype: DTypeLike,
    geometry: Geometry | None = None,
    like: VolumeInfo | None = None,
    scaling: Scaling | None = None,
    options: Mapping[str, str] | None = None,
    copied: bool = False,
    overwrite: bool = False,
    shared: bool = False,
    mkdir: bool = False,
    cache_bytes: int | None = None,
    note: str = "",
) -> NewVolume:
    """Create a volume that is written by region and appears when it is complete.

    Parameters
    ----------
    path : str or path
        Its suffix picks the format; ``file.h5:/path/of/dataset`` names the dataset (``/data`` otherwise), and
        ``folder/`` is a new folder of TIFF slices.
    shape : tuple of 5 ints
        (N, C, D, H, W).
    dtype : dtype
        What :meth:`Sink.write` will be given, except that bool becomes uint8: see the result's ``info.dtype``.
    geometry : Geometry, optional
        That of ``like`` unless given.
    like : VolumeInfo, optional
        The input's: its time step is kept, and a file of the same format carries on its header.
    scaling : Scaling, optional
        From the stored values to the real ones, where the format has a place for it (NIfTI).
    options : dict, optional
        Creation options of the format, as ``{"compression": "zlib"}``.
    copied : bool
        Whether voxels will be those of ``like``: what its header says of them (display range, slice timing) then stays.
    overwrite : bool
        Whether an existing file may be replaced.
    shared : bool
        Whether several processes write it, and what they wrote is to stay where they fail: OME-Zarr alone.
    mkdir : bool
        Whether missing folders are made.
    cache_bytes : int, optional
        Memory for pieces of the file that are kept unpacked until they are complete.
    note : str
        One line on where the volume comes from, kept in the file, with what the format cannot hold.

    Returns
    -------
    NewVolume
        A :class:`Sink`; leaving its ``with`` commits, or aborts where an exception passes through.

    Raises
    ------
    OutputExistsError
        The file exists, and ``overwrite`` is false.
    WriteError
        The format cannot hold the dtype, or the file cannot be made.
    ParameterError
        The suffix names no format that is written, or the format has no such option.

    Examples
    --------
    >>> with create_volume("ones.nii", shape=(1, 1, 2, 3, 4), dtype="uint8") as sink:  # doctest: +SKIP
    ...     sink.write(Region.whole(sink.info.shape), np.ones(sink.info.shape, np.uint8))
    """
    form, request, info = _described(
        path,
        shape=shape,
        dtype=dtype,
        geometry=geometry,
        like=like,
        scaling=scaling,
        options=options,
        copied=copied,
        overwrite=overwrite,
        shared=shared,
        mkdir=mkdir,
        cache_bytes=cache_bytes,
        note=note,
    )
    if mkdir and not isinstance(request.path, Url):
        make_folder(request.path)
    return cast("NewVolume", _module(form).create_file(request, info))


def describe_volume(path: str | os.PathLike[str], **arguments: Any) -> VolumeInfo:
    """Tell what :func:`create_volume` would make of the same arguments; check as it does, and touch nothing.

    Raises
    ------
    OutputExistsError, WriteError, ParameterError
        As :func:`create_volume`.
    """
    return _described(path, **arguments)[2]


def _described(path: str | os.PathLike[str], **arguments: Any) -> tuple[Format, Request, VolumeInfo]:
    """What is asked for, and what it will be: all is checked but what only making it tells."""
    form, request, lost = make_request(path, **arguments)
    info = cast("VolumeInfo", _module(form).describe_new(request))
    check_room(request.path, info)
    return form, request, replace(info, notes=(*lost, *info.notes))


def _existing(path: str | os.PathLike[str]) -> tuple[Path, str | None, Format]:
    """File, key and format of an input."""
    if not os.fspath(path):
        raise ReadError("input must have a name (got an empty one)")
    file, key = split_path(path)
    if isinstance(file, Url):
        if format_of(file) is not ZARR and not any(part.lower().endswith(".zarr") for part in file.parts):
            raise ReadError(f"{path}: a URL must be that of an {ZARR.title} image (known: .zarr)")
        return file, key, ZARR
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if any(mark in os.fspath(file) for mark in "*?["):
            return file, key, SLICES
        raise ReadError(f"{path}: no such file") from None
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        return file, key, ZARR if is_zarr(file) else SLICES
    if not stat.S_ISREG(mode):
        raise ReadError(f"{path}: is no regular file")
    form = format_of(file)
    if form is ZARR:
        raise ReadError(f"{path}: is a file, and an {ZARR.title} image is a folder")
    if form is None:
        raise ReadError(f"{path}: the suffix names no known kind of volume (known: {known_suffixes()})")
    return file, key, form


def _module(form: Format) -> Any:
    return import_module(f"{__name__}.{form.module}")


def _respaced(info: VolumeInfo, spacing: tuple[tuple[float, float, float], str | None], name: str) -> Geometry:
    values, unit = spacing
    if unit is None and info.geometry.unit is None:
        raise ParameterError(
            f"spacing must have a unit, as {name} states none (got {','.join(f'{v:g}' for v in values)})",
            hint="as in 1,0.5,0.5um",
        )
    if not _is_measurable(info.geometry):  # its axes cannot be kept
        return Geometry.from_spacing(values, unit or info.geometry.unit)
    return info.geometry.with_spacing(values, unit)


def _is_measurable(geometry: Geometry) -> bool:
    """Whether voxels are apart, in whatever unit, as things in the world are; in damaged headers they are not."""
    return all(_LEAST <= step <= _MOST for step in geometry.spacing)


def _check_spacing(geometry: Geometry, name: str) -> None:
    if not _is_measurable(geometry):
        told = "x".join(f"{step:.4g}" for step in geometry.spacing) + (f" {geometry.unit}" if geometry.unit else "")
        raise ReadError(
            f"{name}: its spacing must be between {_LEAST:g} and {_MOST:g} (got {told})",
            hint="state another with --spacing (spacing=)",
        )
