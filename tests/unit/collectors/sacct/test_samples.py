"""Accounting of strangers: every form in the samples gives its known answers."""

from __future__ import annotations

import gzip
import json
import re
import shutil

import pytest
from support import needs_samples
from unit.collectors.sacct.evidence import KIB, LOGS, by_step, ingest

from harness_collectors.sacct import COLLECTOR
from harness_collectors.sacct.scontrol import read_scontrol
from harness_collectors.sacct.table import find_header

REAL = LOGS / "slurm_22.05_real"


@needs_samples
def test_answers_of_expected_json():
    expected = json.loads((LOGS / "expected.json").read_text())["sacct"]
    for name, wanted in expected.items():
        [path] = list((LOGS / "sacct").glob(f"{name}*"))
        rows, state = ingest(path)
        assert state["state"] == "ok", name
        own = next((row for row in rows if row["step_id"] is None), None)
        seen = {
            "state": lambda own=own: own["state"],
            "cancelled_by": lambda own=own: own["cancelled_by"],
            "elapsed_s": lambda own=own: own["elapsed_s"],
            "batch_maxrss_kib": lambda rows=rows: by_step(rows)["batch"]["max_rss_bytes"] // KIB,
            "maxrss": lambda rows=rows: f"{by_step(rows)['batch']['max_rss_bytes'] // KIB**2}M",
            "gpuutil": lambda rows=rows: json.loads(by_step(rows)["batch"]["tres"])["in_max"][
                "gres/gpuutil"
            ],
            "steps": lambda rows=rows: {
                row["step_id"]: row["state"] for row in rows if row["step_id"]
            },
            "steps_n": lambda rows=rows: len([row for row in rows if row["step_id"]]),
            "nodes": lambda own=own: expand(own["nodes"]),
            "array_job": lambda own=own: int(own["job_id"].partition("_")[0]),
            "array_task": lambda own=own: int(own["job_id"].partition("_")[2]),
            "rows": lambda rows=rows: len(rows),
            "columns": lambda path=path: len(find_header(path.read_text().split("\n")[0]).fields),
        }
        # The verdict is a matter of the analysis (test_verdict).
        for key in set(wanted) - {"verdict"}:
            assert seen[key]() == wanted[key], (name, key)


def expand(nodes):
    """`a[1-2,5]` into names; only what these samples need."""
    if nodes is None:
        return []
    stem, numbers = re.fullmatch(r"([a-z0-9]+)\[([\d,-]+)\]", nodes).groups()
    spans = [part.split("-") for part in numbers.split(",")]
    return [f"{stem}{n}" for span in spans for n in range(int(span[0]), int(span[-1]) + 1)]


@needs_samples
def test_a_line_break_inside_a_field_is_mended():
    rows, state = ingest(LOGS / "sacct" / "gcm_sample-sacct-fake-line-break.txt")
    assert [(row["job_id"], row["step_id"], row["state"]) for row in rows] == [
        ("200131", "0", "CANCELLED"),
        ("201729", None, "FAILED"),
        ("201844", None, "REQUEUED"),
        ("201729", "batch", "FAILED"),
    ]
    assert (state["state"], state["unreadable"]) == ("ok", 0)
    assert rows[0]["max_rss_bytes"] == 3623244 * KIB
    assert rows[0]["signal"] == 9


@needs_samples
def test_invalid_utf8_costs_no_row():
    rows, state = ingest(LOGS / "sacct" / "gcm_sample-sacct-output-invalid-utf8.txt")
    assert len(rows) == 11
    assert rows[-1]["name"] == "\ufffdorted"
    assert state["state"] == "ok"
    cancelled = [row for row in rows if row["state"] == "CANCELLED"]
    assert [row["cancelled_by"] for row in cancelled] == [1185200069, None]


@needs_samples
def test_a_row_that_lost_its_beginning_is_counted_and_left_out():
    rows, state = ingest(LOGS / "sacct" / "gcm_sample-sacct-output-with-invalid-lines.txt")
    assert rows == []
    assert (state["state"], state["unreadable"]) == ("failed", 1)


