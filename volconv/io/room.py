"""Whether the disks have room for what will be written, and where temporary files lie."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from volconv.errors import WriteError
from volconv.io.formats import Url
from volconv.io.target import translated

if TYPE_CHECKING:
    from volconv.io.volume import VolumeInfo

_HINT = "make room there, or write to another disk"


def spool_folder(output: Path) -> Path:
    """Where the temporary files of a run lie: where TMPDIR says, and otherwise beside the output, if it has a disk.

    The output's disk has room for volumes; the system's folder for temporary files may be a small one, or memory.
    """
    named = os.environ.get("TMPDIR")
    if named and Path(named).is_dir():
        return Path(named)
    return Path(tempfile.gettempdir()) if isinstance(output, Url) else _existing(output)


def check_room(output: Path, info: VolumeInfo, spool_bytes: int = 0) -> None:
    """Refuse at once what would fill a disk after hours.

    Parameters
    ----------
    output : Path
    info : VolumeInfo
        What it will be; of one that is packed nobody knows the size.
    spool_bytes : int
        Of temporary files.

    Raises
    ------
    WriteError
        They do not fit.
    """
    packed = info.access.packed or info.access.in_turn
    size = 0 if packed or isinstance(output, Url) else info.nbytes
    with translated(output):
        spool = spool_folder(output)
        folder = spool if isinstance(output, Url) else _existing(output)
        free = _free(folder)
        together = folder.stat().st_dev == spool.stat().st_dev
        free_for_spool = free - size if together else _free(spool)
    if size > free:
        raise WriteError(f"{output}: the output takes {size} bytes, and its folder has room for {free}", hint=_HINT)
    if spool_bytes > free_for_spool:
        rest = " beside the output" if together and size else ""
        raise WriteError(
            f"{output}: temporary files take {spool_bytes} bytes, and {spool} has room for {free_for_spool}{rest}",
            hint="set TMPDIR to a folder with more room",
        )


def _existing(path: Path) -> Path:
    """The folder of a file, or that in which it will be made."""
    return next(folder for folder in Path(os.path.realpath(path)).parents if folder.is_dir())


def _free(folder: Path) -> int:
    import shutil

    return shutil.disk_usage(folder).free
