"""The verdict of evidence that somebody ingests: logs, accounting, dumps, in any mixture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from failure_lines import FAILURES, OTHERS, REMEDIES, SEED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import cuts, interleaved_chunks, interleaved_lines
from support import ROOT, SAMPLES, needs_samples
from truth.simulate_devices import make_batch

from harness.ingest import ingest_paths
from harness_analysis.build.database import build_database
from harness_analysis.store import open_database
from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import VerdictEvidence, lines_of
from harness_collectors.failure_log.lines import notable_lines, speaks

LOGS = SAMPLES / "logs" if SAMPLES else Path()
FIXTURES = ROOT / "tests" / "fixtures"


def ingested(paths, tmp_path):
    database = tmp_path / "x.duckdb"
    ingest_paths(list(paths), database)
    with open_database(database) as con:
        run = con.execute("SELECT verdict, verdict_detail FROM runs").fetchone()
        jobs = dict(con.execute("SELECT job_id, verdict FROM job_verdicts").fetchall())
    return *run, jobs


@needs_samples
@pytest.mark.parametrize("number", ["01", "10", "17", "20", "30", "42"])  # a reader each
def test_a_failure_log_is_ingested_to_its_verdict(number, tmp_path):
    [path] = (LOGS / "failures").glob(f"{number}_*")
    verdict, detail, _ = ingested([path], tmp_path)
    name, suspects = FAILURES[number]
    assert verdict == name
    named = ", ".join(map(str, suspects))
    assert not suspects or re.search(rf"suspect: ranks? {named}\b", detail)


@needs_samples
def test_jobs_of_one_file_are_judged_one_by_one_and_the_run_by_none(tmp_path):
    verdict, _, jobs = ingested([LOGS / "slurm_22.05_real" / "sacct_P.txt"], tmp_path)
    assert verdict is None
    assert {jobs[job] for job in ("1", "3", "5", "9")} == {"ok", "oom_host", "timeout", "cancelled"}
    assert jobs["3"] == "oom_host"  # its own row says COMPLETED 0:0


@needs_samples
def test_text_explains_what_accounting_only_reports(tmp_path):
    """The job FAILED by its account; the log of its rank says that the GPU was full."""
    account = next((LOGS / "sacct").glob("hb_7971484*"))
    assert ingested([account], tmp_path)[0] == "rank_failed"
    log = tmp_path / "rank-00003.err"
    log.write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n")
    verdict, detail, jobs = ingested([account, log], tmp_path)
    assert (verdict, jobs) == ("oom_gpu", {"7971484": "rank_failed"})
    assert "stderr of rank 3" in detail


@needs_samples
@pytest.mark.parametrize("folder", ["logs/nccl", "logs/perf_real", "logs/flight_recorder"])
def test_no_failure_is_made_of_evidence_that_shows_none(folder, tmp_path):
    assert ingested([SAMPLES / folder], tmp_path)[0] in (None, "unknown")


def test_dumps_of_the_flight_recorder_name_who_is_missing(tmp_path):
    verdict, detail, _ = ingested([FIXTURES / "flight_recorder"], tmp_path)
    assert verdict == "nccl_timeout"
    assert "suspect: rank 1 " in detail
    [alone] = (FIXTURES / "flight_recorder").glob("timeout_rank_0")
    verdict, detail, _ = ingested([alone], tmp_path)
    assert verdict == "nccl_timeout"
    assert "suspect:" not in detail  # whose dump is not there may have been at the same place


@pytest.mark.parametrize("line", sorted([*SEED, *OTHERS, *REMEDIES]))
def test_what_a_rule_explains_is_kept_by_the_collector(line):
    found = judge(VerdictEvidence(lines=lines_of("log", line)))
    assert found.name == "unknown" or speaks(line.encode())


def test_the_collector_keeps_places_ranks_and_kinds(tmp_path):
    path = tmp_path / "rank-00007.err"
    path.write_text(
        "hello\r 10%\r 20%\n" * 30
        + "[rank2]: ValueError: x\n[1,5]<stderr>: MemoryError: y\nNVRM: Xid (PCI:1): 31, z\nbye\n"
    )
    found = notable_lines(path)
    by_text = {line.text[-1]: (line.number, line.rank, line.kind) for line in found[-4:]}
    assert by_text == {
        "x": (31, 2, "stderr"),
        "y": (32, 5, "stderr"),
        "z": (33, 7, "kernel"),
        "e": (34, 7, "stderr"),
    }
    big = tmp_path / "slurm-1.out"
    big.write_bytes(
        b"x: Error: no\n"
        + (b"a" * 999 + b"\n") * (6 << 10)
        + b"srun: error: n1: task 3: Out Of Memory\n"
    )
    assert notable_lines(big)[0].number == 1
    assert notable_lines(big)[-1].number is None
    assert notable_lines(big)[-1].text.endswith("Out Of Memory")


CAUSES = {
    "oom_gpu": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "no_driver": "RuntimeError: Found no NVIDIA driver on your system. Please check",
    "fell_off_bus": "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.",
    "oom_host": "srun: error: n1: task 3: Out Of Memory",
    "timeout": "slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2025-01-01T00:00 DUE TO TIME LIMIT",
}  # fmt: skip
CHATTER = (
    b"n1:1:2 [0] NCCL INFO Channel 00/02 : 0 1 2 3\nstep 3: 30.4 ms, 128 tokens out of 4096\n"
    b"memory: 12 GiB of 80 GiB used, no GPU is idle\ntask 3: done\nloading shard 2 of 4\n"
)
patient = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@patient
@given(name=st.sampled_from(sorted(CAUSES)), data=st.data())
def test_a_mutilated_log_gives_its_verdict_or_unknown_never_another(name, data):
    """Cut anywhere, and torn into a chatty log line by line: no other cause is invented."""
    text = CAUSES[name].encode()
    whole = text[: data.draw(st.integers(0, len(text)))]
    mixed = data.draw(interleaved_lines(CHATTER * 3, whole + b"\n"))
    found = judge(VerdictEvidence(lines=lines_of("log", mixed.decode("utf-8", "replace"))))
    generic = {"rank_failed", "cancelled"}  # what is left of a line may still be an exception
    assert found.name in {name, "unknown"} | generic
    if len(whole) == len(text):
        assert found.name == name


@needs_samples
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.sampled_from(sorted(FAILURES)), data=st.data())
def test_failures_of_strangers_cut_and_torn_never_mislead(number, data):
    """Neither another cause nor another suspect than the whole text gives; rather none."""
    [path] = (LOGS / "failures").glob(f"{number}_*")
    text = path.read_bytes()
    whole = judge(VerdictEvidence(lines=lines_of("log", text.decode("utf-8", "replace"))))
    damage = st.one_of(
        cuts(text), interleaved_lines(text, CHATTER * 5), interleaved_chunks(text, CHATTER * 5)
    )
    torn = data.draw(damage).decode("utf-8", "replace")
    found = judge(VerdictEvidence(lines=lines_of("log", torn)))
    assert found.name in {whole.name, "unknown", "rank_failed", "cancelled"}
    if found.name == whole.name:
        assert set(found.suspects) <= set(whole.suspects)


def test_the_parts_of_a_heterogeneous_job_are_one_job(tmp_path):
    table = tmp_path / "sacct.txt"
    table.write_text(
        "JobID|State|ExitCode\n90+0|NODE_FAIL|0:0\n90+0.batch|CANCELLED|0:15\n90+1|COMPLETED|0:0\n"
    )
    verdict, _, jobs = ingested([table], tmp_path)
    assert (verdict, jobs) == ("node_fail", {"90+0": "node_fail", "90+1": "ok"})


@pytest.mark.parametrize(
    ("days", "verdict"), [(0, "timeout"), (-1, "timeout"), (-2, "ok"), (2, "ok")]
)
def test_the_end_of_a_job_of_another_time_is_not_the_runs(tmp_path, days, verdict):
    begin, hour = 1_700_000_000 * 10**9, 3_600 * 10**9
    times = {"started_ns": begin + days * 24 * hour, "ended_ns": begin + (days * 24 + 1) * hour}
    step = {"job_id": "7", "state": "TIMEOUT", **times}
    run = {"status": "finished", "verdict": "ok", "started_ns": begin, "ended_ns": begin + hour}
    build_database(tmp_path / "d.duckdb", "r", run, [make_batch("slurm_steps", [step])])
    with open_database(tmp_path / "d.duckdb") as con:
        assert con.execute("SELECT verdict FROM runs").fetchone() == (verdict,)
        named = con.execute("SELECT kind FROM findings").fetchall()
    assert named == ([("other_job",)] if verdict == "ok" else [])