@needs_samples
def test_text_and_json_of_one_slurm_agree():
    text, _ = ingest(REAL / "sacct_P_ALL.txt")
    found = {(row["job_id"], row["step_id"]): row for row in text}
    compared = 0
    for path in sorted(REAL.glob("sacct.*.json.gz")):
        rows, state = ingest(path)
        assert state["state"] == "ok"
        for row in rows:
            if row["attempt"] == 0:
                continue  # the text was asked without --duplicates
            other = found[row["job_id"], row["step_id"]]
            for column in ("state", "exit_code", "signal", "elapsed_s", "started_ns", "ended_ns",
                           "nodes", "ntasks", "max_rss_bytes", "max_rss_node",
                           "max_disk_read_bytes", "max_disk_write_bytes", "energy_j", "name",
                           "raw_job_id"):  # fmt: skip
                wanted = other[column]
                if (column, row["state"]) == ("exit_code", "FAILED"):
                    wanted = None  # this version's JSON says 0 where its text says 5
                assert row[column] == wanted, (path.name, row["step_id"], column)
            # Text cuts to ms, JSON holds us; the job's row is a sum of truncated ones.
            assert row["cpu_s"] == pytest.approx(other["cpu_s"], abs=0.002)
            compared += 1
    assert compared == 4 + 3 + 3 + 3 + 12


@needs_samples
def test_the_real_slurm_states():
    rows, state = ingest(REAL / "sacct_D_duplicates.txt")
    assert len(rows) == 45
    assert state["unreadable"] == 0
    own = {(row["job_id"], row["attempt"]): row for row in rows if row["step_id"] is None}
    assert own["3", None]["state"] == "COMPLETED"
    assert own["3", None]["derived_exit"] == "0:125"
    assert own["10", 0]["state"] == "REQUEUED"
    assert own["10", 1]["state"] == "COMPLETED"
    assert own["13", None]["exit_code"] == 11
    assert own["8_2", None]["raw_job_id"] == "16"
    second = [r["step_id"] for r in rows if (r["job_id"], r["attempt"]) == ("10", 1)]
    assert second == [None, "batch", "0"]


@needs_samples
def test_energy_is_never_a_zero():
    for path in [*REAL.glob("sacct*"), *(LOGS / "sacct").glob("*")]:
        for row in ingest(path)[0]:
            assert row["energy_j"] is None
            assert "energy" not in (row["tres"] or "")


@needs_samples
def test_scontrol_in_both_forms_is_the_same_and_says_so():
    lines, state = ingest(REAL / "scontrol_show_job.txt")
    oneline, _ = ingest(REAL / "scontrol_show_job.oneline.txt")
    assert lines == oneline
    assert len(lines) == 16
    assert state["state"] == "degraded"
    assert "no accounting" in state["reason"]
    rows = {row["job_id"]: row for row in lines}
    assert (rows["5"]["state"], rows["5"]["signal"]) == ("TIMEOUT", 15)
    assert (rows["8_2"]["state"], rows["8_2"]["raw_job_id"]) == ("FAILED", "16")
    assert (rows["10"]["attempt"], rows["11"]["state"]) == (1, "CANCELLED")


def test_scontrol_of_an_old_slurm_and_of_a_log_of_ends():
    old = (
        "JobId=12 JobName=JobState=COMPLETED\n   UserId=a(1) GroupId=b(2)\n   Priority=1 Nice=0\n"
        "   JobState=FAILED Reason=NonZeroExitCode\n   ExitCode=1:0 NodeList=n1\n"
    )
    [step] = read_scontrol(old).steps
    assert (step.name, step.state, step.exit_code) == ("JobState=COMPLETED", "FAILED", 1)
    [step] = read_scontrol("JobId=13 JobState=OUT_OF_MEMORY ExitCode=0:125\n").steps
    assert (step.state, step.signal) == ("OUT_OF_MEMORY", 125)
    unsafe = "JobId=14 Name=JobState=COMPLETED JobState=FAILED ExitCode=1:0\n"
    assert read_scontrol(unsafe).steps == []


