"""Output files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from volconv.errors import OutputExistsError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Said wherever an existing output is refused, to people at the command line and in Python alike.
OVERWRITE_HINT = "pass -f/--overwrite (overwrite=True) to replace it"

#: What to do about an error of the system's; the others say it themselves.
_HINTS = {
    errno.ENOSPC: "make room there, or write to another disk",
    errno.EDQUOT: "make room there, or write to another disk",
    errno.EFBIG: "the file system, or a limit (ulimit -f), takes no larger file",
}

#: Temporary files and folders of this process that are neither in place nor removed; changed, and a name given to one,
#: under the lock, which :func:`discard_unfinished` keeps.
_unfinished: set[Path] = set()
_lock = threading.Lock()
os.register_at_fork(after_in_child=_unfinished.clear)


class _Hidden:
    """What lies beside its future name, hidden, until it is complete."""

    #: Mode of what will replace something, until it gets the mode of that: as private as can be.
    _private: int

    def __init__(self, path: Path, name: str, kept: Path | None = None) -> None:
        self.path = path
        self.name = name
        self._final = Path(os.path.realpath(path))
        self._replaced = _stat_of(self._final)
        short = self._final.name[:50]  # enough to be understood, and leaves room below 255 bytes
        hidden = f".{short}.volconv-{os.getpid()}-{os.urandom(4).hex()}.tmp"
        self.temporary = kept or self._final.with_name(hidden)
        self._kept, self._done = kept is not None, False
        if kept is not None:
            with translated(name):
                kept.mkdir(parents=True, exist_ok=True)
            return
        with translated(name), _lock:
            _unfinished.add(self.temporary)
            try:
                self._make()
                if self._replaced is not None:
                    self.temporary.chmod(self._private)
            except BaseException:
                _discard(self.temporary)
                raise

    def commit(self) -> None:
        """Bring all to the disk and put it in place under its name; on failure nothing is left."""
        if self._done:
            return
        try:
            self._check()  # something may have appeared there meanwhile
            with translated(self.name):
                self._sync()
                if self._replaced is not None:
                    _make_alike(self.temporary, self._replaced)
                with _lock:
                    self._place()
                    _unfinished.discard(self.temporary)
        except BaseException:
            self.abort()
            raise
        self._done = True
        _sync_folder(self._final.parent)

    def abort(self) -> None:
        """Remove what was written; no effect after :meth:`commit` or a first abort."""
        if not self._done:
            self._done = True
            if not self._kept:
                _discard(self.temporary)

    def _make(self) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        raise NotImplementedError

    def _sync(self) -> None:
        raise NotImplementedError

    def _place(self) -> None:
        raise NotImplementedError


class Target(_Hidden):
    """A temporary file beside its future name.

    The temporary file lies in the target's own folder, since only there a rename is atomic. Its mode follows the
    umask, or that of the file that it replaces. A target that is a symbolic link is replaced at the link's end.

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
    name : str
        The target's name, for messages.

    Raises
    ------
    OutputExistsError
        The target exists, and ``overwrite`` is false.
    WriteError
        Its folder is missing or cannot be written, or the target is a folder or a device.
    """

    _private = 0o600

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        check_target(path, overwrite=overwrite)
        self.overwrite = overwrite
        super().__init__(path, str(path))

    def abort(self) -> None:
        """Remove the temporary file; no effect after :meth:`commit` or a first abort."""
        if not self._done:
            with contextlib.suppress(OSError):  # closing flushes, and a full disk is no reason to stay
                self.file.close()
        super().abort()

    def _make(self) -> None:
        # Not tempfile: its files have mode 0600, and this one is to have that of any file a program makes.
        self.file = self.temporary.open("x+b")

    def _check(self) -> None:
        check_target(self.path, overwrite=self.overwrite)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def _place(self) -> None:
        if not self.overwrite:
            try:
                os.link(self.temporary, self._final)
            except FileExistsError:  # since the last check
                check_target(self.path, overwrite=False)
            except OSError:
                pass  # a file system without links
            else:
                with contextlib.suppress(OSError):
                    self.temporary.unlink()
                return
        self.temporary.replace(self._final)


class FolderTarget(_Hidden):
    """A temporary folder beside its future name, for outputs of many files.

    Parameters
    ----------
    path : Path
        The name that the folder gets at :meth:`commit`. An empty folder there is replaced, and nothing else.
    kept : Path, optional
        The temporary folder, in the same file system, for several processes. It may be there already, and stays there
        if it is not committed.

    Attributes
    ----------
    temporary : Path
        Where it lies until then: put files into it, closed before the commit.
    name : str
        The target's name, for messages.

    Raises
    ------
    WriteError
        Its parent is missing or cannot be written, or something is there already.
    """

    _private = 0o700

    def __init__(self, path: Path, kept: Path | None = None) -> None:
        check_folder_target(path)
        super().__init__(path, f"{path}/", kept)

    def _make(self) -> None:
        self.temporary.mkdir()

    def _check(self) -> None:
        check_folder_target(self.path)

    def _sync(self) -> None:
        for folder, _, files in os.walk(self.temporary, topdown=False):
            for file in [] if self._kept else sorted(files):  # whoever shares a folder has brought its files there
                _sync_file(Path(folder, file))
            _sync_folder(Path(folder))

    def _place(self) -> None:
        try:
            self.temporary.rename(self._final)  # the system refuses whatever is no empty folder
        except OSError:
            check_folder_target(self.path)  # since the last check
            raise


def discard_unfinished() -> None:
    """Remove all temporary files and folders of this process, and have no other made or put in place: it ends here.

    Whichever thread tries waits for good. Safe in any thread, whatever the others are doing.
    """
    _lock.acquire()
    for temporary in list(_unfinished):
        _discard(temporary)


atexit.register(discard_unfinished)  # whoever never committed, nor aborted


def make_folder(path: Path) -> None:
    """Make the folders that a target is to lie in, where they are missing.

    Raises
    ------
    WriteError
        They cannot be made.
    """
    _mode_there(path, str(path), mkdir=True)
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
        raise write_error(path, error) from error


def write_error(path: Path | str, error: OSError) -> WriteError:
    """What to raise in place of the system's error."""
    return WriteError(f"{path}: cannot be written: {error.strerror or error}", hint=_HINTS.get(error.errno or 0))


def _discard(temporary: Path) -> None:
    """Remove a temporary file or folder, as far as the system lets us."""
    for _ in range(100):  # another thread may be putting one more file into the folder
        if not temporary.is_dir():
            break
        import shutil  # it loads every compression of Python's, and most targets are files

        shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):
        temporary.unlink()
    _unfinished.discard(temporary)


def _stat_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _make_alike(path: Path, other: os.stat_result) -> None:
    """Give owner, group and mode of another, as far as the system lets us."""
    for owner in (other.st_uid, -1):
        with contextlib.suppress(OSError):
            os.chown(path, owner, other.st_gid)
            break
    with contextlib.suppress(OSError):
        path.chmod(other.st_mode & 0o777)


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
