"""Pages of the site that are made of what is elsewhere: the README, the design page, and a reference from the code."""

from __future__ import annotations

import json
import posixpath
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
    pages = {
        page: relinked((ROOT / source).read_text(encoding="utf-8"), source, page) for page, source in COPIES.items()
    }
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


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001  # MkDocs' signature
    """Let pages of docs/ link to files of the checkout, such as ../README.md, that have a page here."""
    name = page.file.src_uri
    return markdown if name in COPIES else relinked(markdown, f"docs/{name}", name)


def relinked(text: str, source: str, page: str) -> str:
    """Links between files of the checkout, as links between pages of the site."""
    pages = {file: name for name, file in COPIES.items()} | {"LICENSE": "licence.md", "docs": "index.md"}

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        there = pages.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(there, posixpath.dirname(page) or '.')}"

    return re.sub(r"\]\((?!https?:)([^)#]+)", link, text)


def printed(*arguments: str) -> str:
    """What the command prints, as it prints it."""
    command = [Path(sys.executable).parent / "volconv", *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"```text\n$ volconv {' '.join(arguments)}\n\n{said.strip()}\n```\n"


def commands() -> str:
    """Every command's help, subcommands in their place."""
    from volconv_cli.main import cli

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

    walk(cli, ())
    return "\n".join(parts)


def kernels() -> str:
    """What `volconv kernel list` tells of each named kernel."""
    from volconv.kernels.named import NAMES

    listed = [f"## {name}\n\n{printed('kernel', 'list', name)}" for name in NAMES]
    return "\n".join(["# Kernels\n", printed("kernel", "list"), *listed])


def python() -> str:
    """The public names of the package, by their docstrings."""
    import volconv

    names = [name for name in volconv.__all__ if not name.startswith("_")]
    errors = [name for name in names if name.endswith("Error")]
    others = sorted((name for name in names if name not in errors), key=str.lower)
    return "# Python\n\n" + "\n\n".join(f"::: volconv.{name}" for name in [*others, *errors]) + "\n"


def report() -> str:
    """The parts of a report and their fields, by its schema."""
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    parts = schema["$defs"]
    lines = ["# Report", "", "By its [schema](../report.schema.json).", "", schema["description"], ""]
    for name, part in {"report": schema, **parts}.items():
        if "properties" not in part:
            continue
        lines += [f"## {name}", "", part.get("description", "") if part is not schema else "", ""]
        lines += ["| field | type | what |", "|---|---|---|"]
        lines += [
            f"| `{field}` | {kind(says, parts)} | {says.get('description', '').replace('|', '&#124;')} |"
            for field, says in part["properties"].items()
        ]
        lines.append("")
    return "\n".join(lines)


def kind(says: dict[str, Any], parts: dict[str, Any]) -> str:
    """What a field may hold, in a few words."""
    if "$ref" in says:
        name = says["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})" if "properties" in parts[name] else kind(parts[name], parts)
    if "const" in says:
        return f"`{json.dumps(says['const'])}`"
    if "enum" in says:
        return " ".join(f"`{json.dumps(value)}`" for value in says["enum"])
    several = says.get("oneOf", says.get("anyOf"))
    if several:
        return " or ".join(kind(one, parts) for one in several)
    named = says.get("type", "")
    text = " or ".join(named) if isinstance(named, list) else named
    return f"{text} of {kind(says['items'], parts)}" if isinstance(says.get("items"), dict) else text
