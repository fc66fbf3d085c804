"""The functions that people call: ``conv3d`` on arrays, ``apply`` on files."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv import dtypes
from volconv.backends import open_device, place
from volconv.cuts import Ends
from volconv.engines.factors import find_factors
from volconv.errors import DtypeError, OutputExistsError, ShapeError
from volconv.io import (
    OpenVolume,
    create_volume,
    describe_volume,
    open_volume,
    opened,
    output_format,
    split_path,
)
from volconv.io.array import ArraySink, ArraySource
from volconv.io.formats import SLICES, ZARR
from volconv.io.room import check_room, spool_folder
from volconv.io.target import OVERWRITE_HINT
from volconv.job import check_bias, resolve_job
from volconv.making import OneProcess
from volconv.masking import KEEP
from volconv.params import Conv3dParams
from volconv.pipeline import run
from volconv.plan import computed_shape, reduced_shape
from volconv.provenance import existing, note
from volconv.pyramid import check_levels, check_pyramid
from volconv.report import ApplyReport, Seconds
from volconv.shapes import batched_shape, full_output_shape

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from typing import SupportsIndex

    from numpy.typing import ArrayLike, NDArray

    from volconv.cluster.making import ManyProcesses
    from volconv.params import Padding, Size3


def conv3d(
    input: ArrayLike,  # noqa: A002  # the name that torch.nn.functional.conv3d gives it
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size3 = 1,
    padding: Padding = 0,
    dilation: Size3 = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: complex = 0,
    algorithm: str = "auto",
    backend: str = "auto",
    gpu_memory: str | int | None = None,
    allow_tf32: bool = False,
    threads: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """3-D convolution as ``torch.nn.functional.conv3d`` does it: a cross-correlation, without flip or conjugation.

    Parameters
    ----------
    input : (N, C_in, D, H, W) or (C_in, D, H, W) array
        Any numeric dtype, byte order and strides. Never modified.
    weight : (C_out, C_in/groups, kD, kH, kW) array
    bias : (C_out,) array, optional
    stride, dilation : int or 3 ints
        At least 1; three are D, H, W.
    padding : int, 3 ints, "valid" or "same"
        Voxels added on both sides of each axis; "same" keeps the input's size and needs stride 1.
    groups : int
        Divides C_in and C_out.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        "reflect" does not repeat the edge voxel, "symmetric" does.
    padding_value : number
        What "zeros" pads with; -1000 is air in a CT.
    algorithm : {"auto", "direct", "channels", "separable", "winograd", "fft", "gemm"}
        "auto" picks by predicted cost, from shapes, dtype and what the weights are a product of.
    backend : {"auto", "numpy", "cupy"}
        Where it is computed: on the CPU by "numpy", on a GPU by "cupy"; "auto" takes a GPU if there is one, and the job
        is large enough. There the bits are others, within the same bound.
    gpu_memory : str or int, optional
        Bytes, or text such as "2G", that may be taken of the GPU's memory; by default most of what is free.
    allow_tf32 : bool
        Whether a GPU may round float32 to 10 bits in products of matrices (algorithm "gemm"), which is faster: errors
        are then up to a thousand times larger.
    threads : int, optional
        One for each core by default. The result's bits do not depend on it.
    out : array, optional
        Receives the result; of its shape and dtype. It may overlap the input.

    Returns
    -------
    array
        Of the input's rank; dtype ``numpy.result_type(input, weight)``. Integers are computed exactly, as int64;
        float16 is computed in float32.

    Raises
    ------
    ParameterError
        A parameter breaks a rule of its own.
    ShapeError
        Input, weight, bias, out and parameters do not fit together.
    DtypeError
        Not numbers; or integers whose sums might not fit in int64.

    Notes
    -----
    The error is at most ``16 * eps * max(|weight| ⋆ |input| + |bias|)``, eps that of the compute dtype.

    Examples
    --------
    >>> import numpy as np
    >>> conv3d(np.ones((1, 4, 4, 4)), np.ones((1, 1, 3, 3, 3)), padding="same")[0, 0]
    array([[ 8., 12., 12.,  8.],
           [12., 18., 18., 12.],
           [12., 18., 18., 12.],
           [ 8., 12., 12.,  8.]])
    """
    volume, weights = np.asarray(input), np.asarray(weight)
    params = Conv3dParams.parse(
        weights.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        padding_value=padding_value,
    )
    shape = batched_shape(volume.shape)
    dtype = dtypes.result_dtype(volume.dtype, weights.dtype)
    compute_dtype = dtypes.compute_dtype(dtype)
    dtypes.check_scalar("padding_value", params.padding_value, compute_dtype)
    biases = check_bias(bias, params)
    if biases is not None and not np.can_cast(biases.dtype, compute_dtype, "same_kind"):
        raise DtypeError(f"bias must be of a dtype that {compute_dtype} results can take (got {biases.dtype})")
    if compute_dtype.kind == "i":
        dtypes.check_integer_sums(volume, weights, biases, int(params.padding_value.real))

    result = full_output_shape(shape, params)
    result_shape = result if volume.ndim == 5 else result[1:]
    if out is None:
        out = np.empty(result_shape, dtype)
    elif not isinstance(out, np.ndarray) or out.shape != result_shape or out.dtype != dtype:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"out must be an array of dtype {dtype} and shape {result_shape} (got {got})")
    elif not out.flags.writeable:
        raise ShapeError("out must be writable (got a read-only array)")
    overlaps = any(np.may_share_memory(out, a) for a in (volume, weights, biases) if a is not None)
    target = np.empty(result_shape, dtype) if overlaps else out
    source, sink = ArraySource(volume.reshape(shape)), ArraySink(target.reshape(result))
    placed = place(
        backend,
        gpu_memory,
        params=params,
        input_shape=shape,
        compute_dtype=compute_dtype,
        algorithm=algorithm,
        factors=find_factors(params, weights, compute_dtype),
        threads=threads,
        ends=Ends(source.info, sink.info),
    )
    run(
        placed.plan,
        source,
        sink,
        weights,
        biases,
        device=open_device(placed.plan, allow_tf32=allow_tf32),
        fallback=placed.fallback,
    )
    if overlaps:
        out[...] = target
    return out


def apply(
    source: str | os.PathLike[str] | OpenVolume,
    destination: str | os.PathLike[str],
    kernel: str | ArrayLike,
    *,
    bias: str | ArrayLike | None = None,
    weight_layout: str | None = None,
    stride: Size3 | None = None,
    padding: Padding | None = None,
    dilation: Size3 | None = None,
    groups: int | None = None,
    padding_mode: str = "zeros",
    padding_value: complex = 0,
    flip_kernel: bool = False,
    dtype: str | None = None,
    compute_dtype: str | None = None,
    roi: str | None = None,
    activation: str | None = None,
    reduce: str | None = None,
    mask: str | os.PathLike[str] | OpenVolume | None = None,
    outside: str | complex = KEEP,
    nan: str = "spread",
    algorithm: str = "auto",
    backend: str = "auto",
    gpu_memory: str | int | None = None,
    allow_tf32: bool = False,
    threads: int | None = None,
    memory: str | int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    mkdir: bool = False,
    pyramid: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ApplyReport:
    """Convolve one volume file into another: what ``volconv apply`` does for each input.

    Parameters
    ----------
    source : path or OpenVolume
        NIfTI, MGH, HDF5 (``file.h5:/path``), TIFF or OME-Zarr; or what :func:`volconv.open_volume` or
        :func:`volconv.open_stack` gave, which also take axes, spacing and a selection. An open one stays open.
    destination : path
        Its suffix picks the format. It appears when it is complete.
    kernel : str or array
        ``"gaussian:sigma=1.5mm"``, ``"model.pt:encoder.0"``, ...; see :func:`volconv.kernels.load_kernel`. Or the
        weights: 3-D for each channel by itself, 4-D for one input channel, 5-D as in :func:`conv3d`.
    bias : str or array, optional
        A number in a string, ``"FILE[:KEY]"``, or a (C_out,) array. By default what the kernel's file has for the same
        layer.
    weight_layout : {"oidhw", "dhwio"}, optional
        Order of a kernel's five axes: (C_out, C_in/groups, kD, kH, kW) as PyTorch has them, or (kD, kH, kW,
        C_in/groups, C_out) as TensorFlow and Keras do. By default what the file's kind says, or the only one that
        fits the volume.
    stride, padding, dilation : optional
        As in :func:`conv3d`. By default what an ONNX node says, and otherwise 1, 0 and 1.
    padding_mode, padding_value, algorithm, backend, gpu_memory, allow_tf32, threads
        As in :func:`conv3d`.
    groups : int, optional
        By default what an ONNX node says, 1, or the number of channels for a kernel that is applied to each by itself.
    flip_kernel : bool
        True for convolution in the mathematical sense.
    dtype : str, optional
        Of the output: a NumPy name, or "same" for that of the input. Integers are rounded and saturate.
    compute_dtype : str, optional
        "float32", "float64", "complex64" or "complex128"; by default what the volume's dtype asks for.
    roi : str, optional
        ``"z0:z1,y0:y1,x0:x1"`` in voxels of the input, or with a unit at its end in lengths from its first voxel: only
        outputs whose centres lie in it are computed, from all voxels that they see.
    activation : str, optional
        Done to every result: "relu", "leaky_relu", "elu", "sigmoid", "silu", "softplus", "tanh", "abs", "square",
        "sqrt", "exp" or "log".
    reduce : {"norm", "sum", "max", "mean"}, optional
        Makes one channel of all output channels, after the activation.
    mask : path or OpenVolume, optional
        A volume of the input's size: only voxels other than 0 count, by normalised convolution
        (:mod:`volconv.masking`). Of several labels each is filtered by itself.
    outside : "keep" or number
        What outputs are where the mask is 0; kept are the input's values at their centres.
    nan : {"spread", "ignore"}
        Whether voxels that are NaN count; with "ignore" a result is NaN only where no voxel counts.
    memory : str or int, optional
        Bytes, or text such as "512M", that this process may have resident meanwhile, with the interpreter and the
        libraries, but without what else it holds. Bits do not depend on it. By default a quarter of what the machine
        or its cgroup has free, at most 4 GiB.
    workers : int, optional
        Have so many processes compute, each with these ``threads`` and this ``memory``; the output must be an OME-Zarr.
        A script that asks for them must guard its own lines by ``if __name__ == "__main__"``.
    scheduler : str, optional
        Address of a Dask scheduler, as "tcp://host:8786", whose workers compute: they open files by these names.
    resume : bool
        Go on with a run of several processes that did not finish, if there is one.
    options : dict, optional
        How the output is stored, as ``{"compression": "zlib"}``; each format has its own.
    overwrite : bool
        Whether an existing destination may be replaced.
    skip_existing : bool
        Leave a destination alone that by its own note was made of the same input, with the same kernel, parameters and
        version. Any other is refused, in words that say what differs, or replaced with ``overwrite``.
    mkdir : bool
        Whether missing folders of the destination are made.
    pyramid : bool
        Make coarser levels of an OME-Zarr output, too (:mod:`volconv.pyramid`).
    dry_run : bool
        Check everything and report the plan; read no voxel, and write nothing.
    progress : callable, optional
        Called with (bytes of output voxels done, bytes in all) now and then.

    Returns
    -------
    ApplyReport

    Raises
    ------
    VolconvError
        One of its kinds; the destination is then as it was before.

    Examples
    --------
    >>> report = apply("brain.nii.gz", "smooth.nii.gz", "gaussian:sigma=2mm", padding="same")  # doctest: +SKIP
    >>> report.plan.algorithm  # doctest: +SKIP
    'direct'
    """
    started = perf_counter()
    cluster = None
    if workers is not None or scheduler is not None or resume:
        from volconv.cluster import parse_cluster  # most runs do without

        cluster = parse_cluster(scheduler, workers, resume=resume, backend=backend, threads=threads, memory=memory)
    if pyramid:
        check_pyramid(destination)
    with opened(source) as (volume, name), contextlib.ExitStack() as files:
        if not (dry_run or skip_existing or cluster):
            volume.prefetch()
        labels, mask_name = None, ""
        if mask is not None:
            labels, mask_name = files.enter_context(_opened_mask(mask, volume))
        asked: dict[str, Any] = {
            "kernel": kernel,
            "bias": bias,
            "weight_layout": weight_layout,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "padding_mode": padding_mode,
            "padding_value": padding_value,
            "flip_kernel": flip_kernel,
            "dtype": dtype,
            "compute_dtype": compute_dtype,
            "roi": roi,
            "activation": activation,
            "reduce": reduce,
            "outside": outside,
            "nan": nan,
        }
        try:
            job = resolve_job(
                volume.info,
                **asked,
                source_name=name,
                mask=None if labels is None else (mask_name, labels.info),
            )
        except (ShapeError, DtypeError) as error:
            if name in error.message:
                raise
            raise type(error)(f"{name}: {error.message}", hint=error.hint) from error
        target: dict[str, Any] = {
            "shape": reduced_shape(computed_shape(volume.info.shape, job.params, job.box), job.epilogue),
            "dtype": job.output_dtype,
            "geometry": job.output_geometry,
            "like": volume.info,
            "scaling": job.output_scaling,
            "options": options,
            "overwrite": overwrite,
            "shared": cluster is not None,
            "mkdir": mkdir,
            "note": "",
        }
        if skip_existing or resume or not dry_run:
            noted: dict[str, Any] = {"algorithm": algorithm, "allow_tf32": allow_tf32, "pyramid": pyramid}
            target["note"] = note(job, volume, labels, options=options, **noted)
        there = existing(destination, target["note"], volume.names) if skip_existing else None
        replaced = () if there is None else there.differences
        if replaced and not overwrite:
            why = f"{destination}: the output already exists, and is not skipped: {', '.join(replaced)}"
            folder = output_format(destination) in (SLICES, ZARR)
            raise OutputExistsError(why, hint="remove it, or name a new one" if folder else OVERWRITE_HINT)
        kept = there.info if there is not None and not replaced else None
        if kept is None and not dry_run and cluster is None:
            volume.prefetch()
        info = kept or describe_volume(destination, **target)
        ends = Ends(volume.info, info, None if labels is None else labels.info)
        making: OneProcess | ManyProcesses
        if cluster is None:
            making = OneProcess(
                volume,
                labels,
                job,
                ends,
                algorithm=algorithm,
                backend=backend,
                gpu_memory=gpu_memory,
                allow_tf32=allow_tf32,
                threads=threads,
                memory=memory,
            )
        else:
            from volconv.cluster.making import ManyProcesses

            how = {"algorithm": algorithm, "output": str(destination), "note": target["note"]}
            making = ManyProcesses(cluster, volume, labels, job, ends, asked, **how)
        report = ApplyReport(
            volume.names,
            str(destination),
            volume.info,
            info,
            job,
            making.plan,
            skipped=kept is not None,
            replaced=replaced,
            placing=making.placing,
        )
        if kept is not None:
            return report
        traffic, output = making.plan.traffic, split_path(destination)[0]
        assert traffic is not None  # noqa: S101  # there are files at its ends
        check_room(output, info, traffic.spool_bytes)
        spools = spool_folder(output)
        report = replace(report, spool_folder=str(spools) if traffic.spool_bytes else None, cluster=making.check())
        if pyramid:
            check_levels(info, making.plan_level)
        if dry_run:
            return report
        files.enter_context(making.begun(spools))
        sink = files.enter_context(create_volume(destination, cache_bytes=traffic.target_cache, **target))
        made = making.run(sink, pyramid=pyramid, progress=progress)
        ending = perf_counter()
        sink.commit()
    now, outcome = perf_counter(), made.outcome
    seconds = Seconds(
        total=now - started,
        read=outcome.read_seconds,
        compute=outcome.compute_seconds,
        write=outcome.write_seconds + made.level_seconds + now - ending,
    )
    return replace(
        report,
        seconds=seconds,
        counts=outcome.counts,
        peak_memory=made.peak_memory,
        halvings=outcome.halvings,
        levels=made.levels,
        device=made.device,
    )


@contextlib.contextmanager
def _opened_mask(mask: str | os.PathLike[str] | OpenVolume, volume: OpenVolume) -> Iterator[tuple[OpenVolume, str]]:
    """An open mask and its name; what was said of the volume's spacing is said of the mask's, too."""
    with contextlib.ExitStack() as files:
        if not isinstance(mask, OpenVolume):
            mask = files.enter_context(open_volume(mask, spacing=volume.reading.get("spacing")))
        yield mask, " + ".join(mask.names) or "mask"
