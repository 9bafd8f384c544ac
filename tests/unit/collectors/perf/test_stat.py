"""Counts of `perf stat` in every form met."""

from __future__ import annotations

import pytest
from support import needs_samples
from unit.collectors.perf.outputs import CSV, JSON, LOGS, PEOPLE, ingest, read

from harness_collectors.perf import COLLECTOR
from harness_collectors.perf.stat import METRIC_UNIT, read_stat, stat_form


def values(reading):
    return {counter.event: counter.value for counter in reading.counters}


@needs_samples
@pytest.mark.parametrize(
    ("name", "form", "counters"),
    [
        ("perf/perf_stat_human_bcc1757.txt", "people", 2),
        ("perf/perf_stat_j_INVALID_trailing_comma_bug.txt", "json", 1),
        ("perf/perf_stat_j_benchkit109.txt", "json", 6),
        ("perf/perf_stat_j_interval_null_metric.txt", "json", 1),
        ("perf/perf_stat_j_per_core_aggregate_metric_only_row.txt", "json", 2),
        ("perf/perf_stat_j_spr_metric_value_as_string.txt", "json", 3),
        ("perf/perf_stat_x_comma_linux_commit_2022.csv", "csv", 4),
        ("perf_real/stat_I100.jsonl", "json", 72),
        ("perf_real/stat_a.jsonl", "json", 9),
        ("perf_real/stat_hw.csv", "csv", 5),
        ("perf_real/stat_pid.jsonl", "json", 12),
    ],
)
def test_every_real_file_is_read_whole(name, form, counters):
    path = LOGS / name
    reading = read_stat(read(path))
    assert (reading.form, len(reading.counters), reading.unreadable) == (form, counters, 0)
    assert COLLECTOR.recognise(path, path.read_bytes()[:65536])
    assert ingest(path)["collection"][0]["records"] == counters


@needs_samples
def test_values_of_real_files():
    people = read_stat(read(LOGS / "perf" / "perf_stat_human_bcc1757.txt"))
    assert values(people) == {"cycles": 15476379515.0, "instructions": 30998832821.0}
    assert {c.interval_ns for c in people.counters} == {5_001_319_274}
    multiplexed = {
        c.event: c for c in read_stat(read(LOGS / "perf/perf_stat_j_benchkit109.txt")).counters
    }
    assert (multiplexed["cycles"].state, multiplexed["cycles"].running_share) == ("estimated", 0.1)
    assert (multiplexed["page-faults"].state, multiplexed["page-faults"].value) == ("ok", 66.0)
    core, metric = read_stat(
        read(LOGS / "perf/perf_stat_j_per_core_aggregate_metric_only_row.txt")
    ).counters
    assert (core.scope, core.value) == ("S0-D0-C15", 233533.0)
    assert (metric.event, metric.unit, metric.value) == (
        "stalled cycles per insn",
        METRIC_UNIT,
        0.192975,
    )
    interval = read_stat(read(LOGS / "perf/perf_stat_j_interval_null_metric.txt")).counters[0]
    assert (interval.offset_ns, interval.value) == (11_127_757_275, 85715898.0)
    torn = read_stat(read(LOGS / "perf/perf_stat_j_INVALID_trailing_comma_bug.txt")).counters[0]
    assert (torn.event, torn.value) == ("armv8_pmuv3_1/branch-misses/", 3112.0)


@needs_samples
def test_unsupported_is_null_with_its_state():
    tables = ingest(LOGS / "perf_real" / "stat_hw.csv")
    rows = {row["event"]: row for row in tables["perf_counters"]}
    assert rows["cycles"]["value"] is None
    assert rows["cycles"]["state"] == "not_supported"
    assert (rows["task-clock"]["value"], rows["task-clock"]["unit"]) == (273.87, "msec")
    [state] = tables["collection"]
    assert state["state"] == "degraded"
    assert state["reason"] == (
        "not supported here: branch-misses, cache-misses, cycles, instructions"
    )


@needs_samples
def test_an_event_of_the_kernel_counted_in_user_mode_is_no_zero():
    reading = read_stat(read(LOGS / "perf" / "perf_stat_x_comma_linux_commit_2022.csv"))
    assert {c.event: (c.value, c.state) for c in reading.counters} == {
        "task-clock:u": (1.2, "ok"),
        "context-switches:u": (None, "not_counted"),
        "cpu-migrations:u": (None, "not_counted"),
        "page-faults:u": (70.0, "ok"),
    }


@needs_samples
def test_intervals_follow_each_other():
    reading = read_stat(read(LOGS / "perf_real" / "stat_I100.jsonl"))
    clock = [c for c in reading.counters if c.event == "task-clock"]
    assert [c.offset_ns for c in clock][:2] == [103_728_645, 204_030_391]
    assert [c.interval_ns for c in clock][:2] == [103_728_645, 100_301_746]
    assert sum(c.interval_ns for c in clock) == clock[-1].offset_ns
    assert reading.started == "Fri Nov 20 20:56:49 2026"


def test_rows_for_people_whose_title_is_lost():
    rows = (
        "   12.000111222            1500.25      cpu-clock (msec)\n"
        "   12.000111222              4,702      context-switches          #    0.587 K/sec\n"
        "   12.000111222                 17      cpu-migrations            #    0.022 K/sec\n"
    )
    assert stat_form(rows) == "people"
    assert [item.value for item in read_stat(rows).counters] == [1500.25, 4702, 17]
    assert stat_form("found 12 page-faults\n13 page-faults\n") is None


