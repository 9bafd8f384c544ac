"""Scaling tables on numbers computed by hand, and what must hold of any."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth.simulate_devices import DeviceRun, Devices

from harness_analysis.scaling.document import sweep_facts, write_document
from harness_analysis.scaling.facts import RankTime, RunFacts
from harness_analysis.scaling.intervals import Estimate, mean, ratio
from harness_analysis.scaling.knee import find_knee
from harness_analysis.scaling.limits import Limit, limit, mean_parts, pop
from harness_analysis.scaling.load import load_runs
from harness_analysis.scaling.marks import LAUNCH_BOUND
from harness_analysis.scaling.picture import draw_study
from harness_analysis.scaling.rows import flat_rows, seed_table, sentences
from harness_analysis.scaling.study import make_studies

S = 10**9


def facts(tp=1, wall_ns=S, tokens=96, batch=4, limit=4, repeat=0, parts=None, **changes):
    """A run; `parts`: of each rank, ns by name without `_ns`."""
    settings = {
        "name": f"run{repeat}",
        "parallel.tp": tp,
        "generation.batch_size": batch,
        "prompts.limit": limit,
        "generation.mode": "eager",
    }
    given = {
        "verdict": "ok",
        "status": "finished",
        "device": "cpu",
        "world_size": tp,
        "tp": tp,
        "pp": 1,
        "batch_size": batch,
        "cpus": 64,
        "hosts": 1,
        "output_tokens": tokens,
        "wall_ns": wall_ns,
        **changes,
    }
    ranks = tuple(
        RankTime(k, sum(rank.values()), {f"{name}_ns": ns for name, ns in rank.items()})
        for k, rank in enumerate(parts or [])
    )
    return RunFacts(f"run-{tp}-{batch}-{repeat}", settings, repeat, ranks=ranks, **given)


def test_strong_scaling_by_hand():
    """8 s on one rank, 5 s on two, 4 s on four: S = 1.6 and 2, E = 0.8 and 0.5."""
    (study,) = make_studies([facts(1, 8 * S), facts(4, 4 * S), facts(2, 5 * S)])
    assert study.kind == "strong"
    assert [point.size for point in study.points] == [1, 2, 4]
    assert [point.speedup.value for point in study.points] == [1.0, 1.6, 2.0]
    assert [point.efficiency.value for point in study.points] == [1.0, 0.8, 0.5]
    assert [point.throughput.value for point in study.points] == [12.0, 19.2, 24.0]


def test_the_base_is_the_smallest_that_ran():
    """One rank ran out of memory: E = T_2 * 2 / (T_4 * 4)."""
    failed = facts(1, None, None, verdict="oom_host", status="failed")
    (study,) = make_studies([failed, facts(2, 6 * S), facts(4, 4 * S)])
    assert study.base.size == 2
    assert study.points[0].efficiency is None and study.points[0].failures == ("oom_host",)
    assert study.points[2].speedup.value == 1.5
    assert study.points[2].efficiency.value == 0.75
    assert any("oom_host" in mark for mark in study.marks)


def test_different_work_is_compared_by_time_per_token():
    """100 tokens in 10 s, and 60 or 40 in 5 s: as fast a token, on twice the ranks."""
    runs = [facts(1, 10 * S, 100), facts(2, 5 * S, 60), facts(2, 5 * S, 40, repeat=1)]
    (study,) = make_studies(runs)
    assert study.points[1].speedup.value == 1.0 and study.points[1].efficiency.value == 0.5
    assert any("time per token" in mark for mark in study.marks)
    unknown = make_studies([facts(1, 10 * S, None), facts(2, 5 * S)])[0]
    assert unknown.points[1].speedup is None and unknown.points[1].wall_s.value == 5


def test_weak_scaling_has_two_forms_that_agree_where_work_was_proportional():
    (study,) = make_studies([facts(1, 4 * S), facts(2, 5 * S, tokens=192, limit=8)])
    point = study.points[1]
    assert study.kind == "weak"
    assert point.efficiency.value == point.throughput_efficiency.value == 0.8
    assert point.speedup.value == 1.6
    assert not any("not fixed" in mark for mark in study.marks)


def test_weak_scaling_says_when_its_forms_disagree():
    runs = [facts(1, 4 * S), facts(2, 5 * S, tokens=150, limit=8)]
    (study,) = make_studies(runs, "weak")
    assert any("not fixed: at 2 ranks" in mark for mark in study.marks)


def test_batches_by_hand():
    """12, 21 and 24 tokens/s at 1, 2 and 4: E = 21/24 and 24/48; the knee lies at 2."""
    runs = [facts(batch=b, wall_ns=t) for b, t in ((1, 8 * S), (2, 32 * S // 7), (4, 4 * S))]
    (study,) = make_studies(runs)
    assert study.kind == "batch"
    assert study.points[1].efficiency.value == pytest.approx(0.875, abs=1e-8)
    assert study.points[2].efficiency.value == 0.5
    assert study.knee.size == 2 and study.knee.reached and study.knee.next_size == 4
    assert study.knee.gain == pytest.approx(1 / 7, abs=1e-8)
    assert "uncertain" in study.knee.sentence()


def test_no_knee_where_every_batch_paid():
    knee = find_knee([(1, Estimate(10, 1)), (2, Estimate(18, 1)), (4, Estimate(30, 1))])
    assert (knee.size, knee.reached) == (4, False)


def test_two_varied_things_make_a_series_each():
    runs = [facts(tp, S * 8 // tp, batch=b) for tp in (1, 2) for b in (1, 2)]
    studies = make_studies(runs)
    assert [(study.kind, study.series) for study in studies] == [
        ("strong", "batch_size=1"),
        ("strong", "batch_size=2"),
        ("batch", "tp=1"),
        ("batch", "tp=2"),
    ]


def test_what_has_nothing_to_be_compared_with_is_only_tabulated():
    alone = [facts(1, S, batch=1), facts(2, S, batch=2)]
    assert [study.kind for study in make_studies(alone)] == ["grid"]
    studies = make_studies([*alone, facts(4, S, batch=2)])
    assert [(study.series, len(study.points)) for study in studies] == [
        ("batch_size=2", 2),
        ("in no series", 1),  # nothing vanishes
    ]


@pytest.mark.parametrize(("status", "good"), [(None, True), ("failed", False)])
def test_an_end_that_nobody_tells_counts_unless_the_run_itself_failed(status, good):
    """Logs beside a stranger's traces may say nothing of how it ended."""
    assert facts(1, S, verdict="unknown", status=status).good is good


