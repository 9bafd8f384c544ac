"""A sound run or sweep passes; one change that spoils it is flagged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness_analysis.audit import audit_runs
from harness_analysis.audit.facts import Cost, Facts, Jump
from harness_analysis.audit.run_rules import RUN_RULES
from harness_analysis.audit.sweep_rules import SWEEP_RULES, group_cells, measured_table
from harness_analysis.compare.load import PhaseUnits, Requests, RunData
from harness_schemas.vocabulary import PARTS

SPEC = {"parallel": {"tp": 1, "pp": 1}, "generation": {"warmup": 1, "batch_size": 2}}
PROVENANCE = {"packages": {"torch": "2.13.0"}, "host": {"cpus": 2}}
RANDOM = np.random.default_rng(1)
STEPS = 5e6 + RANDOM.normal(0, 5e4, 60)


def run_data(name="r", spec=SPEC, provenance=PROVENANCE, rate=100.0, **row):
    empty = {metric: np.array([]) for metric in ("ttft", "tpot", "e2e")}
    seconds = np.array([[1.0]])
    units = PhaseUnits(((0, 0, 1, 0),), (0,), np.zeros((1, 1)), seconds * 1e9,
                       np.zeros((1, 1, len(PARTS))), "host timeline, app_timers")  # fmt: skip
    known = {"status": "finished", "device": "cuda", "batch_size": 2, "tp": 1, "pp": 1,
             "world_size": 1}  # fmt: skip
    requests = Requests(((0, 0),), empty, np.array([rate]))
    return RunData(name, Path(name), {**known, **row}, spec, provenance, (), {"decode": units},
                   requests, ((), np.array([])), {}, {}, {})  # fmt: skip


SOUND = Facts(
    data=run_data(), decode_ns=STEPS, prefill_ns=np.full(12, 3e7), batched=2,
    request_wall_s=1.01, unit_wall_s=1.0, jumps=(), throttled={"power": 0.01, "thermal": 0.0},
    costs=(Cost("recorder", "decode", 5_000_000, 20_000, True),), weights_bytes=6 * 10**9, used={},
)  # fmt: skip
COLD = np.concatenate(([2e7, 1.9e7, 1.8e7], STEPS))
SHIFTED = [3.1e7, *np.full(11, 3e7)]


def run_flags(facts):
    return {(flag.rule, flag.severity) for rule in RUN_RULES for flag in rule(facts)}


def test_a_sound_run_passes():
    assert run_flags(SOUND) == set()
    usual = dataclasses.replace(SOUND, prefill_ns=np.array(SHIFTED), decode_ns=STEPS[::-1])
    assert run_flags(usual) == set()


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"data": run_data(status="failed", verdict="oom_host")}, ("failed-run", "problem")),
        ({"data": run_data(correctness='{"verdict": "fail"}')}, ("wrong-tokens", "problem")),
        ({"jumps": (Jump("app_timers", "n0", 7_000_000, 10.0),)}, ("clock-jump", "problem")),
        ({"decode_ns": COLD}, ("warm-up-measured", "problem")),
        ({"data": run_data(spec={"generation": {"warmup": 0}})}, ("no-warm-up", "notice")),
        ({"decode_ns": STEPS[:12]}, ("too-few-samples", "notice")),
        ({"throttled": {"thermal": 0.2}}, ("throttled", "problem")),
        ({"throttled": {"power": 0.9}}, ("throttled", "notice")),
        ({"request_wall_s": 1.6}, ("tokens-time", "problem")),
        ({"batched": 1}, ("never-batched", "problem")),
        ({"decode_ns": STEPS / 20}, ("share-over-one", "problem")),
        ({"used": {"decode mbu": 1.2, "prefill mfu": 0.9}}, ("share-over-one", "problem")),
        ({"costs": (Cost("recorder", "decode", 5_000_000, 900_000, True),)},
         ("perturbed", "notice")),
    ],
)  # fmt: skip
def test_one_thing_that_spoils_a_run_is_flagged(change, flag):
    assert run_flags(dataclasses.replace(SOUND, **change)) == {flag}


def cells_of(*datas, **changes):
    facts = [dataclasses.replace(SOUND, data=data, **changes) for data in datas]
    return group_cells(facts)


def sweep_flags(cells):
    return {flag.rule for rule in SWEEP_RULES for flag in rule(cells)}


def repeats(cell, *, spec=SPEC, provenance=PROVENANCE, runs=3, **row):
    return [run_data(f"{cell}-{k}", spec, provenance, cell=cell, repeat=k, sweep_id="s", **row)
            for k in range(runs)]  # fmt: skip


TP2 = {**SPEC, "parallel": {"tp": 2, "pp": 1}}


def test_a_sweep_that_changes_only_its_own_key_passes():
    assert sweep_flags(cells_of(*repeats("tp=1"), *repeats("tp=2", spec=TP2))) == set()


def test_only_what_belongs_together_is_compared():
    """A CPU's batches beside a GPU's, a stranger's run, and two sweeps: nobody drifted."""
    gpu = dataclasses.replace(SOUND, data=run_data("gpu", rate=2300.0))
    cpu = run_data("cpu", provenance={"packages": {"torch": "2.9"}}, device="cpu", batch_size=1)
    stranger = run_data("x", spec=None, provenance={"packages": {"torch": "2.1"}})
    others = [dataclasses.replace(SOUND, data=data) for data in (cpu, stranger)]
    assert audit_runs([gpu, *others]) == []
    old = {"packages": {"torch": "2.12"}}
    sweeps = [
        run_data(f"{sweep}{cell}{k}", provenance=known, cell=cell, repeat=k, sweep_id=sweep)
        for sweep, known in (("a", PROVENANCE), ("b", old))
        for cell in ("1", "2")
        for k in range(3)
    ]
    assert audit_runs([dataclasses.replace(SOUND, data=data) for data in sweeps]) == []
    drifted = dataclasses.replace(SOUND, data=run_data("late", provenance=old))
    assert "configuration-drift" in {flag.rule for flag in audit_runs([gpu, drifted])}


