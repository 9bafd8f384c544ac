"""Slurm's outputs without a header, and those of seff and squeue."""

from __future__ import annotations

import json

import pytest
from unit.collectors.sacct.evidence import ingest, write

from harness_collectors.sacct import COLLECTOR
from harness_collectors.sacct.json_text import read_json


def states(rows):
    return [(row["job_id"], row["step_id"], row["state"], row["exit_code"]) for row in rows]


def test_without_a_header_only_what_cannot_be_anything_else_is_read(tmp_path):
    text = "4|job|FAILED|3:0|00:01:02|7G\n4.batch|batch|FAILED|3:0|00:01:02|7G\n"
    rows, _ = ingest(write(tmp_path, "a.txt", text))
    assert states(rows) == [("4", None, "FAILED", 3), ("4", "batch", "FAILED", 3)]
    assert {row["elapsed_s"] for row in rows} == {None}
    two = "5|CANCELLED by 9|0:15|0:0|00:01:02\n5.0|OUT_OF_MEMORY|0:125|0:0|00:01:02\n"
    rows, _ = ingest(write(tmp_path, "b.txt", two))  # ExitCode and DerivedExitCode, or the reverse
    assert states(rows) == [("5", None, "CANCELLED", None), ("5", "0", "OUT_OF_MEMORY", None)]
    ambiguous = "6|RUNNING|FAILED|1:0\n6.0|RUNNING|FAILED|1:0\n"
    assert ingest(write(tmp_path, "c.txt", ambiguous))[0] == []


def test_columns_for_people_without_their_header(tmp_path):
    text = (
        "269          train+       defq       root         64    RUNNING      0:0 \n"
        "269.0          bash                  root         64     FAILED      2:0 \n"
        "270           bench       defq       root  CANCELLED by 7       0:15 \n"
    )
    path = write(tmp_path, "a.txt", text)
    assert COLLECTOR.recognise(path, text.encode())
    rows, _ = ingest(path)
    assert states(rows) == [
        ("269", None, "RUNNING", 0), ("269", "0", "FAILED", 2), ("270", None, "CANCELLED", 0),
    ]  # fmt: skip
    assert not COLLECTOR.recognise(path, b"12 bottles FAILED to arrive\nand more\n")


SEFF = """Job ID: 812
Array Job ID: 810_2
Cluster: c
State: {state}
CPU Utilized: 1-00:00:01
Job Wall-clock time: 00:10:02
Memory Utilized: {memory}
Memory Efficiency: 1.00% of 2.00 GB
"""


def test_seff(tmp_path):
    text = SEFF.format(state="OUT_OF_MEMORY (exit code 0)", memory="1.50 GB")
    text += SEFF.replace("81", "91").format(state="RUNNING", memory="0.00 MB (estimated maximum)")
    rows, state = ingest(write(tmp_path, "a.txt", text))
    assert states(rows) == [
        ("810_2", None, "OUT_OF_MEMORY", 0), ("910_2", None, "RUNNING", None),
    ]  # fmt: skip
    assert [row["elapsed_s"] for row in rows] == [602, 602]
    assert [row["cpu_s"] for row in rows] == [86401.0, None]
    assert [row["max_rss_bytes"] for row in rows] == [3 << 29, None]
    assert state["state"] == "degraded"


def test_squeue(tmp_path):
    text = (
        "             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)\n"
        "               812       gpu   decode      bob  R    1:02:03      2 n[01-02]\n"
        "         813_[1-3]       gpu   decode      bob PD       0:00      1 (Priority)\n"
        "               814       gpu        R      bob PD       0:00      1 (Resources)\n"
        "               815       gpu   decode      bob  R       0:0"
    )
    path = write(tmp_path, "a.txt", text)
    assert COLLECTOR.recognise(path, text.encode())
    rows, state = ingest(path)
    assert states(rows) == [("812", None, "RUNNING", None), ("813_[1-3]", None, "PENDING", None)]
    assert [(row["nodes"], row["reason"]) for row in rows] == [
        ("n[01-02]", None), (None, "Priority"),
    ]  # fmt: skip
    assert rows[0]["elapsed_s"] == 3723
    assert state["unreadable"] == 1  # two words could be its state


@pytest.mark.parametrize(
    "text",
    [
        "JobName|State|ExitCode\ndecode|FAILED|1:0\n",
        "JobName  State  ExitCode\n-------- ------ --------\n  decode FAILED      1:0\n",
        "$ sacct -o jobname,state,maxrss -p\nJobName|State|MaxRSS|\ndecode|FAILED|7G|\n",
    ],
)
def test_rows_that_are_nobodys_are_refused_by_name(text, tmp_path):
    path = write(tmp_path, "a.txt", text)
    assert COLLECTOR.recognise(path, text.encode())
    rows, state = ingest(path)
    assert (rows, state["state"]) == ([], "failed")
    assert "without a JobID column" in state["reason"]


