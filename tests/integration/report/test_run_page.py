"""The page in a real headless Chromium: it draws, asks for nothing, and shows the numbers."""

from __future__ import annotations

import dataclasses
import json

import pytest
from browser import CHROMIUM, DRIVER, open_browser
from example_run import LATE, example_database

from harness_analysis.report import write_report
from harness_analysis.report.sweep_page import write_sweep_page
from harness_analysis.scaling.document import sweep_facts
from harness_analysis.scaling.facts import RunFacts
from harness_analysis.scaling.study import make_studies
from harness_analysis.store import open_database
from harness_schemas.vocabulary import PART_LABELS, PARTS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver are absent (Debian: chromium, chromium-driver)",
    ),
]

HOSTILE = "</script><script>window.stolen=1</script><img src=x onerror='window.stolen=1'>{{7*7}}"
PLOTTED = """
[...document.querySelectorAll("[data-figure]")].map(figure => {
  const plot = figure.querySelector(".plot");
  return {id: figure.dataset.figure, traces: (plot.data || []).length,
          height: plot.clientHeight, width: plot.clientWidth,
          shapes: plot.querySelectorAll(
            ".bars path, .heatmaplayer image, .scatterlayer path").length};
})
"""


def write_page(folder, **changes):
    database = example_database(folder, dataclasses.replace(LATE, steps=20), **changes)
    with open_database(database) as con:
        write_report(con, folder / "report.html")
    return database, folder / "report.html"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


def trace(figure: str, name: str, field: str) -> str:
    """JavaScript: values of one trace as the plotting library holds them."""
    plot = f"document.querySelector('[data-figure={figure}] .plot')"
    return f"{plot}.data.find(t => t.name === {json.dumps(name)}).{field}"


def choose(browser, figure: str, label: str) -> None:
    """Choose in a figure's list, as a reader does."""
    select = f"document.querySelector('[data-figure={figure}] select')"
    browser.evaluate(
        f"(s => {{ s.selectedIndex = [...s.options].findIndex(o => o.text === {label!r});"
        f" s.dispatchEvent(new Event('change')); return s.selectedIndex; }})({select})"
    )


@pytest.mark.parametrize(("width", "dark", "mobile"), [(1200, False, False), (390, True, True)])
def test_every_chart_is_drawn_and_nobody_complains(browser, made, width, dark, mobile):
    browser.look_as(width, 900, dark, mobile)
    browser.complaints(), browser.requests()
    browser.open(made[1])
    figures = browser.evaluate(PLOTTED)
    assert len(figures) >= 10
    for figure in figures:
        assert figure["traces"] and figure["shapes"] and figure["height"] > 100, figure
        assert figure["width"] <= width
    assert browser.complaints() == []
    assert set(browser.requests()) == {made[1].as_uri()}
    # Nothing sticks out: wide tables scroll inside their own frames.
    assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_charts_hold_the_numbers_of_the_database(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1])
    with open_database(made[0]) as con:
        rows = con.execute(
            f"SELECT {','.join(PARTS)} FROM rank_breakdown WHERE phase = 'decode' ORDER BY rank"
        ).fetchall()
    for part in ("compute_ns", "comm_transfer_ns", "comm_wait_ns"):
        drawn = browser.evaluate(trace("parts-decode", PART_LABELS[part], "x"))
        wanted = [row[PARTS.index(part)] for row in rows]
        assert [round(value * 1e6) for value in drawn] == wanted


def test_bars_are_as_long_as_their_numbers(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1])
    name = PART_LABELS["comm_wait_ns"]
    values = browser.evaluate(trace("parts-decode", name, "x"))
    index = browser.evaluate(
        "document.querySelector('[data-figure=parts-decode] .plot')"
        f".data.findIndex(t => t.name === {name!r})"
    )
    lengths = browser.evaluate(
        "[...[...document.querySelectorAll('[data-figure=parts-decode] .trace.bars')]"
        f"[{index}].querySelectorAll('.point path')].map(p => p.getBBox().width)"
    )
    assert len(lengths) == len(values) == 4
    scale = lengths[0] / values[0]
    for length, value in zip(lengths, values, strict=True):
        assert length == pytest.approx(value * scale, abs=1.5)


