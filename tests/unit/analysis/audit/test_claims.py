"""A table that is possible passes; one number that is not is flagged."""

from __future__ import annotations

import pytest
from support import ROOT
from unit.analysis.audit.claim_tables import rules, table

from harness_analysis.audit import audit_claims, read_claims
from harness_analysis.audit.claims import parse_value

FIXTURES = ROOT / "tests" / "fixtures" / "audit"
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
