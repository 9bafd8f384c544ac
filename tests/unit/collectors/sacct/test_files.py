"""Slurm's accounting from files: every form in the samples gives its known answers."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from support import ROOT, SAMPLES, needs_samples

from harness_collectors.sacct import COLLECTOR, merge
from harness_collectors.sacct.fields import STATES, Reading, Step
from harness_collectors.sacct.json_text import read_json
from harness_collectors.sacct.scontrol import read_scontrol
from harness_collectors.sacct.table import field_list, find_header, headerless_delimiter, read_table
from harness_schemas.spi import IngestContext

FIXTURES = ROOT / "tests" / "fixtures" / "sacct"
LOGS = SAMPLES / "logs" if SAMPLES else Path()
REAL = LOGS / "slurm_22.05_real"
KIB = 1024


def ingest(*paths):
    """Rows of slurm_steps, and the one row of the collection."""
    batches = list(COLLECTOR.ingest(list(paths), IngestContext(paths[0].parent)))
    rows = [row for b in batches if b.table == "slurm_steps" for row in b.data.to_pylist()]
    [state] = [row for b in batches if b.table == "collection" for row in b.data.to_pylist()]
    return rows, state


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def by_step(rows):
    return {row["step_id"]: row for row in rows}


# --- real files of strangers -------------------------------------------------------------------


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


# --- own fixtures ------------------------------------------------------------------------------


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


JOB_V40 = {
    "job_id": 31,
    "name": "decode",
    "array": {"job_id": 30, "task_id": {"set": True, "infinite": False, "number": 2}},
    "state": {"current": ["CANCELLED"], "reason": "None"},
    "exit_code": {
        "status": ["SIGNALED"],
        "return_code": {"set": False, "infinite": False, "number": 0},
        "signal": {"id": {"set": True, "infinite": False, "number": 9}, "name": "KILL"},
    },
    "time": {"start": 1700000000, "end": {"set": True, "infinite": False, "number": 1700000010}},
    "steps": [
        {
            "state": ["OUT_OF_MEMORY"],
            "step": {"id": "31.0", "name": "python3"},
            "time": {
                "start": {"set": True, "infinite": False, "number": 1700000001},
                "total": {"seconds": 2, "microseconds": 1_500_000},
            },
            "statistics": {"energy": {"consumed": {"set": True, "infinite": False, "number": 0}}},
            "nodes": {"range": "n[1-2]"},
        },
        {"state": "FAILED", "step": {"id": {"job_id": 31, "step_id": "batch"}, "name": "batch"}},
    ],
}


def test_json_of_later_versions():
    reading = read_json(json.dumps({"jobs": [JOB_V40], "meta": {"slurm": {}}}))
    own, first, batch = reading.steps
    assert (own.job_id, own.raw_job_id, own.state) == ("30_2", "31", "CANCELLED")
    assert (own.exit_code, own.signal, own.cpu_s) == (0, 9, 3.5)
    assert own.ended_ns == 1700000010 * 10**9
    assert (first.step_id, first.state, first.energy_j) == ("0", "OUT_OF_MEMORY", None)
    assert (batch.step_id, batch.state) == ("batch", "FAILED")


def test_torn_json_gives_its_whole_jobs():
    text = json.dumps({"jobs": [JOB_V40, JOB_V40, JOB_V40], "meta": {}})
    for cut in range(0, len(text), 7):
        reading = read_json(text[:cut])
        assert len(reading.steps) % 3 == 0
        assert all(step.state in STATES for step in reading.steps)


def test_absurd_nesting_is_bounded():
    assert read_json('{"jobs": [' + '{"a":' * 100_000).steps == []


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