def test_a_rank_can_be_chosen(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1])
    choose(browser, "steps", "rank 3")
    with open_database(made[0]) as con:
        rows = con.execute(
            "SELECT compute_ns FROM step_breakdown WHERE phase = 'decode' AND rank = 3 "
            "ORDER BY start_ns"
        ).fetchall()
    drawn = browser.evaluate(trace("steps", "compute", "y"))
    assert [round(value * 1e6) for value in drawn] == [ns for (ns,) in rows]


@pytest.mark.parametrize(("figure", "field"), [("parts-decode", "x"), ("steps", "y")])
def test_shares_add_up_to_a_hundred(browser, made, figure, field):
    browser.look_as(1200, 900)
    browser.open(made[1])
    browser.evaluate(f"document.querySelector('[data-figure={figure}] input[value=share]').click()")
    columns = browser.evaluate(
        f"document.querySelector('[data-figure={figure}] .plot').data.map(t => t.{field})"
    )
    for values in zip(*columns, strict=True):
        assert sum(value or 0 for value in values) == pytest.approx(100)


def test_colours_follow_the_readers_scheme(browser, made):
    fills = []
    for dark in (False, True):
        browser.look_as(1200, 900, dark=dark)
        browser.open(made[1])
        color = browser.evaluate(trace("parts-decode", "wait", "marker.color"))
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        fills.append((color, back))
    assert fills[0][0] != fills[1][0] and fills[0][1] != fills[1][1]
    # Changed while the page is open, it is drawn anew.
    browser.look_as(1200, 900, dark=False)
    browser.wait_for(trace("parts-decode", "wait", "marker.color") + f" === {fills[0][0]!r}")


def test_the_timeline_holds_the_step_and_zooms_by_keyboard(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1])
    plot = "document.querySelector('[data-figure=timeline] .plot')"
    label = browser.evaluate(
        "document.querySelector('[data-figure=timeline] select').selectedOptions[0].text"
    )
    step = int(label.rpartition("step ")[2].split()[0])
    x = browser.evaluate(trace("timeline", PART_LABELS["comm_wait_ns"], "x"))
    drawn = sum(round((b - a) * 1e6) for a, b in zip(x[::3], x[1::3], strict=True))
    with open_database(made[0]) as con:
        (wanted,) = con.execute(
            "SELECT sum(wait_ns) FROM collectives WHERE phase = 'decode' AND step = ?", [step]
        ).fetchone()
    assert drawn == wanted
    least, most = browser.evaluate(f"{plot}.layout.xaxis.range")
    slider = "document.querySelector('[data-figure=timeline] .zoom')"
    browser.evaluate(f"({slider}.focus(), 1)")
    for kind in ("keyDown", "keyUp"):  # END: as far as it goes
        action = {"type": kind, "value": "\ue010"}
        keys = {"actions": [{"type": "key", "id": "keys", "actions": [action]}]}
        browser.call("POST", "/actions", keys)
    first, last = browser.evaluate(f"{plot}.layout.xaxis.range")
    assert last - first == pytest.approx((most - least) / 256)
    assert browser.complaints() == []


def test_the_late_rank_is_marked_beside_what_it_causes(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1])
    marked = browser.evaluate(
        "[...document.querySelectorAll('#truth .marked')].map(row => [row.querySelector('th')"
        ".textContent, ...[...row.querySelectorAll('.pieces')].map(p =>"
        " [...p.children].reduce((sum, s) => sum + s.getBoundingClientRect().width, 0))])"
    )
    ((name, shown, caused),) = marked
    assert name == "rank 3" and 0 < shown < 0.2 * caused


def test_charts_are_drawn_as_the_reader_comes_near(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1], everything=False)
    figures = browser.evaluate(PLOTTED)
    assert sum(figure["traces"] > 0 for figure in figures) < len(figures) / 2
    # What is not drawn keeps its place, so that nothing jumps while one scrolls.
    assert all(figure["height"] > 100 for figure in figures)
    place = browser.evaluate("document.documentElement.scrollHeight")
    browser.open(made[1])
    assert abs(browser.evaluate("document.documentElement.scrollHeight") - place) <= 0.02 * place


