"""The pairs of commands in docs/coming-from.md, run side by side where the other tool is installed."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from command import ROOT

SPEC = spec_from_file_location("coming_from", ROOT / "docs" / "coming_from.py")
coming_from = sys.modules["coming_from"] = module_from_spec(SPEC)
SPEC.loader.exec_module(coming_from)
PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("head")
    coming_from.prepare(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("row", coming_from.ROWS, ids=lambda row: row.theirs)
def test_both_commands_give_the_same(row, folder):
    if (why := coming_from.missing(row)) is not None:
        pytest.skip(why)
    inside, border = coming_from.differences(row, folder)
    assert inside <= row.limit
    assert border <= row.limit


@pytest.mark.slow
@pytest.mark.parametrize("theirs", coming_from.SCIPY_MODES)
def test_another_padding_mode_would_be_noticed(theirs, folder):
    """The box of the comparison is such that every mode gives its own border."""
    pytest.importorskip("scipy")
    row = next(row for row in coming_from.ROWS if f'"{theirs}"' in row.theirs)
    for ours in set(coming_from.SCIPY_MODES.values()) - {coming_from.SCIPY_MODES[theirs]}:
        wrong = coming_from.Row(row.tool, row.theirs, f"{row.ours.rsplit(' ', 1)[0]} {ours}", row.run, row.limit)
        inside, border = coming_from.differences(wrong, folder)
        assert inside <= row.limit < 1e-3 < border


def test_the_page_has_the_rows():
    for row in coming_from.ROWS:
        assert f"| {row.tool} | `{row.theirs}` | `{row.ours}` |" in PAGE
    not_run = [line for line in PAGE.splitlines() if "| not run | not run |" in line]
    assert {line.split("|")[1].strip() for line in not_run} == {row.tool for row in coming_from.ROWS if row.run is None}