@needs_samples
def test_squeue_json_and_sstat():
    rows, state = ingest(REAL / "squeue.json.gz")
    scontrol = {r["job_id"]: r for r in ingest(REAL / "scontrol_show_job.txt")[0]}
    for row in rows:
        for column in ("state", "exit_code", "signal", "nodes", "elapsed_s"):
            wanted = scontrol[row["job_id"]][column]
            assert row[column] in (None, wanted), (row["job_id"], column)
    assert (len(rows), state["state"]) == (16, "degraded")
    rows, state = ingest(REAL / "sstat.running.txt")
    assert [(row["step_id"], row["state"]) for row in rows] == [("batch", None), ("0", None)]
    assert rows[1]["max_rss_bytes"] == 2708 * KIB


@needs_samples
def test_newer_json():
    rows, _ = ingest(LOGS / "sacct_json" / "sarc_raisin_base_job_25.05.2.json")
    [row] = rows
    assert (row["state"], row["elapsed_s"], row["cpu_s"]) == ("COMPLETED", 3600, 3600.0)
    assert (row["nodes"], row["energy_j"], row["started_ns"]) == (None, None, 1676368800 * 10**9)


@needs_samples
def test_disabled_accounting_is_said():
    [path] = (LOGS / "failures").glob("17_*")
    rows, state = ingest(path)
    assert rows == []
    assert state["state"] == "skipped"
    assert "disabled" in state["reason"]
    rows, state = ingest(path, REAL / "scontrol_show_job.txt")
    assert len(rows) == 16
    assert state["state"] == "degraded"


@needs_samples
def test_only_accounting_is_recognised():
    foreign = [
        *LOGS.glob("nccl/*"),
        *LOGS.glob("perf/*"),
        *LOGS.glob("perf_real/*"),
        *LOGS.glob("topo/*"),
        *LOGS.glob("inspector/*"),
        *LOGS.glob("flight_recorder/*"),
        *[path for path in LOGS.glob("failures/*") if not path.name.startswith("17_")],
        *[path for path in LOGS.glob("slurm_misc/*") if "sstat" not in path.name],
        REAL / "sinfo.txt",
        REAL / "ids.txt",
    ]
    assert len(foreign) > 40
    for path in foreign:
        assert not COLLECTOR.recognise(path, head(path)), path.name
    for path in [*LOGS.glob("sacct/*"), *REAL.glob("sacct*"), *REAL.glob("s[cqs]*")]:
        assert COLLECTOR.recognise(path, head(path)), path.name


def head(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)[:65536]


@needs_samples
def test_files_of_one_job_become_one_set_of_rows():
    """sacct in two layouts, JSON and scontrol, of the same jobs: nothing twice."""
    plain, _ = ingest(REAL / "sacct_P.txt")
    everything = [*REAL.glob("sacct_P*.txt"), REAL / "sacct.oom_step.json.gz",
                  REAL / "scontrol_show_job.txt", REAL / "squeue.json.gz"]  # fmt: skip
    rows, state = ingest(*everything)
    assert state["state"] == "ok"
    accounts = [row for row in rows if row["source"] not in ("scontrol", "squeue_json")]
    assert len(accounts) == len(plain) == 42
    # Jobs that never started are in no `sacct -S` output, only in the controller's memory.
    assert {row["job_id"] for row in rows} - {row["job_id"] for row in accounts} == {"11", "12"}


@needs_samples
def test_rows_without_header_give_what_their_values_show(tmp_path):
    """With the saved list of fields lies more; no value is another than with it."""
    name = "hb_6708912_multinode_timeout_step_failed.txt"
    path = tmp_path / "job.txt"
    shutil.copy(LOGS / "sacct" / name, path)
    rows, state = ingest(path)
    whole, _ = ingest(LOGS / "sacct" / name)
    assert [row["state"] for row in rows] == [row["state"] for row in whole]
    assert state["state"] == "ok"
    for row, known in zip(rows, whole, strict=True):
        assert all(value in (None, known[column]) for column, value in row.items())
