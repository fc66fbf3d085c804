"""Pages of the site that are made of what is elsewhere: the README, the design page, and a reference from the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

#: Page of the site -> the file that it shows.
COPIES = {
    "index.md": "README.md",
    "design.md": "volconv/README.md",
    "sample-data.md": "sample_data/README.md",
    "changes.md": "CHANGELOG.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that docs/ has no file for."""
    pages = {page: relinked((ROOT / source).read_text(encoding="utf-8")) for page, source in COPIES.items()}
    pages |= {
        "licence.md": f"# Licence\n\n```text\n{(ROOT / 'LICENSE').read_text(encoding='utf-8')}```\n",
        "reference/commands.md": commands(),
        "reference/kernels.md": kernels(),
        "reference/formats.md": f"# Formats\n\n{printed('info', '--formats')}",
        "reference/python.md": python(),
        "reference/report.md": report(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def relinked(text: str) -> str:
    """Links between files of the checkout, as links between pages of the site."""
    pages = {source: page for page, source in COPIES.items()} | {"LICENSE": "licence.md"}

    def link(match: re.Match[str]) -> str:
        target = match[1]
        return f"]({pages.get(target, target.removeprefix('docs/'))})"

    return re.sub(r"\]\(([^)#]+)\)", link, text)


def printed(*arguments: str) -> str:
    """What the command prints, as it prints it."""
    command = [Path(sys.executable).parent / "volconv", *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"```text\n$ volconv {' '.join(arguments)}\n\n{said.strip()}\n```\n"


def commands() -> str:
    """Every command's help, subcommands in their place."""
    from volconv_cli.main import main as _  # noqa: F401  (fails here, with its name, if it moves)
    from volconv_cli.main import volconv

    parts = ["# Commands\n\nWhat `--help` prints, for every command.\n"]

    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        parts.append(f"## volconv {' '.join(path)}\n\n" if path else "## volconv\n\n")
        parts.append(printed(*path, "--help"))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk(child, (*path, name))

    walk(volconv, ())
    return "\n".join(parts)


def kernels() -> str:
    """What `volconv kernel list` tells of each named kernel."""
    from volconv.kernels.named import KERNELS

    listed = [f"## {name}\n\n{printed('kernel', 'list', name)}" for name in KERNELS]
    return "\n".join(["# Kernels\n", printed("kernel", "list"), *listed])


def python() -> str:
    """The public names of the package, by their docstrings."""
    import volconv

    names = [name for name in volconv.__all__ if not name.startswith("_")]
    errors = [name for name in names if name.endswith("Error")]
    others = sorted((name for name in names if name not in errors), key=str.lower)
    return "# Python\n\n" + "\n\n".join(f"::: volconv.{name}" for name in [*others, *errors]) + "\n"


def report() -> str:
    """The fields of a report, by its schema."""
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    lines = ["# Report", "", "What `--report` and `--json` write, by the [schema](../report.schema.json).", ""]
    lines += ["| field | type | what |", "|---|---|---|"]

    def rows(part: dict[str, Any], prefix: str) -> None:
        for name, field in part.get("properties", {}).items():
            while "$ref" in field:
                field = schema["$defs"][field["$ref"].rsplit("/", 1)[1]] | {  # noqa: PLW2901
                    key: value for key, value in field.items() if key != "$ref"
                }
            kind = field.get("type", "")
            kind = " or ".join(kind) if isinstance(kind, list) else kind
            lines.append(f"| `{prefix}{name}` | {kind} | {field.get('description', '').replace('|', chr(92) + '|')} |")
            rows(field, f"{prefix}{name}.")
            if isinstance(field.get("items"), dict):
                rows(field["items"], f"{prefix}{name}[].")

    rows(schema, "")
    return "\n".join(lines) + "\n"
