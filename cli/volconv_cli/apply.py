"""``volconv apply``: convolve volumes, one after the other."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from volconv.errors import VolconvError
from volconv_cli import exits
from volconv_cli.options import (
    config_option,
    conv_options,
    creation_option,
    debug_option,
    effective_config,
    kernel_option,
    memory_option,
    overwrite_option,
    reading_options,
    stack_option,
)

if TYPE_CHECKING:
    from volconv.report import ApplyReport

READING = ("axes", "spacing", "rgb", "time", "channel")


@click.command("apply", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("inputs", metavar="INPUT...", nargs=-1)
@click.option(
    "-o", "--output", metavar="OUTPUT", help="Output file, or a template with {stem}, {name} and {ext}; required."
)
@kernel_option(required=False)
@conv_options
@click.option("--flip-kernel", is_flag=True, help="Flip the kernel: convolution in the mathematical sense.")
@click.option(
    "--dtype",
    metavar="DTYPE|same",
    help="Output dtype; integers are rounded and saturate, 'same' is the input's.  [default: the compute dtype]",
)
@click.option(
    "--compute-dtype",
    metavar="DTYPE",
    help="float32, float64, complex64 or complex128.  [default: float32; float64 for wider volumes]",
)
@click.option(
    "--algorithm",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="auto, direct or gemm: auto picks the fastest.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    envvar="VOLCONV_THREADS",
    show_envvar=True,
    help="How many threads compute.  [default: all cores]",
)
@memory_option
@reading_options
@stack_option
@creation_option
@config_option
@click.option("--print-config", is_flag=True, help="Print the options in effect as a --config file, and stop.")
@click.option("--report", metavar="FILE.json", help="Write what was done to a JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the same JSON.")
@click.option("-n", "--dry-run", is_flag=True, help="Check all but the voxels, print the plan, and touch nothing.")
@overwrite_option
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave outputs alone that were made of the same input in the same way; with -f, replace the others.",
)
@click.option("--mkdir", is_flag=True, help="Make missing folders of outputs.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print more: algorithms, times, counts.")
@debug_option
@click.pass_context
def command(
    ctx: click.Context, /, inputs: tuple[str, ...], output: str | None, print_config: bool, **options: Any
) -> int:
    """Convolve volumes with a kernel.

    \b
    Examples:
      volconv apply brain.nii.gz -k gaussian:sigma=2mm --padding same -o o.nii.gz
      volconv apply cells.tif -k sobel --padding 1 --padding-mode reflect -o e.h5
      volconv apply ct.nii -k box:size=3 --padding 1 --padding-value -1000 -o m.h5
      volconv apply brain.nii -k unet.npz:weight -b unet.npz:bias -o features.nii
      volconv apply sub-*.nii.gz --config smooth.toml -o 'out/{stem}_smooth{ext}'
      volconv apply --stack t1.nii.gz t2.nii.gz -k unet2.npz:weight -o f.nii
      volconv apply cells.tif -k box:size=3 --spacing 1,0.5,0.5um -o mean.tif -n

    INPUT is a NIfTI or MGH file, HDF5 (file.h5 or file.h5:/dataset), a TIFF stack (file.ome.tif:1 for its second
    series), or a folder or quoted pattern of TIFF slices. The suffix of OUTPUT picks its format; folder/ is a new
    folder of TIFF slices.
    """
    if print_config:
        click.echo(effective_config({"output": output, **options}), nl=False)
        return exits.DONE
    # Not click's "required": --print-config does without.
    for missing, name in (
        (not inputs, "argument 'INPUT...'"),
        (options["kernel"] is None, "option '-k' / '--kernel'"),
        (output is None, "option '-o' / '--output'"),
    ):
        if missing:
            raise click.UsageError(f"Missing {name}")
    if options["quiet"] and options["verbose"]:
        configured = [n for n in ("quiet", "verbose") if ctx.get_parameter_source(n) is ParameterSource.DEFAULT_MAP]
        if len(configured) != 1:
            raise click.UsageError("give either --quiet or --verbose")
        options[configured[0]] = False  # the command line wins over --config
    if options["dry_run"] and options["report"]:
        raise click.UsageError("--dry-run touches nothing: give --json in place of --report")
    jobs = name_outputs(inputs, str(output), stack=options.pop("stack"))
    return _run(jobs, debug=ctx.obj.debug if ctx.obj else False, **options)


def _run(
    jobs: list[tuple[tuple[str, ...], str]],
    *,
    debug: bool,
    report: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """One job after the other; one that fails stops no other."""
    from volconv.report import failed_run, to_json, write_report

    if report is not None:
        from volconv.io import split_path
        from volconv.io.target import check_target

        check_target(Path(report), overwrite=options["overwrite"])
        files = {split_path(name)[0].resolve() for inputs, output in jobs for name in (*inputs, output)}
        if Path(report).resolve() in files:
            raise click.UsageError(f"--report must be a file of its own, neither input nor output (got {report!r})")
    runs: list[dict[str, Any]] = []
    errors: list[VolconvError] = []
    for inputs, output in jobs:
        try:
            done = _apply(inputs, output, quiet=quiet, **options)
        except VolconvError as error:
            if len(jobs) > 1:
                from volconv_cli.main import show_error

                show_error(error, debug=debug)
            errors.append(error)
            runs.append(failed_run(inputs, output, error))
        else:
            runs.append(done.as_dict())
            if not (quiet or (as_json and options["dry_run"])):
                _show(done, verbose=verbose)
    if report is not None:
        write_report(Path(report), runs, overwrite=options["overwrite"])
    if as_json:
        click.echo(to_json(runs), nl=False)
    if not errors:
        return exits.DONE
    if len(jobs) == 1:
        raise errors[0]
    click.echo(f"volconv: {len(errors)} of {len(jobs)} inputs failed", err=True)
    return exits.FAILURE


def _apply(inputs: tuple[str, ...], output: str, *, quiet: bool, **options: Any) -> ApplyReport:
    from volconv.io import open_stack, open_volume
    from volconv_cli.text import announce_compilation, progress_bar

    reading = {name: options.pop(name) for name in READING}
    kernel = options.pop("kernel")
    with ExitStack() as files:
        # Open before the bar is drawn: an input that is missing needs no bar.
        volume = open_volume(inputs[0], **reading) if len(inputs) == 1 else open_stack(inputs, **reading)
        files.enter_context(volume)
        if not (options["dry_run"] or options["skip_existing"]):
            volume.prefetch()
        from volconv.functional import apply  # it is loaded, as is what compiles, while a gzipped file is unpacked

        if not quiet:
            announce_compilation()
        progress = files.enter_context(progress_bar(quiet or options["dry_run"], Path(inputs[0]).name))
        return apply(volume, output, kernel, progress=progress, **options)


def name_outputs(inputs: tuple[str, ...], template: str, *, stack: bool = False) -> list[tuple[tuple[str, ...], str]]:
    """Inputs that belong together, and the name of their output.

    Raises
    ------
    click.UsageError
        Several inputs would get one name, or the template has an unknown field.
    """
    jobs = [inputs] if stack else [(name,) for name in inputs]
    if len(jobs) == 1 and "{" not in template:
        return [(jobs[0], template)]
    from volconv.io import split_path, stem_and_ext

    names = []
    for first, *_ in jobs:
        stem, ext = stem_and_ext(f"{first.rstrip('/')}/" if Path(first).is_dir() else first)
        try:
            names.append(template.format(stem=stem, ext=ext, name=split_path(first)[0].name))
        except (AttributeError, KeyError, IndexError, ValueError, TypeError):
            raise click.UsageError(
                f"--output may use {{stem}}, {{name}} and {{ext}} (got {template!r}); write other braces twice"
            ) from None
    name, count = Counter(str(Path(name)) for name in names).most_common(1)[0]
    if count > 1:
        raise click.UsageError(
            f"--output must name a file for each input (got {name!r} for {count} of them); "
            "use a template such as 'out/{stem}_smooth{ext}', or --stack for channels of one volume"
        )
    return list(zip(jobs, names, strict=True))


def _show(report: ApplyReport, *, verbose: bool) -> None:
    """A line on stderr for what was done, and the plan on stdout for what was not."""
    from volconv_cli.text import counted, numbers, size, spacing

    if report.skipped:
        click.echo(f"{' + '.join(report.inputs)} -> {report.output}: skipped, was made in the same way", err=True)
        return
    planned = report.seconds is None
    shape, plan, counts = report.shape, report.plan, report.counts
    sizes = numbers(shape.input_shape)
    if shape.output_shape != shape.input_shape:
        sizes += f" -> {numbers(shape.output_shape)}"
    distances = spacing(shape.input_spacing, shape.unit)
    if shape.output_spacing != shape.input_spacing:
        distances = f"{spacing(shape.input_spacing, None)} -> {spacing(shape.output_spacing, shape.unit)}"
    time = f", {report.seconds.total:.2f} s" if report.seconds else ""
    lines = [f"{' + '.join(report.inputs)} -> {report.output}: {sizes}, {distances}, {plan.algorithm}{time}"]
    lines += [f"  note: {note}" for note in report.notes]
    if counts:
        for count, what in (
            (counts.saturated, "saturated"),
            (counts.not_a_number, "not a number, stored as 0"),
            (counts.non_finite, "not finite"),
        ):
            if count:
                lines.append(f"  {counted(count, 'voxel')} {what} in {report.target.dtype.name}")
    if planned:
        params, read = report.job.params, math.prod(shape.input_shape) * report.source.dtype.itemsize
        lines += [
            f"  kernel {report.job.kernel.spec or 'of numbers'}: {numbers(params.kernel_size)}, "
            f"stride {numbers(params.stride)}, dilation {numbers(params.dilation)}, groups {params.groups}",
            f"  padding {numbers(params.padding_low)} before and {numbers(params.padding_high)} after, "
            f"{params.padding_mode}",
            f"  reads {size(read)} of {report.source.dtype.name} ({report.source.format}), "
            f"writes {size(shape.output_bytes)} of {report.target.dtype.name} ({report.target.format})",
        ]
    if verbose or planned:
        predicted = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in plan.candidates.items())
        lines += [
            f"  {plan.compute_dtype.name} on {counted(plan.threads, 'thread')} in {counted(len(plan.blocks), 'block')}",
            f"  predicted on one thread: {predicted}",
        ]
    if verbose and report.seconds:
        lines.append(
            f"  seconds waited for reading {report.seconds.read:.2f}, computing {report.seconds.compute:.2f}, "
            f"writing {report.seconds.write:.2f}"
        )
    click.echo("\n".join(lines), err=not planned)
