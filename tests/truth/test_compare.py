"""Comparisons of simulated runs whose difference is known."""

from __future__ import annotations

import dataclasses
import json

import pytest
from example_run import run_row
from support import SAMPLES, needs_samples
from truth.simulate import Scenario, Simulation

from harness.ingest import ingest_paths
from harness_analysis.build.database import build_database
from harness_analysis.compare import Side, compare_sides, load_run
from harness_analysis.compare.gates import check_gate, parse_gate
from harness_analysis.compare.load import joules_between
from harness_analysis.compare.sides import pair_sides
from harness_analysis.scaling.load import load_runs
from harness_analysis.scaling.study import make_studies
from harness_collectors.app_timers import COLLECTOR
from harness_schemas.errors import UsageError
from harness_schemas.spi import IngestContext

EVEN = Scenario(tp=2, pp=1, steps=40, layers_per_stage=4)
LATE_NS = 60_000
SPEC = {"name": "x", "parallel": {"tp": 2, "pp": 1}, "generation": {"batch_size": 1}}
PROVENANCE = {"harness": "0.1", "packages": {"torch": "2.13.0"}, "host": {"cpus": 2}, "env": {}}


def make(folder, scenario, spec=SPEC, provenance=PROVENANCE, **changes):
    """A run of a scenario; a late rank computes longer in every layer."""
    Simulation(scenario).run().write(folder / "spans")
    files = [p for p in sorted((folder / "spans").iterdir())
             if COLLECTOR.recognise(p, p.read_bytes()[:65536])]  # fmt: skip
    batches = list(COLLECTOR.ingest(files, IngestContext(root=folder)))
    texts = {
        "spec": spec and json.dumps(spec), "provenance": provenance and json.dumps(provenance),
    }  # fmt: skip
    row = run_row(scenario, **{"correctness": None, **texts, **changes})
    build_database(folder / "run.duckdb", folder.name, row, batches)
    return load_run(folder / "run.duckdb")


