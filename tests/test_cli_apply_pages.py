"""``volconv apply --report FILE.html``: the same facts as the JSON, in a page that harms nobody."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from browser import chromium, needs_chromium, shown
from command import ANISO, NUCLEI, ROOT, make_nifti, names, noise, read, volconv
from volconv.io import ArraySource, Region, open_volume
from volconv_cli import page
from volconv_cli.page import pictures
from volconv_cli.page.html import Html, tag
from volconv_cli.page.pictures import Thinned, png, shown_of
from watched import watched

#: All that a page is made of.
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "section", "div", "h1", "h2", "h3", "h4", "p", "a"),
    *("table", "thead", "tbody", "tr", "th", "td", "ul", "li", "dl", "dt", "dd", "pre", "code", "b", "span", "data"),
    *("svg", "rect", "image", "text", "figure", "figcaption", "wbr", "br"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("THREADS", "MEMORY"):
        monkeypatch.delenv(f"VOLCONV_{name}", raising=False)


class Page(HTMLParser):
    """What stands in a page: values with their keys, by run; text; tags; pictures; commands."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.commands, self.formulas = set(), [], [], []
        self.values, self.text, self._open, self._run = {}, "", [], 1
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, name, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes)
        assert not [key for key in found if key.startswith("on") or key == "style"]
        self.tags.add(name)
        self.addresses += [found[key] for key in ("href", "src") if key in found]
        if found.get("id", "").startswith("run-"):
            self._run = int(found["id"].removeprefix("run-"))
        if name not in ("meta", "wbr", "br"):
            self._open.append((name, found, len(self.text)))

    def handle_endtag(self, name):
        opened, found, start = self._open.pop()
        assert opened == name
        text = self.text[start:]
        if name == "data":
            values = self.values.setdefault(self._run, {})
            values[found["data-key"]] = (json.loads(found["value"]), text)
        elif name == "pre":
            self.commands.append(text)
        elif name == "li" and "floor" in text:
            self.formulas.append(text)

    def handle_data(self, text):
        self.text += text


def run_page(capsys, *arguments, code=0):
    """The page of a call, and the runs of its JSON."""
    volconv("apply", *arguments, "--report", "r.html", "--json", "-q", code=code)
    return Page(Path("r.html").read_text()), json.loads(capsys.readouterr().out)["runs"]


def looked_up(run, key):
    for part in key.split("."):
        run = run[int(part)] if isinstance(run, list) else run[part]
    return run


UNITS = {
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "ms": 1e-3,
    "s": 1,
    "%": 0.01,
}