@needs_samples
def test_only_perf_is_recognised():
    others = [
        p for p in LOGS.rglob("*") if p.is_file() and p.parent.name not in ("perf", "perf_real")
    ]
    assert len(others) > 60
    for path in others:
        assert not COLLECTOR.recognise(path, read(path)[:65536].encode()), path.name


def test_json_lines():
    reading = read_stat(JSON)
    assert [(c.event, c.value, c.state) for c in reading.counters] == [
        ("task-clock", 86.716831, "ok"),
        ("cycles:u", 5000.0, "estimated"),
        ("instructions:u", None, "not_supported"),
        ("task-clock", None, "not_counted"),
        ("cycles:u", None, "not_counted"),
        ("insn per cycle", 0.5, "ok"),
    ]
    assert reading.unreadable == 0
    assert {c.interval_ns for c in reading.counters} == {1_000_000_001, 1_500_000_001}


def test_json_of_a_locale_with_decimal_commas():
    line = (
        '{"counter-value" : "1,397967", "unit" : "msec", "event" : "task-clock", '
        '"event-runtime" : 1397967, "pcnt-running" : 100,00, "metric-value" : 0,001393}\n'
    )
    [counter] = read_stat(line).counters
    assert (counter.value, counter.running_share) == (1.397967, 1.0)


def test_json_between_lines_of_the_application():
    reading = read_stat("loading ...\n" + JSON.replace("\n{", "\n1%|# |{", 1) + "done\n")
    assert (len(reading.counters), reading.unreadable) == (6, 2)


def test_separated_values():
    reading = read_stat(CSV)
    assert [(c.scope, c.event, c.value, c.state) for c in reading.counters] == [
        ("CPU0", "task-clock", 86.72, "ok"),
        ("CPU1", "cpu/event=0x3c,umask=0x0,name=x/", 5000.0, "estimated"),
        ("CPU1", "cycles:u", None, "not_counted"),
        ("CPU0", "context-switches", 7.0, "ok"),
        ("CPU0", "stalled cycles per insn", 0.25, "ok"),
    ]
    assert reading.counters[1].running_share == pytest.approx(0.4999)
    assert reading.unreadable == 0


@pytest.mark.parametrize("delimiter", [";", "|", ":", "\t"])
def test_other_separators(delimiter):
    lines = (
        "1.20/msec/task-clock/1204272/100.00/0.697/CPUs utilized\n"
        "<not supported>//cycles/0/100.00//\n"
        "S0/4/70//page-faults/2.11%/1204272/33.30/58.1/K_s\n"
    )
    reading = read_stat(lines.replace("/", delimiter))
    assert [(c.scope, c.event, c.value, c.state) for c in reading.counters] == [
        (None, "task-clock", 1.2, "ok"),
        (None, "cycles", None, "not_supported"),
        ("S0", "page-faults", 70.0, "estimated"),
    ]


def test_the_form_for_people_in_another_locale():
    reading = read_stat(PEOPLE)
    assert [(c.event, c.value, c.state) for c in reading.counters] == [
        ("task-clock", 1234.56, "ok"),
        ("cycles:u", 1234567.0, "estimated"),
        ("instructions:u", None, "not_supported"),
        ("page-faults", 3.0, "ok"),
    ]
    assert {c.interval_ns for c in reading.counters} == {1_240_000_000}
    assert (reading.unreadable, reading.counters[1].running_share) == (0, pytest.approx(0.499))


def test_shares_after_a_second_metric_and_clocks_without_a_unit():
    text = (
        " Performance counter stats for 'x':\n\n"
        "       1500.250000 task-clock (msec)         #    0.991 CPUs utilized\n"
        "     8,000,000,001 instructions              #    1.53  insns per cycle\n"
        "                                             #    0.21  stalled cycles per insn [83.50%]\n"
        "     1,000,000,001      branches             #  775.351 M/sec    (75.00%)\n\n"
        "       2.000000000 seconds time elapsed\n"
    )
    reading = read_stat(text)
    assert [(c.value, c.unit, c.running_share, c.state) for c in reading.counters] == [
        (1500.25, "msec", 1.0, "ok"),
        (8_000_000_001.0, "count", pytest.approx(0.835), "estimated"),
        (1_000_000_001.0, "count", 0.75, "estimated"),
    ]
    assert reading.unreadable == 0
    (clock,) = read_stat("1920.159821,,task-clock,1920159821,100.00,,\n").counters
    assert (clock.value, clock.unit) == (1920.159821, "msec")


def test_intervals_for_people():
    text = (
        "#           time CPU                    counts unit events\n"
        "     0.010121784 CPU0                       32      context-switches   #    2.655 K/sec\n"
        "     0.010121784 CPU1                    12.06 msec cpu-clock          #    1.205 CPUs\n"
    )
    assert stat_form(text) == "people"
    assert [(c.scope, c.event, c.value, c.offset_ns) for c in read_stat(text).counters] == [
        ("CPU0", "context-switches", 32.0, 10_121_784),
        ("CPU1", "cpu-clock", 12.06, 10_121_784),
    ]
