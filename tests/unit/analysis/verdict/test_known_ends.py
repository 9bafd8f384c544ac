"""What is known of an end against what is written: Slurm's states, exit codes, the launcher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import needs_samples
from unit.analysis.verdict.judged import LOGS, verdict_of

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import (
    CONSEQUENCE,
    StepState,
    VerdictEvidence,
    lines_of,
)
from harness_schemas.spi import IngestContext, RankExit


def test_success_is_not_talked_away_by_text():
    line = "an earlier attempt: CUDA out of memory"
    assert verdict_of(line, exit_code=0).name == "ok"
    assert verdict_of("Slurm accounting storage is disabled", exit_code=0).name == "ok"
    assert judge(VerdictEvidence(exit_code=0, oom_kills=1)).also == ("oom_host",)


def test_nothing_known_is_unknown():
    assert judge(VerdictEvidence()).name == "unknown"
    assert judge(VerdictEvidence()).detail() is None
    assert judge(VerdictEvidence(lines=lines_of("stderr", "hello"))).name == "unknown"


def test_a_step_that_failed_is_not_hidden_by_its_job():
    done = StepState("3", None, "COMPLETED", 0)
    oom = StepState("3", "0", "OUT_OF_MEMORY", 0, 125)
    failed = StepState("3", "1", "FAILED", 1)
    assert judge(VerdictEvidence(exit_code=0, steps=(done, oom, failed))).name == "oom_host"
    found = judge(VerdictEvidence(exit_code=0, steps=(done, failed)))
    assert (found.name, found.evidence) == ("rank_failed", "step 3.1: FAILED, exit 1:0")
    whole = StepState("3", None, "FAILED", 1, derived_exit="1:0")
    assert judge(VerdictEvidence(steps=(whole, failed))).evidence == found.evidence
    assert judge(VerdictEvidence(steps=(done,))).name == "ok"
    derived = StepState("3", None, "COMPLETED", 0, derived_exit="0:125")
    assert judge(VerdictEvidence(steps=(derived,))).name == "oom_host"


ORDER = ["OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT", "PREEMPTED", "FAILED", "CANCELLED", "COMPLETED"]
NAMES = ["oom_host", "node_fail", "timeout", "preempted", "rank_failed", "cancelled", "ok"]


@given(st.lists(st.sampled_from(ORDER), min_size=1, max_size=6), st.randoms())
def test_the_order_of_slurm_states_over_steps(states, shuffle):
    steps = [StepState("9", str(number), state) for number, state in enumerate(states)]
    shuffle.shuffle(steps)
    worst = min(ORDER.index(state) for state in states)
    assert judge(VerdictEvidence(steps=tuple(steps))).name == NAMES[worst]


def test_the_first_run_of_a_requeued_job_is_no_verdict():
    steps = (
        StepState("10", None, "REQUEUED", attempt=0),
        StepState("10", "0", "CANCELLED", 0, 15, attempt=0),
        StepState("10", None, "COMPLETED", 0, attempt=1),
    )
    assert judge(VerdictEvidence(steps=steps)).name == "ok"


def test_a_job_that_still_runs_has_no_verdict():
    steps = (StepState("9", None, "RUNNING"),)
    assert judge(VerdictEvidence(steps=steps)).name == "unknown"
    assert judge(VerdictEvidence(steps=steps, exit_code=0)).name == "ok"


@needs_samples
def test_every_end_of_a_real_slurm():
    from harness_collectors.sacct import COLLECTOR

    wanted = {"1": "ok", "2": "rank_failed", "3": "oom_host", "4": "oom_host", "5": "timeout",
              "6": "timeout", "7": "timeout", "8_0": "ok", "8_1": "ok", "8_2": "rank_failed",
              "8_3": "ok", "9": "cancelled", "10": "ok", "13": "rank_failed"}  # fmt: skip
    names = ("job_id", "step_id", "state", "exit_code", "signal", "attempt", "derived_exit")
    for name in ("sacct_D_duplicates.txt", "sacct_P.txt", "sacct_P_ALL.txt"):
        jobs = {}
        path = LOGS / "slurm_22.05_real" / name
        for batch in COLLECTOR.ingest([path], IngestContext(path.parent)):
            for row in batch.data.to_pylist() if batch.table == "slurm_steps" else ():
                step = StepState(**{column: row.get(column) for column in names})
                jobs.setdefault(row["job_id"], []).append(step)
        found = {job: judge(VerdictEvidence(steps=tuple(s))).name for job, s in jobs.items()}
        assert found == wanted, name


@needs_samples
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("hb_6708912", "timeout"),
        ("hb_7336818", "node_fail"),
        ("hb_7477936", "ok"),
        ("hb_7946767", "ok"),
        ("hb_7965768", "cancelled"),
        ("hb_7971484", "rank_failed"),
        ("hb_8322514_33", "unknown"),
    ],
)
def test_ends_of_strangers_jobs(name, verdict):
    from harness_collectors.sacct import COLLECTOR

    [path] = (LOGS / "sacct").glob(f"{name}*")
    steps = [
        StepState(row["job_id"], row["step_id"], row["state"])
        for batch in COLLECTOR.ingest([path], IngestContext(path.parent))
        if batch.table == "slurm_steps"
        for row in batch.data.to_pylist()
    ]
    assert judge(VerdictEvidence(steps=tuple(steps))).name == verdict


def test_facts_of_the_launcher():
    assert judge(VerdictEvidence(interrupted=True, exit_code=130)).name == "interrupted"
    assert judge(VerdictEvidence(timed_out=True, exit_code=124)).name == "timeout"
    assert judge(VerdictEvidence(exit_code=3)).name == "rank_failed"
    assert judge(VerdictEvidence(exit_code=-9, oom_kills=2)).name == "oom_host"


def test_the_rank_that_ended_first_is_the_cause_not_its_echo():
    """Rank 2 raised; rank 0 only saw that its peer had gone."""
    exits = (
        RankExit(2, 1, "KeyError: 'lm_head'"),
        RankExit(0, 1, "RuntimeError: ncclRemoteError: remote process exited"),
        RankExit(1, -15, CONSEQUENCE),
    )
    lines = (
        *lines_of("stderr", "RuntimeError: ncclRemoteError: remote process exited", 0),
        *lines_of("stderr", "KeyError: 'lm_head'", 2),
    )
    found = judge(VerdictEvidence(exit_code=1, rank_exits=exits, lines=lines))
    assert (found.name, found.suspect) == ("rank_failed", 2)
    assert "lm_head" in found.evidence


def test_memory_of_one_rank_explains_the_errors_of_the_others():
    exits = (RankExit(3, 1, "torch.OutOfMemoryError: CUDA out of memory"), RankExit(0, 1, "x"))
    lines = lines_of("stderr", "Watchdog caught collective operation timeout", 0)
    found = judge(VerdictEvidence(exit_code=1, rank_exits=exits, lines=lines))
    assert (found.name, found.suspect) == ("oom_gpu", 3)
    assert "nccl_timeout" in found.also


@pytest.mark.parametrize(("code", "rule"), [(-11, "crash"), (-9, "killed"), (4, "rank-exit")])
def test_the_way_a_rank_died(code, rule):
    found = judge(VerdictEvidence(exit_code=1, rank_exits=(RankExit(5, code),)))
    assert (found.name, found.rule, found.suspect) == ("rank_failed", rule, 5)
