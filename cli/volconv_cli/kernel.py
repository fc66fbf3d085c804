"""``volconv kernel``: which kernels there are, what one looks like, and one written to a file."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from volconv_cli.options import debug_option, distances, overwrite_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from volconv.kernel_report import ChannelReport, KernelReport, Slice
    from volconv.kernels import NamedKernel
    from volconv_cli.options import F

_HELP = {"help_option_names": ["-h", "--help"]}

#: How many output channels are shown; --json has all.
SHOWN = 16


@click.group("kernel", context_settings=_HELP)
def command() -> None:
    """Look at kernels: named ones, and weights from files.

    \b
    Examples:
      volconv kernel list
      volconv kernel show gaussian:sigma=1.5mm --like brain.nii.gz
      volconv kernel save log:sigma=2um log.npy --spacing 1,0.5,0.5um
    """


def _grid_options(command: F) -> F:
    """Give what says which grid a kernel is for."""
    options: list[Callable[[F], F]] = [
        click.option("--like", metavar="VOLUME", help="The file that the kernel is for: its spacing, size and dtype."),
        click.option(
            "--spacing",
            type=distances,
            metavar="D,H,W[UNIT]",
            help="Distance between voxels, whatever the file says, as in 1,0.5,0.5um.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@command.command("list", context_settings=_HELP)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@debug_option
def list_command(name: str | None, as_json: bool) -> None:
    """List the named kernels with their parameters; or tell one's formula.

    \b
    Examples:
      volconv kernel list
      volconv kernel list gaussian
      volconv kernel list --json

    Lengths are in mm, um, nm or vox (voxels, without a unit): one, or three as in 1/2/2mm for D/H/W. NAME is told with
    its formula, normalisation and source.
    """
    from volconv.kernels import named_kernels

    found = named_kernels(name)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "kernels": [kernel.as_dict() for kernel in found.values()]}))
        return
    from volconv_cli.text import facts

    click.echo("\n".join(facts([(key, _about(kernel)) for key, kernel in found.items()])))
    if name is not None:
        click.echo(f"\n{_plain_text(found[name].documentation)}")
    else:
        click.echo("\n'volconv kernel list NAME' tells a kernel's formula, normalisation and source.")


def _about(kernel: NamedKernel) -> str:
    takes = f"takes {', '.join(kernel.parameters)}; " if kernel.parameters else ""
    return f"{kernel.description}\n{takes}as in {kernel.example}"


def _plain_text(documentation: str) -> str:
    """A docstring without its marks, broken to the terminal's width."""
    import textwrap

    from volconv_cli.text import WIDTH

    text = re.sub(r":(?:func|mod|data):`([^`]*)`", r"\1", documentation).replace("``", "")
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in text.split("\n\n"))