def test_the_raw_id_will_do(tmp_path):
    text = "JobIDRaw|State|ExitCode\n81|TIMEOUT|0:0\n81.batch|CANCELLED|0:15\n"
    rows, _ = ingest(write(tmp_path, "a.txt", text))
    assert states(rows) == [("81", None, "TIMEOUT", 0), ("81", "batch", "CANCELLED", 0)]
    assert {row["raw_job_id"] for row in rows} == {"81"}


SSTAT = "3.0|213060K|node1|0|00:00:07|cpu=00:00:07,mem=80K|\n3.batch|5K|node1|0|00:00:01||\n"
OF_SSTAT = "JobID,MaxRSS,MaxRSSNode,MaxRSSTask,AveCPU,TRESUsageInAve"


def test_sstat_without_its_header_is_refused_by_name(tmp_path):
    path = write(tmp_path, "a.txt", SSTAT)
    assert COLLECTOR.recognise(path, SSTAT.encode())
    rows, state = ingest(path)
    assert (rows, state["state"], state["unreadable"]) == ([], "failed", 2)
    assert "rows of sstat without their header line" in state["reason"]


def test_sstat_without_its_header_is_read_beside_its_fields(tmp_path):
    write(tmp_path, "FIELDS.txt", OF_SSTAT)
    rows, _ = ingest(write(tmp_path, "a.txt", SSTAT))
    found = [(row["source"], row["step_id"], row["max_rss_bytes"]) for row in rows]
    assert found == [("sstat", "0", 213060 * 1024), ("sstat", "batch", 5 * 1024)]


@pytest.mark.parametrize(
    "text", ["3.0|5K|a\n", "3.1|00:00:01|b\n", "10.5|12|7\n", "3|5K|00:00:01\n"]
)
def test_numbers_are_no_steps_of_sstat(text, tmp_path):
    assert not COLLECTOR.recognise(tmp_path / "a.txt", text.encode())


@pytest.mark.parametrize(
    "text", ["name|value|state\na|b|c\n", "Start  End  State\n", "State: ExitCode\n"]
)
def test_other_tables_are_not_slurms(text, tmp_path):
    assert not COLLECTOR.recognise(tmp_path / "a.txt", text.encode())


def test_squeue_with_a_delimiter(tmp_path):
    text = "JOBID|NAME|STATE|TIME|NODELIST(REASON)\n8|PENDING x|RUNNING|1:00|n1\n9|a|b|c\n"
    path = write(tmp_path, "a.txt", text)
    assert COLLECTOR.recognise(path, text.encode())
    rows, state = ingest(path)
    assert states(rows) == [("8", None, "RUNNING", None)]
    assert (rows[0]["elapsed_s"], state["unreadable"]) == (60, 1)


def test_json_of_a_heterogeneous_job_behind_what_sacct_said_before_it(tmp_path):
    unset = {"set": False, "infinite": False, "number": 0}
    jobs = [
        {
            "job_id": number,
            "het": {"job_id": leader, "job_offset": {**unset, "set": bool(leader), "number": part}},
            "state": {"current": ["COMPLETED"]},
            "steps": [],
        }
        for number, leader, part in ((70, 70, 0), (71, 70, 1), (72, 0, 0))
    ]
    path = tmp_path / "sacct.json"
    path.write_text("sacct: warning: a plugin is old\n" + json.dumps({"meta": {}, "jobs": jobs}))
    assert COLLECTOR.recognise(path, path.read_bytes())
    steps = read_json(path.read_text()).steps
    assert [(step.job_id, step.raw_job_id) for step in steps] == [
        ("70+0", "70"),
        ("70+1", "71"),
        ("72", "72"),
    ]


KEPT = {
    '"JobID","JobName","State","ExitCode"\n"7","a, b\nc","COMPLETED","0:0"\n': "a, b c",
    'JobID,JobName,State,ExitCode\n7,"a, ""b""",COMPLETED,0:0\n': 'a, "b"',
    "".join(
        f"2026-01-02T03:04:05.6Z stdout F {line}\n"
        for line in ("JobID|JobName|State|ExitCode", "7|a, b|COMPLETED|0:0")
    ): "a, b",
}


@pytest.mark.parametrize("text", sorted(KEPT))
def test_tables_as_other_programs_keep_them(text, tmp_path):
    path = write(tmp_path, "a.csv", text)
    assert COLLECTOR.recognise(path, path.read_bytes())
    rows, state = ingest(path)
    assert states(rows) == [("7", None, "COMPLETED", 0)]
    assert (rows[0]["name"], state["state"]) == (KEPT[text], "ok")
