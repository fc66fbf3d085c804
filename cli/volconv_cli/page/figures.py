"""Bars, histograms and slices of a page: inline SVG and pictures, coloured by its style sheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from volconv_cli.page.html import Html, joined, tag
from volconv_cli.page.pictures import Shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv_cli.page.pictures import Picture


def bar(parts: Sequence[float], whole: float, mark: float | None = None) -> Html:
    """Parts of a whole side by side, with a mark across where that is given; all of them to one scale."""
    scale = 1000 / max(whole, math.fsum(parts), mark or 0.0, 1e-12)
    shapes, start = [], 0.0
    for number, part in enumerate(parts, 1):
        shapes.append(_rectangle(start, 8, part * scale, 24, f"c{number}"))
        start += part * scale
    frame = _rectangle(0, 8, whole * scale, 24, "frame")
    marked = [] if mark is None else [_rectangle(min(mark * scale, 996), 0, 4, 40, "mark")]
    return _drawing(1000, 40, "bar", frame, *shapes, *marked)


def legend(entries: Sequence[Html]) -> Html:
    """What the parts of a :func:`bar` are, in their order."""
    return tag(
        "ul",
        *(
            tag("li", _drawing(10, 10, "swatch", _rectangle(0, 0, 10, 10, f"c{number}")), " ", entry)
            for number, entry in enumerate(entries, 1)
        ),
        class_="legend",
    )


def pictures(before: Shown, after: Shown) -> list[Html]:
    """Slices and histograms of a volume before and after."""
    return [_shown(name, shown) for name, shown in (("Before", before), ("After", after)) if shown != Shown()]


def _shown(name: str, shown: Shown) -> Html:
    if not shown.planes:
        return tag("div", tag("h4", name), tag("p", shown.note, class_="small"), class_="shown")
    tallest = max(picture.extent[0] for picture in shown.planes)
    widest = max(picture.extent[1] for picture in shown.planes)
    side = max(tallest, widest)
    low, high = shown.window
    said = f"Black is {low:.4g}, white is {high:.4g}. {shown.note}"
    return tag(
        "div",
        tag("h4", name),
        tag("div", *(_slice(picture, side, name) for picture in shown.planes), class_="slices"),
        _histogram(shown),
        tag("p", said, class_="small"),
        class_="shown",
    )


def _slice(picture: Picture, side: float, name: str) -> Html:
    """A slice in a square as large as the longest side of all, so that all have one scale."""
    height, width = (100 * length / side for length in picture.extent)
    described = f"{name.lower()}: {picture.title} slice at {picture.axis} = {picture.index}"
    x, y = (100 - width) / 2, (100 - height) / 2
    image = tag(
        "image",
        href=picture.address,
        x=f"{x:.3f}",
        y=f"{y:.3f}",
        width=f"{width:.3f}",
        height=f"{height:.3f}",
        preserveAspectRatio="none",
    )
    left, right, top, bottom = picture.letters
    places = ((left, 5, 53), (right, 95, 53), (top, 50, 9), (bottom, 50, 97))
    letters = [tag("text", text, x=str(x), y=str(y)) for text, x, y in places if text]
    backdrop = _rectangle(0, 0, 100, 100, "backdrop")
    drawn = tag(
        "svg", tag("title", described), backdrop, image, *letters, viewBox="0 0 100 100", role="img", class_="slice"
    )
    return tag("figure", drawn, tag("figcaption", f"{picture.title}, {picture.axis}={picture.index}"))


def _histogram(shown: Shown) -> Html:
    if not shown.counts:
        return joined("")
    most, width = max(shown.counts), 1000 / len(shown.counts)
    shapes = []
    for number, count in enumerate(shown.counts):
        height = 100 * math.sqrt(count / most)  # the root, as background would dwarf the rest
        shapes.append(_rectangle(number * width, 100 - height, width * 0.9, height, "c1"))
    low, high = shown.ends
    return tag(
        "figure",
        _drawing(1000, 100, "histogram", *shapes),
        tag("figcaption", tag("span", f"{low:.4g}"), tag("span", "height: root of voxels"), tag("span", f"{high:.4g}")),
        class_="spread",
    )


def _drawing(width: int, height: int, kind: str, *shapes: Html) -> Html:
    return tag(
        "svg",
        *shapes,
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        class_=kind,
        aria_hidden="true",
    )


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> Html:
    return tag("rect", x=f"{x:.2f}", y=f"{y:.2f}", width=f"{width:.2f}", height=f"{height:.2f}", class_=kind)
