"""What will be done, and what was done, as data; tables for people are drawn from it elsewhere."""

from __future__ import annotations

import contextlib
import math
import re
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volconv import __version__
from volconv.io.target import Target, check_target, translated
from volconv.io.volume import Scaling
from volconv.plan import computed_shape, reduced_shape
from volconv.shapes import multiply_adds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from volconv.device_convolution import DeviceSeconds
    from volconv.epilogue import Counts
    from volconv.errors import VolconvError
    from volconv.geometry import Geometry
    from volconv.io.volume import VolumeInfo
    from volconv.job import Job
    from volconv.params import Triple
    from volconv.plan import Plan
    from volconv.region import Index5

#: Raised when a key of the document changes its meaning or goes; new keys may come without.
SCHEMA_VERSION = 1

Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """The shapes of one convolution. Triples are in D, H, W order; shapes are (N, C, D, H, W).

    ``macs`` are multiply-adds of the direct sum, ``parameters`` counts weights and bias, ``output_bytes`` is the
    uncompressed size; spacings are None where the input states none.
    """

    input_shape: Index5
    output_shape: Index5
    kernel_size: Triple
    effective_kernel: Triple
    padding_low: Triple
    padding_high: Triple
    padding_mode: str
    stride: Triple
    dilation: Triple
    groups: int
    macs: int
    parameters: int
    output_dtype: str
    output_bytes: int
    input_spacing: Spacing | None
    output_spacing: Spacing | None
    unit: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a run took, and how long its computing waited for reading and writing."""

    total: float
    read: float
    compute: float
    write: float


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a GPU did: its name, seconds for copies and kernels, whether the CPU did what was left."""

    name: str
    seconds: DeviceSeconds | None
    fell_back: bool


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """Several processes that make one output.

    Parameters
    ----------
    workers : int or None
        Processes of this machine.
    scheduler : str or None
        Address of Dask's, whose workers compute.
    tasks : int
        Parts of the output that a process makes at a time.
    task_shape : tuple of 5 ints
        Outputs (N, C, D, H, W) of the first: the run's plan is that for this one.
    resumed : int
        Tasks, of all levels, that a run before this one had done.
    """

    workers: int | None
    scheduler: str | None
    tasks: int
    task_shape: Index5
    resumed: int


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was done to one volume, or, after a dry run, what would be.

    Parameters
    ----------
    inputs : tuple of str
        Paths; several where files are the channels of one volume.
    output : str
    source, target : VolumeInfo
    job : Job
        Weights, parameters and dtypes as resolved.
    plan : Plan
    seconds : Seconds or None
        None after a dry run, and where nothing was done, like the next two.
    counts : Counts or None
    peak_memory : int or None
        Most bytes that the process had resident so far.
    halvings : int
        How often memory ran out, and blocks were halved.
    spool_folder : str or None
        Where temporary files lie, if there are any.
    skipped : bool
        The output was there already, and would have been made in the same way.
    replaced : tuple of str
        In what an output that was there before was another one, where that was asked.
    placing : str or None
        Why it is computed elsewhere than was wanted.
    device : DeviceReport or None
        What a GPU did.
    levels : int or None
        Resolutions that the output has; None where nothing was done.
    cluster : ClusterReport or None
        Where several processes compute.
    """

    inputs: tuple[str, ...]
    output: str
    source: VolumeInfo
    target: VolumeInfo
    job: Job
    plan: Plan
    seconds: Seconds | None = None
    counts: Counts | None = None
    peak_memory: int | None = None
    halvings: int = 0
    spool_folder: str | None = None
    skipped: bool = False
    replaced: tuple[str, ...] = ()
    placing: str | None = None
    device: DeviceReport | None = None
    levels: int | None = None
    cluster: ClusterReport | None = None

    @property
    def status(self) -> str:
        """Whether it was "done", is "planned", or was "skipped"."""
        return "skipped" if self.skipped else "planned" if self.seconds is None else "done"

    @property
    def notes(self) -> tuple[str, ...]:
        """One line each on what was assumed, left out or replaced, or went otherwise than planned."""
        notes = [*([self.placing] if self.placing else []), *self.source.notes, *self.job.notes, *self.target.notes]
        if self.replaced:
            notes.append(f"replaces what was there: {', '.join(self.replaced)}")
        if self.halvings:
            times = "once" if self.halvings == 1 else f"{self.halvings} times"
            notes.append(f"memory ran out {times}: it went on in smaller blocks")
        if self.device is not None and self.device.fell_back:
            notes.append("the GPU's memory did not do for the smallest blocks: the CPU did what was left")
        return tuple(notes)

    @property
    def shape(self) -> ShapeReport:
        """The shapes, as :func:`shape_report` tells them."""
        return shape_report(self.source.shape, self.job, self.target.dtype, self.source.geometry)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: one of the ``runs`` of :func:`report_document`, by the schema in ``docs/report.schema.json``."""
        params, plan = self.job.params, self.plan
        return {
            "status": self.status,
            "inputs": list(self.inputs),
            "output": self.output,
            "source": _volume(self.source),
            "target": _volume(self.target),
            "parameters": {
                **asdict(params),
                "effective_kernel": params.effective_kernel,
                "padding_value": json_number(params.padding_value),
                "flip_kernel": self.job.flip_kernel,
                "weight_layout": self.job.weight_layout,
            },
            "roi": None if self.job.box is None else self.job.box._asdict(),
            "activation": self.job.epilogue.activation,
            "reduce": self.job.epilogue.reduce,
            **_counting(self.job),
            "kernel": asdict(self.job.kernel),
            "bias": None if self.job.loaded_bias is None else asdict(self.job.loaded_bias),
            "weights": self.shape.parameters,
            "multiply_adds": self.shape.macs,
            "compute_dtype": plan.compute_dtype.name,
            "algorithm": plan.algorithm_facts(),
            "backend": plan.backend,
            "device": None if self.device is None else asdict(self.device),
            "plan": {
                "threads": plan.threads,
                **_means(plan, self.spool_folder),
                "blocks": len(plan.blocks),
                "block_shape": plan.blocks[0].shape if plan.blocks else None,
                "item_groups": plan.item_groups,
                "item_shape": plan.item_box,
            },
            "seconds": None if self.seconds is None else asdict(self.seconds),
            "counts": None if self.counts is None else asdict(self.counts),
            "peak_memory": self.peak_memory,
            "halvings": self.halvings,
            "levels": self.levels,
            "cluster": None if self.cluster is None else asdict(self.cluster),
            "notes": list(self.notes),
        }


