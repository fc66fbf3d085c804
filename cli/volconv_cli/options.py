"""Options that more than one command has, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from volconv.errors import ParameterError
from volconv.params import PADDING_MODES
from volconv_cli.completion import files, kernels, meant

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


def index_or_range(value: Any) -> Any:
    """Parse ``"2"`` or ``"0:10"``, whose ends may be left out."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d*)(:?)(\d*)", value.strip())
    if match is None or value.strip() == "":
        raise click.BadParameter(f"must be an index from 0 or a range such as 0:10 (got {value!r})")
    first, colon, last = match.groups()
    return slice(int(first) if first else None, int(last) if last else None) if colon else int(first)


def distances(value: Any) -> Any:
    """Parse ``"1,0.5,0.5um"``: one or three lengths along D,H,W with one unit, which may be left out."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([-+.\deE,\s]+?)\s*(mm|um|\u00b5m|\u03bcm|nm|m)?", value.strip())
    try:
        numbers = [float(part) for part in match[1].split(",")] if match else []
    except ValueError:
        numbers = []
    if match is None or len(numbers) not in (1, 3) or not all(0 < n < float("inf") for n in numbers):
        raise click.BadParameter(
            f"must be 1 or 3 positive lengths and a unit (mm, um, nm or m), as in 1,0.5,0.5um (got {value!r})"
        )
    d, h, w = numbers * (3 // len(numbers))
    return (d, h, w), "um" if match[2] in ("\u00b5m", "\u03bcm") else match[2]


def window(value: Any) -> Any:
    """Parse ``"0,255"``."""
    if not isinstance(value, str):
        return value
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"must be LO,HI, two numbers with a comma between (got {value!r})") from None
    return low, high


def assignments(ctx: click.Context, param: click.Parameter, values: Any) -> dict[str, str]:
    """Parse repeated ``NAME=VALUE``; names that are not given keep the value of a config file."""
    found = {}
    configured = (ctx.default_map or {}).get(str(param.name), [])
    for text in (*configured, *values):
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"must be NAME=VALUE, as in compression=zlib (got {text!r})")
        found[name] = value
    return found


def as_written(module: str, function: str, name: str, *more: str) -> Callable[[Any], Any]:
    """Make a parser that checks a value by the library's own, loaded only then, and keeps it as it was written."""

    def check(value: Any) -> Any:
        from importlib import import_module

        try:
            getattr(import_module(module), function)(value, *more)
        except ParameterError as error:
            raise click.BadParameter(str(error).removeprefix(f"{name} ")) from None
        return value

    check.__name__ = name
    return check


region = as_written("volconv.roi", "parse_roi", "roi")
memory_size = as_written("volconv.memory", "parse_memory", "memory")
gpu_memory_size = as_written("volconv.memory", "parse_size", "gpu_memory", "gpu_memory")


def number_or_keep(value: Any) -> Any:
    """Parse ``"keep"`` or a number."""
    return value if value == "keep" else number(value)


def as_given(value: Any) -> Any:
    """Text, or the array that a config file holds."""
    return value


def check_field(field: str | None, fields: Sequence[str]) -> None:
    """Refuse a ``--field`` that is none of these."""
    if field is None or field in fields:
        return
    said = f"must be one of {', '.join(fields)} (got {field!r}){meant(field, fields)}"
    raise click.BadParameter(said, param_hint="--field")


triple = integers(1, 3)


def kernel_option(*, required: bool) -> Callable[[F], F]:
    """Give ``-k``."""
    return click.option(
        "-k",
        "--kernel",
        metavar="KERNEL",
        type=as_given,
        shell_complete=kernels,
        required=required,
        help="A named kernel (gaussian:sigma=1.5mm, box:size=3, sobel ...: 'volconv kernel list'), or weights "
        "from FILE[:KEY] (.npy, .npz, .h5, .keras, .safetensors, .pt, .onnx, or a volume), KEY a layer or an array: "
        "3-D is applied to each channel by itself, 4-D is (C_out,kD,kH,kW) for one channel, 5-D is Conv3d's.",
    )


def weight_layout_option(command: F) -> F:
    """Give ``--weight-layout``."""
    return click.option(
        "--weight-layout",
        type=click.Choice(["oidhw", "dhwio"]),
        help="Order of a 5-D kernel's axes: PyTorch's, or that of TensorFlow and Keras.  "
        "[default: what FILE or the volume leaves]",
    )(command)


