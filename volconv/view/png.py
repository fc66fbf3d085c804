"""Slices as a PNG, drawn by matplotlib: volumes side by side, every panel to one scale of lengths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.errors import WriteError, printable
from volconv.geometry import MILLIMETRES
from volconv.view.scene import basename, place_in_words, size_in_words, unit_in_words
from volconv.view.slices import TILTED

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from volconv.view.scene import Scene
    from volconv.view.slices import Plane

#: Pixels an inch.
DPI = 150

#: Inches: what all panels may take together, and one at least; between them, around them, a colour bar, a line.
_WIDEST, _TALLEST, _LEAST, _NARROWEST = 8.5, 6.0, 0.6, 4.5
_GAP, _MARGIN, _LINE = 0.14, 0.18, 0.2
#: Panels that are thinner have no letters.
_LEGIBLE = 0.5

#: Lines above the panels.
_HEAD = 3.2
_BAR, _BAR_ROOM, _TALLEST_BAR = 0.12, 0.65, 2.6

_OUTLINE = "#000000"
_PAPER, _INK, _FAINT, _MARK, _NOT_FINITE = "#17191d", "#f2f2f2", "#a3a7ad", "#ffd24a", "#5b3f8c"

#: Of a difference: black is none, so that what is there stands out.
_DIVERGING = ["#b3ecff", "#2f7fe0", "#000000", "#e0482f", "#ffe0a3"]

#: Whether there are values below and above the window -> how a colour bar ends.
_BEYOND = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}


class _Column(NamedTuple):
    """Panels below each other, what is above them, and their colours; ``factor`` leads to the first volume's unit."""

    title: str
    subtitles: tuple[str, ...]
    planes: tuple[Plane, ...]
    factor: float
    norm: Any
    colours: Any
    beyond: str
    bar: bool

    @property
    def extents(self) -> NDArray[np.float64]:
        """Height and width of each panel."""
        return np.array([plane.extent for plane in self.planes]) * self.factor


def require_matplotlib(path: Path) -> None:
    """Refuse to draw where matplotlib is missing.

    Raises
    ------
    WriteError
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise WriteError(
            f"{path}: a PNG is drawn by matplotlib, which is not installed",
            hint="pip install 'volconv[view]', or write a page (-o out.html), which needs nothing",
        )


class _Page:
    """A figure measured in inches from its lower left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor=_PAPER)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Any:
        box = left / self.width, bottom / self.height, width / self.width, height / self.height
        return self.figure.add_axes(box)

    def text(self, left: float, middle: float, text: str, **style: Any) -> None:
        place = left / self.width, middle / self.height
        self.figure.text(*place, printable(text), **{"va": "center", "parse_math": False, "size": 7.5, **style})


def draw_png(scene: Scene, file: BinaryIO) -> None:
    """Draw a scene: of one volume a row of three slices; of several each is a column, followed by the difference."""
    columns = _columns(scene)
    widths = [max(width for _, width in column.extents) for column in columns]
    heights = [max(tall) for tall in zip(*(column.extents[:, 0] for column in columns), strict=True)]
    scale = min(_TALLEST / sum(heights), _WIDEST / sum(widths))
    across, down = [max(_LEAST, side * scale) for side in widths], [max(_LEAST, side * scale) for side in heights]
    words = _words(scene)
    foot = _MARGIN + _LINE * (len(words) + 0.4)
    panels = sum(down) + _GAP * (len(down) - 1)
    width = 2 * _MARGIN + sum(across) + _GAP * len(across) + _BAR_ROOM * sum(column.bar for column in columns)
    page = _Page(max(_NARROWEST, width), foot + panels + _HEAD * _LINE + _MARGIN)
    left = _MARGIN
    for column, wide in zip(columns, across, strict=True):
        top = foot + panels
        if column.title:
            room = page.width - left if len(scene.volumes) == 1 else wide
            page.text(
                left, top + (_HEAD - 0.5) * _LINE, _shortened(column.title, room), color=_INK, size=9, weight="bold"
            )
            for number, line in enumerate(column.subtitles):
                page.text(left, top + (_HEAD - 1.5 - 0.8 * number) * _LINE, line, color=_FAINT)
        image = None
        for plane, extent, room in zip(column.planes, column.extents * scale, down, strict=True):
            box = left + (wide - extent[1]) / 2, top - extent[0], extent[1], extent[0]
            axes = page.axes(*box)
            image = axes.imshow(plane.values, cmap=column.colours, norm=column.norm, aspect="auto")
            axes.set_axis_off()
            _annotate(axes, plane, extent)
            if column is columns[0] and plane is column.planes[0]:
                _scale_bar(axes, extent[1] / scale / column.factor, scene.volumes[0].geometry.unit)
            top -= room + _GAP
        left += wide + _GAP
        if column.bar:
            tall = min(panels, _TALLEST_BAR)
            _colour_bar(image, page.axes(left, foot + panels - tall, _BAR, tall), column.beyond)
            left += _BAR_ROOM
    for number, line in enumerate(words):
        page.text(_MARGIN, foot - _LINE * (number + 0.9), line, color=_FAINT if number else _INK)
    page.figure.savefig(
        file, format="png", facecolor=_PAPER, metadata={"Software": None}, pil_kwargs={"compress_level": 9}
    )


