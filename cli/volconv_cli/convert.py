"""``volconv convert``: a copy in another format, dtype or compression."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volconv.errors import printable
from volconv_cli.completion import files
from volconv_cli.options import (
    creation_option,
    debug_option,
    memory_option,
    overwrite_option,
    pyramid_option,
    reading_options,
    stack_option,
)

if TYPE_CHECKING:
    from volconv.conversion import ConvertReport


@click.command("convert", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", metavar="IN... OUT", nargs=-1, required=True, shell_complete=files)
@click.option("--dtype", metavar="DTYPE", help="Output dtype; integers are rounded and saturate.  [default: as stored]")
@reading_options
@stack_option
@creation_option
@pyramid_option
@memory_option
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@debug_option
def command(
    files: tuple[str, ...],
    dtype: str | None,
    stack: bool,
    options: dict[str, str],
    pyramid: bool,
    memory: str | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Copy a volume into another file.

    \b
    Examples:
      volconv convert brain.nii.gz brain.h5 --co compression=gzip
      volconv convert cells.tif cells.nii.gz --spacing 1,0.5,0.5um
      volconv convert brain.nii first.nii --time 0 --dtype float32
      volconv convert --stack t1.nii.gz t2.nii.gz both.nii.gz

    The suffix of OUT picks its format. Stored values, slope and intercept are kept where the format can hold them. If
    not, real values or a wider dtype are written, and a note says so. With --dtype, real values are converted.
    OUT may be IN, with -f.
    """
    *inputs, output = files
    if not inputs:
        raise click.UsageError(f"give IN and OUT (got only {output!r})")
    if len(inputs) > 1 and not stack:
        raise click.UsageError(
            f"give one IN and one OUT, or --stack for the channels of one volume (got {len(files)} names)"
        )
    from volconv.conversion import convert
    from volconv.io import open_stack, open_volume
    from volconv_cli.progress import progress_bar

    with ExitStack() as opened:
        volume = opened.enter_context(open_stack(inputs, **reading) if stack else open_volume(inputs[0], **reading))
        progress = opened.enter_context(progress_bar(quiet, Path(inputs[0]).name))
        how: dict[str, Any] = {"dtype": dtype, "options": options, "overwrite": overwrite, "memory": memory}
        how["pyramid"] = pyramid
        report = convert(volume, output, progress=progress, **how)
    if not quiet:
        _show(report)


def _show(report: ConvertReport) -> None:
    from volconv_cli.text import numbers, spacing

    dtypes = report.input_dtype
    if report.output_dtype != report.input_dtype:
        dtypes += f" -> {report.output_dtype}"
    click.echo(
        f"{' + '.join(report.sources)} -> {report.destination}: {numbers(report.shape)}, "
        f"{spacing(report.spacing, report.unit)}, {dtypes}, {report.seconds:.2f} s",
        err=True,
    )
    for note in report.notes:
        click.echo(f"  note: {printable(note)}", err=True)
    for count, what in ((report.saturated, "saturated"), (report.not_a_number, "not a number, stored as 0")):
        if count:
            click.echo(f"  {count} voxels {what} in {report.output_dtype}", err=True)
