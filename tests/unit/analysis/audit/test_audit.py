"""Every rule of the audit flags what it is for, and lets what is possible pass."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from harness_analysis.audit import audit_claims, audit_runs, read_claims
from harness_analysis.audit.claim_rules import agree
from harness_analysis.audit.claims import Value, claim_table, field_of, parse_value
from harness_analysis.audit.digit_rules import binomial_tail
from harness_analysis.audit.facts import Cost, Facts, Jump
from harness_analysis.audit.run_rules import RUN_RULES
from harness_analysis.audit.sweep_rules import SWEEP_RULES, group_cells, measured_table
from harness_analysis.compare.load import PhaseUnits, Requests, RunData
from harness_schemas.errors import EvidenceError
from harness_schemas.vocabulary import PARTS

FIXTURES = ROOT / "tests" / "fixtures" / "audit"


def table(title, head, *rows):
    found = claim_table(title, [h.strip() for h in head.split("|")],
                        [[cell.strip() for cell in row.split("|")] for row in rows])  # fmt: skip
    assert found is not None
    return found


def rules(*tables, but=("too-few-samples",)):
    return {flag.rule for flag in audit_claims(tables)} - set(but)


# -- claims: a table that is possible, and one change that is not --------------------------------

STRONG = "GPUs | TP | PP | batch | wall clock (s) | speed-up | tokens/s | efficiency | tokens"
GOOD = (
    "1 | 1 | 1 | 4 | 1203.1 | 1.00 | 14.94 | 100 % | 17974",
    "2 | 2 | 1 | 4 | 688.7 | 1.75 | 26.10 | 87.3 % | 17974",
    "4 | 4 | 1 | 4 | 411.2 | 2.93 | 43.71 | 73.1 % | 17974",
)


def test_a_table_that_may_have_been_measured_passes():
    assert rules(table("Strong scaling", STRONG, *GOOD)) == set()


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("4 | 4 | 1 | 4 | 411.2 | 3.40 | 43.71 | 85.0 % | 17974", "speedup-time"),
        ("4 | 4 | 1 | 4 | 411.2 | 2.93 | 51.32 | 73.1 % | 17974", "speedup-throughput"),
        ("4 | 4 | 1 | 4 | 411.2 | 2.93 | 43.71 | 91.3 % | 17974", "efficiency-speedup"),
        ("4 | 4 | 1 | 4 | 411.2 | 2.93 | 43.71 | 73.1 % | 23974", "tokens-time"),
        ("4 | 4 | 1 | 4 | 257.3 | 4.68 | 69.86 | 116.9 % | 17974", "efficiency-over-one"),
    ],
)
def test_one_number_that_contradicts_the_others_is_flagged(row, rule):
    assert rule in rules(table("Strong scaling", STRONG, *GOOD[:2], row))


def test_throughput_and_time_of_fixed_work_must_agree_without_a_column_of_tokens():
    head = "GPUs | wall clock (s) | throughput (tokens/s)"
    good = ("1 | 1203.1 | 14.94", "2 | 688.7 | 26.10")
    assert rules(table("Strong scaling", head, *good)) == set()
    assert "tokens-time" in rules(table("Strong scaling", head, good[0], "2 | 688.7 | 31.40"))


def test_the_two_forms_of_weak_efficiency_must_agree():
    head = "GPUs | wall clock (s) | tokens/s | efficiency"
    base = "1 | 1203.1 | 14.94 | 100 %"
    assert rules(table("Weak scaling", head, base, "4 | 1311.7 | 54.81 | 91.7 %")) == set()
    wrong = table("Weak scaling", head, base, "4 | 1311.7 | 59.02 | 98.8 %")
    assert rules(wrong) == {"efficiency-speedup", "tokens-time"}
    alone = table("Weak scaling", head.replace("efficiency", "note"), base, "4 | 1311.7 | 59 | -")
    assert rules(alone) == {"tokens-time"}


@pytest.mark.parametrize(
    ("share", "flagged"), [("97 %", False), ("100.4 %", True), ("113 %", True)]
)
def test_a_share_over_one_is_flagged(share, flagged):
    found = rules(
        table("Batch", "batch | tokens/s | MBU", "1 | 14.94 | 31 %", f"8 | 91.37 | {share}")
    )
    assert ("share-over-one" in found) is flagged


@pytest.mark.parametrize(
    ("batch", "rate", "flagged"), [(1, 27.91, True), (1, 15.12, False), (4, 27.91, False)]
)
def test_a_pipeline_with_one_request_gains_nothing(batch, rate, flagged):
    head = "config | batch | tokens/s"
    rows = (f"TP=1 PP=1 | {batch} | 14.94", f"TP=1 PP=2 | {batch} | {rate}")
    assert ("single-request-pipeline" in rules(table("x", head, *rows))) is flagged


@pytest.mark.parametrize(("rate", "flagged"), [("15.31", True), ("27.44", False)])
def test_a_batch_without_gain_never_was_one(rate, flagged):
    found = rules(table("Batch size", "batch | tokens/s", "1 | 14.94", f"2 | {rate}"))
    assert ("never-batched" in found) is flagged


@pytest.mark.parametrize(
    ("rows", "flagged"),
    [
        (("1 | 1200 | 15", "2 | 1000 | 18", "4 | 600 | 30"), set()),  # the same prompts
        (("1 | 12.1 | 15", "2 | 14.5 | 25.1", "4 | 19.2 | 37.6"), set()),  # one batch each
        (("1 | 1200 | 15", "2 | 1000 | 18", "4 | 600 | 50"), {"tokens-time"}),
    ],
)
def test_batches_hold_the_same_tokens_or_as_many_as_they_are_large(rows, flagged):
    found = rules(table("Batch", "batch | wall (s) | tokens/s", *rows))
    assert found - {"round-numbers"} == flagged


@pytest.mark.parametrize(("share", "flagged"), [("29.4 %", False), ("61.2 %", True)])
def test_mbu_grows_no_faster_than_the_throughput(share, flagged):
    head = "batch | tokens/s | MBU"
    found = rules(table("Batch", head, "1 | 14.94 | 31.3 %", f"2 | 27.44 | {share}"))
    assert ("mbu-throughput" in found) is flagged


@pytest.mark.parametrize(
    ("comm", "io", "severity"),
    [("301.3", 22.9, None), ("702.6", 22.9, "problem"), ("301.3", 522.9, "notice")],
)
def test_communication_lies_within_the_whole_and_the_rest_is_asked_for(comm, io, severity):
    head = "GPUs | wall clock (s) | communication (s) | I/O (s)"
    rows = ("1 | 1203.1 | 0.31 | 21.7", f"2 | 688.7 | {comm} | {io}", f"4 | 588.7 | {comm} | {io}")
    flags = [f for f in audit_claims([table("Strong", head, *rows)])
             if f.rule == "parts-over-whole"]  # fmt: skip
    assert {flag.severity for flag in flags} == ({severity} - {None})
    assert severity != "notice" or len(flags) == 1  # one a table


@pytest.mark.parametrize(("time", "flagged"), [("641.2", True), ("688.7", False)])
def test_what_does_not_shrink_and_an_ideal_share_of_the_rest_must_fit(time, flagged):
    head = "GPUs | wall clock (s) | communication (s)"
    found = rules(table("Strong", head, "1 | 1203.1 | 0.3", f"2 | {time} | 81.2"))
    assert ("parts-ideal" in found) is flagged


def test_intervals_are_what_a_number_may_be_off_by():
    """The scaling tables of this project, single runs included, hold no problem."""
    value = parse_value("1.24 s<br>[589 ms, 2.61 s]", "wall clock", "time")
    assert value.number == 1.24 and value.spread == pytest.approx(1.37)
    assert parse_value("12.5 +/- 0.3", "tok/s", "throughput").spread == 0.3
    assert parse_value("98 % [97 %, 100 %]", "efficiency", "efficiency").spread == pytest.approx(
        0.02
    )
    for name in ("strong", "weak", "batch", "gpu-strong", "gpu-batch"):
        page = FIXTURES.parents[2] / "docs" / "examples" / f"{name}.md"
        flags = audit_claims(read_claims(page))
        assert {flag.severity for flag in flags} <= {"notice"}, flags


@pytest.mark.parametrize(("time", "flagged"), [("688.7", True), ("688.9", False)])
def test_the_same_measurement_twice_is_a_copy(time, flagged):
    rows = ("1 | 1203.1", "2 | 688.7", f"4 | {time}")
    assert ("identical-numbers" in rules(table("x", "GPUs | wall (s)", *rows))) is flagged


@pytest.mark.parametrize(("digit", "flagged"), [("0", True), ("3", False)])
def test_round_numbers_look_chosen(digit, flagged):
    rows = [f"{k} | {131 + 7 * k}{digit} | {20 + 3 * k}{digit}" for k in (1, 2, 5, 8, 13)]
    found = rules(table("x", "GPUs | wall (s) | tokens/s", *rows))
    assert ("round-numbers" in found) is flagged


@pytest.mark.parametrize(("last", "flagged"), [("85 %", True), ("83 %", False)])
def test_equal_steps_from_row_to_row_look_like_a_law(last, flagged):
    rows = ("1 | 100 %", "2 | 95 %", "4 | 90 %", f"8 | {last}")
    assert ("even-steps" in rules(table("x", "GPUs | efficiency", *rows))) is flagged


@pytest.mark.parametrize(("repeats", "flagged"), [(1, True), (5, False)])
def test_results_without_repeats_are_noticed(repeats, flagged):
    rows = (f"1 | 1203.1 | {repeats}", f"2 | 688.7 | {repeats}")
    found = rules(table("Strong", "GPUs | wall (s) | repeats", *rows), but=())
    assert ("too-few-samples" in found) is flagged
    assert "too-few-samples" in rules(
        table("Strong", "GPUs | wall (s)", "1 | 12.3", "2 | 7.1"), but=()
    )


def test_the_tables_of_the_seed_report_are_flagged():
    """By hand, from the figures: T1 / T2, tokens and efficiencies agree; these do not."""
    flags = audit_claims(read_claims(FIXTURES / "seed_tables.md"))
    assert {(flag.rule, flag.numbers) for flag in flags if flag.severity == "problem"} == {
        ("single-request-pipeline", "PP 2 with one request in flight is 1.34 x as fast as PP 1"),
        ("single-request-pipeline", "PP 2 with one request in flight is 1.36 x as fast as PP 1"),
        ("identical-numbers", "io is 3.23 in 2 rows"),
        ("one-run-two-results", "the same 24.67 s in both, but comm 2.12 and 2.13"),
        (
            "efficiency-base",
            "efficiency 0.68 of the base, but 0.79 = 1.57 / 2 of Nodes 2, Num Prompts 10, "
            "Batch Size 2 holds it for 1",
        ),
    }
    noticed = {flag.numbers for flag in flags if flag.rule == "communication-token"}
    assert "7.5 ms and 4.2 ms of communication a token in the same layout" in noticed
    assert {flag.rule for flag in flags} > {"spent-once", "too-few-samples"}


def test_every_cell_of_the_invented_tables_that_contradicts_another_is_flagged():
    """Rows by hand, from the numbers in the file; and each table looks chosen as a whole."""
    flags = audit_claims(read_claims(FIXTURES / "invented_tables.md"))
    by_table, whole = {}, {}
    for flag in flags:
        table_name, _, rows = flag.subject.partition(": ")
        name = table_name.split(",")[0]
        if rows:
            by_table.setdefault(name, set()).add((flag.rule, rows.split()[-1]))
        else:
            whole.setdefault(name, set()).add(flag.rule)
    assert all({"round-numbers", "too-few-samples"} <= rules for rules in whole.values())
    assert "even-steps" in whole["Strong scaling"] and "even-steps" in whole["Weak scaling"]
    assert by_table == {
        "Strong scaling": {
            ("speedup-time", "8"), ("efficiency-speedup", "2"), ("efficiency-speedup", "4"),
            ("efficiency-speedup", "8"), ("single-request-pipeline", "2"), ("parts-ideal", "2"),
            ("parts-ideal", "4"), ("parts-ideal", "8"),
        },
        "Weak scaling": {
            ("efficiency-speedup", "2"), ("efficiency-speedup", "4"), ("efficiency-speedup", "8"),
            ("efficiency-over-one", "8"), ("tokens-time", "4"), ("tokens-time", "8"),
        },
        "Batch size": {
            ("never-batched", "2"), ("identical-numbers", "2"), ("mbu-throughput", "2"),
            ("tokens-time", "4"), ("share-over-one", "4"),
        },
    }  # fmt: skip


# -- tables of one report ------------------------------------------------------------------------

REPORT = "nodes | prompts | batch | wall (s) | tokens/s | communication (s) | I/O (s)"


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("2 | 10 | 1 | 24.67 | 20.47 | 3.79 | 3.31", None),  # the run of the other table
        ("2 | 10 | 1 | 24.67 | 20.47 | 3.79 | 3.22", "one-run-two-results"),
        ("2 | 20 | 1 | 46.03 | 21.94 | 7.61 | 3.35", None),
        ("2 | 20 | 1 | 46.03 | 21.94 | 2.61 | 3.35", "communication-token"),
        ("2 | 20 | 1 | 59.81 | 16.88 | 7.61 | 3.35", "spent-once"),
        ("2 | 20 | 4 | 28.63 | 35.27 | 2.61 | 3.35", None),  # another batch
    ],
)
def test_rows_of_one_configuration_agree_over_tables(row, rule):
    first = table("Strong", REPORT, "1 | 10 | 1 | 33.1 | 15.26 | 0 | 2.7",
                  "2 | 10 | 1 | 24.67 | 20.47 | 3.79 | 3.31")  # fmt: skip
    second = table("Other", REPORT, row, "4 | 20 | 1 | 39.2 | 25.8 | 9.93 | 3.87")
    found = rules(first, second) & {"one-run-two-results", "communication-token", "spent-once"}
    assert found == ({rule} if rule else set())


@pytest.mark.parametrize(("own", "flagged"), [("68 %", True), ("100 %", False)])
def test_the_base_of_a_column_has_efficiency_one(own, flagged):
    rows = (f"1 | 20.47 | 1.00 | {own}", "2 | 32.23 | 1.57 | 79 %", "4 | 34.68 | 1.69 | 42 %")
    head = "batch | tokens/s | speed-up | efficiency"
    assert ("efficiency-base" in rules(table("Batch", head, *rows))) is flagged


# -- reading ---------------------------------------------------------------------------------------


def test_the_same_table_in_three_formats_is_the_same(tmp_path):
    head = ["GPUs", "wall clock (ms)", "tokens/s", "parallel efficiency"]
    rows = [["1", "1,203.1", "14.94", "100 %"], ["2", "688.7", "26.10", "87.3 %"]]
    (tmp_path / "t.csv").write_text(
        "\n".join(",".join(f'"{c}"' for c in row) for row in [head, *rows])
    )
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * 4, *rows]]
    (tmp_path / "t.md").write_text("# t\n\nText.\n\n" + "\n".join(lines) + "\n\nMore.\n")
    (tmp_path / "t.json").write_text(
        json.dumps([dict(zip(head, row, strict=True)) for row in rows])
    )
    found = [read_claims(tmp_path / f"t.{ending}") for ending in ("csv", "md", "json")]
    assert found[0] == found[1] == found[2]
    assert found[0][0].rows[0].get("time") == pytest.approx(1.2031)


PAGE = """
# Results
Both nodes hold a half of the layers: a {word}.
## Strong scaling
### Base
- **Nodes:** 1
- Batch size: 1

