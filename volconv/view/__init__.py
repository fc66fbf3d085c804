"""Pictures of volumes: three orthogonal slices as a PNG, and a page to look through in a browser."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from volconv.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.io import OpenVolume
    from volconv.view.scene import Scene


def view(
    sources: Sequence[str | os.PathLike[str] | OpenVolume],
    destination: str | os.PathLike[str],
    *,
    at: str | None = None,
    window: tuple[float, float] | None = None,
    memory: str | int | None = None,
    overwrite: bool = False,
) -> Scene:
    """Make a picture, or a page, of volumes: what ``volconv view`` does.

    Parameters
    ----------
    sources : sequence of paths or OpenVolumes
        At least one. Open ones stay open.
    destination : path
        ``.png`` or ``.html``. It appears when it is complete.
    at, window
        As :func:`volconv.view.scene.gather`'s.
    memory : str or int, optional
        Most memory that making a large volume smaller takes.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Scene
        What is shown, with :meth:`Scene.as_dict` for JSON.

    Raises
    ------
    ParameterError, ShapeError
        The place, the window or the suffix makes no sense.
    ReadError
        A volume cannot be read.
    WriteError
        The file cannot be written, or matplotlib is not installed.

    Examples
    --------
    >>> view(["sample_data/mni152_t1.nii.gz"], "brain.png", at="0,-18,22mm").window  # doctest: +SKIP
    (0.0, 229.0)
    """
    from volconv.io import opened
    from volconv.io.room import spool_folder
    from volconv.io.target import FolderTarget, Target, check_target
    from volconv.view.scene import gather

    path = Path(destination)
    kind = path.suffix.lower()
    if kind not in (".png", ".html"):
        raise ParameterError(f"output must end in .png or .html (got {os.fspath(destination)!r})")
    if not sources:
        raise ParameterError("sources must hold a volume (got none)")
    check_target(path, overwrite=overwrite)
    if kind == ".png":
        from volconv.view.png import require_matplotlib

        require_matplotlib(path)
    with ExitStack() as files:
        volumes = [files.enter_context(opened(source))[0] for source in sources]
        scene = gather(volumes, at=at, window=window)
        target = Target(path, overwrite=overwrite)
        try:
            if kind == ".png":
                from volconv.view.png import draw_png

                draw_png(scene, target.file)
            else:
                from volconv.view.html import write_html

                parts = FolderTarget(spool_folder(path) / f"volconv-view-{os.getpid()}")  # never put in place
                try:
                    write_html(scene, volumes, target.file, parts.temporary, memory=memory)
                finally:
                    parts.abort()
        except BaseException:
            target.abort()
            raise
        target.commit()
    return scene