def conv_options(command: F) -> F:
    """Give the parameters of a Conv3d: an ONNX node may state those that are not given."""
    for option in reversed(
        [
            click.option(
                "-b",
                "--bias",
                type=as_given,
                metavar="NUMBER|FILE[:KEY]",
                shell_complete=files,
                help="Added to each output channel.  [default: that of the kernel's layer]",
            ),
            weight_layout_option,
            click.option(
                "--stride", type=triple, metavar="D,H,W", help="Step between outputs.  [default: an ONNX node's, or 1]"
            ),
            click.option(
                "--padding",
                type=integers(1, 3, words=("same", "valid")),
                metavar="D,H,W|same|valid",
                help="Voxels added on both sides of each axis; 'same' keeps the input's size.  "
                "[default: an ONNX node's, or 0]",
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
                "--dilation", type=triple, metavar="D,H,W", help="Step between taps.  [default: an ONNX node's, or 1]"
            ),
            click.option(
                "--groups",
                type=click.IntRange(min=1),
                metavar="N",
                help="Groups of channels convolved apart.  "
                "[default: an ONNX node's, or 1; the number of channels for a 3-D kernel]",
            ),
        ]
    ):
        command = option(command)
    return command


def result_options(command: F) -> F:
    """Give what is made of the results, and which of them there are."""
    for option in reversed(
        [
            click.option(
                "--roi",
                type=region,
                metavar="Z0:Z1,Y0:Y1,X0:X1[UNIT]",
                help="Only outputs whose centres lie in this part of the input, in voxels or, with a unit (mm, um, "
                "nm or m), in lengths from its first voxel (10:20,:,5: or 0:40,0:60,0:60mm); what they see beyond it "
                "is read.",
            ),
            click.option(
                "--activation",
                metavar="NAME",
                help="Done to every result: relu, leaky_relu, elu, sigmoid, silu, softplus, tanh, abs, square, sqrt, "
                "exp or log.",
            ),
            click.option(
                "--reduce",
                metavar="norm|sum|max|mean",
                help="Make one channel of all output channels, after the activation: the norm of sobel's three is the "
                "gradient's magnitude.",
            ),
        ]
    ):
        command = option(command)
    return command


def mask_options(command: F) -> F:
    """Give which voxels count."""
    for option in reversed(
        [
            click.option(
                "--mask",
                metavar="FILE",
                shell_complete=files,
                help="Filter inside a mask only (not 0), by normalised convolution; each label of several by itself.",
            ),
            click.option(
                "--outside",
                type=number_or_keep,
                metavar="keep|NUMBER",
                default="keep",
                show_default=True,
                help="What outputs are where the mask is 0: the input's values, or a number.",
            ),
            click.option(
                "--nan",
                metavar="spread|ignore",
                default="spread",
                show_default=True,
                help="Whether voxels that are NaN count; 'ignore' leaves them out, by normalised convolution.",
            ),
        ]
    ):
        command = option(command)
    return command


def spacing_option(command: F) -> F:
    """Give ``--spacing``."""
    return click.option(
        "--spacing",
        type=distances,
        metavar="D,H,W[UNIT]",
        help="Distance between voxels in mm, um, nm or m, whatever the file says, as in 1,0.5,0.5um.",
    )(command)


def reading_options(command: F) -> F:
    """Give what overrides, or selects from, what an input file says: keywords of ``open_volume``."""
    for option in reversed(
        [
            click.option(
                "--axes",
                metavar="LETTERS",
                help="The file's axes in its own order (see 'volconv info'), of T, C, Z, Y, X: XYZC, CZYX, ...",
            ),
            spacing_option,
            click.option(
                "--time", type=index_or_range, metavar="I|A:B", help="Read only these volumes, counted from 0."
            ),
            click.option(
                "--channel", type=index_or_range, metavar="I|A:B", help="Read only these channels, counted from 0."
            ),
            click.option("--rgb", is_flag=True, help="Take colours as channels."),
        ]
    ):
        command = option(command)
    return command


def stack_option(command: F) -> F:
    """Give ``--stack``."""
    return click.option("--stack", is_flag=True, help="Take all inputs as the channels of one volume.")(command)


