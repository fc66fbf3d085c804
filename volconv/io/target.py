"""Output files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
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
        self.temporary = _hidden(self._final)
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


class FolderTarget:
    """A temporary folder beside its future name, for outputs of many files.

    Parameters
    ----------
    path : Path
        The name that the folder gets at :meth:`commit`. An empty folder there is replaced, and nothing else.

    Attributes
    ----------
    temporary : Path
        Where it lies until then: put files into it, closed before the commit.

    Raises
    ------
    WriteError
        Its parent is missing or cannot be written, or something is there already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_folder_target(path)
        self._final = Path(os.path.realpath(path))
        self.temporary = _hidden(self._final)
        self._done = False
        with translated(path):
            self.temporary.mkdir()

    def commit(self) -> None:
        """Bring the files to the disk and put the folder in place under its name; on failure nothing is left."""
        if self._done:
            return
        try:
            check_folder_target(self.path)  # something may have appeared there meanwhile
            with translated(self.path):
                for file in sorted(self.temporary.iterdir()):
                    _sync_file(file)
                _sync_folder(self.temporary)
                self.temporary.rename(self._final)  # the system refuses whatever is no empty folder by now
        except WriteError:
            self.abort()
            raise
        self._done = True
        _sync_folder(self._final.parent)

    def abort(self) -> None:
        """Remove the temporary folder; no effect after :meth:`commit` or a first abort."""
        if self._done:
            return
        self._done = True
        import shutil  # it loads every compression of Python's, and most targets are files

        shutil.rmtree(self.temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make the folders that a target is to lie in, where they are missing.

    Raises
    ------
    WriteError
        They cannot be made.
    """
    with translated(path):
        Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)


def check_target(path: Path, *, overwrite: bool, mkdir: bool = False) -> None:
    """Refuse a name that no output can be put under; with ``mkdir`` its folders may be missing.

    Raises
    ------
    OutputExistsError, WriteError
        As :class:`Target`.
    """
    mode = _mode_there(path, str(path), mkdir=mkdir)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        raise WriteError(f"{path}: is a folder, and a folder is never replaced", hint="name a file")
    if not stat.S_ISREG(mode):
        raise WriteError(f"{path}: is no regular file, and is not replaced", hint="name another file")
    if not overwrite:
        raise OutputExistsError(f"{path}: the output already exists", hint=OVERWRITE_HINT)


def check_folder_target(path: Path, *, mkdir: bool = False) -> None:
    """Refuse a name that no new folder can be put under; with ``mkdir`` those around it may be missing.

    Raises
    ------
    OutputExistsError, WriteError
        As :class:`FolderTarget`.
    """
    mode = _mode_there(path, f"{path}/", mkdir=mkdir)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        raise WriteError(f"{path}/: is a file, and is not replaced by a folder", hint="name a new folder")
    with translated(path):
        empty = next(Path(os.path.realpath(path)).iterdir(), None) is None
    if not empty:
        raise OutputExistsError(
            f"{path}/: is not empty, and a non-empty folder is never replaced", hint="name a new one"
        )


def _mode_there(path: Path, shown: str, *, mkdir: bool = False) -> int | None:
    """Mode of what is there already; a folder in which nothing can be made is refused."""
    final = Path(os.path.realpath(path))
    with translated(path):
        folder = final.parent
        while mkdir and not os.path.lexists(folder):
            folder = folder.parent
        if not os.path.lexists(folder):
            raise WriteError(
                f"{shown}: the output's folder does not exist (got {folder})", hint="create the folder first"
            )
        if not folder.is_dir():
            raise WriteError(f"{shown}: the output's folder is a file (got {folder})", hint="name another folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise WriteError(f"{shown}: cannot be written: its folder takes no new files (got {folder})")
        try:
            return final.stat().st_mode
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn an OSError of writing into a WriteError that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def _hidden(final: Path) -> Path:
    """Name beside the target, of which 50 characters are enough to be understood and leave room below 255 bytes."""
    return final.with_name(f".{final.name[:50]}.volconv-{os.getpid()}-{os.urandom(4).hex()}.tmp")


def _sync_file(file: Path) -> None:
    """Bring a closed file to the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the file system lets a folder be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
