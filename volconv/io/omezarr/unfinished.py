"""What lies beside an image that several processes write: what it will be, and which blocks are done.

Beside ``image.zarr`` that is ``image.zarr.unfinished``, with ``run.json``, and in a folder named by the run's number
an object ``done/NAME.json`` for each block. In folders the image itself lies there, too; at a URL, where nothing is
renamed, that lies in its place, without what would make an image of it.

A run keeps its number when it is gone on with; who goes on with it is its owner. So what is left of another run, on a
worker that still computes, finds no place of its own, or is told so.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from volconv.errors import ClusterError, OutputExistsError, WriteError
from volconv.io.formats import Url
from volconv.io.omezarr.store import NEEDED, load_zarr, one_line, opened_store, together, writing


class Unfinished:
    """The marks beside one image.

    Parameters
    ----------
    path : Path
        Of the image as it will be: a folder or URL.
    run : str, optional
        Number of the run, where it is known; else it is that which lies there.

    Attributes
    ----------
    root : Path
        Where they lie.

    Raises
    ------
    WriteError
        A package for this kind of URL is missing.
    """

    def __init__(self, path: Path, run: str | None = None) -> None:
        link = not isinstance(path, Url) and path.is_symlink()  # the image lies at its end
        self._path = Path(os.path.realpath(path)) if link else path
        self.root = self._path.with_name(f"{self._path.name}.unfinished")
        self._run, self._owner = run, ""
        load_zarr(str(path), WriteError)
        with writing(str(path)):
            try:
                import fsspec  # both object stores and Dask bring it

                if isinstance(path, Url):
                    self._system, self._at = fsspec.core.url_to_fs(str(self.root))
                else:  # whatever its name looks like
                    self._system, self._at = fsspec.filesystem("file"), str(self.root)
            except ImportError as missing:
                raise WriteError(f"{path}: {one_line(missing)}", hint=NEEDED) from missing

    @property
    def run(self) -> str:
        """Number of the run."""
        if self._run is None:
            self._run = str((self.facts() or {}).get("run", ""))
        return self._run

    @property
    def image(self) -> Path:
        """Where the image lies meanwhile."""
        return self._path if isinstance(self._path, Url) else self.root / self.run / "image"

    def facts(self) -> dict[str, Any] | None:
        """What :meth:`begin` wrote down; None if nothing is there, and nothing in it if that makes no sense."""
        with writing(str(self.root)):
            self._system.invalidate_cache()
            try:
                found = json.loads(self._system.cat_file(f"{self._at}/run.json"))
            except FileNotFoundError:
                return {} if self._system.exists(self._at) else None
            except ValueError:
                return {}
        return found if isinstance(found, dict) else {}

    def begin(self, facts: dict[str, Any], *, instead: bool = False) -> None:
        """Write down what the run is, before anything else of it.

        Parameters
        ----------
        facts : dict
        instead : bool
            Whether another run may lie there, of which nothing is kept.

        Raises
        ------
        OutputExistsError
            Another has begun just now. At a URL the later one goes on, and :meth:`check` tells the other.
        """
        self._run = secrets.token_hex(8)
        with writing(str(self.root)):
            if not isinstance(self._path, Url):  # an object store has no folders, and might make a bucket
                try:
                    self._system.makedirs(self._at, exist_ok=instead)
                except FileExistsError as error:
                    raise OutputExistsError(f"{self.root}: another run is at it") from error
                self._system.makedirs(f"{self._at}/{self._run}/done")
        self.go_on({**facts, "run": self._run})

    def go_on(self, facts: dict[str, Any]) -> None:
        """Become the owner of a run, of which :meth:`facts` told."""
        self._run, self._owner = facts["run"], secrets.token_hex(8)
        with writing(str(self.root)):
            self._system.pipe_file(f"{self._at}/run.json", json.dumps({**facts, "owner": self._owner}).encode())

    def check(self) -> None:
        """Make sure that it is still this run, and by the same owner, if that is this process.

        Raises
        ------
        ClusterError
        """
        found = self.facts() or {}
        if found.get("run") != self.run:
            raise ClusterError(f"{self.root}: is no longer that of this run: another was begun, or it was removed")
        if self._owner and found.get("owner") != self._owner:
            raise ClusterError(f"{self.root}: another process goes on with this run")

    def has_level(self, number: str) -> bool:
        """Whether a level's array is there."""
        with writing(str(self.root)):
            image = self._at.removesuffix(".unfinished") if isinstance(self._path, Url) else str(self.image)
            return any(self._system.exists(f"{image}/{number}/{name}") for name in ("zarr.json", ".zarray"))

    def done(self) -> dict[str, dict[str, Any]]:
        """What was marked, by name; a mark that is cut off counts for nothing."""
        found: dict[str, dict[str, Any]] = {}
        with writing(str(self.root)):
            self._system.invalidate_cache()
            try:
                there = self._system.ls(f"{self._at}/{self.run}/done", detail=False)
            except FileNotFoundError:
                return found
            names = [name for name in there if name.endswith(".json")]
            for name, text in zip(names, self._system.cat_ranges(names, None, None) if names else (), strict=True):
                with contextlib.suppress(ValueError, TypeError):  # one that cannot be read is an error instead of text
                    found[name.rpartition("/")[2].removesuffix(".json")] = json.loads(text)
        return found

    def mark(self, name: str, told: dict[str, Any]) -> None:
        """Mark a block as done."""
        with writing(str(self.root)):
            self._system.pipe_file(f"{self._at}/{self.run}/done/{name}.json", json.dumps(told).encode())

    def remove(self) -> None:
        """Remove the marks, and what of the image lies there: first what says that there is a run."""
        with writing(str(self.root)):
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(f"{self._at}/run.json")
            with contextlib.suppress(FileNotFoundError):
                self._system.rm(self._at, recursive=True)

    def discard(self) -> None:
        """Remove the marks and the image."""
        self.remove()
        if isinstance(self._path, Url):
            with writing(str(self._path)):
                together([opened_store(self._path, WriteError, read_only=False).delete_dir("")])
