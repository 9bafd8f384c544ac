"""Output of perf in every form met, and how perf is put around a rank."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter as Tallied
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, doubled, flipped, interleaved_chunks, interleaved_lines
from support import SAMPLES, needs_samples

from harness_collectors.perf import ATTACH, COLLECTOR, EVENTS
from harness_collectors.perf.script import is_script, read_script
from harness_collectors.perf.stat import METRIC_UNIT, read_stat, stat_form
from harness_schemas.spi import CaptureRequest, IngestContext

LOGS = SAMPLES / "logs" if SAMPLES else Path()
STATES = {"ok", "estimated", "not_supported", "not_counted"}


def read(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace")


def ingest(*paths, root=None):
    """Batches by table, as rows."""
    tables = {"perf_counters": [], "samples": [], "collection": []}
    for batch in COLLECTOR.ingest(list(paths), IngestContext(root or paths[0].parent)):
        tables[batch.table] += batch.data.to_pylist()
    return tables


def values(reading):
    return {counter.event: counter.value for counter in reading.counters}


# --- real files --------------------------------------------------------------------------------


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


@needs_samples
def test_stacks_of_real_scripts():
    stacks = read_script(read(LOGS / "perf_real" / "rec313.script.txt.gz"))
    assert (stacks.samples, stacks.unreadable, stacks.pids) == (199, 0, {3038})
    assert sum(stacks.folded.values()) == sum(stacks.top_frames.values()) == 199
    assert stacks.top_frames.most_common(1) == [("_PyObject_Free", 58)]
    classic = read_script(read(LOGS / "perf" / "perf_script_dd_stacks_flamegraph.txt"))
    assert classic.folded == Tallied(
        {
            "dd;[unknown];read;system_call;sys_read;vfs_read;fsnotify": 1,
            "dd;[unknown];read": 1,
            "dd;[unknown];[dd]": 1,
            "dd;[unknown];system_call": 1,
        }
    )


@needs_samples
def test_only_perf_is_recognised():
    others = [
        p for p in LOGS.rglob("*") if p.is_file() and p.parent.name not in ("perf", "perf_real")
    ]
    assert len(others) > 60
    for path in others:
        assert not COLLECTOR.recognise(path, read(path)[:65536].encode()), path.name


# --- forms of our own making -------------------------------------------------------------------

JSON = """\
# started on Fri Nov 20 20:56:49 2026

{"interval" : 1.000000001, "counter-value" : "86.716831", "unit" : "msec", "event" : "task-clock", "event-runtime" : 86716831, "pcnt-running" : 100.00, "metric-value" : 0.86, "metric-unit" : "CPUs utilized"}
{"interval" : 1.000000001, "counter-value" : "5000.000000", "unit" : "", "event" : "cycles:u", "event-runtime" : 43, "pcnt-running" : 50.00, "metric-value" : "0.000000", "metric-unit" : "(null)"}
{"interval" : 1.000000001, "counter-value" : "<not supported>", "unit" : "", "event" : "instructions:u", "event-runtime" : 0, "pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"interval" : 2.500000002, "counter-value" : "<not counted>", "unit" : "msec", "event" : "task-clock", "event-runtime" : 0, "pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"interval" : 2.500000002, "counter-value" : "0.000000", "unit" : "", "event" : "cycles:u", "event-runtime" : 0, "pcnt-running" : 0.00, }
{"interval" : 2.500000002, "metric-value" : 0.5, "metric-unit" : "insn per cycle"}
"""  # noqa: E501
CSV = """\
# started on Fri Nov 20 20:56:49 2026

     1.000000001,CPU0,86.72,msec,task-clock,86716831,100.00,0.867,CPUs utilized
     1.000000001,CPU1,5000,,cpu/event=0x3c,umask=0x0,name=x/,43,49.99,,
     1.000000001,CPU1,<not counted>,,cycles:u,0,100.00,,
     2.500000002,CPU0,7,,context-switches,86716831,100.00,1.0,K/sec
     2.500000002,CPU0,,,,,,0.25,stalled cycles per insn
"""
PEOPLE = """\
# started on Fri Nov 20 20:56:49 2026


 Performance counter stats for 'python3 -c
1 + 1
2 cycles
':

          1.234,56 msec task-clock                       #    0,995 CPUs utilized
         1.234.567      cycles:u                         #    1,000 GHz             (49,90%)
   <not supported>      instructions:u
                 3      page-faults                      #   58.126 K/sec    ( +-  1.20% )

       1,240000000 seconds time elapsed

       1,001000000 seconds user
       0,200000000 seconds sys


