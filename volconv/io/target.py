"""Output files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from volconv.errors import OutputExistsError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Said wherever an existing output is refused, to people at the command line and in Python alike.
OVERWRITE_HINT = "pass -f/--overwrite (overwrite=True) to replace it"


class Target:
    """A temporary file beside its future name.

    The temporary file lies in the target's own folder, since only there a rename is atomic, and its mode follows
    the umask. A target that is a symbolic link is replaced at the link's end.

    Parameters
    ----------
    path : Path
        The name that the file gets at :meth:`commit`.
    overwrite : bool
        Whether an existing file may be replaced.

    Attributes
    ----------
    file : binary file
        Open for reading and writing.
    temporary : Path
        Where it lies until then.

    Raises
    ------
    OutputExistsError
        The target exists, and ``overwrite`` is false.
    WriteError
        Its folder is missing or cannot be written, or the target is a folder or a device.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self.overwrite = overwrite
        check_target(path, overwrite=overwrite)
        self._final = Path(os.path.realpath(path))
        # 50 characters of the name are enough to be understood, and leave room below the 255 bytes of a file name.
        name = f".{self._final.name[:50]}.volconv-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self.temporary = self._final.with_name(name)
        self._done = False
        with translated(path):
            # Not tempfile: its files have mode 0600, and this one is to have that of any file a program makes.
            self.file = self.temporary.open("x+b")

    def commit(self) -> None:
        """Bring the file to the disk and put it in place under its name; on failure nothing is left."""
        if self._done:
            return
        try:
            check_target(self.path, overwrite=self.overwrite)  # something may have appeared there meanwhile
            with translated(self.path):
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                self.temporary.replace(self._final)
        except WriteError:
            self.abort()
            raise
        self._done = True
        _sync_folder(self._final.parent)

    def abort(self) -> None:
        """Remove the temporary file; no effect after :meth:`commit` or a first abort."""
        if self._done:
            return
        self._done = True
        with contextlib.suppress(OSError):  # closing flushes, and a full disk is no reason to stay
            self.file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink()


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that no output can be put under.

    Raises
    ------
    OutputExistsError, WriteError
        As :class:`Target`.
    """
    final = Path(os.path.realpath(path))
    with translated(path):
        if not final.parent.is_dir():
            raise WriteError(
                f"{path}: the output's folder does not exist (got {final.parent})", hint="create the folder first"
            )
        try:
            mode = final.stat().st_mode
        except FileNotFoundError:
            return
    if stat.S_ISDIR(mode):
        raise WriteError(f"{path}: is a folder, and a folder is never replaced", hint="name a file")
    if not stat.S_ISREG(mode):
        raise WriteError(f"{path}: is no regular file, and is not replaced", hint="name another file")
    if not overwrite:
        raise OutputExistsError(f"{path}: the output already exists", hint=OVERWRITE_HINT)


@contextlib.contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn an OSError of writing into a WriteError that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the file system lets a folder be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