| Metric | Value |
|---|---|
| Wall clock (s) | 16.34 |
| Throughput (tokens/s) | 15.42 |
| Speed-up | 1.0 (base) |

### Two
- **Nodes:** 2
- Batch size: 1

| Metric | Value |
|---|---|
| Wall clock (s) | 12.22 |
| Throughput (tokens/s) | 20.62 |
| Speed-up | 1.34x |
"""


@pytest.mark.parametrize(("word", "stages"), [("pipeline", 2), ("tensor-parallel pair", None)])
def test_a_small_table_for_each_configuration_is_a_row(tmp_path, word, stages):
    (tmp_path / "r.md").write_text(PAGE.format(word=word))
    (found,) = read_claims(tmp_path / "r.md")
    assert (found.name, found.kind, len(found.rows)) == ("Strong scaling", "strong", 2)
    row = found.rows[1]
    assert row.label == "Nodes 2, Batch size 1"
    known = ("gpus", "batch", "time", "throughput", "speedup", "pp")
    assert [row.get(field) for field in known] == [2, 1, 12.22, 20.62, 1.34, stages]


@pytest.mark.parametrize("text", ["", "no table here", "| a | b |\n|---|---|\n| x | y |\n"])
def test_a_file_without_results_is_refused(tmp_path, text):
    path = tmp_path / "empty.md"
    path.write_text(text)
    with pytest.raises(EvidenceError, match="no table of results"):
        read_claims(path)


@pytest.mark.parametrize(
    ("heading", "field"),
    [
        ("Speed-up", "speedup"), ("Wall clock (s)", "time"), ("tok/s", "throughput"),
        ("Parallel efficiency [%]", "efficiency"), ("Communication time", "comm"),
        ("I/O time (s)", "io"), ("Preprocessing cost (s)", "preprocess"), ("#GPUs", "gpus"),
        ("Resource use", "resource_use"), ("comment", "comm"), ("Model", None),
    ],
)  # fmt: skip
def test_headings_are_understood(heading, field):
    assert field_of(heading) == field


@given(st.floats(0.01, 1e6), st.integers(0, 4))
def test_a_printed_number_is_read_with_its_precision(number, digits):
    text = f"{number:,.{digits}f}"
    value = parse_value(text, "wall clock (s)", "time")
    assert value is not None
    assert abs(value.number - number) <= value.half * 1.001
    assert agree(value.number, number, value)


def test_chance_of_round_digits():
    assert binomial_tail(10, 10, 0.2) == pytest.approx(0.2**10)
    assert binomial_tail(10, 0, 0.2) == pytest.approx(1.0)
    assert not agree(1.0, 1.1, Value(1.0))


# -- runs: one that is sound, and one change that is not -------------------------------------------

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