def test_a_repeat_of_another_configuration_is_drift():
    assert sweep_flags(cells_of(*repeats("tp=1"), run_data("x", TP2, cell="tp=1"))) == {
        "configuration-drift"
    }


def test_a_new_version_in_the_middle_of_a_sweep_is_drift():
    newer = {**PROVENANCE, "packages": {"torch": "2.14.0"}}
    cells = cells_of(*repeats("tp=1"), *repeats("tp=2", spec=TP2, provenance=newer))
    assert sweep_flags(cells) == {"configuration-drift"}


def test_two_repeats_are_too_few():
    cells = cells_of(*repeats("tp=1", runs=2), *repeats("tp=2", spec=TP2))
    assert sweep_flags(cells) == {"too-few-samples"}


def test_a_difference_smaller_than_what_observing_cost_is_none():
    cost = {"costs": (Cost("recorder", "decode", 5_000_000, 1_000_000, True),)}
    one = cells_of(*repeats("tp=1"), **cost)
    slower = cells_of(*repeats("tp=2", spec=TP2), decode_ns=STEPS * 1.03)
    much = cells_of(*repeats("tp=2", spec=TP2), decode_ns=STEPS * 1.5)
    assert sweep_flags({**one, **slower}) == {"perturbed"}
    assert sweep_flags({**one, **much}) == set()


def test_measured_cells_are_judged_like_claims():
    even = [*repeats("tp=1", rate=100.0, batch_size=1, world_size=1)]
    fast = repeats("pp=2", rate=190.0, batch_size=1, world_size=2, pp=2)
    slow = repeats("pp=2", rate=99.0, batch_size=1, world_size=2, pp=2)
    from harness_analysis.audit import OF_MEASURED

    def judged(cells):
        return {flag.rule for rule in OF_MEASURED for flag in rule(measured_table(cells))}

    assert judged(cells_of(*even, *fast)) == {"single-request-pipeline"}
    assert judged(cells_of(*even, *slow)) == set()
    super_linear = repeats("tp=2", rate=250.0, batch_size=1, world_size=2, tp=2)
    assert judged(cells_of(*even, *super_linear)) == {"efficiency-over-one"}
