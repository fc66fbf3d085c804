"""``volconv view``: pictures of volumes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from volconv.errors import printable
from volconv_cli.options import debug_option, memory_option, overwrite_option, reading_options, window

if TYPE_CHECKING:
    from volconv.view.scene import Scene


@click.command("view", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", metavar="A [B ...]", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", required=True, help="A picture, .png, or a page for a browser, .html.")
@click.option(
    "--at",
    metavar="X,Y,Z[UNIT]",
    help="Where the slices meet: a voxel of A, counted from 0, or with a unit (mm, um, nm or m) a place in the world, "
    "by the affine.  [default: the middle of A]",
)
@click.option(
    "--window",
    type=window,
    metavar="LO,HI",
    help="Values that are black and white.  [default: percentiles 0.5 and 99.5 of all that is shown]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@reading_options
@memory_option
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@debug_option
def command(
    files: tuple[str, ...],
    output: str,
    at: str | None,
    window: tuple[float, float] | None,
    as_json: bool,
    memory: str | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Show slices of volumes side by side, and how two differ.

    \b
    Examples:
      volconv view brain.nii.gz -o brain.png
      volconv view brain.nii.gz smooth.nii.gz -o both.png --at 3,0,9.5mm
      volconv view cells.tif --spacing 1,0.5,0.5um --window 0,4000 -o cells.html

    All volumes have one window and one scale of lengths. Where a file tells directions in a body (NIfTI, MGH, HDF5
    with an affine), letters name them, and the patient's left is on the left; slices are those of the voxel grid (in
    a page, of the world).
    Otherwise x runs to the right, y and z downwards. Of several volumes in time, or channels, the first is shown,
    unless --time or --channel picks another. --at is in x,y,z order, unlike options of D,H,W; in other volumes than A
    it is the same place in the world.

    The difference is the second volume minus the first, for two on one grid, on a scale of its own. The largest
    difference is that in the slices shown ('volconv diff' looks at all voxels).

    A PNG needs matplotlib (pip install 'volconv[view]'); only what it shows is read. A page needs nothing and opens
    without a network; volumes of more than 16 million voxels are made smaller for it, by means of boxes.
    """
    from volconv.io import open_volume
    from volconv.view import view

    with ExitStack() as opened:
        volumes = [opened.enter_context(open_volume(file, **reading)) for file in files]
        for volume in volumes:
            volume.prefetch()
        scene = view(volumes, output, at=at, window=window, memory=memory, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(scene.as_dict()))
    if not quiet:
        _show(scene, output)


def _show(scene: Scene, output: str) -> None:
    from volconv.view.scene import place_in_words

    first = scene.volumes[0]
    told = f"{first.name}: {place_in_words(first)}, window {scene.window[0]:.6g} to {scene.window[1]:.6g}"
    if scene.largest is not None:
        told += f", largest difference in the slices {scene.largest:.6g}"
    click.echo(
        printable(f"{' and '.join(one.name for one in scene.volumes)} -> {output}: {told.partition(': ')[2]}"), err=True
    )
    for note in scene.notes:
        click.echo(f"  note: {printable(note)}", err=True)