def says(text, value):
    """Whether what is read is the number, to the digits shown (rounded up, where it is memory)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    number, unit = re.fullmatch(r"(-?[\d.,]+(?:e[-+]\d+)?) ?(%|[a-zA-Z]*)", text).groups()
    shown = float(number.replace(",", "")) * UNITS.get(unit, 1)
    slack = UNITS[unit] if unit in "KMG" and unit else 0.006 * abs(value) + (5e-4 if unit == "%" else 0)
    return math.isclose(shown, value, rel_tol=0, abs_tol=slack)


def leaves(value, key=""):
    """Keys of all that JSON holds; a list counts as one."""
    if isinstance(value, dict) and value:
        return [leaf for name, inner in value.items() for leaf in leaves(inner, f"{key}.{name}" if key else name)]
    return [key]


#: Keys that a page leaves out, or tells as text.
ELSEWHERE = {"status", "inputs", "output", "plan.spool.folder", "plan.traffic.in_turn", "plan.block_shape"}
ELSEWHERE |= {"plan.item_groups", "plan.item_shape", "plan.gpu_memory", "parameters.flip_kernel", "device", "roi"}
ELSEWHERE |= {"parameters.padding_value", "parameters.weight_layout", "activation", "reduce", "mask", "outside", "bias"}
ELSEWHERE |= {"roi.size", "counts", "seconds", "peak_memory", "notes"}

CASES = {
    "strided": ("a.nii", "-k", "box:size=3", "--stride", "2,1,3", "--padding", "1,0,2", "--dilation", "2,1,1"),
    "same": (ANISO, "-k", "gaussian:fwhm=4mm", "--padding", "same", "--dtype", "same"),
    "region": ("a.nii", "-k", "box:size=2", "--stride", "2", "--roi", "2:8,:,4:9"),
    "reduced": ("a.nii", "-k", "sobel", "--padding", "same", "--reduce", "norm"),
    "masked": (
        "a.nii",
        "-k",
        "box:size=3",
        "--padding",
        "same",
        "--mask",
        "a.nii",
        "--outside",
        "-7",
        "--nan",
        "ignore",
    ),
    "tiff": (NUCLEI, "-k", "laplacian", "--padding", "1", "--activation", "abs", "--spacing", "1,0.3,0.3um"),
    "bias": ("a.nii", "-k", "identity", "-b", "2.5", "--dtype", "uint8", "--algorithm", "direct", "--flip-kernel"),
    "series": (ROOT / "tests" / "data" / "small_64D.nii", "-k", "identity", "--time", "3:5"),
    "constant": ("a.nii", "-k", "identity", "--padding", "1", "--padding-value", "nan", "--padding-mode", "zeros"),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_the_json(capsys, case):
    make_nifti("a.nii", noise((13, 12, 11)), np.diag([1, 2, 3.5, 1]))
    found, (run,) = run_page(capsys, *CASES[case], "-o", "o.nii")
    assert found.tags <= TAGS
    assert run["status"] in found.text
    assert f"{' + '.join(run['inputs'])} → {run['output']}" in found.text
    values = found.values[1]
    assert len(values) > 60
    for key, (value, text) in values.items():
        assert value == looked_up(run, key), key
        assert says(text, value), (key, text, value)
    told = {re.sub(r"(\.\d+)+$", "", key) for key in values}
    missing = {key for key in leaves(run) if key not in told} - ELSEWHERE
    assert {key for key in missing if looked_up(run, key) is not None} == set()
    for note in run["notes"]:
        assert note in found.text
    for key in ("activation", "reduce", "bias", "mask"):
        assert (run[key] is not None) == any(told == key or told.startswith(f"{key}.") for told in values)


@pytest.mark.parametrize("case", CASES)
def test_the_formula_filled_in_comes_true(capsys, case):
    make_nifti("a.nii", noise((13, 12, 11)))
    found, (run,) = run_page(capsys, *CASES[case], "-o", "o.nii")
    assert len(found.formulas) == 3
    for axis, text in enumerate(found.formulas):
        letter, formula, result = re.fullmatch(r"([DHW]): floor\((.*)\) \+ 1 = (\d+)", text).groups()
        assert letter == "DHW"[axis]
        assert re.fullmatch(r"[-\d+ ()/·−]*", formula)
        computed = math.floor(eval(formula.replace("−", "-").replace("·", "*"))) + 1  # noqa: S307
        assert computed == int(result)
        if run["roi"] is None:
            assert computed == run["target"]["shape"][2 + axis]


@pytest.mark.parametrize("case", CASES)
def test_the_command_makes_the_same_again(capsys, monkeypatch, case):
    make_nifti("a.nii", noise((13, 12, 11)))
    monkeypatch.setenv("VOLCONV_THREADS", "1")
    monkeypatch.setenv("VOLCONV_MEMORY", "700M")
    found, (run,) = run_page(capsys, *CASES[case], "-o", "o.nii.gz")
    assert "--threads 1 --memory 700M" in found.commands[0]
    monkeypatch.delenv("VOLCONV_THREADS")
    monkeypatch.delenv("VOLCONV_MEMORY")
    program, *words = shlex.split(found.commands[0])
    assert program == "volconv"
    before = Path("o.nii.gz").read_bytes()
    Path("o.nii.gz").unlink()
    volconv(*words, "--json", "-q")
    assert Path("o.nii.gz").read_bytes() == before
    (again,) = json.loads(capsys.readouterr().out)["runs"]
    for key in ("parameters", "kernel", "algorithm", "source", "target"):
        assert again[key] == run[key]


def test_the_command_with_a_config_of_numbers():
    make_nifti("-a.nii", noise())
    Path("my config.toml").write_text("kernel = [[[0, 1, 2]]]\npadding = 1\nstride = 2\nco = {compression = 'zlib'}\n")
    line = ("--config", "my config.toml", "--dtype", "uint8", "-o", "o.tif", "--report", "r.html", "--", "-a.nii")
    volconv("apply", *line)
    words = shlex.split(Page(Path("r.html").read_text()).commands[0])[1:]
    assert words[:2] == ["apply", "./-a.nii"]
    before = Path("o.tif").read_bytes()
    volconv(*words, "-q", "-f")
    assert Path("o.tif").read_bytes() == before


def test_several_inputs(capsys, monkeypatch):
    monkeypatch.setattr(page, "MOST_SHOWN", 1)
    for i in (1, 2):
        make_nifti(f"{i}.nii", noise(seed=i))
    found, runs = run_page(capsys, "1.nii", "gone.nii", "2.nii", "-k", "box:size=3", "-o", "o_{name}", code=1)
    assert "3 files: 2 done, 1 failed" in found.text
    assert [run["status"] for run in runs] == ["done", "failed", "done"]
    for number, run in enumerate(runs, 1):
        values = found.values[number]
        assert all(value == looked_up(run, key) for key, (value, _) in values.items())
        assert f"#run-{number}" in found.addresses
    assert found.values[2]["error.message"][1] == "gone.nii: no such file"
    assert "Slices are shown of 1 files only." in found.text
    assert len([address for address in found.addresses if address.startswith("data:")]) == 6
    assert len(found.commands) == 3
    assert shlex.split(found.commands[2])[2:] == ["2.nii", "--kernel", "box:size=3", "-o", "o_2.nii"]


def test_what_was_skipped_or_left(capsys):
    for i in (1, 2):
        make_nifti(f"{i}.nii", noise(seed=i))
    line = ("-k", "box:size=3", "-o", "o_{name}", "--skip-existing", "-q")
    volconv("apply", "1.nii", "-k", "box:size=3", "-o", "o_1.nii", "-q")
    found, runs = run_page(capsys, "1.nii", "gone.nii", "2.nii", *line, "--fail-fast", code=1)
    assert [run["status"] for run in runs] == ["skipped", "failed", "left"]
    assert "1 skipped, 1 failed, 1 left" in found.text
    assert "Not begun" in found.text
    assert "seconds.total" not in found.values[1]


NASTY = "<img src=x onerror=alert(1)>&\"'\x1b[31m\u202e.nii"


def test_names_cannot_break_a_page(capsys):
    make_nifti("a.nii", noise())
    Path("a.nii").rename(NASTY)
    found, _ = run_page(capsys, NASTY, "gone<script>.nii", "-k", "box:size=3", "-o", "o_{name}", code=1)
    assert found.tags <= TAGS
    assert "<img src=x onerror=alert(1)>&\"'\\x1b[31m\\u202e.nii" in found.text
    assert "gone<script>.nii: no such file" in found.text
    text = Path("r.html").read_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("<script") == 0
    assert "default-src 'none'" in text


def test_names_that_are_no_text():
    name = b"\xff.nii".decode("utf-8", "surrogateescape")
    make_nifti("a.nii", noise())
    try:
        Path("a.nii").rename(name)
    except OSError:
        pytest.skip("this file system takes no such name")
    volconv("apply", name, "-k", "box:size=3", "-o", "o.nii", "--report", "r.html", "-q")
    assert "\\udcff.nii" in Path("r.html").read_text()


def test_a_page_needs_nothing_beside_itself(capsys):
    make_nifti("a.nii", noise())
    found, _ = run_page(capsys, "a.nii", "-k", "box:size=3", "-o", "o.nii")
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in found.addresses)
    style = Path("r.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


# --- pictures


def decoded(address):
    content = base64.b64decode(address.partition(",")[2], validate=True)
    image = Image.open(io.BytesIO(content))
    image.load()
    return np.asarray(image)


def test_pictures_are_slices_of_both_volumes(capsys):
    values = noise((13, 12, 11))
    make_nifti("a.nii", values, np.diag([1, 2, 3, 1]))
    found, _ = run_page(capsys, "a.nii", "-k", "gaussian:sigma=1", "--stride", "2", "--padding", "4", "-o", "o.nii")
    images = [decoded(address) for address in found.addresses if address.startswith("data:")]
    assert len(images) == 6
    for array, three in ((values, images[:3]), (read("o.nii")[0, 0], images[3:])):
        d, h, w = (size // 2 for size in array.shape)
        # As NiiVue and nilearn show them: left on the left, and up is up.
        planes = [array[d][::-1], array[:, h][::-1], array[:, :, w][::-1]]
        low, high = np.percentile(np.concatenate([plane.ravel() for plane in planes]), (0.5, 99.5))
        for plane, image in zip(planes, three):
            expected = np.clip((plane.astype(float) - low) / (high - low), 0, 1) * 255
            assert image.shape == plane.shape
            assert np.abs(image - expected).max() <= 0.5 + 1e-3


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_png_is_read_as_it_was(rows, columns, data):
    grey = np.frombuffer(data.draw(st.binary(min_size=rows * columns, max_size=rows * columns)), np.uint8)
    grey = grey.reshape(rows, columns)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(grey)))), grey)


@given(st.tuples(*[st.integers(1, 30)] * 3), st.integers(1, 12), st.data())
def test_a_thinned_volume_is_every_nth_voxel(shape, most, data):
    array = np.random.default_rng(0).standard_normal((1, 2, *shape)).astype("f4")
    thin = Thinned(ArraySource(array), most)
    assert all(-(-size // step) <= most for size, step in zip(shape, thin.step))
    assert all(step == 1 or -(-size // (step - 1)) > most for size, step in zip(shape, thin.step))
    expected = array[:, :, :: thin.step[0], :: thin.step[1], :: thin.step[2]]
    assert thin.info.shape == expected.shape
    region = Region.whole(expected.shape)
    for axis in range(2, 5):
        start = data.draw(st.integers(0, expected.shape[axis] - 1))
        region = region.along(axis, start, data.draw(st.integers(start + 1, expected.shape[axis])))
    np.testing.assert_array_equal(thin.read(region), expected[region.slices])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif", "a.h5"])
def test_what_is_large_is_thinned_out(monkeypatch, name):
    array = noise((30, 29, 40), "uint16")
    monkeypatch.setattr(pictures, "MOST", 10)
    monkeypatch.setattr(pictures, "_STRIP", 64)
    if name == "a.h5":
        with h5py.File(name, "w") as file:
            file.create_dataset("data", data=array, chunks=(7, 8, 9), compression="gzip")
    elif name == "a.tif":
        tifffile.imwrite(name, array, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"})
    else:
        make_nifti(name, array, np.diag([1, 2, 3, 1]))
    shown = shown_of(lambda: open_volume(name))
    assert "every 3rd,3rd,4th along D,H,W" in shown.note
    assert [(picture.axis, picture.index) for picture in shown.planes] == [("D", 15), ("H", 15), ("W", 20)]
    image = np.asarray(Image.open(io.BytesIO(shown.planes[0].png)))
    plane = array[15, ::3, ::4]
    plane = plane[::-1] if "nii" in name else plane
    expected = np.clip((plane - shown.window[0]) / (shown.window[1] - shown.window[0]), 0, 1) * 255
    assert np.abs(image - expected).max() <= 0.501
    assert sum(shown.counts) == sum(np.asarray(Image.open(io.BytesIO(p.png))).size for p in shown.planes)
    if "nii" in name:
        assert shown.planes[0].extent == (10 * 3 * 2, 10 * 4 * 1)


@pytest.mark.parametrize(
    ("values", "counts", "note"),
    [
        (np.full((4, 5, 6), 7, "f4"), (74,), ""),
        (np.full((4, 5, 6), np.nan, "f4"), (), "74 of 74 voxels shown are not finite (black)."),
        (np.where(np.arange(120).reshape(4, 5, 6) == 100, np.inf, np.float32(3)), None, ""),
        (np.arange(120).reshape(4, 5, 6) * (1 + 1j), None, "The modulus of complex values."),
        ((np.linspace(-1, 1, 120) * 1e308).reshape(4, 5, 6), (74,), ""),
        (np.ones((1, 1, 1), "u1"), (3,), ""),
    ],
)
@pytest.mark.filterwarnings("error")
def test_values_of_every_kind(values, counts, note):
    shown = shown_of(lambda: ArraySource(values[None, None]))
    assert note in shown.note
    assert len(shown.planes) == 3
    assert counts is None or shown.counts == counts


def test_what_is_not_shown_is_told(capsys, monkeypatch):
    make_nifti("a.nii.gz", noise())
    shutil.copy("a.nii.gz", "b.nii.gz")
    found, _ = run_page(capsys, "a.nii.gz", "-k", "box:size=3", "-o", "a.nii.gz", "-f")
    assert "The output took the input's place." in found.text
    monkeypatch.setattr(pictures, "LARGEST_STREAM", 1000)
    found, _ = run_page(capsys, "b.nii.gz", "-k", "box:size=3", "-o", "o.nii", "-f")
    assert "too long to be read again for pictures" in found.text
    assert shown_of(lambda: open_volume("gone.nii")).note.endswith("for pictures: gone.nii: no such file")


def test_a_volume_in_time_with_channels(capsys):
    image = nibabel.Nifti1Image(noise((5, 6, 7, 3)), np.eye(4))
    image.to_filename("t.nii")
    found, _ = run_page(capsys, "t.nii", "-k", "gradient", "--padding", "1", "-o", "o.nii")
    assert "The first of 3 volumes in time." in found.text
    assert "The first of 3 volumes in time and 3 channels." in found.text


# --- the file


def test_a_page_is_written_as_any_report(capsys):
    make_nifti("a.nii", noise())
    line = ["apply", "a.nii", "-k", "box:size=3", "-o", "o.nii", "--report"]
    Path("r.html").write_text("mine")
    volconv(*line, "r.html", code=4)
    assert "r.html: the output already exists" in capsys.readouterr().err
    assert Path("r.html").read_text() == "mine"
    assert names(".") == ["a.nii", "r.html"]
    volconv(*line, "gone/r.html", code=1)
    assert names(".") == ["a.nii", "r.html"]
    volconv(*line, "R.HTM", "-q")
    assert Path("R.HTM").read_text().startswith("<!doctype html>")


def test_elements_escape_what_is_in_them():
    assert tag("a", "<b>", tag("i", "&"), Html("<wbr>"), href="\"'>", class_=None) == (
        '<a href="&quot;&#x27;&gt;">&lt;b&gt;<i>&amp;</i><wbr></a>'
    )


def test_the_bound_on_memory_is_kept():
    """The plane that is shown would take more than is allowed, were it read as a whole."""
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("data", (1, 6000, 6000), "f4", chunks=(1, 1000, 1000))
    line = ("-k", "identity", "-o", "o.h5", "--memory", "256M", "-q", "--report", "r.html")
    run = watched(Path.cwd(), "apply", "a.h5", *line)
    assert (run.code, run.said) == (0, "")
    assert run.peak <= 256 << 20
    assert "every 1st,24th,24th along D,H,W" in Path("r.html").read_text()


# --- as a browser shows it


@pytest.mark.slow
@needs_chromium
def test_a_browser_shows_it(capsys):
    make_nifti("a.nii", noise((13, 12, 11)), np.diag([1, 2, 3.5, 1]))
    long = f"{'a-long-name' * 12}.nii"
    shutil.copy("a.nii", long)
    line = ("-k", "sobel", "--padding", "same", "--spacing", "1.23456789um", "-o", "o_{name}")
    _, runs = run_page(capsys, "a.nii", long, NASTY, *line, code=1)
    with chromium() as browser:
        for width in (1200, 800, 375, 320):
            for scheme in ("light", "dark"):
                with shown(browser, Path("r.html"), width, scheme=scheme) as sheet:
                    # Nothing is wider than the window, nor leaves the element that it stands in.
                    assert sheet.evaluate("document.documentElement.scrollWidth") == width
                    wide = "e => e.getBoundingClientRect().right > innerWidth + 1"
                    every = f"[...document.querySelectorAll('body *')].filter({wide})"
                    assert sheet.evaluate(f"{every}.map(e => e.outerHTML.slice(0, 200))") == []
                    ink, paper = (_luminance(sheet, what) for what in ("color", "backgroundColor"))
                    assert (ink < 0.15 < 0.9 < paper) if scheme == "light" else (paper < 0.15 < 0.8 < ink)
        with shown(browser, Path("r.html"), 320, scheme="dark") as sheet:
            values = sheet.evaluate(
                "[...document.querySelectorAll('data')]"
                ".map(e => [e.closest('section').id, e.dataset.key, e.value, e.innerText])"
            )
            assert len(values) > 150
            for section, key, value, text in values:
                expected = looked_up(runs[int(section.removeprefix("run-")) - 1], key)
                assert json.loads(value) == expected
                assert says(text, expected), (key, text, expected)
            images = "[...document.querySelectorAll('image')]"
            assert sheet.evaluate(f"Promise.all({images}.map(i => i.decode())).then(all => all.length)") == 12
            sizes = sheet.evaluate(f"{images}.map(i => i.getBoundingClientRect()).map(r => [r.width, r.height])")
            assert all(width > 10 and height > 10 for width, height in sizes)
        with shown(browser, Path("r.html"), 800, scheme="dark", media="print") as sheet:
            assert _luminance(sheet, "backgroundColor") > 0.99
            assert _luminance(sheet, "color") < 0.01
            assert sheet.evaluate("document.querySelector('section').id") == ""
            sheet.pdf(path="r.pdf", format="A4")
            assert Path("r.pdf").read_bytes().startswith(b"%PDF")


def _luminance(sheet, what):
    """Of the page's colour, from 0 to 1, gamma left alone."""
    colour = sheet.evaluate(f"getComputedStyle(document.body).{what}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765
