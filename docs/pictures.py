"""Make the pictures of the pages: ``python docs/pictures.py [FOLDER]`` (docs/img if not said; pip install '.[docs]').

What is drawn was computed by volconv: small arrays with ``volconv.conv3d``, files with the command.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel
import numpy as np
import tifffile
from PIL import Image

import volconv

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle

DOCS = Path(__file__).parent
SAMPLES = DOCS.parent / "sample_data"
INK, PALE, TEAL, ORANGE = "#22313f", "#eef1f4", "#1d8a8a", "#e8833a"
plt.rcParams |= {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
}


def cell(axes: Any, x: float, y: float, text: str, face: str, ink: str = INK, size: float = 1.0, **more: Any) -> None:
    """Draw one voxel, x and y being its middle."""
    axes.add_patch(Rectangle((x - size / 2, y - size / 2), size, size, facecolor=face, edgecolor="white", lw=1.5))
    axes.text(x, y, text, ha="center", va="center", color=ink, **more)


def frame(axes: Any, width: float, height: float) -> None:
    """Voxels are square, row 0 is on top, and there are no axes."""
    axes.set(xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6), aspect="equal")
    axes.axis("off")


def padding(path: Path) -> None:
    """Every padding mode around a slice of 3x4 voxels."""
    slice_ = np.arange(1.0, 13.0, dtype=np.float32).reshape(1, 1, 1, 3, 4)
    modes = ["zeros", "replicate", "symmetric", "reflect", "circular"]
    figure, several = plt.subplots(2, 3, figsize=(9.6, 6.9))
    explained = [
        "or --padding-value",
        "the edge voxel again and again",
        "a mirror behind the edge voxel",
        "a mirror in the edge voxel",
        "the other end",
    ]
    for axes, mode, text in zip(several.flat, modes, explained, strict=False):
        padded = volconv.conv3d(slice_, np.ones((1, 1, 1, 1, 1), np.float32), padding=(0, 2, 2), padding_mode=mode)
        for (y, x), value in np.ndenumerate(padded[0, 0, 0]):
            inside = 2 <= y < 5 and 2 <= x < 6
            cell(axes, x, y, f"{value:g}", TEAL if inside else PALE, "white" if inside else INK)
        frame(axes, 8, 7)
        axes.set_ylim(6.6, -2.1)
        axes.text(3.5, -1.75, mode, ha="center", va="center", fontsize=11, weight="bold")
        axes.text(3.5, -1.05, text, ha="center", va="center", fontsize=8.5, color="#5c6b78")
    last = several.flat[5]
    last.axis("off")
    last.text(0.5, 0.62, "a slice of 3 x 4 voxels", ha="center", color=TEAL, weight="bold", transform=last.transAxes)
    last.text(0.5, 0.48, "and what 2 voxels of padding\nadd on every side", ha="center", va="center",
              transform=last.transAxes)  # fmt: skip
    save(figure, path)


def dilation(path: Path) -> None:
    """Which voxels a kernel of 3x3 sees."""
    figure, several = plt.subplots(1, 3, figsize=(9.6, 3.6))
    for axes, step in zip(several, (1, 2, 3), strict=True):
        point = np.zeros((1, 1, 1, 9, 9), np.float32)
        point[..., 4, 4] = 1
        seen = volconv.conv3d(point, np.ones((1, 1, 1, 3, 3), np.float32), padding="same", dilation=step)[0, 0, 0]
        for (y, x), value in np.ndenumerate(seen):
            cell(axes, x, y, "", TEAL if value else PALE)
        reach = 2 * step + 1
        corner = 4 - step - 0.5
        axes.add_patch(Rectangle((corner, corner), reach, reach, fill=False, edgecolor=ORANGE, lw=2.5))
        axes.plot(4, 4, "o", color="white", ms=6)
        frame(axes, 9, 9)
        axes.set_title(f"dilation {step}")
        axes.text(4, 9.1, f"{step} * (3 - 1) + 1 = {reach} wide", ha="center", va="center", color=ORANGE)
    save(figure, path)


def stride(path: Path) -> None:
    """Where outputs lie, and what they are means of."""
    values = np.add.outer(np.arange(6), np.arange(6)).astype(np.float32)
    figure, several = plt.subplots(1, 4, figsize=(11, 3.1))
    shades = mpl.colormaps["GnBu"].resampled(256)

    def draw(axes: Any, y: float, x: float, value: float, size: float) -> None:
        cell(axes, x, y, f"{value:g}", shades(0.15 + 0.75 * value / 10), "white" if value > 5 else INK, size)

    for (y, x), value in np.ndenumerate(values):
        draw(several[0], y, x, value, 1)
    several[0].set_title("input, 6 x 6")
    for axes, step in zip(several[1:], (1, 2, 3), strict=True):
        mean = np.full((1, 1, 1, 2, 2), 0.25, np.float32)
        result = volconv.conv3d(values[None, None, None], mean, stride=(1, step, step))[0, 0, 0]
        for (y, x), value in np.ndenumerate(result):
            draw(axes, 0.5 + y * step, 0.5 + x * step, value, step)
        for corner in (0, step)[: 1 if step == 1 else 2]:  # windows that overlap are hard to tell apart
            axes.add_patch(
                Rectangle((corner - 0.47, -0.47), 1.94, 1.94, fill=False, edgecolor=ORANGE, lw=2, ls=(0, (3, 2)))
            )
        axes.set_title(f"stride {step}: {result.shape[0]} x {result.shape[1]}")
    for axes in several:
        frame(axes, 6, 6)
        axes.set(xlim=(-1.2, 6.2), ylim=(6.2, -1.2))
        axes.add_patch(Rectangle((-0.5, -0.5), 6, 6, fill=False, edgecolor="#9aa7b1", lw=1, ls=":"))
    save(figure, path)


def groups(path: Path) -> None:
    """Which input channels an output channel is made of."""
    figure, several = plt.subplots(1, 3, figsize=(9.6, 3.6))
    for axes, number in zip(several, (1, 2, 4), strict=True):
        weight = np.ones((4, 4 // number, 1, 1, 1), np.float32)
        for channel in range(4):
            one = np.zeros((1, 4, 1, 1, 1), np.float32)
            one[0, channel] = 1
            for output in np.flatnonzero(volconv.conv3d(one, weight, groups=number)):
                colour = [TEAL, ORANGE, "#7b5ea7", "#4a7ebb"][int(output) * number // 4]
                line = FancyArrowPatch((0.55, channel), (3.45, output), arrowstyle="-|>", mutation_scale=10,
                                       color=colour, lw=1.6)  # fmt: skip
                axes.add_patch(line)
        for channel in range(4):
            cell(axes, 0, channel, str(channel), PALE, size=0.8)
            cell(axes, 4, channel, str(channel), PALE, size=0.8)
        axes.set(xlim=(-0.8, 4.8), ylim=(3.7, -1.1), aspect="equal")
        axes.axis("off")
        axes.text(0, -0.85, "in", ha="center")
        axes.text(4, -0.85, "out", ha="center")
        axes.set_title(f"groups {number}" + (": depthwise" if number == 4 else ""))
    save(figure, path)


def filters(path: Path) -> None:
    """The sample brain before and after."""
    source = SAMPLES / "mni152_t1.nii.gz"
    same = ["--padding", "same", "--padding-mode", "replicate"]
    with tempfile.TemporaryDirectory() as name:
        smooth, edges = Path(name, "smooth.nii"), Path(name, "edges.nii")
        run("apply", source, "-k", "gaussian:fwhm=6mm", *same, "-o", smooth)
        run("apply", source, "-k", "sobel", *same, "--reduce", "norm", "-o", edges)
        volumes = [nibabel.load(file).get_fdata(dtype=np.float32) for file in (source, smooth, edges)]
    titles = ["before", "gaussian:fwhm=6mm", "sobel, --reduce norm"]
    show_slices(path, [np.rot90(volume[:, :, 95]) for volume in volumes], titles, [255, 255, None])


def nuclei(path: Path) -> None:
    """The sample stack smoothed as a whole, and each label by itself."""
    source = SAMPLES / "nuclei.tif"
    same = ["--padding", "same", "--padding-mode", "replicate"]
    with tempfile.TemporaryDirectory() as name:
        blobs, mask, whole, each = (Path(name, f"{file}.tif") for file in ("blobs", "labels", "whole", "each"))
        run("apply", source, "-k", "log:sigma=3", *same, "-o", blobs)
        labels = np.where(tifffile.imread(blobs) < -2, 2, 1).astype(np.uint8)
        tifffile.imwrite(mask, labels, metadata={"axes": "ZYX"})
        run("apply", source, "-k", "gaussian:sigma=2", *same, "-o", whole)
        run("apply", source, "-k", "gaussian:sigma=2", "--padding", "same", "--mask", mask, "-o", each)
        images = [tifffile.imread(file)[12].astype(float) for file in (source, whole, each)]
    titles = ["before, and labels", "gaussian:sigma=2", "with --mask labels.tif"]
    figure, several = plt.subplots(1, 3, figsize=(9, 3.35))
    for axes, image, title in zip(several, images, titles, strict=True):
        axes.imshow(image, cmap="gray", vmin=np.percentile(images[0], 1), vmax=np.percentile(images[0], 99.8))
        axes.contour(labels[12], levels=[1.5], colors=[ORANGE], linewidths=0.8)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    save(figure, path, 80)


def view(path: Path) -> None:
    """What ``volconv view`` shows of the sample brain, and of it smoothed."""
    source = SAMPLES / "mni152_t1.nii.gz"
    with tempfile.TemporaryDirectory() as name:
        smooth, shown = Path(name, "brain_6mm.nii.gz"), Path(name, "view.png")
        run(
            "apply", source, "-k", "gaussian:fwhm=6mm", "--padding", "same", "--padding-mode", "replicate", "-o", smooth
        )
        run("view", source, smooth, "--at", "20,-3,10mm", "-o", shown)
        image = Image.open(shown).convert("RGB")
        image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS).save(path, optimize=True)


def show_slices(path: Path, images: list[Any], titles: list[str], tops: list[float | None]) -> None:
    """Slices side by side, in grey."""
    height, width = images[0].shape
    figure, several = plt.subplots(1, len(images), figsize=(9, 9 / len(images) * height / width + 0.35))
    for axes, image, title, top in zip(several, images, titles, tops, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=top or float(np.percentile(image, 99.5)))
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    save(figure, path, 75)


def run(*arguments: Any) -> None:
    """Run the command."""
    subprocess.run([Path(sys.executable).parent / "volconv", *map(str, arguments), "-q"], check=True)


def save(figure: Any, path: Path, dpi: int = 100) -> None:
    """Write a picture: the same bytes for the same matplotlib."""
    figure.tight_layout(pad=0.6)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Make all of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "img"
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (padding, dilation, stride, groups, filters, nuclei, view):
        path = folder / f"{picture.__name__}.png"
        picture(path)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
