"""Where a convolution is computed: on the CPU, or on a GPU if there is one and it is worth the way there."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv.errors import BackendError, OutOfMemoryError, ParameterError
from volconv.memory import parse_size
from volconv.plan import make_plan

if TYPE_CHECKING:
    from volconv.engines.gpu.probe import Probe
    from volconv.plan import Plan

#: What ``backend`` may say.
BACKENDS = ("auto", "numpy", "cupy")

#: Seconds until a GPU does anything at all in a new process. Not measured yet.
START = 1.5

#: Part of a GPU's free memory that is taken where nobody says.
SHARE = 0.8


class Placed(NamedTuple):
    """A plan, and what is done where it fails.

    Parameters
    ----------
    plan : Plan
    fallback : Plan or None
        On the CPU, for what is left when a GPU's memory runs out.
    note : str or None
        One line on why it is not where it was wanted.
    """

    plan: Plan
    fallback: Plan | None = None
    note: str | None = None


def place(backend: str, gpu_memory: str | int | None, **how: Any) -> Placed:
    """Plan a convolution where it is wanted.

    Parameters
    ----------
    backend : {"auto", "numpy", "cupy"}
        "auto" takes a GPU where it is predicted to be done earlier, and one can be used.
    gpu_memory : str or int, optional
        Bytes that may be taken of a GPU's memory.
    **how
        Of :func:`volconv.plan.make_plan`.

    Raises
    ------
    BackendError
        A GPU is asked for, and there is none that can be used.
    ParameterError, ShapeError, OutOfMemoryError
    """
    if backend not in BACKENDS:
        raise ParameterError(f"backend must be one of {', '.join(BACKENDS)} (got {backend!r})")
    bound = None if gpu_memory is None else parse_size(gpu_memory, "gpu_memory")
    if backend == "cupy":
        if how.get("masking") is not None:
            raise ParameterError(
                "backend must be numpy where only some voxels count (got 'cupy' with mask or nan)", hint="leave it out"
            )
        found = _probe()
        if not found.usable:
            raise BackendError(f"backend 'cupy' cannot be used: {found.reason}", hint=found.remedy)
        return Placed(make_plan(**how, backend="cupy", device_memory=_memory(bound, found)))
    ends = how.get("ends")
    # On the CPU arrays are one block, which nobody needs to plan.
    here = how | {"ends": None} if ends is not None and ends.source.access.in_memory else how
    plan = make_plan(**here)
    seconds = plan.candidates[plan.algorithm] / plan.threads
    if backend == "numpy" or how.get("masking") is not None or seconds < START or find_spec("cupy") is None:
        return Placed(plan)
    if not _worth_it(plan, seconds, how.get("algorithm", "auto")):
        return Placed(plan)
    found = _probe()
    if not found.usable:
        return Placed(plan, note=f"computed on the CPU: {found.reason}; 'volconv doctor' tells what helps")
    try:
        there = make_plan(**how, backend="cupy", device_memory=_memory(bound, found))
    except OutOfMemoryError as error:
        return Placed(plan, note=f"computed on the CPU: {error.message}")
    return Placed(there, fallback=make_plan(**(here | {"algorithm": "direct"})))


def open_device(plan: Plan, *, allow_tf32: bool = False) -> Any:
    """The GPU that a plan is for; None on the CPU."""
    if plan.device_memory is None:
        return None
    from volconv.engines.gpu.cupy_device import CupyDevice

    return CupyDevice(plan.device_memory.bound, allow_tf32=allow_tf32)


def _probe() -> Probe:
    from volconv.engines.gpu.probe import probe

    return probe()


def _memory(bound: int | None, found: Probe) -> int:
    free = found.devices[0].free_bytes if found.devices else None
    return bound if bound is not None else int((free or 0) * SHARE)


def _worth_it(plan: Plan, seconds: float, algorithm: str) -> bool:
    """Whether a nominal GPU would be done earlier, its start and the way over the bus included."""
    from volconv.engines.gpu import rates
    from volconv.engines.gpu.plan import choose

    try:
        choice = choose(algorithm, plan.problem)
    except ParameterError:  # an algorithm that only the CPU has
        return False
    bus = max(math.prod(plan.input_shape), math.prod(plan.output_shape)) * plan.compute_dtype.itemsize / rates.BUS
    return seconds > START + max(bus, choice.candidates[choice.algorithm])
