"""Options that more than one command has, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from volconv.params import PADDING_MODES

F = TypeVar("F", bound=Callable[..., Any])


def integers(*counts: int, words: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Make a parser of ``"2,1,1"``, of so many integers, or of one of the words."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str) or value in words:
            return value
        try:
            numbers = [int(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in counts:
            allowed = " or ".join(str(n) for n in counts) + " integers with commas between"
            raise click.BadParameter(f"must be {', '.join([allowed, *words])} (got {value!r})")
        return numbers

    return parse


def number(value: Any) -> complex:
    """Parse ``"-1000"`` or ``"1+2j"``."""
    try:
        parsed = complex(value)
    except ValueError:
        raise click.BadParameter(f"must be a number (got {value!r})") from None
    return parsed if parsed.imag else parsed.real


triple = integers(1, 3)


def kernel_option(*, required: bool) -> Callable[[F], F]:
    """Give ``-k``."""
    return click.option(
        "-k",
        "--kernel",
        metavar="KERNEL",
        required=required,
        help="A named kernel (gaussian:sigma=1.5mm, box:size=3, identity, laplacian, sobel:axis=z, sobel), or weights "
        "from FILE[:KEY] (.npy, .npz:key, .h5:/path): 3-D is applied to each channel by itself, 4-D is "
        "(C_out,kD,kH,kW) for one channel, 5-D is Conv3d's (C_out,C_in/groups,kD,kH,kW).",
    )


def conv_options(command: F) -> F:
    """Give the parameters of a Conv3d."""
    for option in reversed(
        [
            click.option("-b", "--bias", metavar="NUMBER|FILE[:KEY]", help="Added to each output channel."),
            click.option(
                "--stride", type=triple, metavar="D,H,W", default="1", show_default=True, help="Step between outputs."
            ),
            click.option(
                "--padding",
                type=integers(1, 3, words=("same", "valid")),
                metavar="D,H,W|same|valid",
                default="0",
                show_default=True,
                help="Voxels added on both sides of each axis; 'same' keeps the input's size.",
            ),
            click.option(
                "--padding-mode",
                type=click.Choice(PADDING_MODES),
                default="zeros",
                show_default=True,
                help="What is added: reflect leaves out the edge voxel, symmetric repeats it.",
            ),
            click.option(
                "--padding-value",
                type=number,
                metavar="NUMBER",
                default="0",
                show_default=True,
                help="What 'zeros' adds (-1000 is air in a CT).",
            ),
            click.option(
                "--dilation", type=triple, metavar="D,H,W", default="1", show_default=True, help="Step between taps."
            ),
            click.option(
                "--groups",
                type=click.IntRange(min=1),
                metavar="N",
                help="Groups of channels convolved apart.  [default: 1; the number of channels for a 3-D kernel]",
            ),
        ]
    ):
        command = option(command)
    return command


def debug_option(command: F) -> F:
    """Give ``--debug``: kept in the context's ``meta`` for commands that go on after an error."""

    def keep(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001  # click's signature
        ctx.meta["debug"] = value

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=keep, help="Show a traceback with an error."
    )(command)


def load_config(ctx: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001  # click's signature
    """Make the values of a config file the defaults: flags and environment still win."""
    if value is not None:
        from volconv.config import load_config as load

        ctx.default_map = load(value)


def config_option(command: F) -> F:
    """Give ``--config``."""
    return click.option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        expose_value=False,
        callback=load_config,
        help="Take options from a file; those given here win.",
    )(command)
