"""Pages of ``volconv view`` in a real, headless Chromium."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest

from browser import chromium, needs_chromium
from browser import shown as loaded
from command import ROOT, make_nifti, noise, volconv
from niftifiles import OBLIQUE

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@contextmanager
def shown(*page):
    """A page that is ready."""
    with loaded(*page) as opened:
        opened.wait_for_selector("html[data-state]", timeout=120_000)
        assert opened.get_attribute("html", "data-state") == "ready", opened.inner_text("#failure")
        yield opened


def live(page):
    """The table below the slices: a row of cells for each volume."""
    rows = page.locator("#live tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def drawn(page):
    """Each canvas as grey values."""
    import io

    from matplotlib import image

    return [
        image.imread(io.BytesIO(canvas.screenshot()))[..., :3].mean(axis=-1) for canvas in page.locator("canvas").all()
    ]


def facts_of(capsys, *arguments):
    volconv("view", *arguments, "--json", "-q")
    return json.loads(capsys.readouterr().out)


def test_numbers_are_those_of_the_json(browser, capsys, tmp_path):
    affine = OBLIQUE @ np.diag([4, 4, 1, 1])
    make_nifti("a.nii", noise((12, 30, 40), "uint8"), affine)
    make_nifti("b.nii", noise((12, 30, 40), "float32", seed=1), affine)
    facts = facts_of(capsys, "a.nii", "b.nii", "-o", "page.html", "--at", "11,7,5", "--window", "20,180")
    with shown(browser, tmp_path / "page.html") as page:
        rows = live(page)
        assert [row[0] for row in rows] == ["a.nii", "b.nii", "difference"]
        values = [*(volume["value"] for volume in facts["volumes"]), facts["difference"]["value"]]
        assert [float(row[1]) for row in rows] == values
        assert [row[2] for row in rows] == ["11,7,5"] * 3
        world = [[float(v) for v in row[3].split(",")] for row in rows]
        np.testing.assert_allclose(world, [facts["volumes"][0]["world"]] * 3, rtol=1e-4)
        assert [page.input_value("#low"), page.input_value("#high")] == ["20", "180"]
        ends = page.locator(".colours span").all_inner_texts()
        limit = facts["difference"]["largest_in_slices"]
        assert [float(end) for end in ends] == [20, 180, 20, 180, -limit, limit]
        assert f"{limit:g}" in page.inner_text("#largest")


def test_canvases_are_not_blank_and_the_window_is_that_of_all(browser, capsys, tmp_path):
    brain = ROOT / "sample_data" / "mni152_t1.nii.gz"
    facts_of(capsys, brain, brain, "-o", "page.html")
    with shown(browser, tmp_path / "page.html") as page:
        one, other, difference = drawn(page)
        for canvas in (one, other):
            assert canvas.std() > 0.1
            assert len(np.unique(canvas.round(3))) > 100
        assert abs(one.mean() - other.mean()) < 0.01
        assert difference.mean() < 0.05  # none, but for the crosshair
        page.fill("#high", "1000")
        page.wait_for_timeout(500)
        darker = drawn(page)
        assert darker[0].mean() < 0.6 * one.mean()
        assert abs(darker[0].mean() - darker[1].mean()) < 0.01


def test_a_click_moves_the_crosshair_of_all(browser, capsys, tmp_path):
    affine = np.diag([-1, 1, 2, 1])
    arrays = [noise((30, 40, 50), "uint8", seed=seed) for seed in (0, 1)]
    for name, array in zip("ab", arrays):
        make_nifti(f"{name}.nii", array, affine)
    facts_of(capsys, "a.nii", "b.nii", "-o", "page.html")
    with shown(browser, tmp_path / "page.html") as page:
        before = live(page)
        page.locator("canvas").first.click(position={"x": 60, "y": 60})
        page.wait_for_timeout(500)
        after = live(page)
        assert after[0][2] != before[0][2]
        assert len({row[2] for row in after}) == len({row[3] for row in after}) == 1
        x, y, z = (int(v) for v in after[0][2].split(","))
        a, b = (int(array[z, y, x]) for array in arrays)
        assert [float(row[1]) for row in after] == [a, b, b - a]


def test_a_stack_and_its_half_lie_at_one_place(browser, capsys, tmp_path):
    stack = ROOT / "sample_data" / "nuclei.tif"
    volconv("apply", stack, "-k", "box:size=3", "--stride", "3", "-o", "small.h5", "-q", "--spacing", "1,0.5,0.5um")
    volconv("apply", stack, "-k", "identity", "-o", "whole.h5", "-q", "--spacing", "1,0.5,0.5um")
    facts = facts_of(capsys, "whole.h5", "small.h5", "-o", "page.html", "--at", "31,22,10")
    with shown(browser, tmp_path / "page.html") as page:
        rows = live(page)
        assert [row[2] for row in rows] == ["31,22,10", "10,7,3"]
        np.testing.assert_allclose(
            [float(row[1]) for row in rows], [volume["value"] for volume in facts["volumes"]], rtol=1e-6
        )
        assert "µm" in page.inner_text(".bar >> nth=0")


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, capsys, tmp_path):
    make_nifti("a.nii", noise((20, 30, 40), "uint8"))
    make_nifti("b.nii", noise((20, 30, 40), "uint8", seed=1))
    facts_of(capsys, "a.nii", "b.nii", "-o", "page.html")
    with shown(browser, tmp_path / "page.html", 360, 700) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert len(page.locator("canvas").all()) == 3
        assert all(canvas.bounding_box()["width"] > 300 for canvas in page.locator("canvas").all())
