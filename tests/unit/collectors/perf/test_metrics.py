"""perf with metrics only, counted by thread, and laid out by others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped, interleaved_lines

from harness_collectors.perf import COLLECTOR
from harness_collectors.perf.stat import read_stat, stat_form
from harness_schemas.spi import IngestContext

TITLE = "\n Performance counter stats for 'system wide':\n\n"
ENDED = "\n       1.001170800 seconds time elapsed\n\n"
MISSES = "branch-misses of all branches"
GHZ, IPC, BAD = ("GHz", 2.31), ("insn per cycle", 1.12), (MISSES, 0.5)


def columns(*rows, lead=""):
    """As perf's print_metric_header and print_metric_only pad them: a long name by one more."""
    names = (GHZ[0], IPC[0], MISSES)
    text = lead + "".join(f"{name:>20} " for name in names) + "\n"
    for row_lead, *cells in rows:
        widths = [20 if len(name) <= 20 else len(name) + 1 for name in names]
        text += row_lead + "".join(f"{c:>{w}} " for c, w in zip(cells, widths, strict=True)) + "\n"
    return text


ROW = ("2.31", "1.12", "0.50%")
FORMS = {
    "json": (
        '{"GHz" : "2.31", "insn per cycle" : "1.12", "' + MISSES + '" : "0.50"}\n',
        [(*GHZ, None, None), (*IPC, None, None), (*BAD, None, None)],
    ),
    "json_interval": (
        '{"interval" : 1.000123456, "insn per cycle" : "1.12", "GHz" : "none"}\n'
        '{"interval" : 2.000223456, "insn per cycle" : "1.30", "GHz" : "2.31"}\n',
        [
            (*IPC, None, 1000123456), ("GHz", None, None, 1000123456),
            ("insn per cycle", 1.3, None, 2000223456), (*GHZ, None, 2000223456),
        ],
    ),
    "json_core": (
        '{"core" : "S0-D0-C0", "aggregate-number" : 2, "insn per cycle" : "1.12"}\n',
        [(*IPC, "S0-D0-C0", None)],
    ),
    "json_of_6.1": (
        '{"unit" : "GHz", "unit" : "insn per cycle"}\n'
        '{"interval" : 0.100550683}{"metric-value" : "2.31"}{"metric-value" : "1.12"}\n',
        [(*GHZ, None, 100550683), (*IPC, None, 100550683)],
    ),
    "people": (
        TITLE + columns(("", *ROW)) + ENDED,
        [(*GHZ, None, None), (*IPC, None, None), (*BAD, None, None)],
    ),
    "people_interval": (
        columns(("     1.000123456 ", *ROW), lead="#           time "),
        [(*GHZ, None, 1000123456), (*IPC, None, 1000123456), (*BAD, None, 1000123456)],
    ),
    "people_cpu": (
        TITLE + columns(("CPU1  ", *ROW), lead="      ") + ENDED,
        [(*GHZ, "CPU1", None), (*IPC, "CPU1", None), (*BAD, "CPU1", None)],
    ),
    "topdown": (
        TITLE + f"{'':20} {'retiring':>20} {'frontend bound':>20}\nS0-D0-C0           2 "
        f"{'16.6%':>20} {'27.5%':>20}\n" + ENDED,
        [("retiring", 16.6, "S0-D0-C0", None), ("frontend bound", 27.5, "S0-D0-C0", None)],
    ),
    "csv": (
        "GHz,insn per cycle,\n2.31,1.12,\n",
        [(*GHZ, None, None), (*IPC, None, None)],
    ),
    "csv_interval": (
        "time,GHz,insn per cycle,\n     1.000123456,2.31,1.12,\n",
        [(*GHZ, None, 1000123456), (*IPC, None, 1000123456)],
    ),
}  # fmt: skip


def said(text):
    return [(c.event, c.value, c.scope, c.offset_ns) for c in read_stat(text).counters]