def test_runs_of_an_unknown_configuration_do_not_repeat_each_other():
    strangers = [dataclasses.replace(facts(repeat=k), settings={}) for k in (0, 1)]
    (study,) = make_studies(strangers)
    assert [point.runs for point in study.points] == [1, 1]


def test_limits_divide_the_time_beyond_ideal():
    """One rank: 8 s computing. Two: each 5 s computing, 1 s transfer, 2 s waiting. Ideal is 4 s
    of computing, so computing grew by 1 s, transfer by 1 s, waiting by 2 s of 8 s."""
    one = facts(1, 8 * S, parts=[{"compute": 8 * S, "unresolved": 0}])
    rank = {"compute": 5 * S, "comm_transfer": S, "comm_wait": 2 * S, "unresolved": 0}
    two = facts(2, 8 * S, parts=[rank, rank])
    study = make_studies([one, two])[0]
    assert study.points[1].limit == Limit("comm_wait_ns", 0.25)
    assert study.points[0].limit == Limit("compute_ns", 1.0)
    assert "limited by wait, which beyond its ideal share takes 25 %" in sentences(study)[0]


def test_no_limit_is_named_without_a_breakdown_of_every_rank():
    here = facts(2, S, parts=[{"compute": S}])
    assert mean_parts([here]) is None
    assert limit(None, {"compute_ns": Fraction(1)}, Fraction(1)) is None


