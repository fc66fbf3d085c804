"""The ``volconv`` command: its subcommands, and how any of them ends."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from importlib import import_module

import click

import volconv
from volconv.errors import VolconvError
from volconv_cli import exits, signals
from volconv_cli.completion import Group, usage_words
from volconv_cli.signals import end_at_signals

COMMANDS = ("apply", "convert", "diff", "doctor", "info", "kernel", "shape", "view")


@dataclass(slots=True)
class Session:
    """What one call of the command keeps: whether errors are shown with a traceback."""

    debug: bool = False


class _Commands(Group):
    """Subcommands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"volconv_cli.{cmd_name}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=exits.HELP)
@click.version_option(volconv.__version__, "--version", prog_name="volconv", message="%(prog)s %(version)s")
def cli() -> None:
    """Filter 3-D volumes with Conv3d, exactly as torch.nn.Conv3d computes it.

    \b
    Examples:
      volconv apply brain.nii.gz -k gaussian:sigma=2mm --padding same -o o.nii.gz
      volconv shape --input-shape 1,16,10,50,100 --kernel-size 3 --out-channels 33
      volconv info brain.nii.gz
      volconv convert brain.nii.gz brain.h5
      volconv view brain.nii.gz -o brain.png

    Volumes are NIfTI (.nii, .nii.gz), HDF5 (file.h5:/dataset), TIFF stacks and OME-Zarr. Every three-number option is
    in D,H,W (z,y,x) order, but for places that 'volconv view' goes to, which are x,y,z as viewers show them.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with the code that :mod:`volconv_cli.exits` documents.

    Without ``arguments`` it is the process's own command, and answers to signals.
    """
    if arguments is None:
        end_at_signals()
    session = Session()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are bytes, and come out as they went in
    sys.setswitchinterval(5e-4)  # threads that read and pack need the interpreter often, and for moments
    try:
        code = cli.main(args=arguments, prog_name="volconv", standalone_mode=False, obj=session)
        sys.exit(code if isinstance(code, int) else exits.DONE)
    except VolconvError as error:
        show_error(error, debug=session.debug)
        sys.exit(exits.code_of(error))
    except click.ClickException as error:
        _show_usage(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("volconv: interrupted", err=True)
        sys.exit(exits.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; Python would complain at exit
        sys.exit(exits.FAILURE)
    except OSError as error:  # those of files are told by name elsewhere: this is our own output
        if session.debug:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it cannot be written at exit either
        click.echo(f"volconv: error: {error.strerror or error}", err=True)
        sys.exit(exits.FAILURE)


def _show_usage(error: click.ClickException) -> None:
    """Print what click has to say as one line too; the help, where a command stands alone, as it is."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "volconv"
    click.echo(f"volconv: error: {usage_words(error)} (see '{command} --help')", err=True)


def show_error(error: VolconvError, *, debug: bool = False) -> None:
    """Print an error as one line on stderr; with ``debug`` its traceback first."""
    if signals.ending:
        return
    if debug:
        import traceback

        traceback.print_exception(error)
    click.echo(f"volconv: error: {error}", err=True)
