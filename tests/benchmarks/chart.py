"""The speedups as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from table import times

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from page import Results

MET, MISSED, INK, GREY, FAINT = "#2a7f8e", "#d98b3a", "#222222", "#707070", "#dddddd"
#: Saved at twice this resolution: a page shows the 9 inches at 900 px.
DPI = 100


@dataclass(frozen=True)
class Bar:
    """One row: how many times faster than whom, and the target."""

    label: str
    ratio: float
    target: float
    peer: str
    headline: bool = False


def draw(results: Results, path: Path) -> None:
    """Write a PNG: a bar a row, as long as the speedup, with a tick at the target."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    arrays, processes = _array_bars(results), _process_bars(results)
    bars = arrays + processes
    if not bars:
        return
    gap = 1.6 if arrays and processes else 0
    places = [i if i < len(arrays) else i + gap for i in range(len(bars))]

    plt.rcParams.update({"font.size": 9, "text.color": INK, "ytick.color": INK, "xtick.color": GREY})
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.24 * (places[-1] + 1)), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(rect=(0.01, 0.01, 0.98, 0.94))  # room for the legend
    right = axes.get_yaxis_transform()  # x in parts of the width, y in rows
    for place, bar in zip(places, bars, strict=True):
        axes.barh(place, bar.ratio - 1, left=1, height=0.64, color=MET if bar.ratio >= bar.target else MISSED)
        axes.plot([bar.target] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=2, solid_capstyle="butt")
        weight = "bold" if bar.headline else "normal"
        axes.text(1.09, place, times(bar.ratio), transform=right, ha="right", va="center", fontweight=weight)
        axes.text(1.11, place, bar.peer, transform=right, ha="left", va="center", color=GREY)
    axes.set_yticks(places, [bar.label for bar in bars])
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.headline else "normal")
    axes.set_ylim(places[-1] + 0.6, -0.6)
    if gap:
        axes.text(-0.015, len(arrays) + 0.45, "whole processes", transform=right, ha="right", va="center", color=GREY)
    axes.text(1.09, -1.1, "faster", transform=right, ha="right", va="center", color=GREY)
    axes.text(1.11, -1.1, "than", transform=right, ha="left", va="center", color=GREY)
    _scale(axes, bars)
    _legend(figure)
    figure.savefig(path, dpi=2 * DPI, facecolor="white")
    plt.close(figure)


def _array_bars(results: Results) -> list[Bar]:
    return [
        Bar(
            _pretty(x.workload.name),
            x.speedup.ratio,
            x.workload.target or 1,
            x.judge.replace("volconv of ", "on ").replace(" SmoothingRecursiveGaussian", ""),
            x.workload.headline,
        )
        for x in results.layers
    ]


def _process_bars(results: Results) -> list[Bar]:
    return [
        Bar(_pretty(p.job.name), p.ratio, p.job.target, p.judge.removeprefix("nibabel, ")) for p in results.processes
    ]


def _pretty(name: str) -> str:
    return name.replace("->", "→").replace("^3", "³")


def _scale(axes: Axes, bars: list[Bar]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    lowest = min(0.9, *(bar.ratio * 0.9 for bar in bars))
    highest = max(max(bar.ratio, bar.target) for bar in bars) * 1.1
    steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    axes.set_xscale("log")
    axes.set_xlim(lowest, highest)
    axes.xaxis.set_major_locator(FixedLocator([s for s in steps if lowest <= s <= highest]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.tick_params(length=0)
    axes.set_frame_on(False)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    tick = Line2D([], [], color=INK, marker="|", markersize=10, markeredgewidth=2, linestyle="none")
    figure.suptitle(
        "How many times faster volconv is", x=0.018, y=0.985, ha="left", va="top", fontsize=12, fontweight="bold"
    )
    figure.legend(
        [Patch(color=MET), Patch(color=MISSED), tick],
        ["target met", "target missed", "target"],
        loc="upper right",
        bbox_to_anchor=(0.99, 0.99),
        ncols=3,
        frameon=False,
        handlelength=1.2,
    )