def test_pop_by_hand():
    """Useful 6 and 4 of 8: load balance 5/6, communication efficiency 6/8, product 5/8."""
    parts = [
        {"compute": 6, "comm_wait": 2, "unresolved": 0},
        {"compute": 4, "comm_wait": 4, "unresolved": 0},
    ]
    found = pop(facts(2, 8, parts=parts))
    assert found.load_balance == pytest.approx(5 / 6)
    assert found.communication_efficiency == 0.75
    assert found.parallel_efficiency == pytest.approx(5 / 8)


@pytest.mark.parametrize(
    "parts",
    [
        [{"compute": 9, "unresolved": 1}] * 2,  # a tenth is not resolved
        [{"compute": 9, "unresolved": 0}],  # a rank is missing
        [{"compute": 9, "unresolved": 0}, {"comm_wait": 9, "unresolved": 0}],  # not on all ranks
        [{"compute": 9}] * 2,  # how much is unresolved is unknown
    ],
)
def test_pop_is_unknown_where_computing_is_not_resolved(parts):
    assert pop(facts(2, 10, parts=parts)) is None


def test_intervals_by_hand():
    """1, 2, 3: mean 2, relative standard error 1/sqrt(12), t of two degrees 4.303."""
    found = mean([1, 2, 3])
    reach = math.exp(4.303 / math.sqrt(12))
    assert (found.value, found.count) == (2.0, 3)
    assert found.low == pytest.approx(2 / reach) and found.high == pytest.approx(2 * reach)
    assert mean([5]) == Estimate(5.0, 1)
    assert mean([None]) is None
    assert mean([0, 0]).value == 0


def test_a_launch_bound_study_carries_it_as_a_watermark():
    runs = [facts(tp, S, device="cuda", idle_share=0.8) for tp in (1, 2)]
    assert make_studies(runs)[0].marks[0].startswith("launch-bound")
    unknown = [facts(tp, S, device="cuda") for tp in (1, 2)]
    assert make_studies(unknown)[0].marks[0].startswith("may be launch-bound")
    busy = [facts(tp, S, device="cuda", idle_share=0.1) for tp in (1, 2)]
    assert not any("launch" in mark for mark in make_studies(busy)[0].marks)


@pytest.mark.parametrize(("late_ns", "bound"), [(0, False), (2_000_000, True)])
def test_one_rank_that_waits_for_launches_makes_a_run_launch_bound(tmp_path, late_ns, bound):
    """Its peers wait for it and do not idle: the mean over ranks would hide it."""
    run = DeviceRun(Devices(tp=4, pp=1, steps=4, late_rank=2, late_by="gap", late_ns=late_ns)).run()
    (found,) = load_runs([run.build(tmp_path / "d.duckdb")])
    assert (found.idle_share > LAUNCH_BOUND) is bound
    assert len(found.ranks) == 4
    for rank in found.ranks:
        assert sum(value or 0 for value in rank.parts.values()) == rank.window_ns


def test_more_ranks_than_cores_is_said():
    marks = make_studies([facts(1, S, cpus=2), facts(4, S, cpus=2)])[0].marks
    assert marks[0].startswith("4 ranks shared 2 cores")


def test_a_disturbed_base_flatters_the_others_and_is_said():
    quiet = [{"compute": 98, "unresolved": 2}]
    busy = [{"compute": 50, "unresolved": 50}]
    base = make_studies([facts(1, 100, parts=busy), facts(2, 100, parts=quiet * 2)])[0]
    other = make_studies([facts(1, 100, parts=quiet), facts(2, 100, parts=busy * 2)])[0]
    assert any("look too good" in mark for mark in base.marks)
    assert any("not resolved in 1 run (up to 50 %" in mark for mark in other.marks)
    assert not any("look too good" in mark for mark in other.marks)


