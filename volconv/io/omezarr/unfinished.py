"""What lies beside an image that several processes write: what it will be, and which blocks are done.

Beside ``image.zarr`` that is ``image.zarr.unfinished``, with ``run.json``, an object ``done/NAME.json`` for each block,
and in folders the image itself; at a URL, where nothing is renamed, that lies in its place, without what would make an
image of it.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from volconv.errors import OutputExistsError, WriteError
from volconv.io.formats import Url
from volconv.io.omezarr.store import NEEDED, load_zarr, one_line, opened_store, together, writing

if TYPE_CHECKING:
    from pathlib import Path


class Unfinished:
    """The marks beside one image.

    Parameters
    ----------
    path : Path
        Of the image as it will be: a folder or URL.

    Attributes
    ----------
    root : Path
        Where they lie.
    image : Path
        Where the image lies meanwhile.

    Raises
    ------
    WriteError
        A package for this kind of URL is missing.
    """

    def __init__(self, path: Path) -> None:
        self.root = path.with_name(f"{path.name}.unfinished")
        self.image = path if isinstance(path, Url) else self.root / "image"
        load_zarr(str(path), WriteError)
        with writing(str(path)):
            try:
                import fsspec  # both object stores and Dask bring it

                self._system, self._at = fsspec.core.url_to_fs(str(self.root))
            except ImportError as missing:
                raise WriteError(f"{path}: {one_line(missing)}", hint=NEEDED) from missing

    def facts(self) -> dict[str, Any] | None:
        """What :meth:`begin` wrote down; None if nothing is there, and nothing in it if that makes no sense."""
        with writing(str(self.root)):
            self._system.invalidate_cache()
            if not self._system.exists(self._at):
                return None
            try:
                found = json.loads(self._system.cat_file(f"{self._at}/run.json"))
            except (FileNotFoundError, ValueError):
                return {}
        return found if isinstance(found, dict) else {}

    def begin(self, facts: dict[str, Any]) -> None:
        """Write down what the run is, before anything else of it.

        Raises
        ------
        OutputExistsError
            Another has begun just now, as far as that can be told: an object store lets both.
        """
        with writing(str(self.root)):
            if not isinstance(self.image, Url):  # an object store has no folders, and might make a bucket
                try:
                    self._system.makedirs(self._at, exist_ok=False)
                except FileExistsError as error:
                    raise OutputExistsError(f"{self.root}: another run is at it") from error
                self._system.mkdir(f"{self._at}/done")
            self._system.pipe_file(f"{self._at}/run.json", json.dumps(facts).encode())

    def done(self) -> dict[str, dict[str, Any]]:
        """What was marked, by name; a mark that is cut off counts for nothing."""
        found: dict[str, dict[str, Any]] = {}
        with writing(str(self.root)):
            self._system.invalidate_cache()
            names = self._system.glob(f"{self._at}/done/*.json")
            for name, text in (self._system.cat(names) if names else {}).items():
                with contextlib.suppress(ValueError):
                    found[name.rpartition("/")[2].removesuffix(".json")] = json.loads(text)
        return found

    def mark(self, name: str, told: dict[str, Any]) -> None:
        """Mark a block as done."""
        with writing(str(self.root)):
            self._system.pipe_file(f"{self._at}/done/{name}.json", json.dumps(told).encode())

    def remove(self) -> None:
        """Remove the marks, and what of the image lies there."""
        with writing(str(self.root)):
            self._system.rm(self._at, recursive=True)

    def discard(self) -> None:
        """Remove the marks and the image."""
        self.remove()
        if isinstance(self.image, Url):
            with writing(str(self.image)):
                together([opened_store(self.image, WriteError, read_only=False).delete_dir("")])