def effect(comparison, name):
    (found,) = [e for e in comparison.effects if e.metric == name]
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three repeats of a run whose rank 1 is late in every layer, and of one where it is not."""
    root = tmp_path_factory.mktemp("compared")
    late = dataclasses.replace(EVEN, late_rank=1, late_ns=LATE_NS)
    found = {}
    for name, scenario, shift in (("late", late, 0), ("even", EVEN, 50)):
        found[name] = tuple(
            make(root / f"{name}-{k}", dataclasses.replace(scenario, seed=shift + k),
                 sweep_id="s", cell=name, repeat=k)
            for k in range(3)
        )  # fmt: skip
    return found


def test_what_a_rank_gains_beyond_its_peers_comes_back_as_its_own_waiting(runs):
    """From even to late: rank 1 computes longer, rank 0 waits exactly as much longer."""
    comparison = compare_sides(Side("even", runs["even"]), Side("late", runs["late"]))
    more = effect(comparison, "decode.compute[1]")
    wait = effect(comparison, "decode.wait[0]")
    layers = EVEN.layers_per_stage
    assert more.word == wait.word == "worse"
    assert more.interval.low <= layers * LATE_NS <= more.interval.high
    # Its wait grows by the lateness less what it would have been late by itself.
    assert 0.7 * layers * LATE_NS < wait.interval.effect <= 1.05 * layers * LATE_NS
    assert effect(comparison, "decode.compute[0]").word == "no difference shown"
    assert any("Rank 1 computes" in line and "wait" in line for line in comparison.why)
    assert effect(comparison, "step_p50").word == "worse"


def test_a_gain_that_shortens_no_step_is_said_to_reappear(runs):
    """The late rank stays; the other one gains a tenth: all of it is waiting for the late one."""
    before = faster = runs["late"][0]
    units = faster.phases["decode"]
    parts = units.parts.copy()
    gain = 0.1 * parts[:, 0, 0]
    parts[:, 0, 0] -= gain
    parts[:, 0, 3] += gain  # the window ends when the late rank comes: nothing else moves
    after = dataclasses.replace(
        faster, phases={**faster.phases, "decode": dataclasses.replace(units, parts=parts)}
    )
    comparison = compare_sides(Side("before", (before,)), Side("after", (after,)))
    assert effect(comparison, "decode.compute[0]").word == "better"
    assert effect(comparison, "decode.wait[0]").word == "worse"
    assert effect(comparison, "decode.window").word == "no difference shown"
    assert any("Rank 0 computes" in line and "reappears as waiting" in line
               for line in comparison.why)  # fmt: skip


def test_runs_of_the_same_thing_show_next_to_no_difference(runs):
    comparison = compare_sides(Side("a", runs["even"][:1]), Side("b", runs["even"][1:2]))
    asked = [e for e in comparison.effects if e.interval is not None]
    wrong = [e.metric for e in asked if e.word in ("better", "worse")]
    assert len(asked) > 20
    assert len(wrong) <= 3, wrong


def test_repeats_of_a_sweep_are_paired_and_others_are_not(runs):
    paired = compare_sides(Side("even", runs["even"]), Side("late", runs["late"]))
    assert "3 pairs of runs" in effect(paired, "step_p50").method
    loose = compare_sides(Side("even", runs["even"]), Side("late", runs["late"][:2]))
    assert "3 against 2 runs" in effect(loose, "step_p50").method


def test_one_run_each_is_said_to_see_no_variation_between_runs(runs):
    comparison = compare_sides(Side("a", runs["even"][:1]), Side("b", runs["late"][:1]))
    assert any("cannot see how much runs differ" in note for note in comparison.notes)
    found = effect(comparison, "step_p50")
    assert found.word == "worse"
    assert "blocks of" in found.method
    assert "one value a run" in effect(comparison, "load").reason


def test_sides_are_cells_and_names_of_one_cell_are_repeats(runs):
    everything = [run for name in ("even", "late") for run in runs[name]]
    ((a, b),) = pair_sides([("sweep", everything)])
    assert (a.label, b.label) == ("even", "late")
    assert len(a.runs) == len(b.runs) == 3
    ((a, b),) = pair_sides([(run.name, [run]) for run in everything])
    assert (len(a.runs), len(b.runs)) == (3, 3)
    pairs = pair_sides([("old", everything), ("new", everything)])
    assert [(a.label, b.label) for a, b in pairs] == [
        ("old: even", "new: even"), ("old: late", "new: late"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="two sides"):
        pair_sides([("even", list(runs["even"]))])


def changed(runs, **second):
    a = runs["even"][0]
    b = dataclasses.replace(a, **second)
    return compare_sides(Side("a", (a,)), Side("b", (b,))).changes


def test_one_changed_key_is_one_variable(runs):
    spec = {**SPEC, "name": "other", "generation": {"batch_size": 2}}
    verdict = changed(runs, spec=spec).verdict()
    assert verdict == "differs in ONE variable: generation.batch_size 1 -> 2"


def test_drift_beside_a_changed_key_is_named(runs):
    spec = {**SPEC, "generation": {"batch_size": 2}}
    newer = {**PROVENANCE, "packages": {"torch": "2.14.0"}}
    verdict = changed(runs, spec=spec, provenance=newer).verdict()
    assert "generation.batch_size 1 -> 2, but also in versions" in verdict


def test_without_provenance_nobody_knows_in_how_many_variables_runs_differ(runs):
    changes = changed(runs, provenance=None)
    assert changes.verdict().startswith("unknown")
    assert "no provenance of B" in changes.verdict()


def test_gates_fail_pass_and_cannot_tell(runs):
    effects = compare_sides(Side("a", runs["even"]), Side("b", runs["late"])).effects
    change = effect_share = next(e for e in effects if e.metric == "step_p50").interval
    middle = (effect_share.share_low + effect_share.share_high) / 2
    for text, state in (
        ("step_p50 > +5%", "failed"),
        ("step_p50 > +100us", "failed"),
        ("step_p50 > +900%", "passed"),
        ("step_p50 < -5%", "passed"),
        (f"step_p50 > {100 * middle:.6f}%", "cannot tell"),
        (f"step_p50 > {(change.low + change.high) / 2e3:.3f}us", "cannot tell"),
        ("load > +10s", "passed"),
        ("step_p99 > +1%", "cannot tell"),
    ):
        assert check_gate(parse_gate(text), effects).state == state, text


@pytest.mark.parametrize(
    "text", ["tpot_p50", "tpot_p50 >", "tpot_p50 > fast", "> 5%", "a = 5%", "a > 5 parsecs"]
)
def test_what_is_no_gate_is_refused(text):
    with pytest.raises(UsageError, match="is no gate"):
        parse_gate(text)


@pytest.mark.parametrize("text", ["nonsense > +5%", "step_p50 > +5", "decode.wait[9] > +5%"])
def test_a_gate_on_nothing_is_refused(runs, text):
    effects = compare_sides(Side("a", runs["even"][:1]), Side("b", runs["late"][:1])).effects
    with pytest.raises(UsageError):
        check_gate(parse_gate(text), effects)


@pytest.mark.parametrize("name", ["gpu_memory", "mixed_p99", "mixed.wait", "j_per_token"])
def test_a_gate_on_what_nobody_measured_cannot_tell(runs, name):
    effects = compare_sides(Side("a", runs["even"][:1]), Side("b", runs["late"][:1])).effects
    assert check_gate(parse_gate(f"{name} > +5%"), effects).state == "cannot tell"


@pytest.mark.parametrize("typo", ["stepp50", "STEP_P50", "step_50"])
def test_a_mistyped_gate_is_told_what_it_resembles(runs, typo):
    effects = compare_sides(Side("a", runs["even"][:1]), Side("b", runs["late"][:1])).effects
    with pytest.raises(UsageError) as refused:
        check_gate(parse_gate(f"{typo} > +5%"), effects)
    assert "step_p50" in refused.value.hint


# -- strangers' evidence -----------------------------------------------------------------------


@needs_samples
def test_a_strangers_run_does_not_differ_from_itself_and_differs_when_shifted(tmp_path):
    target = tmp_path / "dlrm.duckdb"
    ingest_paths([SAMPLES / "kineto" / "dlrm_8ranks"], target)
    run = load_run(target)
    same = compare_sides(Side("a", (run,)), Side("b", (run,)))
    assert "no specification and no provenance of A and B" in same.changes.verdict()
    whole = effect(same, "all.window")
    assert (whole.a, whole.word) == (whole.b, "cannot answer")
    units = run.phases["all"]
    shifted = dataclasses.replace(units, window=units.window * 2, parts=units.parts * 2)
    other = dataclasses.replace(run, phases={"all": shifted})
    moved = compare_sides(Side("a", (run,)), Side("b", (other,)))
    assert effect(moved, "all.window").b == pytest.approx(2 * whole.a)
    assert any("wait +" in line for line in moved.why)


@needs_samples
def test_two_layouts_of_strangers_are_compared_by_their_steps(tmp_path):
    sides = []
    for name in ("tp2_pp2", "tp1_pp4"):
        ingest_paths([SAMPLES / "h200" / name], tmp_path / f"{name}.duckdb")
        sides.append(Side(name, (load_run(tmp_path / f"{name}.duckdb"),)))
    comparison = compare_sides(*sides)
    step = effect(comparison, "decode.window")
    assert step.a == pytest.approx(45.0e6, rel=0.02)  # by independent timers: 45.0 ms
    assert step.word == "cannot answer"
    assert "12 steps" in step.reason
    assert "wait -" in next(line for line in comparison.why if "decode step" in line)
    seen = {change.path: (change.a, change.b) for change in comparison.changes.changes}
    assert seen["groups"] == ("[0,1,2,3] [0,1] [2,3]", "[0,1,2,3]")
    assert seen["decode.all_reduce[2]"][1] == "none"
    # As scaling tables they are two cells, and both are bound by the launches of their hosts.
    (study,) = make_studies(load_runs([side.runs[0].path for side in sides]))
    assert [(point.label, point.runs) for point in study.points] == [
        ("run=tp2_pp2", 1),
        ("run=tp1_pp4", 1),
    ]
    assert study.marks[0].startswith("launch-bound: a rank's device idles 90 % of decode")


def on(run, *gpus):
    ranks = tuple({"rank": k, "host": "n0", "gpu_uuid": gpu} for k, gpu in enumerate(gpus))
    return dataclasses.replace(run, ranks=ranks, row={**run.row, "world_size": len(gpus)})


def test_another_gpu_is_a_cause_and_more_of_the_same_gpus_follow_from_more_ranks(runs):
    first = runs["even"][0]
    moved = compare_sides(Side("a", (on(first, "G0", "G1"),)), Side("b", (on(first, "G0", "G9"),)))
    assert moved.changes.verdict() == "differs in ONE variable: ranks.gpu_uuid G0, G1 -> G0, G9"
    wider = {**SPEC, "parallel": {"tp": 4, "pp": 1}}
    more = dataclasses.replace(on(first, "G0", "G1", "G2", "G3"), spec=wider)
    grown = compare_sides(Side("a", (on(first, "G0", "G1"),)), Side("b", (more,))).changes
    assert grown.verdict() == "differs in ONE variable: parallel.tp 2 -> 4"
    assert [change.path for change in grown.changes if change.follows] == ["ranks.gpu_uuid"]


def test_breakdowns_of_different_evidence_are_not_compared(runs):
    first = runs["even"][0]
    units = dataclasses.replace(first.phases["decode"], basis="device timeline, nsys")
    other = dataclasses.replace(first, phases={**first.phases, "decode": units})
    found = effect(compare_sides(Side("a", (first,)), Side("b", (other,))), "decode.window")
    assert found.word == "cannot answer"
    assert "A rests on the host timeline, app_timers, B on the device timeline" in found.reason


def test_energy_is_read_off_the_counters_at_the_ends_of_the_units():
    times = range(-(10**9), 5 * 10**9, 10**8)
    rows = [("n0", gpu, at, 1000.0 * gpu + 300e-9 * at) for at in times for gpu in (0, 1)]
    assert joules_between(rows, 4 * 10**9) == pytest.approx(2 * 300 * 4)
    assert joules_between([row for row in rows if row[2] < 2 * 10**9], 4 * 10**9) is None
