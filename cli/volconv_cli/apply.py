"""``volconv apply``: convolve volumes, one after the other."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from volconv.errors import printable
from volconv_cli import exits, signals
from volconv_cli.completion import files
from volconv_cli.options import (
    backend_options,
    cluster_options,
    config_option,
    conv_options,
    creation_option,
    debug_option,
    effective_config,
    kernel_option,
    mask_options,
    memory_option,
    overwrite_option,
    pyramid_option,
    reading_options,
    result_options,
    stack_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from volconv.naming import Task
    from volconv.report import ApplyReport, JsonLines
    from volconv_cli.progress import Progress

#: Suffixes of reports that are pages.
PAGES = (".html", ".htm")

READING = ("axes", "spacing", "rgb", "time", "channel")


@click.command("apply", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("inputs", metavar="INPUT...", nargs=-1, shell_complete=files)
@click.option(
    "-o",
    "--output",
    metavar="OUTPUT",
    shell_complete=files,
    help="Output file, or a template with {parent}, {name}, {stem} and {ext}; required.",
)
@kernel_option(required=False)
@conv_options
@click.option("--flip-kernel", is_flag=True, help="Flip the kernel: convolution in the mathematical sense.")
@result_options
@mask_options
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
    help="auto picks the fastest; or direct, channels, separable, winograd, fft, gemm.",
)
@backend_options
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    envvar="VOLCONV_THREADS",
    show_envvar=True,
    help="How many threads compute.  [default: all cores]",
)
@memory_option
@cluster_options
@reading_options
@stack_option
@creation_option
@pyramid_option
@config_option
@click.option("--print-config", is_flag=True, help="Print the options in effect as a --config file, and stop.")
@click.option(
    "--report",
    metavar="FILE.html|.json|.jsonl",
    shell_complete=files,
    help="Write what was done as a page to look at, as JSON, or as JSON lines, one for each file as it is done.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the same JSON.")
@click.option("-n", "--dry-run", is_flag=True, help="Check all but the voxels, print the plan, and touch nothing.")
@overwrite_option
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave outputs alone that were made of the same input in the same way; with -f, replace the others.",
)
@click.option("--mkdir", is_flag=True, help="Make missing folders of outputs.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many files are done at once; --threads and --memory are for all of them together.",
)
@click.option("--fail-fast", is_flag=True, help="Begin no other file after the first that fails.")
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
      volconv apply brain.nii -k sobel --padding same --reduce norm -o edges.nii
      volconv apply brain.nii -k box:size=5 --padding same --mask m.nii -o in.nii
      volconv apply brain.nii -k unet.safetensors:encoder.0 -o features.nii
      volconv apply sub-*.nii.gz --config smooth.toml -o 'out/{stem}_smooth{ext}'
      volconv apply sub-*.nii.gz --config smooth.toml -o 'o/{name}' --mkdir -j 4
      volconv apply --stack t1.nii.gz t2.nii.gz -k unet2.npz:weight -o f.nii
      volconv apply cells.tif -k box:size=3 --spacing 1,0.5,0.5um -o mean.tif -n
      volconv apply cells.tif -k box:size=3 --workers 2 -o mean.zarr

    INPUT is a NIfTI or MGH file, HDF5 (file.h5 or file.h5:/dataset), a TIFF stack (file.ome.tif:1 for its second
    series), or a folder or quoted pattern of TIFF slices; "-" reads names of inputs from stdin, one a line or as
    'find -print0' lists them. The suffix of OUTPUT picks its format; folder/ is a new folder of TIFF slices. For
    several inputs OUTPUT is a template: of a/b.nii.gz, {parent} is a, {name} b.nii.gz, {stem} b and {ext} .nii.gz.
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
    from volconv.naming import name_outputs

    if options["workers"] is not None or options["scheduler"] is not None:
        signals.remark = "; --resume goes on"
        signals.hush_children()
    tasks = name_outputs(_listed(inputs), str(output), stack=options.pop("stack"))
    return _run(ctx, tasks, **options)


def _listed(inputs: tuple[str, ...]) -> list[str]:
    """Inputs, with those that stdin names in the place of ``-``."""
    from volconv.naming import names_in

    names = []
    for name in inputs:
        names += [name] if name != "-" else names_in(sys.stdin.buffer.read()) if sys.stdin is not None else []
    if not names:
        raise click.UsageError("'-' takes names of inputs from stdin, one a line (got none)")
    return names


def _run(
    ctx: click.Context,
    tasks: list[Task],
    *,
    report: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """All tasks; one that fails stops no other."""
    from volconv.batch import run_tasks
    from volconv.naming import check_tasks
    from volconv.report import to_json
    from volconv_cli.main import show_error
    from volconv_cli.progress import Progress, announce_compilation
    from volconv_cli.summary import Summary

    check_tasks(tasks, mkdir=options["mkdir"])
    reading = {name: options.pop(name) for name in READING}
    summary, started, alone, going_on = Summary(), monotonic(), len(tasks) == 1, signals.remark
    runs: dict[Task, dict[str, Any]] = {}
    with ExitStack() as opened:
        lines = _open_report(report, tasks, overwrite=options["overwrite"])
        if lines is not None:
            opened.callback(lines.close)
        progress = opened.enter_context(Progress(quiet or options["dry_run"], len(tasks)))
        announce_compilation(progress)
        running = run_tasks(tasks, reading=reading, progress=_advance(progress), **options)
        for outcome in opened.enter_context(closing(running)):
            summary.add(outcome)
            if not (alone or options["dry_run"]):
                signals.remark = f"{going_on}; {summary.said_on_the_way(len(tasks))}"
            progress.end(outcome.task.inputs[0])
            if lines is not None:
                lines.add(outcome.as_dict())
            if as_json or (report is not None and lines is None):
                runs[outcome.task] = outcome.as_dict()
            with progress.aside():
                if outcome.error is not None and not alone:
                    show_error(outcome.error, debug=bool(ctx.obj and ctx.obj.debug))
                elif outcome.report is not None and not (quiet or (as_json and options["dry_run"])):
                    _show(outcome.report, verbose=verbose)
    if runs:
        in_order = [runs[task] for task in tasks]
        if report is not None and lines is None:
            _write_report(ctx, Path(report), tasks, in_order, reading)
        if as_json:
            click.echo(to_json(in_order), nl=False)
    if alone and outcome.error is not None:
        raise outcome.error
    if not (alone or quiet):
        click.echo(f"\n{summary.table(monotonic() - started)}", err=True)
    elif summary.failed:
        click.echo(f"volconv: {summary.failed} of {len(tasks)} inputs failed", err=True)
    return exits.FAILURE if summary.failed else exits.DONE


def _advance(progress: Progress) -> Callable[[Task, int, int], None] | None:
    return (lambda task, done, total: progress.update(task.inputs[0], done, total)) if progress.shown else None


def _open_report(report: str | None, tasks: list[Task], *, overwrite: bool) -> JsonLines | None:
    """Check that a report can be made; of one of lines, the file."""
    if report is None:
        return None
    from volconv.io import split_path
    from volconv.io.target import check_target
    from volconv.report import JsonLines

    path = Path(report)
    check_target(path, overwrite=overwrite)
    files = {split_path(name)[0].resolve() for task in tasks for name in (*task.inputs, task.output)}
    if path.resolve() in files:
        raise click.UsageError(f"--report must be a file of its own, neither input nor output (got {report!r})")
    return JsonLines(path, overwrite=overwrite) if path.suffix.lower() == ".jsonl" else None


def _write_report(
    ctx: click.Context, path: Path, tasks: list[Task], runs: list[dict[str, Any]], reading: dict[str, Any]
) -> None:
    """A page or JSON, by the name's suffix."""
    from volconv.report import write_report

    overwrite = ctx.params["overwrite"]
    if path.suffix.lower() not in PAGES:
        write_report(path, runs, overwrite=overwrite)
        return
    from volconv_cli.page import write_page
    from volconv_cli.repeat import command_for

    commands = [command_for(ctx, task.inputs, task.output) for task in tasks]
    write_page(path, runs, commands, reading, overwrite=overwrite)


def _show(report: ApplyReport, *, verbose: bool) -> None:
    """A line on stderr for what was done, and the plan on stdout for what was not."""
    from volconv_cli.planned import plan_lines, run_lines
    from volconv_cli.text import counted, numbers, spacing

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
    lines += [f"  note: {printable(note)}" for note in report.notes]
    if counts:
        for count, what in (
            (counts.saturated, "saturated"),
            (counts.not_a_number, "not a number, stored as 0"),
            (counts.non_finite, "not finite"),
        ):
            if count:
                lines.append(f"  {counted(count, 'voxel')} {what} in {report.target.dtype.name}")
    if planned:
        lines += plan_lines(report)
    elif verbose:
        lines += run_lines(report)
    click.echo("\n".join(lines), err=not planned)
