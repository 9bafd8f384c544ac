"""The map of lateness, where steps are gathered or rows too thin to read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from example_run import LATE, example_database

from harness_analysis.report.numbers.waiting import load_waiting
from harness_analysis.report.sections.lateness import lateness_figure
from harness_analysis.store import open_database


def test_lateness_of_gathered_steps_keeps_the_worst(tmp_path):
    scenario = dataclasses.replace(LATE, steps=30)
    path = example_database(tmp_path, scenario, bare=True)
    with open_database(path) as con, pytest.MonkeyPatch.context() as patch:
        whole = load_waiting(con)
        patch.setattr("harness_analysis.report.numbers.units.MOST_BINS", 7)
        patch.setattr("harness_analysis.report.numbers.units.FEWEST_BINS", 7)
        few = load_waiting(con)
    assert np.array_equal(whole.worst["collective"], whole.caused["collective"])
    place = np.arange(30) * 7 // 30
    for row in range(4):
        values = whole.caused["collective"][row]
        worst = [values[place == k].max() for k in range(7)]
        assert few.worst["collective"][row].tolist() == worst
        mean = [values[place == k].mean() for k in range(7)]
        assert few.caused["collective"][row] == pytest.approx(mean)
    titles = [choice.label for choice in lateness_figure(few).choices]
    assert "in collectives, worst unit" in titles and "in collectives, mean of the units" in titles


def test_the_late_rank_is_named_beside_rows_too_thin_to_read(tmp_path):
    with open_database(example_database(tmp_path, LATE, bare=True)) as con:
        waiting = load_waiting(con)
    assert not lateness_figure(waiting).layout["annotations"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness_analysis.report.sections.lateness.MOST_TICKS", 2)
        marks = lateness_figure(waiting).layout["annotations"]
    assert f"\u25c2 {LATE.late_rank}" in [mark["text"] for mark in marks]
    caused = [sum(kind[mark["y"]].sum() for kind in waiting.caused.values()) for mark in marks]
    assert caused == sorted(caused, reverse=True)
