"""``volconv doctor``: what is installed, what a run would take of this machine, and whether it can use a GPU."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from volconv_cli.options import check_field, debug_option

if TYPE_CHECKING:
    from volconv.doctor import Installation
    from volconv.engines.gpu.probe import Probe

#: Columns of an extra's packages.
_EXTRA_WIDTH = 52

NOWHERE = "nowhere to write: each run compiles them anew"


@click.command(
    "doctor",
    short_help="Tell what is installed, and whether a GPU can be used.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one line of JSON.")
@click.option("--field", metavar="NAME", help="Print this fact alone.")
@debug_option
def command(as_json: bool, field: str | None) -> None:
    """Tell what is installed, what a run takes of this machine, and whether it can use a GPU.

    \b
    Examples:
      volconv doctor
      volconv doctor --json
      volconv doctor --field threads

    Where no GPU can be used it says why, and the command that helps. That is no failure: the exit code is 0.

    \b
    Fields of --json, and names for --field:
      schema_version  1
      versions        of volconv, python and each library that volconv needs
      extras          of pip install 'volconv[NAME]': the packages of each and
                      their versions, null where one is missing
      system          name and release
      cpu             the processor's name
      vector_bytes    of a vector register, which compiled loops use
      threads         of a run without --threads
      memory_bytes    of a run without --memory
      free_bytes      that machine, container and limits leave now
      compiled        folder where compiled loops are kept, null if there is none
      compiled_count  of loops that are there
      environment     variables that volconv and its libraries listen to, if set
      gpu             usable, reason, remedy, versions (of CuPy), driver (its
                      release), driver_cuda (the newest it runs), runtime (CUDA
                      that CuPy is built with), devices: index, name,
                      compute_capability, total_bytes, free_bytes
    """
    from volconv.doctor import FIELDS, examine

    check_field(field, FIELDS)
    found = examine()
    if field is not None or as_json:
        from volconv_cli.text import for_scripts

        click.echo(for_scripts(found.as_dict(), field, as_json=as_json))
    else:
        _show(found)


def _show(found: Installation) -> None:
    from volconv_cli.text import counted, facts, size

    missing = [name for name, version in found.versions.items() if version is None]
    names = [f"{name} {version}" for name, version in found.versions.items() if version is not None]
    kept = f"{found.compiled}\n{counted(found.compiled_count, 'loop')}" if found.compiled else NOWHERE
    pairs = [
        ("volconv", names[0].removeprefix("volconv ")),
        ("python", f"{names[1].removeprefix('python ')} on {found.system}"),
        ("libraries", ", ".join(names[2:])),
        *([("missing", f"{', '.join(missing)}: pip install -U volconv")] if missing else []),
        ("extras", "\n".join(_extras(found.extras))),
        ("cpu", f"{found.cpu or 'unknown'}, vectors of {found.vector_bytes} bytes"),
        ("threads", f"{found.threads} (--threads)"),
        ("memory", f"{size(found.memory_bytes)} of {size(found.free_bytes)} that are free (--memory)"),
        ("compiled", kept),
        *([("environment", "\n".join(f"{n}={v}" for n, v in found.environment.items()))] if found.environment else []),
        ("gpu", _gpu(found.gpu)),
    ]
    click.echo("\n".join(facts(pairs)))


def _extras(extras: dict[str, dict[str, str | None]]) -> list[str]:
    """A line for each extra; of those for a GPU, of which one is wanted at most, the ones that are there."""
    from volconv_cli.text import columns

    rows = []
    for extra, packages in extras.items():
        there = [f"{name}\u00a0{version}" for name, version in packages.items() if version is not None]
        if there and len(there) == len(packages):
            lines = textwrap.wrap(", ".join(there), _EXTRA_WIDTH, break_on_hyphens=False)
            rows += [(extra if line is lines[0] else "", line.replace("\u00a0", " ")) for line in lines]
        elif not extra.startswith("cuda"):
            rows.append((extra, f"pip install 'volconv[{extra}]'"))
    return columns(rows) if rows else ["none"]


def _gpu(gpu: Probe) -> str:
    """What there is, or why there is nothing and what helps."""
    from volconv_cli.text import size

    lines = []
    if not gpu.usable:
        lines += [f"not usable: {gpu.reason}", str(gpu.remedy)]
    if gpu.driver or gpu.driver_cuda:
        release = f" {gpu.driver}" if gpu.driver else ""
        lines.append(f"driver{release}, for CUDA up to {gpu.driver_cuda or 'unknown'}")
    lines += [
        f"{name} {version}" + (f", CUDA {gpu.runtime}" if gpu.runtime else "") for name, version in gpu.versions.items()
    ]
    for device in gpu.devices:
        major, minor = device.compute_capability
        free = "" if device.free_bytes is None else f", {size(device.free_bytes)} free"
        lines.append(f"{device.index}: {device.name}, {major}.{minor}, {size(device.total_bytes)}{free}")
    return "\n".join(lines)
