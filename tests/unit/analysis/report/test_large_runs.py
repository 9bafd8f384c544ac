"""Many ranks and many steps: the page stays small, and says what it gathered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from example_run import batch, example_database
from truth.simulate import EPOCH_NS, Scenario
from unit.analysis.report.pages import Page

from harness_analysis.answer import Parts
from harness_analysis.report import write_report
from harness_analysis.report.numbers.samples import MOST_LINES
from harness_analysis.report.numbers.steps import CELLS as STEP_CELLS
from harness_analysis.report.numbers.steps import StepSeries, load_steps
from harness_analysis.report.numbers.timeline import (
    MOST_SEGMENTS,
    StepTimeline,
    Timelines,
)
from harness_analysis.report.numbers.units import FEWEST_BINS, Bins
from harness_analysis.report.numbers.waiting import CELLS as LATENESS_CELLS
from harness_analysis.report.numbers.waiting import Pair, Waiting, load_waiting
from harness_analysis.report.page import gather, render_page
from harness_analysis.report.sections.waits import matrix_figure
from harness_analysis.store import open_database
from harness_schemas.vocabulary import PARTS


def large_bins(units, cells, ranks):
    bins = max(FEWEST_BINS, min(400, cells // ranks))
    sizes = tuple(np.bincount(np.arange(units) * bins // units).tolist())
    return Bins(units, bins, tuple(f"step {k}" for k in range(bins)), sizes)


def large_run(small, ranks):
    """Numbers of a run on many ranks in which every part of every cell has a value."""
    random = np.random.default_rng(0)
    ids = tuple(range(ranks))
    bins = large_bins(1000, STEP_CELLS, ranks)
    values = random.integers(1, 10**9, (ranks, bins.bins, 10)).astype(float)
    wide = large_bins(1000, LATENESS_CELLS, ranks)
    pairs = tuple(
        Pair(rank, 8 * (rank // 8) + k, kind, 10, int(random.integers(1, 10**9)))
        for rank in ids
        for k in range(8)
        for kind in ("collective", "p2p")
    )
    kinds = ("collective", "p2p")
    caused = {kind: random.integers(0, 10**9, (ranks, wide.bins)).astype(float) for kind in kinds}
    hosts = tuple(f"node{k // 8}" for k in ids)
    row = small.answer.of_phase("decode")[0]
    breakdown = tuple(
        dataclasses.replace(row, rank=rank, stage=rank // 8, phase=phase, parts=parts)
        for phase in ("prefill", "decode")
        for rank in ids
        for parts in [random_parts(random)]
    )
    return dataclasses.replace(
        small,
        answer=dataclasses.replace(small.answer, breakdown=breakdown),
        steps=StepSeries(bins, ids, tuple(k // 8 for k in ids), values),
        waiting=Waiting("app_timers", True, ids, hosts, pairs, wide, caused, caused, 0, ()),
        timelines=long_timelines(ids),
        bubbles=[
            dataclasses.replace(small.bubbles[0], rank=rank, phase=phase)
            for phase in ("prefill", "decode")
            for rank in ids
        ],
    )


def long_timelines(ids):
    """Three steps with as many intervals as a page takes."""
    each = MOST_SEGMENTS // len(ids)
    found = {"comm_wait_ns": [], "comm_transfer_ns": []}
    for rank in ids:
        for k in range(each):
            part = "comm_wait_ns" if k % 2 else "comm_transfer_ns"
            name = f"all_reduce, {k % 7} KiB"
            found[part].append((rank, 59_123 * k, 59_123 * k + 41_007, name))
    windows = tuple((rank, 0, 10**7, "the step") for rank in ids)
    step = StepTimeline("a step", 10**7, windows, {k: tuple(v) for k, v in found.items()}, 0)
    return Timelines("nsys", "device", False, ids, tuple(None for _ in ids), (step,) * 3)


def random_parts(random):
    ns = {part: int(random.integers(1, 10**9)) for part in PARTS}
    return Parts(sum(ns.values()), ns)


@pytest.mark.parametrize("ranks", [64, 512, 2048])
def test_large_runs_give_pages_of_at_most_eight_megabytes(database, ranks):
    with open_database(database) as con:
        numbers = large_run(gather(con), ranks)
    text = render_page(numbers)
    page = Page(text)
    sizes = {e["attrs"]["data-figure"]: len(e["text"]) for e in page.all("figure")}
    assert len(text) <= 8_000_000, sizes
    assert len(page.figures()["parts-decode"]["traces"][0]["y"]) == min(ranks, 512)
    if ranks > 512:
        assert f"512 of {ranks} ranks" in text and f"{ranks - 512} ranks that wait least" in text


def test_the_matrix_of_many_ranks_gathers_neighbours(database):
    with open_database(database) as con:
        waiting = load_waiting(con)
    pairs = tuple(Pair(k, (k + 1) % 300, "collective", 1, 1_000_000) for k in range(300))
    large = Waiting(
        "app_timers", True, tuple(range(300)), (None,) * 300, pairs, waiting.bins, {}, {}, 0, ()
    )
    (trace,) = matrix_figure(large).traces
    assert len(trace["y"]) == 100 and trace["y"][0] == "0-2"
    assert sum(value for row in trace["z"] for value in row if value) == pytest.approx(300)


def test_more_series_than_lines_become_a_band(tmp_path):
    rows = [
        {
            "host": "node0",
            "rank": rank,
            "metric": "rss",
            "unit": "bytes",
            "source": "psutil",
            "ts_ns": EPOCH_NS + second * 10**9,
            "value": float((1 + rank) << 30),
        }
        for rank in range(MOST_LINES + 4)
        for second in range(3)
    ]
    path = example_database(tmp_path, Scenario(steps=2), more=(batch("samples", rows),), bare=True)
    with open_database(path) as con:
        write_report(con, tmp_path / "report.html")
    figure = Page((tmp_path / "report.html").read_text()).figures()["samples-rss"]
    assert [trace["name"] for trace in figure["traces"]] == ["largest", "mean", "smallest"]
    assert [trace["y"][0] for trace in figure["traces"]] == [20.0, 10.5, 1.0]


def test_many_steps_are_gathered_and_said_to_be(tmp_path):
    path = example_database(tmp_path, Scenario(tp=1, pp=2, steps=900, layers_per_stage=1))
    with open_database(path) as con:
        series = load_steps(con)
        write_report(con, tmp_path / "report.html")
        ((window,),) = con.execute(
            "SELECT sum(window_ns) FROM step_breakdown WHERE phase = 'decode' AND rank = 1"
        ).fetchall()
    assert (series.bins.units, series.bins.bins) == (900, 400) and not series.bins.whole
    assert sum(series.bins.sizes) == 900
    assert (series.values[1, :, 0] * np.array(series.bins.sizes)).sum() == pytest.approx(window)
    assert "gathered into 400 bins" in (tmp_path / "report.html").read_text()
