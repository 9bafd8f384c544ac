"""The page of a comparison in a real headless Chromium: it draws, silently, fetching nothing."""

from __future__ import annotations

import dataclasses

import pytest
from browser import CHROMIUM, DRIVER, open_browser
from example_run import LATE, example_database

from harness_analysis.compare import Side, compare_sides, load_run
from harness_analysis.report.compare import write_comparison

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver are absent (Debian: chromium, chromium-driver)",
    ),
]

PLOTTED = """
[...document.querySelectorAll("[data-figure]")].map(figure => [
  figure.dataset.figure, figure.querySelectorAll(".bars path, .scatterlayer path").length])
"""


def test_the_page_draws_what_moved(tmp_path):
    sides = []
    for name, late in (("late", 400_000), ("even", 0)):
        (tmp_path / name).mkdir()
        scenario = dataclasses.replace(LATE, steps=24, late_ns=late)
        sides.append(Side(name, (load_run(example_database(tmp_path / name, scenario)),)))
    comparison = compare_sides(*sides)
    write_comparison([comparison], tmp_path / "page.html")
    wait = next(e for e in comparison.effects if e.metric == "decode.wait[0]")
    with open_browser() as browser:
        for look in ({"width": 1200}, {"width": 390, "dark": True, "mobile": True}):
            browser.look_as(height=900, **look)
            browser.open(tmp_path / "page.html")
            assert dict(browser.evaluate(PLOTTED)).keys() == {
                "effects-0", "moved-prefill-0", "moved-decode-0",
            }  # fmt: skip
            assert all(shapes for _, shapes in browser.evaluate(PLOTTED))
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.evaluate(wide) <= 0
        plot = "document.querySelector('[data-figure=moved-decode-0] .plot')"
        drawn = browser.evaluate(f"{plot}.data.find(t => t.name === 'wait').x[1]")
        assert drawn == pytest.approx((wait.b - wait.a) / 1e6, abs=2e-6)
        assert browser.complaints() == []
        assert [url for url in browser.requests() if not url.startswith("file:")] == []
