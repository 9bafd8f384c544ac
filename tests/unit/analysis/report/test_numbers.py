"""What the charts hold is what the database holds."""

from __future__ import annotations

import numpy as np
import pytest
from example_run import LATE
from unit.analysis.report.pages import query

from harness_analysis.report.sections.waits import short_group
from harness_schemas.vocabulary import PART_LABELS, PARTS


def in_ns(value, unit):
    return round(value * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit])


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_bars_hold_the_breakdown_of_every_rank(page, database, phase):
    figure = page.figures()[f"parts-{phase}"]
    unit = figure["layout"]["xaxis"]["title"]["text"]
    labels = {PART_LABELS[part]: part for part in PARTS}
    rows = query(
        database,
        f"SELECT window_ns, {','.join(PARTS)} FROM rank_breakdown "
        f"WHERE phase = '{phase}' ORDER BY rank",
    )
    found = {labels[t["name"]]: [in_ns(x, unit) for x in t["x"]] for t in figure["traces"]}
    for rank, (window, *parts) in enumerate(rows):
        assert sum(values[rank] for values in found.values()) == window
        for part, ns in zip(PARTS, parts, strict=True):
            assert found.get(part, [0] * len(rows))[rank] == (ns or 0)


def test_steps_of_a_rank_are_the_views_rows(page, database):
    figure = page.figures()["steps"]
    unit = figure["layout"]["yaxis"]["title"]["text"].split()[0]
    labels = {
        part: k
        for k, t in enumerate(figure["traces"])
        for part in PARTS
        if PART_LABELS[part] == t["name"]
    }
    # all ranks, two stages, then the ranks
    assert len(figure["choices"]) == 1 + 2 + 4
    for rank in range(4):
        rows = query(
            database,
            f"SELECT {','.join(PARTS)} FROM step_breakdown "
            f"WHERE phase = 'decode' AND rank = {rank} ORDER BY start_ns",
        )
        assert len(rows) == LATE.steps
        for part, trace in labels.items():
            drawn = figure["choices"][3 + rank][trace]["y"]
            assert [in_ns(y, unit) for y in drawn] == [row[PARTS.index(part)] for row in rows]


def test_the_mean_over_ranks_is_a_mean(page):
    figure = page.figures()["steps"]
    for trace in range(len(figure["traces"])):
        ranks = np.array([choice[trace]["y"] for choice in figure["choices"][3:]], dtype=float)
        mean = np.array(figure["choices"][0][trace]["y"], dtype=float)
        assert np.allclose(mean, ranks.mean(axis=0), rtol=1e-3)


def test_the_matrix_holds_all_waiting(page, database):
    figure = page.figures()["wait-matrix"]
    trace = {**figure["traces"][0], **figure["choices"][0][0]}
    unit = trace["colorbar"]["title"]["text"]
    rows = query(
        database,
        "SELECT rank, waited_for, sum(wait_ns) FROM waits WHERE phase = 'decode' GROUP BY ALL",
    )
    wanted = {(str(r), "undecided" if w is None else str(w)): ns for r, w, ns in rows if ns}
    found = {
        (y, x): in_ns(value, unit)
        for y, row in zip(trace["y"], trace["z"], strict=True)
        for x, value in zip(trace["x"], row, strict=True)
        if value is not None
    }
    assert set(found) == set(wanted)
    for key, ns in wanted.items():
        assert found[key] == pytest.approx(ns, rel=1e-4)


def test_the_map_of_lateness_shows_who_is_late(page, database):
    figure = page.figures()["lateness"]
    z = np.array(figure["choices"][0][0]["z"])
    assert z.shape == (4, LATE.steps)
    assert (z.argmax(axis=0) == 3).all()
    ((caused,),) = query(
        database,
        "SELECT sum(sum_wait_ns) / 1e6 FROM collective_waits "
        "WHERE phase = 'decode' AND last_arriver = 3",
    )
    assert z[3].sum() == pytest.approx(caused, rel=5e-2)
    # The others cost less than a thousandth of the largest, or what they are drawn with.
    assert (z[:3] <= z[3]).all()


def test_pipeline_shares_and_their_floor(page, database):
    rows = query(
        database,
        "SELECT wait_share, floor_share FROM pipeline_bubbles WHERE phase = 'decode' ORDER BY rank",
    )
    waits, floor = page.figures()["pipeline-decode"]["traces"]
    assert waits["x"] == pytest.approx([100 * row[0] for row in rows], abs=1e-2)
    assert floor["x"] == [50.0] * 4


def test_cumulative_counters_are_drawn_as_rates(page):
    figure = page.figures()["samples-cpu-seconds"]
    means = [float(np.mean(trace["y"])) for trace in figure["traces"]]
    assert means == pytest.approx([0.9, 0.85, 0.8, 0.75], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("[0,1,2,3]#0", "[0-3]#0"),
        ("[0,1]#2", "[0,1]#2"),
        ("[0,2,4,5,6]#1", "[0,2,4-6]#1"),
        ("world", "world"),
        ("[a,b]", "[a,b]"),
    ],
)
def test_groups_are_named_by_ranges(name, short):
    assert short_group(name) == short
