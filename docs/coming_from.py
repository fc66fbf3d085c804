"""What other tools' Gaussians are in volconv, and how far apart the results are: the table of docs/coming-from.md.

``python docs/coming_from.py`` runs every pair of commands that can be run here and prints the table; ``--write`` puts
it into the page. tests/test_coming_from.py runs the same pairs and holds them to the limits given here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parent
BRAIN = DOCS.parent / "sample_data" / "mni152_t1.nii.gz"
#: Where Debian's package `imagej` puts it.
IMAGEJ = Path("/usr/share/java/ij.jar")
#: A box that cuts through the brain on all six sides, so that there is something at every border.
BOX = "50:130,60:170,50:150"
#: Sigma is 2 mm, voxels are of 1 mm: outputs that are farther than this from every face see no padding.
REACH = 10


@dataclass(frozen=True)
class Row:
    """One command of another tool, and what does the same in volconv."""

    tool: str
    theirs: str
    ours: str  #: options of ``volconv apply``
    run: Callable[[Path, Path], Any] | None  #: (folder with head.nii and head.tif, output) -> voxels (D,H,W), or None
    limit: float  #: on the largest difference over the range of the input
    note: str = ""


def _scipy(mode: str) -> Callable[[Path, Path], Any]:
    def run(folder: Path, _: Path) -> Any:
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(load(folder / "head.nii"), 2, mode=mode)

    return run


def _itk(name: str, *arguments: float) -> Callable[[Path, Path], Any]:
    def run(folder: Path, _: Path) -> Any:
        import SimpleITK as sitk  # noqa: N813

        return sitk.GetArrayFromImage(getattr(sitk, name)(sitk.ReadImage(str(folder / "head.nii")), *arguments))

    return run


def _mrtrix(option: str, value: str) -> Callable[[Path, Path], Any]:
    def run(folder: Path, output: Path) -> Any:
        subprocess.run(
            ["mrfilter", folder / "head.nii", "smooth", option, value, output, "-force", "-quiet"], check=True
        )
        return load(output)

    return run


def _imagej(folder: Path, output: Path) -> Any:
    """Run the plugin behind Process > Filters > Gaussian Blur 3D... in a process of its own, which Java would keep."""
    import tifffile

    target = output.with_suffix(".tif")
    program = f"""
import os, jpype
jpype.startJVM("-Djava.awt.headless=true", classpath=[{str(IMAGEJ)!r}])
image = jpype.JClass("ij.io.Opener")().openImage({str(folder / "head.tif")!r})
jpype.JClass("ij.plugin.GaussianBlur3D").blur(image, 2.0, 2.0, 2.0)
jpype.JClass("ij.io.FileSaver")(image).saveAsTiff({str(target)!r})
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    return tifffile.imread(target)


SCIPY_MODES = {
    "reflect": "symmetric",
    "mirror": "reflect",
    "nearest": "replicate",
    "wrap": "circular",
    "constant": "zeros",
}
PLAIN = "-k gaussian:sigma=2mm --padding same --padding-mode replicate"
RENORMALISED = "--padding same --mask ones.nii.gz"
SAME = 1e-6  #: float32 results of another order of sums
ROWS = [
    Row(
        "FSL",
        "fslmaths in -s 2 out",
        f"-k gaussian:sigma=2mm {RENORMALISED}",
        None,
        SAME,
        "by its source: up to 4 sigmas, rounded up; at the border divided by the weights that are inside",
    ),
    Row(
        "MRtrix3",
        "mrfilter in smooth -stdev 2 out",
        f"-k gaussian:sigma=2mm,truncate=2 {RENORMALISED}",
        _mrtrix("-stdev", "2"),
        SAME,
        "stops at ceil(2.5 sigma) - 1 voxels, here 2 sigmas; at the border divided by the weights that are inside",
    ),
    Row(
        "MRtrix3",
        "mrfilter in smooth -fwhm 6 out",
        f"-k gaussian:fwhm=6mm,truncate=2.3 {RENORMALISED}",
        _mrtrix("-fwhm", "6"),
        1e-5,
        "6 voxels, here 2.36 sigmas; a FWHM is taken for 2.3548 sigmas, rounded",
    ),
    Row(
        "Convert3D",
        "c3d in -smooth 2mm -o out",
        PLAIN,
        None,
        0.02,
        "by its source it is ITK's DiscreteGaussian, below; `-smooth 2vox` is `sigma=2`",
    ),
    Row(
        "SimpleITK",
        "DiscreteGaussian(in, 4.0)",
        PLAIN,
        _itk("DiscreteGaussian", 4.0),
        0.02,
        "takes the variance; the discrete Gaussian of Lindeberg, cut off where 1 % is missing: another kernel",
    ),
    Row(
        "SimpleITK",
        "SmoothingRecursiveGaussian(in, 2.0)",
        PLAIN,
        _itk("SmoothingRecursiveGaussian", 2.0),
        5e-3,
        "Deriche's recursive filter, which approximates a Gaussian",
    ),
    *(
        Row(
            "SciPy",
            f'gaussian_filter(in, 2, mode="{theirs}")',
            f"-k gaussian:sigma=2 --padding same --padding-mode {ours}",
            _scipy(theirs),
            SAME,
            "the default" if theirs == "reflect" else "",
        )
        for theirs, ours in SCIPY_MODES.items()
    ),
    Row(
        "ImageJ",
        "Gaussian Blur 3D... x=2 y=2 z=2",
        "-k gaussian:sigma=2,truncate=4.5 --padding same --padding-mode replicate",
        _imagej,
        SAME,
        "of 32-bit images; sigmas in voxels; above a sigma of 8.5 it works on reduced lines, and differs more",
    ),
]


