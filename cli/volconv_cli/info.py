"""``volconv info``: what a file says of itself, and what each format can hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from volconv_cli.completion import files
from volconv_cli.options import check_field, debug_option, reading_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.describe import Description

#: How many datasets or series are shown; --json has all.
SHOWN = 40

#: Column of values in the table of formats, the same for all of them.
START = 20


@click.command("info", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", metavar="[FILE]", required=False, shell_complete=files)
@click.option("--formats", "table", is_flag=True, help="Instead of FILE: tell what each format can hold.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@click.option("--field", metavar="NAME", help="Print this fact alone.")
@reading_options
@debug_option
def command(file: str | None, table: bool, as_json: bool, field: str | None, **reading: Any) -> None:
    """Tell what a file holds, from its headers alone.

    \b
    Examples:
      volconv info brain.nii.gz
      volconv info brain.nii.gz --field spacing
      volconv info cells.tif --spacing 1,0.5,0.5um --json
      volconv info --formats

    An HDF5 file of several datasets is told as a list of them; name one by file.h5:/path to be told about it.

    \b
    Fields of --json, and names for --field:
      schema_version     1
      file               as it was asked for
      format             nifti, tiff, hdf5 ... ('volconv info --formats')
      format_version     NIfTI-1 or NIfTI-2, and the byte order
      axes, file_shape   the file's own, in its library's order
      shape              N,C,D,H,W of what would be read
      dtype              of stored values
      slope, intercept   real value = stored*slope + intercept
      spacing, origin    D,H,W, in unit
      unit               mm, um, nm or m
      affine             from voxel x,y,z (W,H,D) to the world: 4 rows of 4
      orientation        where x, y and z run to, such as RAS
      time_step          seconds
      chunks             N,C,D,H,W of a box that is packed as one piece
      compression        by the format's own name
      file_bytes         on disk
      data_bytes         of what would be read, uncompressed
      provenance         of what volconv made it, and how
      notes              what was assumed
      contents           name, shape, dtype, axes of each dataset or series

    What is not known is null; --field then prints an empty line. It prints words and numbers bare, lists of numbers
    with commas as options take them, and anything else as JSON; with --json, everything.
    """
    if (file is None) == (not table):
        raise click.UsageError("give either FILE or --formats")
    if file is None:
        if field is not None or any(value is not None and value is not False for value in reading.values()):
            raise click.UsageError("--formats goes with --json alone")
        _show_formats(as_json)
        return
    from volconv.describe import FIELDS, describe

    check_field(field, FIELDS)
    found = describe(file, **reading)
    if field is not None or as_json:
        from volconv_cli.text import for_scripts

        click.echo(for_scripts(found.as_dict(), field, as_json=as_json))
    else:
        _show(found)


def _show(found: Description) -> None:
    from volconv_cli.text import decimals, facts, numbers, size

    pairs: list[tuple[str, str]] = [("file", found.file)]
    version = f" ({found.format_version})" if found.format_version else ""
    pairs.append(("format", found.format + version))
    if found.axes is not None and found.file_shape is not None:
        pairs.append(("axes", f"{found.axes} {numbers(found.file_shape)}"))
    if found.shape is not None:
        pairs.append(("shape", f"{numbers(found.shape)}  (N,C,D,H,W)"))
    if found.dtype is not None:
        pairs.append(("dtype", found.dtype))
    if (found.slope, found.intercept) not in ((None, None), (1, 0)):
        pairs.append(("scaling", f"stored * {found.slope:.6g} + {found.intercept:.6g}"))
    if found.spacing is not None and found.origin is not None:
        pairs.append(("spacing", f"{decimals(found.spacing)} {found.unit}  (D,H,W)"))
        pairs.append(("origin", f"{decimals(found.origin)} {found.unit}  (D,H,W)"))
    elif found.shape is not None:
        pairs.append(("spacing", "not stated"))
    if found.affine is not None:
        pairs.append(("affine", _matrix(found.affine)))
    for name, value in (
        ("orientation", found.orientation),
        ("time step", found.time_step and f"{found.time_step:.6g} s"),
        ("chunks", found.chunks and f"{numbers(found.chunks)}  (N,C,D,H,W)"),
        ("compression", found.compression),
    ):
        if value:
            pairs.append((name, value))
    sizes = f"{size(found.file_bytes)} on disk"
    if found.data_bytes is not None:
        sizes += f", {size(found.data_bytes)} uncompressed"
    pairs.append(("size", sizes))
    if found.provenance is not None:
        pairs.append(("made by", found.provenance))
    pairs += [("note", note) for note in found.notes]
    if found.shape is None or len(found.contents) > 1:
        several = {"hdf5": "datasets", "zarr": "levels"}.get(found.format, "series")
        pairs.append((several, _contents(found)))
    click.echo("\n".join(facts(pairs)))


def _matrix(affine: Sequence[Sequence[float]]) -> str:
    """Rows of a matrix, its numbers below each other."""
    cells = [[f"{value:.6g}" for value in row] for row in affine]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join("  ".join(cell.rjust(width) for cell in row) for row in cells)


def _contents(found: Description) -> str:
    from volconv_cli.text import columns, numbers

    entries = found.contents
    if not entries:
        return "none"
    rows = [(entry.name, numbers(entry.shape), entry.dtype, entry.axes) for entry in entries[:SHOWN]]
    more = [f"and {len(entries) - SHOWN} more (--json has all)"] if len(entries) > SHOWN else []
    return "\n".join([*columns(rows), *more])


def _show_formats(as_json: bool) -> None:
    from volconv.describe import SCHEMA_VERSION, dtypes_in_words, formats, keeps_in_words
    from volconv.io import FORMATS

    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, "formats": formats()}))
        return
    from volconv_cli.text import facts

    blocks = []
    for form in FORMATS:
        pairs = [
            ("suffixes", " ".join(form.suffixes or ("folder/",))),
            ("dtypes", dtypes_in_words(form)),
            ("axes", form.axes),
            ("keeps", keeps_in_words(form)),
            *((f"--co {name}=", takes) for name, takes in (form.options or {}).items()),
        ]
        lines = facts([(name, value) for name, value in pairs if value], START)
        title = f"{form.title} ({form.name}): {'read and written' if form.writes else 'only read'}"
        blocks.append("\n  ".join([title, *lines]))
    click.echo("\n\n".join(blocks))
