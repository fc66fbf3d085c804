"""``volconv shape``: what a convolution would give, from headers and parameters alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from volconv_cli.completion import files
from volconv_cli.options import (
    config_option,
    conv_options,
    debug_option,
    integers,
    kernel_option,
    reading_options,
    result_options,
    triple,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.plan import Plan
    from volconv.report import ShapeReport


@click.command("shape", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("input_file", metavar="[INPUT]", required=False, shell_complete=files)
@click.option(
    "--input-shape",
    type=integers(3, 4, 5),
    metavar="[N,][C,]D,H,W",
    help="Instead of INPUT: its shape; 3 numbers are one channel of one volume.",
)
@kernel_option(required=False)
@click.option("--kernel-size", type=triple, metavar="D,H,W", help="Instead of --kernel: its size.")
@click.option("--out-channels", type=click.IntRange(min=1), metavar="N", help="With --kernel-size.  [default: 1]")
@conv_options
@result_options
@click.option("--dtype", metavar="DTYPE|same", help="Output dtype.  [default: as 'volconv apply' would choose]")
@reading_options
@config_option
@click.option("-v", "--verbose", is_flag=True, help="Print more: the algorithm, and what each is predicted to take.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@debug_option
def command(
    input_file: str | None, input_shape: list[int] | None, verbose: bool, as_json: bool, **options: Any
) -> None:
    """Tell the output's shape, spacing and cost before anything is run.

    \b
    Examples:
      volconv shape brain.nii.gz -k gaussian:sigma=2mm --padding same
      volconv shape cells.tif --kernel-size 3 --stride 2 --padding 1
      volconv shape --input-shape 1,16,10,50,99 --kernel-size 3 --out-channels 33
      volconv shape brain.nii.gz -k box:size=3 --json

    Only headers are read. Weights, spacing and padding come out as 'volconv apply' would use them.
    """
    if (input_file is None) == (input_shape is None):
        raise click.UsageError("give either INPUT or --input-shape")
    asked = click.get_current_context().get_parameter_source
    if input_file is None:
        for name in ("axes", "rgb", "time", "channel"):
            if asked(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} goes with INPUT, not with --input-shape")
    if options["kernel_size"] is not None and asked("kernel") is ParameterSource.DEFAULT_MAP:
        options["kernel"] = None  # the command line wins over --config
    if options["kernel"] is not None and (options["kernel_size"] is not None or options["out_channels"] is not None):
        raise click.UsageError("give either --kernel or --kernel-size (with --out-channels)")
    if options["kernel"] is None and options["kernel_size"] is None:
        raise click.UsageError("give --kernel or --kernel-size")
    if options["kernel"] is None:
        if asked("weight_layout") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--weight-layout goes with --kernel, not with --kernel-size")
        options["weight_layout"] = None
    report, plan = _report(input_file, input_shape, planned=verbose, **options)
    if as_json:
        facts = report.as_dict()
        if plan is not None:
            facts["algorithm"] = plan.algorithm_facts()
        if input_shape is not None and len(input_shape) == 4:  # no N in, no N out
            facts |= {key: facts[key][1:] for key in ("input_shape", "output_shape")}
        click.echo(json.dumps(facts))
    else:
        _show(report)
        if plan is not None:
            _show_algorithms(plan)


def _report(
    input_file: str | None,
    input_shape: list[int] | None,
    *,
    planned: bool,
    kernel: str | None,
    kernel_size: Any,
    out_channels: int | None,
    groups: int | None,
    bias: str | None,
    dtype: str | None,
    axes: str | None,
    spacing: Any,
    rgb: bool,
    time: Any,
    channel: Any,
    **parameters: Any,
) -> tuple[ShapeReport, Plan | None]:
    import numpy as np

    from volconv.engines.factors import find_factors
    from volconv.geometry import Geometry
    from volconv.io import VolumeInfo, open_volume
    from volconv.job import resolve_job
    from volconv.params import parse_triple
    from volconv.plan import make_plan
    from volconv.report import shape_report

    if input_file is not None:
        with open_volume(input_file, axes=axes, spacing=spacing, rgb=rgb, time=time, channel=channel) as volume:
            info = volume.info
    else:
        n, c, d, h, w = (1,) * (5 - len(input_shape or ())) + tuple(input_shape or ())
        geometry = Geometry()
        if spacing is not None:
            values, unit = spacing
            if unit is None:
                raise click.UsageError("--spacing must have a unit with --input-shape, as in 1,0.5,0.5um")
            geometry = geometry.with_spacing(values, unit)
        info = VolumeInfo((n, c, d, h, w), np.dtype(np.float32), geometry)
    known = info.geometry if info.geometry.unit is not None else None
    weights: Any = kernel
    if kernel is None:
        size = parse_triple("kernel_size", kernel_size, at_least=1)
        per_group = max(1, info.shape[1] // (groups or 1))
        weights = np.broadcast_to(np.float32(0), (out_channels or 1, per_group, *size))
    name = input_file or "--input-shape"
    job = resolve_job(info, weights, source_name=name, groups=groups, bias=bias, dtype=dtype, **parameters)
    report = shape_report(info.shape, job, job.output_dtype, known)
    if not planned:
        return report, None
    # Weights of which only the size is known are taken for what they mostly are: no products.
    factors = None if kernel is None else find_factors(job.params, job.weight, job.compute_dtype)
    return report, make_plan(
        job.params, info.shape, job.compute_dtype, factors=factors, box=job.box, epilogue=job.epilogue
    )


def _show_algorithms(plan: Plan) -> None:
    """Every algorithm that can do it, fastest first."""
    from volconv_cli.text import table

    ranked = sorted(plan.candidates.items(), key=lambda item: item[1])
    rows = [[name, f"{seconds:.3g} s", "picked" if name == plan.algorithm else ""] for name, seconds in ranked]
    lines = ["", *table(["algorithm", "predicted on one thread", ""], rows)]
    if plan.algorithm != ranked[0][0]:
        lines.append("A job this small is done before compiled loops are loaded: gemm needs none.")
    if plan.problem.factors is not None:
        terms = plan.problem.factors.terms
        lines.append("The kernel is " + ("a product" if terms == 1 else f"a sum of {terms} products") + " of 1-D ones.")
    click.echo("\n".join(lines))


def _show(report: ShapeReport) -> None:
    from volconv_cli.text import numbers, size, table

    columns: list[tuple[str, Sequence[float] | None]] = [
        ("input", report.input_shape[2:]),
        ("pad\nlow", report.padding_low),
        ("pad\nhigh", report.padding_high),
        ("kernel", report.kernel_size),
        ("effective\nkernel", report.effective_kernel),
        ("stride", report.stride),
        ("output", report.output_shape[2:]),
        ("spacing\nin", report.input_spacing),
        ("spacing\nout", report.output_spacing),
    ]
    shown = [(name, values) for name, values in columns if values is not None]
    rows = [[axis, *(f"{values[i]:.6g}" for _, values in shown)] for i, axis in enumerate("DHW")]
    lines = [
        f"{numbers(report.input_shape)} -> {numbers(report.output_shape)}  (N,C,D,H,W)",
        "",
        *table(["axis", *(name for name, _ in shown)], rows),
        "",
        f"channels {report.input_shape[1]} -> {report.output_shape[1]}, groups {report.groups}, "
        f"padding mode {report.padding_mode}" + (f", spacing in {report.unit}" if report.unit else ""),
        f"{report.parameters:,} parameters, {report.macs:,} multiply-adds, "
        f"output {size(report.output_bytes)} as {report.output_dtype}",
    ]
    click.echo("\n".join(lines))