def failed_run(inputs: Sequence[str], output: str, error: VolconvError) -> dict[str, Any]:
    """What a report says of a volume that was not filtered."""
    return {
        "status": "failed",
        "inputs": list(inputs),
        "output": output,
        "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
    }


def left_run(inputs: Sequence[str], output: str) -> dict[str, Any]:
    """What a report says of a volume that was not begun, or not finished, since the batch ended before."""
    return {"status": "left", "inputs": list(inputs), "output": output}


def report_document(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A report of one call of ``volconv apply``: its runs, and what ran them.

    Examples
    --------
    >>> sorted(report_document([]))
    ['runs', 'schema_version', 'versions']
    """
    return _head() | {"runs": list(runs)}


def _head() -> dict[str, Any]:
    import platform
    from importlib import metadata

    names = ("numpy", "numba", "nibabel", "h5py", "tifffile", "isal")
    versions = {"volconv": __version__, "python": platform.python_version()}
    return {"schema_version": SCHEMA_VERSION, "versions": versions | {name: metadata.version(name) for name in names}}


def write_report(path: Path, runs: Sequence[dict[str, Any]], *, overwrite: bool) -> None:
    """Write :func:`report_document` as a JSON file, which appears when it is complete.

    Raises
    ------
    WriteError
        As for any output.
    """
    target = Target(path, overwrite=overwrite)
    with translated(path):
        target.file.write(to_json(runs).encode())
    target.commit()


class JsonLines:
    """A report of many runs, each a line that is written when it is known: what was done stays told if all ends.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputExistsError, WriteError
        As for any output.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        check_target(path, overwrite=overwrite)
        self._path, self._head = path, _head()
        with translated(path):
            self._file = path.open("w", encoding="utf-8")

    def add(self, run: dict[str, Any]) -> None:
        """Write one of the ``runs`` of :func:`report_document`, with what that says beside them."""
        import json

        with translated(self._path):
            self._file.write(json.dumps(self._head | run, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """End it."""
        with translated(self._path):
            self._file.close()


def to_json(runs: Sequence[dict[str, Any]]) -> str:
    """:func:`report_document` as JSON."""
    import json

    return json.dumps(report_document(runs), indent=2, allow_nan=False) + "\n"


def peak_memory(proc: Path = Path("/proc")) -> int:
    """Most bytes that this process had resident at a time."""
    # What Linux tells by getrusage begins with what the process that started this one had.
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (proc / "self" / "status").read_text(), re.M)
        if found is not None:
            return int(found[1]) << 10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _means(plan: Plan, spool_folder: str | None) -> dict[str, Any]:
    """What a run takes beside voxels: memory by parts, what goes to and from files, time."""
    memory, traffic = plan.memory, plan.traffic
    assert memory is not None  # noqa: S101  # files are at the run's ends
    assert traffic is not None  # noqa: S101
    return {
        "memory": asdict(memory) | {"peak": memory.peak},
        "gpu_memory": None if plan.device_memory is None else asdict(plan.device_memory),
        "blocks_held": plan.copies,
        "traffic": {name: getattr(traffic, name) for name in ("read_bytes", "written_bytes", "halo")}
        | {"in_turn": traffic.source.in_turn},
        "spool": {
            "source": traffic.source.spool,
            "mask": traffic.mask.spool,
            "target": traffic.target_spool,
            "folder": spool_folder,
        },
        "predicted_seconds": traffic.seconds,
    }


def _volume(info: VolumeInfo) -> dict[str, Any]:
    scaling = info.scaling or Scaling(1.0, 0.0)
    known = info.geometry.unit is not None
    return {
        "format": info.format,
        "axes": info.axes,
        "shape": info.shape,
        "dtype": info.dtype.name,
        "bytes": math.prod(info.shape) * info.dtype.itemsize,
        "slope": scaling.slope,
        "intercept": scaling.intercept,
        "time_step": info.time_step,
        "compression": info.compression,
        "geometry": {
            "unit": info.geometry.unit,
            "spacing": info.geometry.spacing if known else None,
            "origin": info.geometry.origin if known else None,
            "affine": info.geometry.affine,
        },
    }


def json_number(value: complex) -> Any:
    """A number as JSON can hold it: a pair where it is complex, a word where it is not finite."""
    if complex(value).imag:
        return [json_number(complex(value).real), json_number(complex(value).imag)]
    real = complex(value).real
    return real if math.isfinite(real) else str(real)


def _counting(job: Job) -> dict[str, Any]:
    """Which voxels count, and what there is where none does."""
    masking = job.masking
    outside = None
    if masking is not None and masking.labelled:
        outside = "keep" if masking.outside is None else json_number(masking.outside)
    return {
        "mask": job.mask,
        "outside": outside,
        "nan": "ignore" if masking is not None and masking.ignore_nan else "spread",
    }


def shape_report(
    input_shape: Index5, job: Job, output_dtype: np.dtype[Any], geometry: Geometry | None = None
) -> ShapeReport:
    """Report the shapes of a convolution."""
    params = job.params
    computed = computed_shape(input_shape, params, job.box)
    shape = reduced_shape(computed, job.epilogue)
    known = geometry is not None and geometry.unit is not None
    return ShapeReport(
        input_shape=input_shape,
        output_shape=shape,
        kernel_size=params.kernel_size,
        effective_kernel=params.effective_kernel,
        padding_low=params.padding_low,
        padding_high=params.padding_high,
        padding_mode=params.padding_mode,
        stride=params.stride,
        dilation=params.dilation,
        groups=params.groups,
        macs=multiply_adds(computed, params),
        parameters=math.prod(params.weight_shape) + (params.out_channels if job.bias is not None else 0),
        output_dtype=output_dtype.name,
        output_bytes=math.prod(shape) * output_dtype.itemsize,
        input_spacing=geometry.spacing if geometry is not None and known else None,
        output_spacing=job.output_geometry.spacing if known else None,
        unit=geometry.unit if geometry is not None else None,
    )