"""


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


SCRIPT = """\
pt main thread 12/14 [003] 3752.005660:   10101010 cpu-clock:ppp: 
\t          12e43a _PyLong_Add+0x17a (/usr/lib/libpython3.13.so.1.0)
\t            31ef [unknown] (/bin/dd)
\t    7f2eb2b31c2c [unknown] ([unknown])

swapper     0 [000] 3752.1: cycles:  ffffffff81 native_safe_halt+0xb ([kernel.kallsyms])

gone 13 3752.2: 1 cycles: 

"""  # noqa: W291


def test_stacks_are_folded():
    stacks = read_script(SCRIPT)
    assert stacks.folded == {
        "pt main thread;[unknown];[dd];_PyLong_Add": 1,
        "swapper;native_safe_halt": 1,
        "gone": 1,
    }
    assert stacks.top_frames == {"_PyLong_Add": 1, "native_safe_halt": 1, "[no stack]": 1}
    assert (stacks.samples, stacks.unreadable, stacks.pids) == (3, 0, {0, 12, 13})
    assert stacks.events == {"cpu-clock:ppp": 1, "cycles": 2}


# --- files of a run ----------------------------------------------------------------------------


def test_names_of_our_files_say_rank_pid_and_beginning(tmp_path):
    folder = tmp_path / "artifacts" / "perf" / "n7"
    folder.mkdir(parents=True)
    path = folder / "stat.rank-00003.pid-812.begin-1700000000000000000.jsonl"
    path.write_text(JSON)
    tables = ingest(path, root=tmp_path)
    first = tables["perf_counters"][0]
    assert (first["rank"], first["pid"], first["host"]) == (3, 812, "n7")
    assert (first["ts_ns"], first["offset_ns"]) == (1700000001000000001, 1_000_000_001)
    [state] = tables["collection"]
    assert (state["host"], state["records"], state["state"]) == ("n7", 6, "degraded")
    assert json.loads(state["detail"])["events"]["task-clock"] == "not_counted+ok"


def test_without_a_beginning_there_is_no_moment(tmp_path):
    path = tmp_path / "stat.jsonl"
    path.write_text(JSON)
    assert {row["ts_ns"] for row in ingest(path)["perf_counters"]} == {None}
    assert {row["rank"] for row in ingest(path)["perf_counters"]} == {None}


def test_the_complaint_of_our_perf_is_the_reason(tmp_path):
    folder = tmp_path / "artifacts" / "perf" / "n7"
    folder.mkdir(parents=True)
    path = folder / "stat.rank-00000.err"
    path.write_text(
        "Error:\nAccess to performance monitoring is limited: perf_event_paranoid is 4\n"
    )
    assert COLLECTOR.recognise(path, path.read_bytes())
    [state] = ingest(path, root=tmp_path)["collection"]
    assert state["state"] == "failed"
    assert "perf_event_paranoid is 4" in state["reason"]


def test_perf_data_without_perf_says_so(tmp_path, monkeypatch):
    path = tmp_path / "perf.data"
    path.write_bytes(b"PERFILE2" + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert COLLECTOR.recognise(path, path.read_bytes())
    [state] = ingest(path)["collection"]
    assert (state["state"], "not on PATH" in state["reason"]) == ("failed", True)


def test_counts_of_innermost_frames_are_samples(tmp_path):
    path = tmp_path / "perf.script"
    path.write_text(SCRIPT)
    tables = ingest(path)
    assert {row["metric"]: row["value"] for row in tables["samples"]} == {
        "perf_top_frame:_PyLong_Add": 1.0,
        "perf_top_frame:native_safe_halt": 1.0,
        "perf_top_frame:[no stack]": 1.0,
    }
    [state] = tables["collection"]
    assert (state["state"], state["records"]) == ("ok", 3)
    assert json.loads(state["detail"])["files"]["perf.script"]["stacks"] == 3


# --- capture -----------------------------------------------------------------------------------


def test_the_prefix_is_pure_and_readable(tmp_path):
    request = CaptureRequest(tmp_path, 4, "cpu", {"interval_ms": 250, "events": ["task-clock"]})
    plan = COLLECTOR.prepare(request)
    assert plan.argv_prefix == (
        *("sh", "-c", ATTACH, "perf-attach", str(tmp_path / "artifacts" / "perf")),
        *("stat", "250", "task-clock", "99"),
    )
    assert (plan.env, plan.exclusive, list(tmp_path.iterdir())) == ({}, frozenset(), [])


def test_options_are_checked_all_at_once():
    assert COLLECTOR.options({})["events"] == list(EVENTS)
    with pytest.raises(ValueError, match="no option 'evnts'") as wrong:
        COLLECTOR.options({"evnts": 1, "interval_ms": 0, "mode": "top", "events": ["a;rm -rf /"]})
    assert len(str(wrong.value).splitlines()) == 4


def test_without_perf_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = COLLECTOR.check("cpu")
    assert not found.available
    assert "install" in found.hint


def test_a_forbidden_perf_says_why(tmp_path, monkeypatch):
    script = tmp_path / "perf"
    script.write_text(
        "#!/bin/sh\necho 'Error:' >&2\n"
        "echo 'No permission to enable task-clock event.' >&2\nexit 255\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = COLLECTOR.check("cpu")
    assert not found.available
    assert found.reason == ("perf counts nothing here: No permission to enable task-clock event.")
    assert found.hint


# --- damage ------------------------------------------------------------------------------------

FORMS = {"json": JSON.encode(), "csv": CSV.encode(), "people": PEOPLE.encode()}


def damaged(data, other):
    return st.one_of(
        cuts(data),
        doubled(data),
        flipped(data),
        interleaved_lines(data, other),
        interleaved_chunks(data, other),
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(*(damaged(data, other) for data in FORMS.values() for other in FORMS.values())))
def test_damaged_counts(data):
    text = data.decode("utf-8", "replace")
    reading = read_stat(text)
    assert len(reading.counters) <= text.count("\n") + 1
    for counter in reading.counters:
        assert counter.state in STATES
        assert (counter.value is None) == (counter.state in ("not_supported", "not_counted"))
        assert counter.running_share is None or 0 < counter.running_share <= 1
        assert counter.interval_ns is None or counter.interval_ns >= 0


@settings(deadline=None)
@given(st.sampled_from(sorted(FORMS)).flatmap(lambda form: cuts(FORMS[form])))
def test_a_cut_file_says_nothing_that_the_whole_one_does_not(data):
    known = {
        (c.event, c.scope, c.offset_ns, c.value, c.state)
        for whole in FORMS.values()
        for c in read_stat(whole.decode()).counters
    }
    for c in read_stat(data.decode("utf-8", "replace")).counters:
        assert (c.event, c.scope, c.offset_ns, c.value, c.state) in known


@given(damaged(SCRIPT.encode(), JSON.encode()))
def test_damaged_stacks(data):
    text = data.decode("utf-8", "replace")
    is_script(text)
    stacks = read_script(text)
    assert stacks.samples == sum(stacks.folded.values()) == sum(stacks.top_frames.values())
    assert stacks.samples <= text.count("\n") + 1


@given(cuts(SCRIPT.encode()))
def test_cut_stacks_hold_no_invented_frame(data):
    whole = {frame for stack in read_script(SCRIPT).folded for frame in stack.split(";")}
    for stack in read_script(data.decode()).folded:
        assert set(stack.split(";")) <= whole


@pytest.mark.parametrize(
    "line",
    ["1," * 4000, "9" * 8000, "a-1," * 2000, "0,,a," + "1," * 3000, "x " * 4000, "a" * 8000 + ":"],
)
def test_no_line_costs_more_than_its_length(line):
    """Patterns with gaps must not try all ways to fill them: 200 lines of 8 KiB at once."""
    text = (line + "\n") * 200
    began = time.process_time()
    stat_form(text)
    is_script(text)
    read_stat("1.20,msec,task-clock,1204272,100.00,0.697,CPUs utilized\n" + text)
    read_stat(" Performance counter stats for 'x':\n" + text)
    read_script(text)
    assert time.process_time() - began < 5  # 0.2 s; 216 s with one careless pattern


def test_scripts_without_times():
    text = "serve 42 cpu-clock:\n  12f wait (libnccl.so)\n  230 main (serve)\n\n"
    assert is_script(text)
    stacks = read_script(text)
    assert (stacks.samples, stacks.folded) == (1, {"serve;main;wait": 1})
    assert not is_script("error 42 reported:\n\nerror 43 reported:\n\n")