def test_unknown_stays_unknown_in_rows():
    study = make_studies([facts(1, S), facts(2, S)])[0]
    names, rows = flat_rows([study])
    row = dict(zip(names, rows[1], strict=True))
    assert row["io_s"] is None and row["load_balance"] is None and row["limited_by"] is None
    assert row["speedup"] == 1.0 and row["speedup_low"] is None
    heads, cells = seed_table(study)
    assert cells[1][heads.index("I/O time")] == "-"


def test_the_picture_holds_the_ideal_line_and_the_intervals():
    runs = [facts(tp, (8 + k) * S // tp, repeat=k) for tp in (1, 2, 4) for k in range(3)]
    drawn = draw_study(make_studies(runs)[0])
    assert drawn.count('class="ideal"') == 2
    assert drawn.count('class="whisker"') == 4  # two points and two plots; the base has none
    assert draw_study(make_studies([facts(1, S)])[0]) is None


def test_the_page_has_the_columns_the_warnings_and_the_picture(tmp_path):
    runs = [facts(tp, S, cpus=2, io_s=0.5, versions={"torch": "2"}) for tp in (1, 2, 4)]
    about = sweep_facts("a study", "ab12cd", "study.toml", runs, ["tp=8: refused"] * 2)
    written = write_document(about, make_studies(runs), tmp_path / "page.md")
    assert [path.name for path in written] == ["page.svg", "page.md"]
    text = (tmp_path / "page.md").read_text()
    for part in (
        "Made by `harness sweep study.toml`: 5 runs, 2 of them failed.",
        "1 host with 2 cores, cpu; torch 2",
        "`generation.batch_size = 4`",
        "Not in the tables: tp=8: refused (2 x)",
        "> **4 ranks shared 2 cores",
        "](page.svg)",
        "| ranks | TP x PP | runs | wall clock | speed-up | parallel efficiency | throughput "
        "(tokens/s) | resource use | I/O time | communication time | of it waiting | "
        "preprocessing cost |",
        "| 4 | 4 x 1 | 1 | 1 s | 1 | 25 % | 96 | - | 500 ms | - | - | - |",
    ):
        assert part in text, part


sizes = st.lists(st.integers(1, 64), min_size=2, max_size=5, unique=True)


@settings(deadline=None)
@given(sizes, st.integers(1, 10**6), st.integers(1, 4))
def test_ideal_scaling_is_exactly_one(sizes, unit, repeats):
    """Any ranks, any work: T_p = W / p gives E = 1, not 0.9999999999999999."""
    work = math.lcm(*sizes) * unit
    runs = [facts(p, work // p, repeat=k) for p in sizes for k in range(repeats)]
    study = make_studies(runs, "strong")[0]
    assert {point.efficiency.value for point in study.points} == {1.0}
    weak = [facts(p, unit, tokens=96 * p, limit=4 * p) for p in sizes]
    for point in make_studies(weak, "weak")[0].points:
        assert point.efficiency.value == point.throughput_efficiency.value == 1.0


walls = st.lists(st.integers(1, 10**12), min_size=2, max_size=6)


@settings(deadline=None)
@given(walls, walls)
def test_intervals_hold_their_ratio_and_turn_with_it(one, other):
    there, back = ratio(one, other), ratio(other, one)
    assert 0 < there.low <= there.value <= there.high
    assert there.low * back.high == pytest.approx(1)


@settings(deadline=None)
@given(st.integers(2, 8), st.data())
def test_pop_lies_within_its_factors(ranks, data):
    parts = []
    for _ in range(ranks):
        compute = data.draw(st.integers(1, 1000))
        parts.append({"compute": compute, "comm_wait": 1000 - compute, "unresolved": 0})
    found = pop(facts(ranks, 1000, parts=parts))
    useful = sum(rank["compute"] for rank in parts) / (ranks * 1000)
    assert found.parallel_efficiency == pytest.approx(useful)
    assert found.parallel_efficiency <= min(found.load_balance, found.communication_efficiency)
