"""Where an image lies, a folder or a URL, and what goes wrong there: zarr-python is loaded here."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from volconv.errors import ReadError, VolconvError, WriteError
from volconv.io.formats import Url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

INSTALL = "pip install 'volconv[zarr]'"

#: The same, where a URL is of a kind that needs more.
NEEDED = "pip install 'volconv[zarr,s3]' for s3://, or the package that this kind of URL needs"

#: Threads in which zarr-python packs and unpacks; one pool for the process.
_THREADS = 4

#: Memory of zarr-python and the models of NGFF, for each end that needs them; and of a client of an object store
#: (set by tests/test_io_omezarr_memory.py).
_LIBRARY_BYTES, _CLIENT_BYTES = 24 << 20, 32 << 20

#: What zarr-python, its codecs and its stores raise where something is damaged or missing.
_ZARR_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, ImportError)


def load_zarr(name: str, error: type[VolconvError]) -> Any:
    """Import zarr-python, with a bounded number of threads.

    Raises
    ------
    ReadError or WriteError
        It is not installed.
    """
    try:
        import ome_zarr_models  # noqa: F401  # both come with the extra
        import zarr
    except ImportError as missing:
        raise error(f"{name}: OME-Zarr needs packages that are not installed ({missing})", hint=INSTALL) from missing
    if zarr.config.get("threading.max_workers", None) is None:
        zarr.config.set({"threading.max_workers": _THREADS})
    return zarr


def library_bytes(path: Path) -> int:
    """What is resident for the libraries that reach an image, beside what every run needs."""
    return _LIBRARY_BYTES + (_CLIENT_BYTES if isinstance(path, Url) else 0)


def opened_store(path: Path, error: type[VolconvError], *, read_only: bool) -> Any:
    """The store of a folder or a URL."""
    zarr = load_zarr(str(path), error)
    if not isinstance(path, Url):
        return zarr.storage.LocalStore(path, read_only=read_only)
    try:
        return zarr.storage.FsspecStore.from_url(str(path), read_only=read_only)
    except ImportError as missing:
        raise error(f"{path}: {one_line(missing)}", hint=NEEDED) from missing


@contextlib.contextmanager
def reading(name: str, what: str = "cannot be read") -> Iterator[None]:
    """Turn what reading raises into a ReadError that names the image."""
    try:
        yield
    except (VolconvError, MemoryError):
        raise
    except _errors() as error:
        raise ReadError(f"{name}: {what}: {one_line(error)}") from error


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn what writing raises into a WriteError that names the image."""
    try:
        yield
    except (VolconvError, MemoryError):
        raise
    except _errors() as error:
        raise WriteError(f"{name}: cannot be written: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, in few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


def listed(url: Url) -> list[tuple[str, int, str]]:
    """See :func:`volconv.io.files.objects_at`."""
    load_zarr(str(url), ReadError)
    with reading(str(url)):
        try:
            import fsspec

            system, root = fsspec.core.url_to_fs(str(url))
        except ImportError as missing:
            raise ReadError(f"{url}: {one_line(missing)}", hint=NEEDED) from missing
        system.invalidate_cache()
        found = system.find(root, detail=True)
    marks = ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified", "last_modified")
    return [
        (
            name.removeprefix(root).lstrip("/"),
            int(facts.get("size") or 0),
            next((str(facts[mark]) for mark in marks if facts.get(mark)), ""),
        )
        for name, facts in sorted(found.items())
    ]


def together(calls: Sequence[Any]) -> list[Any]:
    """Await several of zarr-python's calls at once; of several errors the first is raised, when all have ended."""
    from zarr.core.sync import sync

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*calls, return_exceptions=True)

    found = list(sync(all_of_them()))
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def ask(store: Any) -> None:
    """Make one request: of several at once that all fail, zarr-python leaves the others behind, to complain later."""
    from zarr.core.buffer import default_buffer_prototype

    together([store.get("zarr.json", default_buffer_prototype())])


def _errors() -> tuple[type[Exception], ...]:
    """What to translate: clients of object stores, where they are loaded, have errors that derive from no other."""
    found: list[type[Exception]] = list(_ZARR_ERRORS)
    for module, names in (
        ("botocore.exceptions", ("BotoCoreError", "ClientError")),
        ("aiohttp", ("ClientError",)),
    ):
        if module in sys.modules:
            found += [getattr(sys.modules[module], name) for name in names]
    return tuple(found)
