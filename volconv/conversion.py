"""How does a volume become a file of another format, dtype or compression? Voxel by voxel, nothing computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv import __version__
from volconv.copying import walk
from volconv.dtypes import volume_compute_dtype
from volconv.epilogue import NONE_LOST, Counts, store
from volconv.errors import DtypeError
from volconv.io import (
    OpenVolume,
    create_volume,
    describe_volume,
    opened,
    output_format,
    real_values,
    split_path,
    widened,
)
from volconv.io.room import check_room, spool_folder
from volconv.job import parse_dtype
from volconv.memory import parse_memory
from volconv.pyramid import add_levels, check_levels, check_pyramid, make_level, plan_level

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from volconv.io import Scaling, VolumeInfo
    from volconv.region import Index5

#: Bytes that are held for each voxel of a block, in values between the two dtypes.
_SCRATCH = 16


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What was copied.

    Parameters
    ----------
    sources : tuple of str
        Paths; several where files became the channels of one.
    destination : str
    shape : tuple of 5 ints
        (N, C, D, H, W).
    spacing : tuple of 3 floats or None
        D, H, W; None where none is stated.
    unit : str or None
    input_dtype, output_dtype : str
        Of stored values.
    seconds : float
    saturated : int
        Voxels beyond the output dtype: integers stay at its ends, floats became infinite.
    not_a_number : int
        NaN that an integer output holds as 0.
    notes : tuple of str
        What was assumed, changed or left out, one line each.
    """

    sources: tuple[str, ...]
    destination: str
    shape: Index5
    spacing: tuple[float, float, float] | None
    unit: str | None
    input_dtype: str
    output_dtype: str
    seconds: float
    saturated: int
    not_a_number: int
    notes: tuple[str, ...]


