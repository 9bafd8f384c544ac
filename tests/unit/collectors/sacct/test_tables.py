"""Slurm's accounting as text: tables in every layout, and what must not be taken for an answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from unit.collectors.sacct.evidence import FIXTURES, KIB, ingest, write

from harness_collectors.sacct import COLLECTOR, merge
from harness_collectors.sacct.fields import Reading, Step
from harness_collectors.sacct.scontrol import read_scontrol
from harness_collectors.sacct.table import field_list, headerless_delimiter, read_table
from harness_schemas.spi import IngestContext


def test_runs_of_a_job_without_their_times(tmp_path):
    cases = {
        "7|NODE_FAIL|1:0\n7.0|CANCELLED|0:9\n7|RUNNING|0:0\n": [0, 0, 1],
        "7|REQUEUED|0:0\n7|COMPLETED|0:0\n7.0|COMPLETED|0:0\n": [0, 1, 1],
        "7|RUNNING|0:0\n7|FAILED|1:0\n7|FAILED|1:0\n": [None] * 3,
    }
    for text, attempts in cases.items():
        path = tmp_path / "sacct.txt"
        path.write_text(text)
        assert [row["attempt"] for row in ingest(path)[0]] == attempts
        path.write_text("JobID|State|ExitCode\n" + text)
        assert [row["attempt"] for row in ingest(path)[0]] == attempts


def test_requeued_and_array_jobs():
    rows, state = ingest(FIXTURES / "requeue_D.txt")
    assert [(r["job_id"], r["step_id"], r["attempt"], r["state"]) for r in rows] == [
        ("70", None, 0, "REQUEUED"),
        ("70", "batch", 0, "CANCELLED"),
        ("70", "0", 0, "CANCELLED"),
        ("71_4", None, None, "FAILED"),
        ("71_4", "0", None, "CANCELLED"),
        ("70", None, 1, "COMPLETED"),
        ("70", "0", 1, "OUT_OF_MEMORY"),
    ]
    assert [row["energy_j"] for row in rows] == [None] * 3 + [1200.0] * 2 + [250000.0] * 2
    last = rows[-1]
    assert (last["exit_code"], last["signal"], last["max_rss_bytes"]) == (0, 125, 0)
    assert rows[2]["max_rss_bytes"] == 3 * KIB**3
    assert rows[4]["max_rss_bytes"] == int(1536.5 * KIB)
    assert (rows[4]["cancelled_by"], rows[4]["raw_job_id"]) == (1007, "75")
    assert rows[5]["elapsed_s"] == 86401
    assert state["state"] == "ok"
    assert "UTC" in json.loads(state["detail"])["time_zone"]


def test_empty_zero_and_absent_differ(tmp_path):
    some = write(tmp_path, "a.txt", "JobID|State|MaxRSS\n1.0|COMPLETED|0\n1.1|COMPLETED|\n")
    none = write(tmp_path, "b.txt", "JobID|State|JobName\n2.0|COMPLETED|x\n")
    assert [row["max_rss_bytes"] for row in ingest(some)[0]] == [0, None]
    assert [row["max_rss_bytes"] for row in ingest(none)[0]] == [None]


def test_a_running_step_has_used_an_unknown_amount(tmp_path):
    text = "JobID|State|TotalCPU\n1.0|RUNNING|00:00:00\n1.1|COMPLETED|00:00:00\n"
    assert [row["cpu_s"] for row in ingest(write(tmp_path, "a.txt", text))[0]] == [None, 0.0]


def test_columns_for_people(tmp_path):
    text = (
        "       JobID    JobName  Partition    Account  AllocCPUS      State ExitCode \n"
        "------------ ---------- ---------- ---------- ---------- ---------- -------- \n"
        "4711         decode-tp2        gpu       proj         32 CANCELLED+      0:0 \n"
        "4711.batch        batch                  proj         32  CANCELLED     0:15 \n"
        "4711.0          python3                  proj         32 OUT_OF_ME+    0:125 \n"
        "4711.1          python3                  proj         32 RE+             1:0 \n"
        "4711.ext+        extern                  proj         32  COMPLETED      0:0 \n"
        "4711.1+         python3                  proj         32     FAILED      1:0 \n"
    )
    path = write(tmp_path, "a.txt", text)
    assert COLLECTOR.recognise(path, text.encode())
    rows, _ = ingest(path)
    assert [(r["step_id"], r["state"], r["signal"]) for r in rows] == [
        (None, "CANCELLED", None),
        ("batch", "CANCELLED", 15),
        ("0", "OUT_OF_MEMORY", 125),
        ("1", None, None),  # REQUEUED, RESIZING, REVOKED ...: not guessed
        ("extern", "COMPLETED", None),  # but a step whose number is cut is left out
    ]


COLUMNS = (
    "       JobID      State ExitCode     MaxRSS \n"
    "------------ ---------- -------- ---------- \n"
    "77            COMPLETED      0:0            \n"
    "77.batch      COMPLETED      0:0      1180K \n"
    "77.0         OUT_OF_ME+    0:125   9876543K \n"
)


@pytest.mark.parametrize("form", ["quoted", "fenced", "twice quoted", "left", "markdown"])
def test_tables_as_people_paste_them(form, tmp_path):
    lines = COLUMNS.splitlines()
    text = {
        "quoted": "".join(f"> {line}\n" for line in lines),
        "twice quoted": "".join(f"> > {line}\n" for line in ["```", *lines, "```"]),
        "fenced": f"```\n{COLUMNS}```\n",
        "left": COLUMNS.lstrip(),
        "markdown": "| JobID | State | ExitCode | MaxRSS |\n|---|:---:|---|--:|\n"
        "| 77 | COMPLETED | 0:0 |  |\n| 77.batch | COMPLETED | 0:0 | 1180K |\n"
        "| 77.0 | OUT_OF_MEMORY | 0:125 | 9876543K |\n",
    }[form]
    path = write(tmp_path, "a.txt", text)
    assert COLLECTOR.recognise(path, text.encode())
    rows, _ = ingest(path)
    assert [(r["step_id"], r["state"], r["max_rss_bytes"]) for r in rows] == [
        (None, "COMPLETED", None),
        ("batch", "COMPLETED", 1180 << 10),
        ("0", "OUT_OF_MEMORY", 9876543 << 10),
    ]


def test_a_row_that_runs_across_its_columns_shows_only_its_words(tmp_path):
    lost = "\n".join(" ".join(line.split()) for line in COLUMNS.splitlines()[2:])
    path = write(tmp_path, "a.txt", "\n".join([*COLUMNS.splitlines()[:2], lost, ""]))
    rows, _ = ingest(path)
    assert [(r["step_id"], r["state"], r["signal"], r["max_rss_bytes"]) for r in rows] == [
        (None, "COMPLETED", None, None),
        ("batch", "COMPLETED", None, None),
        ("0", "OUT_OF_MEMORY", 125, None),
    ]


@pytest.mark.parametrize("delimiter", ["|", "|#", "\u2603", "\x1f", ";", "||", "\t", ","])
def test_any_delimiter(delimiter):
    rows = [["JobID", "JobName", "State"], ["12.0", "a b", "FAILED"], ["12", "", "TIMEOUT"]]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    assert COLLECTOR.recognise(Path("a.txt"), text.encode())
    steps = read_table(text).steps
    assert [(s.step_id, s.name, s.state) for s in steps] == [
        ("0", "a b", "FAILED"),
        (None, None, "TIMEOUT"),
    ]


def test_headerless_rows_with_and_without_a_last_delimiter():
    fields = field_list("JobID,JobName%30,State\n")
    assert fields == ("jobid", "jobname", "state")
    for end in ("", "\u2603"):
        text = f"9_1\u2603\u2603FAILED{end}\n9_1.batch\u2603batch\u2603CANCELLED by 12{end}\n"
        assert headerless_delimiter(text.split("\n")[0]) == "\u2603"
        steps = read_table(text, fields).steps
        assert [(s.job_id, s.step_id, s.state, s.cancelled_by) for s in steps] == [
            ("9_1", None, "FAILED", None),
            ("9_1", "batch", "CANCELLED", 12),
        ]


def test_an_unknown_word_is_no_state():
    reading = read_table("JobID|State\n1|COMPLETEX\n2|completed\n3|COMPLETED\n")
    assert [step.state for step in reading.steps] == [None, None, "COMPLETED"]
    assert reading.doubtful == 2


def test_a_row_whose_two_ids_disagree_is_left_out():
    reading = read_table("JobID|JobIDRaw|State\n1.0|1.batch|FAILED\n2|3|FAILED\n4_1|9|FAILED\n")
    assert [step.job_id for step in reading.steps] == ["4_1"]
    assert reading.unreadable == 2


def test_a_name_cannot_pretend_to_be_a_state():
    text = (
        "JobId=5 JobName=x JobState=COMPLETED ExitCode=0:0 UserId=me(1) GroupId=me(1) "
        "MCS_label=N/A Priority=1 JobState=TIMEOUT Reason=TimeLimit Restarts=2 ExitCode=0:15 "
        "RunTime=00:01:00 StartTime=1700000000 EndTime=1700000060 NodeList=n1 NumTasks=4 "
        "Command=/x WorkDir=/JobState=FAILED ExitCode=9:9\n"
    )
    [step] = read_scontrol(text).steps
    assert (step.state, step.exit_code, step.signal) == ("TIMEOUT", 0, 15)
    assert (step.name, step.attempt) == ("x JobState=COMPLETED ExitCode=0:0", 2)
    assert (step.started_ns, step.elapsed_s) == (1700000000 * 10**9, 60)


def test_a_job_that_runs_has_no_end_yet():
    text = (
        "JobId=5 JobName=x UserId=me(1) MCS_label=N/A JobState=RUNNING Reason=None ExitCode=0:0 "
        "StartTime=2025-01-01T00:00:00 EndTime=2025-01-02T00:00:00 NodeList=n1\n"
    )
    [step] = read_scontrol(text).steps
    assert (step.state, step.ended_ns, step.exit_code) == ("RUNNING", None, None)


def test_a_gzip_bomb_is_bounded(tmp_path, monkeypatch):
    from harness_collectors.reading import wrapped

    monkeypatch.setattr(wrapped.read_printed, "__defaults__", (1 << 16,))
    bomb = tmp_path / "bomb.txt.gz"
    bomb.write_bytes(gzip.compress(b"JobID|State\n" + b"1|FAILED\n" * 1_000_000))
    rows, state = ingest(bomb)
    assert len(rows) < 1 << 13
    assert json.loads(state["detail"])["files"]["bomb.txt.gz"]["cut"] is True


def test_secrets_in_names_are_masked(tmp_path):
    text = "JobID|JobName|State\n1|run HF_TOKEN=hf_abcdefghijklmnop|FAILED\n"
    [row] = ingest(write(tmp_path, "a.txt", text))[0]
    assert row["name"] == "run HF_TOKEN=[redacted]"


def test_hosts_are_kept_apart(tmp_path):
    for host in ("n1", "n2"):
        folder = tmp_path / "artifacts" / "sacct" / host
        folder.mkdir(parents=True)
        write(folder, "sacct.txt", "JobID|State\n1|FAILED\n")
    paths = sorted(tmp_path.rglob("sacct.txt"))
    batches = list(COLLECTOR.ingest(paths, IngestContext(tmp_path)))
    states = [row for b in batches if b.table == "collection" for row in b.data.to_pylist()]
    assert [state["host"] for state in states] == ["n1", "n2"]


def test_merge_keeps_what_only_one_file_knows():
    one = Step("sacct", "1", "0", state="FAILED", elapsed_s=5, name="a", max_rss_bytes=7)
    other = Step("sacct", "1", "0", state="FAILED", elapsed_s=5, name="a", energy_j=3.0)
    apart = Step("sacct", "1", "0", state="COMPLETED", elapsed_s=5, name="a")
    merged = merge([Reading("sacct", [one]), Reading("sacct", [other, apart])])
    assert len(merged) == 2
    assert {(s.state, s.max_rss_bytes, s.energy_j) for s in merged} == {
        ("FAILED", 7, 3.0),
        ("COMPLETED", None, None),
    }


def test_options():
    assert COLLECTOR.options({}) == {"calls": 3}
    with pytest.raises(ValueError, match="calls is 99") as wrong:
        COLLECTOR.options({"calls": 99, "cals": 1})
    assert "no option 'cals'" in str(wrong.value)


def test_numbers_beyond_their_columns_are_not_known(tmp_path):
    huge = "9" * 15
    names = "JobID|State|NTasks|Elapsed|Start|ExitCode|MaxRSS"
    row = f"1|CANCELLED by {huge * 2}|{huge}|{huge}-00:00:00|9999-12-31T00:00:00|{huge}:0|7"
    table = write(tmp_path, "a.txt", f"{names}\n{row}\n")
    job = {"job_id": 1, "name": "\ud800", "restart_cnt": 1 << 40, "state": {"current": "FAILED"}}
    other = write(tmp_path, "b.json", json.dumps({"jobs": [job], "meta": {}}))
    [found] = ingest(table)[0]
    assert (found["max_rss_bytes"], found["state"]) == (7, "CANCELLED")
    for column in ("ntasks", "elapsed_s", "started_ns", "exit_code", "cancelled_by"):
        assert found[column] is None, column
    assert ingest(other)[0][0]["attempt"] is None