def test_everything_that_acts_is_reached_by_keyboard(browser, made):
    browser.look_as(1200, 900)
    browser.open(made[1], everything=False)
    reached = browser.evaluate(
        "[...document.querySelectorAll('a, summary, select, input, .scroll')]"
        ".every(e => e.tabIndex >= 0)"
    )
    assert reached
    # Tab from the top: the first stop is the link that skips the navigation.
    keys = {"actions": [{"type": "key", "id": "keys", "actions": []}]}
    for kind in ("keyDown", "keyUp"):
        keys["actions"][0]["actions"].append({"type": kind, "value": "\ue004"})
    browser.call("POST", "/actions", keys)
    assert browser.evaluate("document.activeElement.className") == "skip"
    # The arrow keys switch from time to share.
    radio = "document.querySelector('[data-figure=steps] input[value=time]')"
    browser.evaluate(f"({radio}.focus(), 1)")
    for action in keys["actions"][0]["actions"]:
        action["value"] = "\ue014"
    browser.call("POST", "/actions", keys)
    assert browser.evaluate(
        "document.querySelector('[data-figure=steps] input[value=share]').checked"
    )


def test_hostile_text_neither_runs_nor_breaks_the_page(browser, tmp_path):
    changes = {"name": HOSTILE, "verdict_detail": HOSTILE, "spec": json.dumps({HOSTILE: HOSTILE})}
    _, page = write_page(tmp_path, **changes)
    browser.look_as(1200, 900)
    browser.open(page)
    assert browser.evaluate("window.stolen === undefined")
    assert browser.evaluate("document.querySelector('h1').textContent") == HOSTILE
    assert browser.complaints() == []


def test_a_script_that_was_put_into_the_page_is_refused(browser, made, tmp_path):
    """The second lock: the policy holds even where escaping would have failed."""
    page = tmp_path / "broken.html"
    page.write_text(
        made[1].read_text().replace("</main>", "<script>window.stolen=1</script></main>")
    )
    browser.look_as(1200, 900)
    browser.open(page)
    assert browser.evaluate("window.stolen === undefined")
    assert any("Content Security Policy" in line for line in browser.complaints())


def test_the_page_prints(browser, made, tmp_path):
    browser.look_as(1200, 900, dark=True)
    browser.open(made[1])
    browser.printed(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    # Afterwards the screen has its own colours again.
    assert browser.evaluate("document.documentElement.dataset.theme === undefined")


def sweep_page(path):
    """Strong scaling with the widest intervals that a noisy machine gives."""
    runs = [
        RunFacts(
            f"r{ranks}-{repeat}", {"parallel.tp": ranks}, repeat, verdict="ok", status="finished",
            device="cpu", world_size=ranks, tp=ranks, pp=1, batch_size=4, output_tokens=64,
            wall_ns=(1 + repeat) * 10**9 // ranks, resource_use=0.3 / (1 + repeat),
            io_s=0.9 / (1 + repeat), communication_s=1.2 / (1 + repeat), wait_share=0.2,
            preprocessing_s=4.7 * (1 + repeat),
        )
        for ranks in (1, 2, 4)
        for repeat in range(3)
    ]  # fmt: skip
    write_sweep_page(sweep_facts("study", "s", "", runs), make_studies(runs, "strong"), path)
    return path


def test_the_columns_of_scaling_fit_a_desktop_and_the_paper(browser, tmp_path):
    browser.look_as(1280, 900)
    browser.open(sweep_page(tmp_path / "sweep.html"))
    too_wide = """[...document.querySelectorAll(".card > .scroll")].filter(
      box => box.querySelector("table").offsetWidth > box.clientWidth + 1).length"""
    assert browser.evaluate("document.querySelectorAll('th').length") > 11
    assert browser.evaluate(too_wide) == 0
    browser.look_as(690, 900)  # an A4 page within its margins
    browser.devtools("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.evaluate(too_wide) == 0
    finally:
        browser.devtools("Emulation.setEmulatedMedia", media="")
    assert browser.complaints() == []
