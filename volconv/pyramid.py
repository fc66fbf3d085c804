"""Coarser levels of an image: volconv's own convolution, over and over, at stride 2."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.cuts import Ends
from volconv.engines.factors import find_factors
from volconv.errors import OutOfMemoryError, ParameterError
from volconv.io import output_format
from volconv.io.formats import ZARR
from volconv.io.volume import Reading
from volconv.job import resolve_job
from volconv.memory import parse_memory
from volconv.pipeline import run
from volconv.plan import computed_shape, make_plan

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from volconv.io import OpenVolume, VolumeInfo
    from volconv.io.omezarr.sink import LevelSink
    from volconv.job import Job
    from volconv.params import Triple
    from volconv.plan import Plan

#: Binomial weights of order 3, even so that outputs lie midway between inputs: what Burt and Adelson (1983, "The
#: Laplacian pyramid as a compact image code") call a generating kernel: all inputs count alike, and the response to
#: the highest frequency is 0.
TAPS = (0.125, 0.375, 0.375, 0.125)

#: An axis is left as it is while its voxels are so many times farther apart than those of another.
_COARSE = 2.0


def check_pyramid(destination: str | os.PathLike[str]) -> None:
    """Refuse levels where the format holds none.

    Raises
    ------
    ParameterError
    """
    if output_format(destination) is not ZARR:
        raise ParameterError(
            f"pyramid must go with an {ZARR.title} output (got {destination})", hint="as in image.zarr"
        )


def strides(size: Triple, spacing: tuple[float, float, float], chunk: Triple) -> list[Triple]:
    """Strides from each level to the next, along D, H, W, until one chunk holds a level.

    Parameters
    ----------
    size : 3 ints
        Of the finest level.
    spacing : 3 floats
        Axes are halved that are finer than twice the finest: levels become as good as isotropic.
    chunk : 3 ints

    Examples
    --------
    >>> strides((40, 256, 256), (4.0, 1.0, 1.0), (64, 64, 64))
    [(1, 2, 2), (1, 2, 2)]
    >>> strides((7, 9, 1), (1.0, 1.0, 1.0), (4, 4, 4))
    [(2, 2, 1)]
    """
    found: list[Triple] = []
    sizes, steps = list(size), list(spacing)
    while any(length > edge for length, edge in zip(sizes, chunk, strict=True)):
        finest = min(step for length, step in zip(sizes, steps, strict=True) if length > 1)
        d, h, w = (
            2 if length > 1 and step < _COARSE * finest else 1 for length, step in zip(sizes, steps, strict=True)
        )
        found.append((d, h, w))
        sizes = [length // stride for length, stride in zip(sizes, (d, h, w), strict=True)]
        steps = [step * stride for step, stride in zip(steps, (d, h, w), strict=True)]
    return found


def check_levels(info: VolumeInfo, plan: Callable[[Job, VolumeInfo, VolumeInfo], object]) -> None:
    """Refuse, before the finest level is made, what coarser ones have no memory for.

    Parameters
    ----------
    info : VolumeInfo
        Of the finest level as it will be written.
    plan : callable
        Called with (job, finer level, coarser level), as :func:`plan_level`.

    Raises
    ------
    OutOfMemoryError
    """
    _, _, d, h, w = info.shape
    refused = []
    finer = replace(info, access=replace(info.access, packed=True))
    for stride in strides((d, h, w), info.geometry.spacing, (1, 1, 1)):
        job = _job(finer, stride)
        coarser = _coarser(finer, job)
        if info.access.chunk is not None:  # no level has pieces larger than it is
            n, c, d, h, w = (min(size, n) for size, n in zip(info.access.chunk, coarser.shape, strict=True))
            coarser = replace(coarser, access=replace(coarser.access, chunk=(n, c, d, h, w)))
        try:
            plan(job, finer, coarser)
        except OutOfMemoryError as error:
            refused.append(error)
        finer = coarser
    if refused:
        raise max(refused, key=lambda error: error.least)


def add_levels(sink: Any, make: Callable[[Job, Any, Any], object]) -> int:
    """Make the coarser levels of an image that is complete but for them, each of the one before.

    A level is a convolution with :data:`TAPS` at stride 2, edges mirrored with the edge voxel repeated: output ``o``
    is centred on input ``2*o + 0.5``. Integers are rounded and saturate.

    Parameters
    ----------
    sink : NewVolume
        Of OME-Zarr, not committed.
    make : callable
        Called with (job, open finer level, sink of the coarser level), as :func:`make_level`.

    Returns
    -------
    int
        How many levels there are.
    """
    _, _, d, h, w = sink.info.shape
    steps = strides((d, h, w), sink.info.geometry.spacing, sink.level_chunk)
    for stride in steps:
        with sink.last_level() as level:
            job = _job(level.info, stride)
            told = _coarser(level.info, job)
            make(job, level, sink.add_level(told.shape, told.geometry))
    return 1 + len(steps)


def level_options(stride: Triple) -> dict[str, Any]:
    """The convolution that makes a level of another, for :func:`resolve_job`; an axis of stride 1 is left as it is."""
    weight = np.array(1.0)
    for step in stride:
        weight = np.multiply.outer(weight, TAPS if step == 2 else (1.0,))
    padding = tuple(step - 1 for step in stride)
    return {"kernel": weight, "stride": stride, "padding": padding, "padding_mode": "symmetric", "dtype": "same"}


def _job(info: VolumeInfo, stride: Triple) -> Job:
    return resolve_job(info, **level_options(stride))


def make_level(
    job: Job, level: OpenVolume, coarser: LevelSink, *, threads: int | None = None, memory: str | int | None = None
) -> None:
    """Have this process make a level of another."""
    plan = plan_level(job, level.info, coarser.info, threads=threads, memory=memory)
    assert plan.traffic is not None  # noqa: S101  # both are in files
    level.expect(Reading(cache_bytes=plan.traffic.source.cache))
    coarser.keep(plan.traffic.target_cache)
    run(plan, level, coarser, job.weight, job.bias)


def _coarser(info: VolumeInfo, job: Job) -> VolumeInfo:
    return replace(info, shape=computed_shape(info.shape, job.params, None), geometry=job.output_geometry)


def plan_level(
    job: Job, finer: VolumeInfo, coarser: VolumeInfo, *, threads: int | None = None, memory: str | int | None = None
) -> Plan:
    """How this process makes a level of another; threads and memory as in :func:`volconv.apply`.

    Raises
    ------
    OutOfMemoryError
    """
    return make_plan(
        job.params,
        finer.shape,
        job.compute_dtype,
        factors=find_factors(job.params, job.weight, job.compute_dtype),
        epilogue=job.epilogue,
        threads=threads,
        ends=Ends(finer, coarser),
        memory=None if memory is None else parse_memory(memory),
    )
