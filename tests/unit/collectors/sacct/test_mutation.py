"""Damaged accounting: no exception, no row that the text does not hold, never a wrong state."""

from __future__ import annotations

import contextlib
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import cuts, doubled, flipped, interleaved_chunks, interleaved_lines
from support import ROOT

from harness_collectors.sacct import COLLECTOR
from harness_collectors.sacct.fields import PARSERS, STATES
from harness_collectors.sacct.json_text import read_json
from harness_collectors.sacct.scontrol import read_scontrol
from harness_collectors.sacct.table import read_table
from harness_schemas.spi import IngestContext

FIXTURES = ROOT / "tests" / "fixtures" / "sacct"
TABLE = (FIXTURES / "requeue_D.txt").read_bytes()
PIPE_BREAK = TABLE.replace(b"|decode-tp2|", b"|decode\n tp2|")
SCONTROL = "".join(
    f"JobId={number} JobName=n{number} UserId=me(1) MCS_label=N/A JobState={state} Reason=None "
    f"Restarts=0 ExitCode=0:{number} RunTime=00:01:0{number} NodeList=n{number} NumTasks=4\n"
    for number, state in enumerate(["FAILED", "TIMEOUT", "COMPLETED", "OUT_OF_MEMORY"], start=1)
).encode()
JOBS = json.dumps(
    {
        "jobs": [
            {"job_id": number, "state": {"current": [state]}, "steps": [
                {"step": {"id": f"{number}.0"}, "state": [state], "time": {"elapsed": 7}}]}
            for number, state in enumerate(["FAILED", "TIMEOUT", "COMPLETED"], start=1)
        ]
    }
).encode()  # fmt: skip


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def truth(reading):
    """What may be said of each row's job and step."""
    said = {}
    for step in reading.steps:
        said.setdefault((step.job_id, step.step_id), set()).add(step.state)
    return said


def check(reading, known, most):
    """No more rows than the text has lines, and of each no state but its own or none."""
    assert len(reading.steps) <= most
    for step in reading.steps:
        allowed = known.get((step.job_id, step.step_id))
        if allowed is not None:
            assert step.state in allowed | {None}
        assert step.state is None or step.state in STATES


ORIGINAL = truth(read_table(text(TABLE)))


@given(cuts(TABLE))
def test_cut_table(data):
    reading = read_table(text(data))
    check(reading, ORIGINAL, data.count(b"\n") + 1)
    assert {(s.job_id, s.step_id) for s in reading.steps} <= set(ORIGINAL)
    sizes = {step.max_rss_bytes for step in read_table(text(TABLE)).steps}
    assert {step.max_rss_bytes for step in reading.steps} <= sizes | {None}
    assert {s.cancelled_by for s in reading.steps} <= {None, 1007}


@given(doubled(TABLE))
def test_doubled_table(data):
    reading = read_table(text(data))
    check(reading, ORIGINAL, data.count(b"\n"))
    # Lines twice are no second attempt.
    assert {step.attempt for step in reading.steps} <= {None, 0, 1}


@given(interleaved_lines(TABLE, SCONTROL + PIPE_BREAK))
def test_interleaved_lines(data):
    check(read_table(text(data)), ORIGINAL, data.count(b"\n"))
    check(read_scontrol(text(data)), {}, data.count(b"\n"))


@given(interleaved_chunks(TABLE, SCONTROL))
def test_interleaved_chunks(data):
    check(read_table(text(data)), {}, data.count(b"\n") + 1)
    check(read_scontrol(text(data)), {}, data.count(b"JobId="))


@settings(max_examples=400)
@given(flipped(TABLE))
def test_flipped_table(data):
    check(read_table(text(data)), ORIGINAL, data.count(b"\n") + 1)


@given(flipped(PIPE_BREAK))
def test_flipped_table_with_line_breaks(data):
    check(read_table(text(data)), truth(read_table(text(PIPE_BREAK))), data.count(b"\n") + 1)


@given(st.one_of(cuts(SCONTROL), doubled(SCONTROL), flipped(SCONTROL, most=1)))
def test_damaged_scontrol(data):
    known = {("1", None): {"FAILED"}, ("2", None): {"TIMEOUT"},
             ("3", None): {"COMPLETED"}, ("4", None): {"OUT_OF_MEMORY"}}  # fmt: skip
    reading = read_scontrol(text(data))
    assert len(reading.steps) <= data.count(b"JobId=")
    for step in reading.steps:
        # A flipped digit of the only id in a line cannot be noticed; the state still is its own.
        if step.name == f"n{step.job_id}":
            assert step.state in known[step.job_id, None]


@given(cuts(SCONTROL))
def test_cut_scontrol_never_shortens_a_number(data):
    for step in read_scontrol(text(data)).steps:
        assert step.signal in (None, int(step.job_id))
        assert step.elapsed_s in (None, 60 + int(step.job_id))


JSON_TRUTH = truth(read_json(text(JOBS)))


@given(cuts(JOBS))
def test_cut_json(data):
    reading = read_json(text(data))
    check(reading, JSON_TRUTH, len(JOBS))
    assert len(reading.steps) % 2 == 0


@given(st.one_of(flipped(JOBS), interleaved_chunks(JOBS, TABLE)))
def test_damaged_json(data):
    reading = read_json(text(data))
    assert all(step.state is None or step.state in STATES for step in reading.steps)
    assert len(reading.steps) <= 6


WORDS = st.sampled_from([*STATES, "NaN", "-1", "9" * 40, "1-00:00:00", "0:125", "cpu=,x", "None"])


@given(st.sampled_from(sorted(PARSERS)), st.one_of(WORDS, st.text(max_size=40)))
@example("elapsed", "99999999999999999999")
@example("start", "2024-13-99T99:99:99")
@example("maxrss", "9" * 30 + "E")
@example("tresusageinmax", "mem=" + "9" * 400)
@example("maxrss", "\u0663K")
def test_a_parser_gives_a_value_or_says_that_it_cannot(field, value):
    with contextlib.suppress(ValueError):
        PARSERS[field](value)


@given(st.one_of(flipped(TABLE), cuts(TABLE), st.binary(max_size=300)))
@settings(max_examples=60, deadline=None)
def test_the_collector_never_raises(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "any.txt"
    path.write_bytes(data)
    COLLECTOR.recognise(path, data[:65536])
    [*_, last] = COLLECTOR.ingest([path], IngestContext(path.parent))
    assert last.table == "collection"
    assert last.data.num_rows == 1