def load(path: Path) -> Any:
    """Voxels of a NIfTI file, (D,H,W), float32."""
    return nibabel.load(path).get_fdata(dtype=np.float32).T


def missing(row: Row) -> str | None:
    """Why this pair cannot be run here, or None."""
    if row.run is None:
        return "not run: cannot be had from Debian or PyPI"
    if row.tool == "MRtrix3" and shutil.which("mrfilter") is None:
        return "mrfilter is not installed (Debian: mrtrix3)"
    if row.tool == "ImageJ" and (not IMAGEJ.exists() or find_spec("jpype") is None):
        return "ImageJ (Debian: imagej) or jpype1 is not installed"
    module = {"SimpleITK": "SimpleITK", "SciPy": "scipy"}.get(row.tool)
    return f"{row.tool} is not installed" if module and find_spec(module) is None else None


def volconv(*arguments: str | Path) -> None:
    """Run the command."""
    subprocess.run([Path(sys.executable).parent / "volconv", *map(str, arguments), "-q"], check=True)


def prepare(folder: Path) -> None:
    """Make head.nii, head.tif and a mask of ones, all by volconv."""
    volconv("apply", BRAIN, "-k", "identity", "--roi", BOX, "--dtype", "float32", "-o", folder / "head.nii")
    volconv("convert", folder / "head.nii", folder / "head.tif")
    (folder / "ones.toml").write_text('kernel = [[[0]]]\nbias = 1\ndtype = "uint8"\n')
    volconv("apply", folder / "head.nii", "--config", folder / "ones.toml", "-o", folder / "ones.nii.gz")


def differences(row: Row, folder: Path) -> tuple[float, float]:
    """Largest difference inside and at the border, over the range of the input's values."""
    assert row.run is not None
    options = [str(folder / part) if part == "ones.nii.gz" else part for part in row.ours.split()]
    volconv("apply", folder / "head.nii", *options, "-o", folder / "ours.nii", "-f")
    apart = np.abs(load(folder / "ours.nii") - row.run(folder, folder / "theirs.nii")) / np.ptp(
        load(folder / "head.nii")
    )
    inside = (slice(REACH, -REACH),) * 3
    largest = float(apart[inside].max())
    apart[inside] = 0
    return largest, float(apart.max())


def table(folder: Path) -> str:
    """The table, in Markdown."""
    lines = ["| tool | there | `volconv apply in -o out` and | inside | border | |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        why = missing(row)
        numbers = ("not run", "not run") if why else tuple(f"{d:.0e}" for d in differences(row, folder))
        lines.append(f"| {row.tool} | `{row.theirs}` | `{row.ours}` | {numbers[0]} | {numbers[1]} | {row.note} |")
    return "\n".join([*lines, "", f"Ran: {', '.join(versions())}."])


def versions() -> list[str]:
    """What is installed here of the tools that are compared."""
    modules = {"volconv": "volconv", "scipy": "SciPy", "SimpleITK": "SimpleITK"}
    found = [f"{name} {version(name)}" for module, name in modules.items() if find_spec(module)]
    if shutil.which("mrfilter"):
        said = subprocess.run(["mrfilter", "-version"], capture_output=True, text=True, check=True).stdout
        found.append(f"MRtrix3 {said.split()[2]}")
    if IMAGEJ.exists() and shutil.which("dpkg-query"):  # the jar's own name is not that of its version
        said = subprocess.run(["dpkg-query", "-W", "imagej"], capture_output=True, text=True, check=True).stdout
        found.append(f"ImageJ {said.split()[1].split('-')[0]}")
    return found


def main() -> None:
    """Print the table, or write it into the page."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        text = table(Path(name))
    if "--write" not in sys.argv:
        print(text)
        return
    page = DOCS / "coming-from.md"
    before, rest = page.read_text(encoding="utf-8").split("<!-- table: docs/coming_from.py --write -->\n")
    after = rest.split("<!-- end -->", 1)[1]
    page.write_text(
        f"{before}<!-- table: docs/coming_from.py --write -->\n{text}\n<!-- end -->{after}", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