@command.command("show", context_settings=_HELP)
@click.argument("kernel", metavar="KERNEL")
@_grid_options
@click.option(
    "--channel",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Output channel whose middle slices are shown, from 0.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@debug_option
def show_command(kernel: str, like: str | None, spacing: Any, channel: int, as_json: bool) -> None:
    """Tell what a kernel is: size, sum, norm, factors, symmetry, algorithm, and its middle slices.

    \b
    Examples:
      volconv kernel show gaussian:sigma=1.5mm --like brain.nii.gz
      volconv kernel show log:sigma=2um --spacing 1,0.5,0.5um
      volconv kernel show sobel --channel 2
      volconv kernel show unet.npz:weight --json

    Weights are shown as they are applied: by cross-correlation, without a flip. Without --like the algorithm is that
    for a volume of 256,256,256 voxels in float32.
    """
    from volconv.kernel_report import report_kernel

    report = report_kernel(kernel, like, spacing, channel)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        _show(report)


@command.command("save", context_settings=_HELP)
@click.argument("kernel", metavar="KERNEL")
@click.argument("output", metavar="FILE[:KEY]")
@_grid_options
@overwrite_option
@debug_option
def save_command(kernel: str, output: str, like: str | None, spacing: Any, overwrite: bool) -> None:
    """Write a kernel into a file: .npy, .npz[:KEY] or .h5[:/PATH].

    \b
    Examples:
      volconv kernel save gaussian:sigma=1.5mm g.npy --like brain.nii.gz
      volconv kernel save ball:radius=2um ball.npz --spacing 1,0.5,0.5um
      volconv kernel save hessian hessian.h5:/hessian

    KEY is "weight" by default. An existing file is replaced as a whole, with -f.
    """
    from volconv.kernel_report import save_kernel

    save_kernel(kernel, output, like, spacing, overwrite=overwrite)


def _show(report: KernelReport) -> None:
    from volconv_cli.text import counted, decimals, facts, numbers

    axes = {3: "D,H,W", 4: "C_out,D,H,W", 5: "C_out,C_in/groups,D,H,W"}[len(report.shape)]
    where = "" if report.spacing is None else f", {decimals(report.spacing)} {report.unit}"
    pairs = [
        ("kernel", report.kernel),
        ("shape", f"{numbers(report.shape)}  ({axes})"),
        ("dtype", report.dtype),
        (
            "for",
            f"{report.volume or 'a typical volume'} {numbers(report.volume_shape)} {report.volume_dtype}{where}",
        ),
        ("algorithm", _algorithms(report)),
    ]
    if len(report.channels) == 1:
        pairs[3:3] = _facts_of(report.channels[0])
    click.echo("\n".join(facts(pairs)))
    if len(report.channels) > 1:
        click.echo("\n" + "\n".join(_channels(report.channels)))
    if len(report.channels) > SHOWN:
        click.echo(f" and {counted(len(report.channels) - SHOWN, 'channel')} more (--json has all)")
    of = f"channel {report.shown_channel}, " if len(report.channels) > 1 else ""
    of += "input channel 0, " if len(report.shape) == 5 and report.shape[1] > 1 else ""
    for plane in report.slices:
        sides = [report.shape["DHW".index(axis) - 3] for axis in plane.axes]
        shown = (len(plane.values), len(plane.values[0]))
        cut = f", the middle {shown[0]} x {shown[1]} of {sides[0]} x {sides[1]}" if shown != tuple(sides) else ""
        click.echo(f"\n{of}middle slice across {plane.across}: {plane.axes[0]} down, {plane.axes[1]} right{cut}")
        click.echo("\n".join(_table(plane)))


def _algorithms(report: KernelReport) -> str:
    picked, *others = sorted(report.predicted_seconds, key=lambda name: name != report.algorithm)
    text = f"{picked}, {report.predicted_seconds[picked]:.3g} s predicted on one thread"
    if others:
        text += f" ({', '.join(f'{name} {report.predicted_seconds[name]:.3g} s' for name in others)})"
    return text


def _facts_of(channel: ChannelReport) -> list[tuple[str, str]]:
    by_kind: dict[str, list[str]] = {}
    for axis, kind in zip("DHW", channel.symmetry, strict=True):
        by_kind.setdefault(kind, []).append(axis)
    found = [
        ("sum", _number(channel.sum)),
        ("norm", f"{channel.norm:.6g}  (root of the sum of squares)"),
        ("symmetry", "; ".join(f"{kind} along {', '.join(axes)}" for kind, axes in by_kind.items())),
    ]
    if channel.ranks is not None:
        found.insert(2, ("rank", f"{','.join(map(str, channel.ranks))}  (unfolded along D,H,W)"))
        found.insert(3, ("factors", _factors(channel.products)))
    return found


def _factors(products: int | None) -> str:
    if products is None:
        return "no sum of a few products of 1-D kernels"
    return "a product of 1-D kernels" if products == 1 else f"a sum of {products} products of 1-D kernels"


def _channels(channels: tuple[ChannelReport, ...]) -> list[str]:
    from volconv_cli.text import table

    rows = [
        [
            str(number),
            _number(channel.sum),
            f"{channel.norm:.6g}",
            "-" if channel.ranks is None else ",".join(map(str, channel.ranks)),
            "-" if channel.products is None else str(channel.products),
            ",".join(channel.symmetry),
        ]
        for number, channel in enumerate(channels[:SHOWN])
    ]
    return table(["channel", "sum", "norm", "rank\nD,H,W", "1-D\nproducts", "symmetry\nD,H,W"], rows)


def _table(plane: Slice) -> list[str]:
    """As many columns around the middle one as fit."""
    from volconv_cli.text import WIDTH, table

    heads = [str(plane.first[1] + i) for i in range(len(plane.values[0]))]
    rows = [[_number(value, 3) for value in values] for values in plane.values]
    names = [str(plane.first[0] + i) for i in range(len(rows))]
    for cut in range(len(heads)):
        kept = slice(cut, -cut or None)
        lines = table(["", *heads[kept]], [[name, *row[kept]] for name, row in zip(names, rows, strict=True)])
        if max(map(len, lines)) <= WIDTH or len(heads) - 2 * cut <= 2:
            break
    return lines


def _number(value: complex, digits: int = 6) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value + 0.0:.{digits}g}"  # never -0