@pytest.mark.parametrize("name", sorted(FORMS))
def test_metrics_without_their_counts(name, tmp_path):
    text, wanted = FORMS[name]
    assert COLLECTOR.recognise(tmp_path / "x", text.encode())
    assert said(text) == wanted
    assert {c.state for c in read_stat(text).counters} <= {"ok", "not_counted"}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)).flatmap(
        lambda n: st.tuples(st.just(n), cuts(FORMS[n][0].encode()))
    )
)
def test_a_cut_file_gives_no_number_that_the_whole_one_has_not(case):
    name, data = case
    assert set(said(data.decode())) <= set(FORMS[name][1])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)).flatmap(
        lambda n: st.one_of(
            flipped(FORMS[n][0].encode()),
            interleaved_lines(FORMS[n][0].encode(), b"a b\n1.5\n{}\n"),
        )
    )
)
def test_damage_raises_nothing(data):
    read_stat(data.decode("utf-8", "replace"))


@pytest.mark.parametrize(
    "text", ['{"loss": "1.2"}\n', "step,loss,\n1,2,\n", "a  b\n1  2\n", "{}\n"]
)
def test_other_tables_are_not_perfs(text):
    assert stat_form(text) is None


def test_threads_are_scopes():
    text = (
        "\n Performance counter stats for process id '812':\n\n"
        "       ray::worker-812               98.12 msec task-clock  #    0.098 CPUs utilized\n"
        "          python3-815       <not counted>      cycles\n" + ENDED
    )
    assert said(text) == [
        ("task-clock", 98.12, "ray::worker-812", None),
        ("cycles", None, "python3-815", None),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_rows_that_another_program_laid_out(indent):
    row = {
        "counter-value": "12.5",
        "unit": "msec",
        "event": "task-clock",
        "event-runtime": 1,
        "pcnt-running": 100.0,
    }
    text = json.dumps([row, {**row, "counter-value": "3"}], indent=indent)
    assert [(c.event, c.value) for c in read_stat(text).counters] == [
        ("task-clock", 12.5),
        ("task-clock", 3.0),
    ]


def test_decimal_commas_between_other_separators():
    text = "     1.000123456;1200,12;msec;task-clock;1200120000;50,00;1,200;CPUs utilized\n"
    [counter] = read_stat(text).counters
    assert (counter.value, counter.running_share, counter.state) == (1200.12, 0.5, "estimated")


def test_counts_behind_the_label_of_a_launcher(tmp_path):
    lines = [
        "",
        " Performance counter stats for 'python x.py':",
        "",
        "          4,231.12 msec task-clock       #    1.862 CPUs utilized",
        "             1,290      context-switches #  304.884 /sec",
        "",
        "       2.272301915 seconds time elapsed",
    ]
    path = tmp_path / "stat.txt"
    path.write_text("".join(f"0: {line}\r\n" for line in lines))
    assert COLLECTOR.recognise(path, path.read_bytes())
    batches = COLLECTOR.ingest([path], IngestContext(tmp_path))
    [rows] = [batch.data.to_pylist() for batch in batches if batch.table == "perf_counters"]
    values = {row["event"]: row["value"] for row in rows}
    assert values == {"task-clock": 4231.12, "context-switches": 1290}


def test_line_ends_of_windows_are_no_part_of_a_name():
    text = "10,,cycles,99,100.00,,\r\n,,,,,1.24,insn per cycle\r\n"
    assert [(c.event, c.value) for c in read_stat(text).counters] == [
        ("cycles", 10),
        ("insn per cycle", 1.24),
    ]


def test_a_control_group_behind_the_event_is_its_scope():
    text = (
        "1204.50,msec,cpu-clock,slurm/job_7,1204500000,100.00,1.204,CPUs utilized\n"
        "12,,cpu/event=0x3c,umask=1/u,slurm/job_7,1204500000,100.00,,\n"
        "13,,cpu/event=0x3c,umask=1/u,1204500000,100.00,,\n"
    )
    assert [(c.event, c.scope, c.value) for c in read_stat(text).counters] == [
        ("cpu-clock", "slurm/job_7", 1204.5),
        ("cpu/event=0x3c,umask=1/u", "slurm/job_7", 12),
        ("cpu/event=0x3c,umask=1/u", None, 13),
    ]
