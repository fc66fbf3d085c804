"""``volconv apply``: convolve volumes, one after the other."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volconv.errors import DtypeError, ShapeError, VolconvError
from volconv_cli import exits
from volconv_cli.options import config_option, conv_options, debug_option, kernel_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volconv.report import ApplyReport


@click.command("apply", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="OUTPUT", required=True, help="Output file, or a template with {stem}, {name} and {ext}."
)
@kernel_option(required=True)
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
@config_option
@click.option("-f", "--overwrite", is_flag=True, help="Replace existing outputs.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print more: algorithms, times, counts.")
@debug_option
def command(inputs: tuple[str, ...], output: str, overwrite: bool, quiet: bool, verbose: bool, **options: Any) -> int:
    """Convolve volumes with a kernel.

    \b
    Examples:
      volconv apply brain.nii.gz -k gaussian:sigma=2mm --padding same -o o.nii.gz
      volconv apply cells.tif -k sobel --padding 1 --padding-mode reflect -o e.h5
      volconv apply ct.nii -k box:size=3 --padding 1 --padding-value -1000 -o m.h5
      volconv apply brain.nii -k unet.npz:weight -b unet.npz:bias -o features.nii
      volconv apply sub-*.nii.gz --config smooth.toml -o 'out/{stem}_smooth{ext}'

    INPUT is a NIfTI file, HDF5 (file.h5 or file.h5:/dataset), a TIFF stack, or a folder or quoted pattern of TIFF
    slices. The suffix of OUTPUT picks its format.
    """
    outputs = name_outputs(inputs, output)
    codes = []
    for source, destination in zip(inputs, outputs, strict=True):
        try:
            with _progress(quiet, source) as progress:
                from volconv.functional import apply

                report = apply(source, destination, overwrite=overwrite, progress=progress, **options)
        except VolconvError as error:
            if isinstance(error, ShapeError | DtypeError) and source not in error.message:
                error.message = f"{source}: {error.message}"
            if len(inputs) == 1:
                raise
            from volconv_cli.main import show_error

            show_error(error, debug=click.get_current_context().meta["debug"])
            codes.append(exits.code_of(error))
        else:
            if not quiet:
                _show(report, verbose)
    if codes:
        click.echo(f"volconv: {len(codes)} of {len(inputs)} inputs failed", err=True)
        return exits.FAILURE
    return exits.DONE


def name_outputs(inputs: tuple[str, ...], template: str) -> list[str]:
    """Output names, one for each input.

    Raises
    ------
    click.UsageError
        Several inputs would get one name, or the template has an unknown field.
    """
    if len(inputs) == 1 and "{" not in template:
        return [template]
    from volconv.io import split_path, stem_and_ext

    names = []
    for source in inputs:
        stem, ext = stem_and_ext(source)
        try:
            names.append(template.format(stem=stem, ext=ext, name=split_path(source)[0].name))
        except (AttributeError, KeyError, IndexError, ValueError, TypeError):
            raise click.UsageError(
                f"--output may use {{stem}}, {{name}} and {{ext}} (got {template!r}); write other braces twice"
            ) from None
    name, count = Counter(str(Path(name)) for name in names).most_common(1)[0]
    if count > 1:
        raise click.UsageError(
            f"--output must name a file for each input (got {name!r} for {count} of them); "
            "use a template such as 'out/{stem}_smooth{ext}'"
        )
    return names


@contextmanager
def _progress(quiet: bool, source: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(Path(source).name, total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update


def _show(report: ApplyReport, verbose: bool) -> None:
    from volconv_cli.text import numbers, spacing

    shape = report.shape
    sizes = numbers(shape.input_shape)
    if shape.output_shape != shape.input_shape:
        sizes += f" -> {numbers(shape.output_shape)}"
    distances = spacing(shape.input_spacing, shape.unit)
    if shape.output_spacing != shape.input_spacing:
        distances = f"{spacing(shape.input_spacing, None)} -> {spacing(shape.output_spacing, shape.unit)}"
    click.echo(
        f"{report.source} -> {report.destination}: {sizes}, {distances}, {report.algorithm}, {report.seconds:.2f} s",
        err=True,
    )
    for note in report.notes:
        click.echo(f"  note: {note}", err=True)
    for count, what in ((report.saturated, "saturated"), (report.not_a_number, "not a number, stored as 0")):
        if count:
            click.echo(f"  {count} voxels {what} in {report.output_dtype}", err=True)
    if verbose:
        predicted = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in report.candidates.items())
        click.echo(
            f"  {report.compute_dtype} on {report.threads} threads in {report.blocks} blocks; seconds waited for "
            f"reading {report.read_seconds:.2f}, computing {report.compute_seconds:.2f}, "
            f"writing {report.write_seconds:.2f}\n"
            f"  predicted on one thread: {predicted}",
            err=True,
        )