def convert(
    source: str | os.PathLike[str] | OpenVolume,
    destination: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    memory: str | int | None = None,
    pyramid: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Copy a volume into another file, block by block.

    Stored values, slope and intercept are copied bit by bit where the format can hold them. Where it has no place for
    slope and intercept, real values are written; a dtype that it lacks is widened to one that holds every value. Both
    are noted, in the report and in the file.

    Parameters
    ----------
    source : path or OpenVolume
        See :func:`volconv.open_volume`. An open volume is left open.
    destination : path
        Its suffix picks the format. It appears when it is complete; it may be the source.
    dtype : str, optional
        Of the output: a NumPy name. Real values are converted to it: rounded to the nearest integer, saturated at the
        ends of its range, NaN to 0, and counted.
    options : dict, optional
        Creation options of the format, as ``{"compression": "zlib"}``.
    overwrite : bool
        Whether an existing destination may be replaced.
    memory : str or int, optional
        Bytes, or text such as "512M", that this process may have resident: see :func:`volconv.apply`.
    pyramid : bool
        Make coarser levels of an OME-Zarr output, too (:mod:`volconv.pyramid`).
    progress : callable, optional
        Called with (bytes of output voxels done, bytes in all) after each block.

    Returns
    -------
    ConvertReport

    Raises
    ------
    VolconvError
        One of its kinds; the destination is then as it was before.

    Examples
    --------
    >>> report = convert("brain.nii.gz", "brain.h5", options={"compression": "gzip"})  # doctest: +SKIP
    >>> report.input_dtype, report.output_dtype  # doctest: +SKIP
    ('uint8', 'uint8')
    """
    started = perf_counter()
    if pyramid:
        check_pyramid(destination)
    with opened(source) as (volume, name):
        info = volume.info
        wanted: dict[str, Any] = {"shape": info.shape, "like": info, "options": options, "overwrite": overwrite}
        wanted["copied"] = True
        if dtype is None:
            stored, scaling, notes = _as_stored(info, destination, wanted)
        else:
            stored, scaling, notes = _asked(dtype, info, name), None, ()
        origin = " + ".join(map(_basename, volume.names)) or "an array"
        said = "; ".join([f"volconv {__version__}: converted from {origin}", *notes])
        wanted |= {"dtype": stored, "scaling": scaling, "note": said}
        told, output = describe_volume(destination, **wanted), split_path(destination)[0]
        voxel_bytes = info.dtype.itemsize + told.dtype.itemsize + _SCRATCH
        bound = None if memory is None else parse_memory(memory)
        blocks = walk([volume], [told], voxel_bytes, memory=bound, folder=spool_folder(output))
        check_room(output, told, blocks.spool_bytes)
        if pyramid:
            check_levels(told, partial(plan_level, memory=memory))
        sink = create_volume(destination, cache_bytes=blocks.cache_bytes, **wanted)
        counts, done, total = NONE_LOST, 0, math.prod(info.shape)
        with sink:
            for block in blocks.regions:
                applied = None if scaling else info.scaling
                values, lost = converted(volume.read(block), applied, sink.info.dtype)
                sink.write(block, values)
                counts += lost
                done += math.prod(block.shape)
                if progress is not None:
                    progress(done * told.dtype.itemsize, total * told.dtype.itemsize)
            volume.finish()
            if pyramid:
                add_levels(sink, partial(make_level, memory=memory))
    label = split_path(destination)[0].name
    geometry = info.geometry
    return ConvertReport(
        sources=volume.names,
        destination=str(destination),
        shape=info.shape,
        spacing=None if geometry.unit is None else geometry.spacing,
        unit=geometry.unit,
        input_dtype=info.dtype.name,
        output_dtype=sink.info.dtype.name,
        seconds=perf_counter() - started,
        saturated=counts.saturated,
        not_a_number=counts.not_a_number,
        notes=(*info.notes, *(f"{label}: {note}" for note in notes), *sink.info.notes),
    )


def converted(stored: NDArray[Any], scaling: Scaling | None, dtype: np.dtype[Any]) -> tuple[NDArray[Any], Counts]:
    """Values of a block in another dtype, and how many it could not hold. The input is never written to.

    Parameters
    ----------
    stored : array
    scaling : Scaling, optional
        Applied first, in double precision.
    dtype : numpy.dtype
        Complex where ``stored`` is.

    Examples
    --------
    >>> converted(np.array([-1, 2**53 + 1, 2**63 - 1]), None, np.dtype(np.uint64))[0].tolist()
    [0, 9007199254740993, 9223372036854775807]
    >>> converted(np.array([0.5, 1.5, 300.0, np.nan]), None, np.dtype(np.uint8))
    (array([  0,   2, 255,   0], dtype=uint8), Counts(saturated=1, not_a_number=1, non_finite=0))
    """
    if scaling is None and np.can_cast(stored.dtype, dtype, "safe"):
        return stored.astype(dtype, copy=False), NONE_LOST
    if scaling is None and stored.dtype.kind in "iu" and dtype.kind in "iu":
        here, there = np.iinfo(stored.dtype), np.iinfo(dtype)
        clipped = np.clip(stored, max(here.min, there.min), min(here.max, there.max))
        return clipped.astype(dtype), Counts(saturated=int(np.count_nonzero(clipped != stored)))
    with np.errstate(all="ignore"):  # what becomes infinite is counted
        values = stored if scaling is None and dtype.kind in "fc" else real_values(stored, scaling)
        if dtype.kind in "fc":
            result = values.astype(dtype)
            infinite = np.isinf(result)
            lost = int(np.count_nonzero(infinite & np.isfinite(values))) if infinite.any() else 0
            return result, Counts(saturated=lost)
        result = np.empty(values.shape, dtype)
        return result, store(values, result)


def _as_stored(
    info: VolumeInfo, destination: str | os.PathLike[str], wanted: Mapping[str, Any]
) -> tuple[np.dtype[Any], Scaling | None, tuple[str, ...]]:
    """Dtype, scaling and what to say of them, for a copy that keeps as much as the format can hold."""
    form = output_format(destination)
    notes = []
    dtype, scaling = info.dtype, info.scaling
    if scaling is not None:
        held = widened(dtype, form) or dtype
        lost = None if form.scaling else "no slope and intercept"
        if lost is None and describe_volume(destination, dtype=held, scaling=scaling, **wanted).scaling != scaling:
            lost = "this slope and intercept only rounded"
        if lost is not None:
            dtype, scaling = volume_compute_dtype(dtype, np.dtype(np.float32)), None
            notes.append(f"{form.title} holds {lost}, real values written as {dtype}")
    held = widened(dtype, form) or dtype
    if held != dtype:
        notes.append(f"{form.title} holds no {dtype}, written as {held}")
    return held, scaling, tuple(notes)


def _asked(dtype: str, info: VolumeInfo, name: str) -> np.dtype[Any]:
    """The dtype that was asked for, if voxels can become it."""
    asked = parse_dtype("dtype", dtype)
    if asked.kind == "b" or (info.dtype.kind == "c" and asked.kind != "c"):
        kind = "complex, as its voxels are" if info.dtype.kind == "c" else "an integer, float or complex one"
        raise DtypeError(f"{name}: dtype must be {kind} (got {asked})")
    return asked


def _basename(name: str) -> str:
    """A file's name without its folders, and what is meant inside it."""
    file, key = split_path(name)
    return file.name if key is None else f"{file.name}:{key}"