def _columns(scene: Scene) -> list[_Column]:
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    first = scene.volumes[0].geometry.unit
    low, high = scene.window
    values = np.concatenate([plane.values.ravel() for one in scene.volumes for plane in one.planes])
    beyond = _BEYOND[bool((values < low).any()), bool((values > high).any())]
    grey = colormaps["gray"].with_extremes(bad=_NOT_FINITE)
    norm = Normalize(low, high)
    columns = []
    for one in scene.volumes:
        unit = one.geometry.unit
        factor = MILLIMETRES[unit] / MILLIMETRES[first] if unit and first else 1.0
        parts = [one.planes] if len(scene.volumes) > 1 else [(plane,) for plane in one.planes]
        for number, planes in enumerate(parts):
            title, subtitles = ("", ()) if number else (basename(one.name), size_in_words(one))
            last = one is scene.volumes[-1] and number + 1 == len(parts)
            columns.append(_Column(title, subtitles, planes, factor, norm, grey, beyond, last))
    if scene.difference is not None:
        limit = scene.largest or 1.0
        diverging = LinearSegmentedColormap.from_list("difference", _DIVERGING).with_extremes(bad=_NOT_FINITE)
        title, subtitles = "difference", ("second - first", "black is none")
        limits = Normalize(-limit, limit)
        columns.append(_Column(title, subtitles, scene.difference.planes, 1.0, limits, diverging, "neither", True))
    return columns


def _annotate(axes: Any, plane: Plane, extent: NDArray[np.float64]) -> None:
    """Name the slice and its directions, and mark at the edges where the others cut it."""
    from matplotlib.patheffects import withStroke

    style = {
        "transform": axes.transAxes,
        "color": _INK,
        "size": 7.5,
        "parse_math": False,
        "path_effects": [withStroke(linewidth=1.5, foreground=_OUTLINE)],
    }
    pad_x, pad_y = 0.05 / extent[1], 0.05 / extent[0]
    axes.text(pad_x, 1 - pad_y, f"{plane.title} {'zyx'[plane.axis]}={plane.index}", ha="left", va="top", **style)
    left, right, top, bottom = plane.letters if min(extent) >= _LEGIBLE else ("",) * 4
    axes.text(pad_x, 0.5, left, ha="left", va="center", weight="bold", **style)
    axes.text(1 - pad_x, 0.5, right, ha="right", va="center", weight="bold", **style)
    axes.text(0.5, 1 - pad_y, top, ha="center", va="top", weight="bold", **style)
    axes.text(0.5, pad_y, bottom, ha="center", va="bottom", weight="bold", **style)
    rows, columns = plane.values.shape
    row, column = 1 - (plane.cross[0] + 0.5) / rows, (plane.cross[1] + 0.5) / columns
    out_x, out_y = 0.05 / extent[1], 0.05 / extent[0]
    style = {"color": _MARK, "linewidth": 1, "transform": axes.transAxes, "clip_on": False}
    for ends in ((-out_x, 0), (1, 1 + out_x)):
        axes.plot(ends, (row, row), **style)
    for ends in ((-out_y, 0), (1, 1 + out_y)):
        axes.plot((column, column), ends, **style)


def _scale_bar(axes: Any, width: float, unit: str | None) -> None:
    """A bar of a round length, at most a third of the panel's width, in its lower left corner."""
    from matplotlib.patheffects import withStroke

    length = round_length(width / 3)
    style = {"color": _INK, "transform": axes.transAxes}
    ends = 0.04, 0.04 + length / width
    axes.plot(ends, (0.06, 0.06), linewidth=5, solid_capstyle="butt", **style | {"color": _OUTLINE})
    axes.plot(ends, (0.06, 0.06), linewidth=2.5, solid_capstyle="butt", **style)
    told = f"{length:g} {unit_in_words(unit) or 'voxels'}"
    outline = [withStroke(linewidth=1.5, foreground=_OUTLINE)]
    axes.text(0.04, 0.085, told, size=7.5, va="bottom", path_effects=outline, **style)


def round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not above a length.

    Examples
    --------
    >>> round_length(65.7), round_length(0.3)
    (50.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(most))
    return next(float(f"{step * power:.6g}") for step in (5, 2, 1) if step * power <= most * (1 + 1e-9))


def _colour_bar(image: Any, holder: Any, beyond: str) -> None:
    bar = holder.figure.colorbar(image, cax=holder, extend=beyond)
    bar.outline.set_edgecolor(_FAINT)
    holder.tick_params(colors=_INK, labelsize=7, length=2, pad=2)
    holder.yaxis.offsetText.set(color=_INK, size=7)


def _words(scene: Scene) -> list[str]:
    """What is told below the slices."""
    first, *others = scene.volumes
    values = ", ".join(f"{one.value:.6g}" for one in scene.volumes)
    lines = [f"at {place_in_words(first)}: {values}"]
    if scene.difference is not None:
        lines[0] += f", difference {scene.difference.value:.6g}"
    apart = [one for one in others if place_in_words(one) != place_in_words(first)]
    lines += [f"{basename(one.name)} at {place_in_words(one)}" for one in apart]
    lines.append(f"black {scene.window[0]:.6g}, white {scene.window[1]:.6g}")
    if scene.largest is not None:
        lines[-1] += f"; largest absolute difference in these slices {scene.largest:.6g}"
    if any(one.tilt >= TILTED for one in scene.volumes):
        lines.append(
            f"oblique by up to {max(one.tilt for one in scene.volumes):.0f}°: letters name the nearest directions"
        )
    count = sum(int((~np.isfinite(plane.values)).sum()) for one in scene.volumes for plane in one.planes)
    if count:
        lines.append(f"{count} voxels shown are not finite: NaN is violet")
    return lines


def _shortened(text: str, width: float) -> str:
    """What fits into so many inches, at some 0.075 a letter."""
    room = max(8, int(width / 0.075))
    return text if len(text) <= room else text[: room - 1] + "\u2026"
