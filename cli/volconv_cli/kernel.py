"""``volconv kernel``: which kernels there are, what one looks like, and one written to a file."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from volconv_cli.completion import Group, files, kernels
from volconv_cli.options import debug_option, overwrite_option, spacing_option, weight_layout_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from volconv.kernel_report import ChannelReport, KernelReport, Slice
    from volconv.kernels import NamedKernel
    from volconv_cli.options import F

_HELP = {"help_option_names": ["-h", "--help"]}

#: How many output channels are shown; --json has all.
SHOWN = 16


@click.group("kernel", cls=Group, context_settings=_HELP)
def command() -> None:
    """Look at kernels: named ones, and weights from files.

    \b
    Examples:
      volconv kernel list
      volconv kernel show gaussian:sigma=1.5mm --like brain.nii.gz
      volconv kernel save log:sigma=2um log.npy --spacing 1,0.5,0.5um
    """


def _grid_options(command: F) -> F:
    """Give what says which grid a kernel is for, and how its axes are ordered."""
    options: list[Callable[[F], F]] = [
        click.option(
            "--like",
            metavar="VOLUME",
            shell_complete=files,
            help="The file that the kernel is for: its spacing, size and dtype.",
        ),
        spacing_option,
        weight_layout_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@command.command("list", context_settings=_HELP, short_help="List the named kernels, or what a file of weights holds.")
@click.argument("name", metavar="[NAME|FILE]", required=False, shell_complete=kernels)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@debug_option
def list_command(name: str | None, as_json: bool) -> None:
    """List the named kernels with their parameters; tell one's formula; or list what a file of weights holds.

    \b
    Examples:
      volconv kernel list
      volconv kernel list gaussian
      volconv kernel list unet.safetensors
      volconv kernel list --json

    Lengths are in mm, um, nm or voxels (vox, or no unit): one, or three as in 1/2/2mm for D/H/W. NAME is told with
    its formula, normalisation and source.
    """
    from volconv.kernels import NAMES, named_kernels, split_file_spec

    if name is not None and name not in NAMES and (path_and_key := split_file_spec(name)) is not None:
        _list_file(*path_and_key, as_json)
        return
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


def _list_file(path: str, key: str | None, as_json: bool) -> None:
    from volconv.kernels import list_weights

    if key is not None:
        raise click.UsageError(f"give FILE without a key (got {key!r}); 'volconv kernel show' tells of one kernel")
    entries = list_weights(path)
    if as_json:
        told = ("key", "shape", "dtype", "layer", "role", "layout", "refusal")
        weights = [{name: getattr(entry, name) for name in told} for entry in entries]
        click.echo(json.dumps({"schema_version": 1, "file": path, "weights": weights}))
        return
    from volconv.errors import printable
    from volconv_cli.text import columns, facts, numbers

    rows = [("key", "shape", "dtype", "layer")]
    for entry in entries:
        shape = "" if entry.shape is None else numbers(entry.shape)
        rows.append((printable(entry.key), shape, printable(entry.dtype), printable(entry.layer or "")))
    click.echo("\n".join(columns(rows)))
    if refused := [("no kernel", f"{entry.key} {entry.refusal}") for entry in entries if entry.refusal]:
        click.echo("\n" + "\n".join(facts(refused)))


def _about(kernel: NamedKernel) -> str:
    takes = f"takes {', '.join(kernel.parameters)}; " if kernel.parameters else ""
    return f"{kernel.description}\n{takes}as in {kernel.example}"


def _plain_text(documentation: str) -> str:
    """A docstring without its marks, broken to the terminal's width."""
    import textwrap

    from volconv_cli.text import WIDTH

    text = re.sub(r":(?:func|mod|data):`([^`]*)`", r"\1", documentation).replace("``", "")
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in text.split("\n\n"))


@command.command("show", context_settings=_HELP, short_help="Tell what a kernel is, and show its slices.")
@click.argument("kernel", metavar="KERNEL", shell_complete=kernels)
@_grid_options
@click.option(
    "--channel",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Output channel whose middle slices are shown, counted from 0.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@debug_option
def show_command(
    kernel: str, like: str | None, spacing: Any, weight_layout: str | None, channel: int, as_json: bool
) -> None:
    """Tell what a kernel is: size, sum, norm, factors, symmetry, algorithm, and its middle slices.

    \b
    Examples:
      volconv kernel show gaussian:sigma=1.5mm --like brain.nii.gz
      volconv kernel show log:sigma=2um --spacing 1,0.5,0.5um
      volconv kernel show sobel --channel 2
      volconv kernel show unet.safetensors:encoder.0 --json

    Weights are shown as they are applied: by cross-correlation, without a flip. Without --like the algorithm is that
    for a volume of 256,256,256 voxels in float32.
    """
    from volconv.kernel_report import report_kernel

    report = report_kernel(kernel, like, spacing, channel, weight_layout)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        _show(report)


@command.command("save", context_settings=_HELP)
@click.argument("kernel", metavar="KERNEL", shell_complete=kernels)
@click.argument("output", metavar="FILE[:KEY]", shell_complete=files)
@_grid_options
@overwrite_option
@debug_option
def save_command(
    kernel: str, output: str, like: str | None, spacing: Any, weight_layout: str | None, overwrite: bool
) -> None:
    """Write a kernel into a file: .npy, .npz[:KEY] or .h5[:/PATH].

    \b
    Examples:
      volconv kernel save gaussian:sigma=1.5mm g.npy --like brain.nii.gz
      volconv kernel save ball:radius=2um ball.npz --spacing 1,0.5,0.5um
      volconv kernel save hessian hessian.h5:/hessian

    KEY is "weight" by default; a bias that comes with the kernel goes beside it. An existing file is replaced as a
    whole, with -f.
    """
    from volconv.errors import printable
    from volconv.kernel_report import save_kernel

    for note in save_kernel(kernel, output, like, spacing, weight_layout=weight_layout, overwrite=overwrite):
        click.echo(f"  note: {printable(note)}", err=True)


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
    if report.layout == "dhwio":
        pairs.insert(3, ("layout", "dhwio in the file, as TensorFlow and Keras have it"))
    if report.bias is not None:
        pairs.insert(3, ("bias", report.bias))
    if report.stated:
        stated = "; ".join(f"{name} {_listed(value)}" for name, value in report.stated.items())
        pairs.insert(3, ("stated", stated))
    click.echo("\n".join(facts(pairs)))
    if len(report.channels) > 1:
        click.echo("\n" + "\n".join(_channels(report.channels)))
    if len(report.channels) > SHOWN:
        click.echo(f" and {counted(len(report.channels) - SHOWN, 'channel')} more (--json has all)")
    if len(report.channels) > 1:
        inputs = ", input channel 0" if len(report.shape) == 5 and report.shape[1] > 1 else ""
        click.echo(f"\nchannel {report.shown_channel}{inputs}:")
    for plane in report.slices:
        sides = [report.shape["DHW".index(axis) - 3] for axis in plane.axes]
        shown = (len(plane.values), len(plane.values[0]))
        cut = f", the middle {shown[0]} x {shown[1]} of {sides[0]} x {sides[1]}" if shown != tuple(sides) else ""
        click.echo(f"\nmiddle slice across {plane.across}: {plane.axes[0]} down, {plane.axes[1]} right{cut}")
        click.echo("\n".join(_table(plane)))


def _listed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