def creation_option(command: F) -> F:
    """Give ``--co``."""
    return click.option(
        "--co",
        "options",
        multiple=True,
        callback=assignments,
        metavar="NAME=VALUE",
        help="How the output is stored, as in compression=zlib ('volconv info --formats' lists all); repeatable.",
    )(command)


def pyramid_option(command: F) -> F:
    """Give ``--pyramid``."""
    return click.option(
        "--pyramid", is_flag=True, help="Make coarser levels of an OME-Zarr output, too, each half the one before."
    )(command)


def backend_options(command: F) -> F:
    """Give where it is computed."""
    command = click.option(
        "--allow-tf32",
        is_flag=True,
        help="On a GPU, round float32 to 10 bits in products of matrices: faster, with larger errors.",
    )(command)
    command = click.option(
        "--gpu-memory",
        type=gpu_memory_size,
        metavar="SIZE",
        help="Most memory of the GPU that is taken, as in 2G.  [default: most of what is free]",
    )(command)
    return click.option(
        "--backend",
        type=click.Choice(["auto", "numpy", "cupy"]),
        default="auto",
        show_default=True,
        envvar="VOLCONV_BACKEND",
        show_envvar=True,
        help="Where it is computed: by numpy on the CPU, by cupy on a GPU; auto takes a GPU where it is worth the way "
        "there ('volconv doctor' tells whether there is one).",
    )(command)


def memory_option(command: F) -> F:
    """Give ``--memory``."""
    return click.option(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        envvar="VOLCONV_MEMORY",
        show_envvar=True,
        help="Most memory that the process takes, as in 512M; larger volumes go through it in parts.  "
        "[default: a quarter of what is free, at most 4G]",
    )(command)


def cluster_options(command: F) -> F:
    """Give which processes compute."""
    command = click.option(
        "--resume", is_flag=True, help="Go on with a run by --workers or --scheduler that did not finish."
    )(command)
    command = click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Have the workers of a Dask scheduler compute, as at tcp://host:8786; OUTPUT must be an OME-Zarr.",
    )(command)
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Have so many processes compute, each with --threads and --memory; OUTPUT must be an OME-Zarr.",
    )(command)


def overwrite_option(command: F) -> F:
    """Give ``-f``."""
    return click.option("-f", "--overwrite", is_flag=True, help="Replace existing outputs.")(command)


def debug_option(command: F) -> F:
    """Give ``--debug``, which sets the ``debug`` of :class:`volconv_cli.main.Session`."""

    def keep(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001  # click's signature
        if ctx.obj is not None:
            ctx.obj.debug = value

    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=keep,
        help="Show a traceback with an error.",
    )(command)


#: Options whose names in Python are not their own.
_RENAMED = {"co": "options", "json": "as_json"}


def load_config(ctx: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001  # click's signature
    """Make the values of a config file the defaults: flags and environment still win."""
    if value is not None:
        from volconv.config import load_config as load

        ctx.meta["volconv.config"] = value
        ctx.default_map = {_RENAMED.get(key, key.replace("-", "_")): text for key, text in load(value).items()}


def effective_config(parameters: dict[str, Any]) -> str:
    """Text of a config file that gives the same values to a command's parameters; flags that are off are left out."""
    from volconv.config import KEYS, dump_config

    names = {key: _RENAMED.get(key, key.replace("-", "_")) for key in KEYS}
    return dump_config({key: as_typed(parameters.get(name)) for key, name in names.items()})


def as_typed(value: Any) -> Any:
    """What was typed for a parsed value; None for what is as good as not given."""
    match value:
        case None | False:
            return None
        case slice():
            return ":".join("" if end is None else str(end) for end in (value.start, value.stop))
        case ((d, h, w), unit):
            return ",".join(repr(float(length)).removesuffix(".0") for length in (d, h, w)) + (unit or "")
        case list():
            return ",".join(map(str, value))
        case dict():
            return [f"{name}={text}" for name, text in value.items()] or None
        case bool():
            return value
        case int() | float() | complex():
            return str(value).strip("()")
        case _:
            return value


def config_option(command: F) -> F:
    """Give ``--config``."""
    return click.option(
        "--config",
        metavar="FILE.toml",
        shell_complete=files,
        is_eager=True,
        expose_value=False,
        callback=load_config,
        help="Take options from a file; those given here win.",
    )(command)
