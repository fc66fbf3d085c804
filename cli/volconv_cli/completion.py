"""What is known of words that are not finished, or not right: shells complete them, errors say what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem


def meant(word: str, known: Iterable[str]) -> str:
    """The known word that is closest, as the end of an error's line; nothing where none is close.

    Examples
    --------
    >>> meant("aply", ["apply", "info"])
    '; did you mean apply?'
    """
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


class Group(click.Group):
    """Subcommands; one that does not exist is told with the one that was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names."""
        if not ctx.resilient_parsing and args and args[0][:1] != "-" and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}{meant(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def usage_words(error: click.ClickException) -> str:
    """What click has to say, on one line, and the option that was meant where there is no such one."""
    words = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name for param in error.ctx.command.params for name in param.opts if name.startswith("--")]
        return f"No such option {error.option_name!r}{meant(error.option_name, [*known, '--help'])}"
    return words


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001  # click's signature
    """Complete names of files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def kernels(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of kernels, or else of files."""
    from click.shell_completion import CompletionItem

    from volconv.kernels import NAMES

    named = [CompletionItem(name) for name in NAMES if name.startswith(incomplete)]
    return [*files(ctx, param, incomplete), *named]  # in bash what says "files" clears what came before it
