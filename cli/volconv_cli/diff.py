"""``volconv diff``: whether two files hold the same volume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volconv.errors import printable
from volconv_cli import exits
from volconv_cli.completion import files
from volconv_cli.options import debug_option, reading_options

if TYPE_CHECKING:
    from volconv.difference import Difference

#: As the diff command of POSIX: trouble has higher ones.
SAME, DIFFERENT = exits.DONE, 1


@click.command("diff", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("a", shell_complete=files)
@click.argument("b", shell_complete=files)
@click.option("--tol", type=float, metavar="T", default=0, show_default=True, help="Voxels may differ by this much.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit code tells.")
@reading_options
@debug_option
def command(a: str, b: str, tol: float, as_json: bool, quiet: bool, **reading: Any) -> int:
    """Compare the voxels and the geometry of two files, of any formats.

    \b
    Examples:
      volconv diff brain.nii.gz brain.nii
      volconv diff brain.nii.gz brain.nii --tol 0.001
      volconv diff cells.tif cells.tif --json

    \b
    Exits with
      0   the same: one shape, the same geometry to within 0.001 voxels, the same
          time step where both state one, and no voxel that differs by more than T
      1   they differ
      2+  they could not be compared (see 'volconv --help')

    What --axes and the like say is said of both files. Real values are compared, slope and intercept applied:
    integers exactly, complex values by the modulus of their difference. NaN equals NaN. Another dtype or format
    alone is no difference.
    """
    if as_json and quiet:
        raise click.UsageError("give either --json or --quiet")
    from volconv.difference import diff
    from volconv.io import open_volume
    from volconv_cli.progress import progress_bar

    with (
        open_volume(a, **reading) as first,
        open_volume(b, **reading) as second,
        progress_bar(quiet, Path(a).name) as progress,
    ):
        for volume in (first, second):
            volume.prefetch()  # both at the same time
        found = diff(first, second, tolerance=tol, progress=progress)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    elif not quiet:
        _show(found)
    return SAME if found.same else DIFFERENT


def _show(found: Difference) -> None:
    from volconv_cli.text import decimals, facts, numbers

    within = f" to within {found.tolerance:g}" if found.tolerance else ""
    click.echo(f"{' and '.join(found.names)} {f'are the same{within}' if found.same else 'differ'}")
    pairs = []
    if found.shapes[0] != found.shapes[1]:
        pairs.append(("shape", f"{numbers(found.shapes[0])} and {numbers(found.shapes[1])}  (N,C,D,H,W)"))
    if found.largest:
        total = math.prod(found.shapes[0])
        pairs.append(("voxels", f"{found.differing} of {total} differ by more than {found.tolerance:g}"))
    if found.largest and found.voxel is not None and found.values is not None:
        unit = found.geometries[0].unit
        world = f", {decimals(found.world)} {unit or 'in the world'} (x,y,z)" if found.world else ""
        pairs.append(
            ("largest", f"{_number(found.largest)}: {_number(found.values[0])} and {_number(found.values[1])}")
        )
        pairs.append(("at", f"{numbers(found.voxel)} (N,C,D,H,W){world}"))
    if found.same_geometry is False:
        pairs.append(("geometry", "\n".join(geometry.in_words() for geometry in found.geometries)))
    if found.same_time_step is False:
        pairs.append(("time step", " and ".join(f"{step:g} s" for step in found.time_steps if step is not None)))
    if found.dtypes[0] != found.dtypes[1]:
        pairs.append(("dtype", f"{found.dtypes[0]} and {found.dtypes[1]}, no difference by itself"))
    if pairs:
        click.echo("\n".join(f"  {line}" for line in facts(pairs)))
    for note in found.notes:
        click.echo(f"  note: {printable(note)}", err=True)


def _number(value: Any) -> str:
    """A number with all the digits that an integer has, and as many of a float as tell neighbours apart."""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
