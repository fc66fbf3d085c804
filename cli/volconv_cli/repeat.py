"""The command that does to one file what was done to it, whatever its options came from."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from volconv_cli.options import as_typed

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What is about all files, or about what is said of them, and not about how one is made.
_ASIDE = {
    *("inputs", "output", "report", "as_json", "quiet", "verbose", "print_config", "dry_run"),
    *("jobs", "fail_fast", "skip_existing", "mkdir", "overwrite", "resume"),
}


def command_for(ctx: click.Context, inputs: Sequence[str], output: str) -> str:
    """A line for a shell: options as resolved, from flags, environment and config file; defaults are left out.

    A kernel or bias whose numbers stand in a config file is taken from there again.
    """
    words = [*ctx.command_path.split(), *map(_path, inputs)]
    for param in ctx.command.params:
        name = str(param.name)
        given = ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        if not isinstance(param, click.Option) or name in _ASIDE or not given:
            continue
        flag, typed = param.opts[-1], as_typed(ctx.params.get(name))
        if isinstance(typed, bool):
            words += [flag]
        elif isinstance(typed, str | int):
            words += [flag, str(typed)]
        elif isinstance(typed, list) and all(isinstance(item, str) for item in typed):
            for item in typed:
                words += [flag, item]
        elif typed is not None and "--config" not in words:
            words += ["--config", ctx.meta.get("volconv.config", "FILE.toml")]
    return shlex.join([*words, "-o", output])


def _path(name: str) -> str:
    return f"./{name}" if name.startswith("-") else name
