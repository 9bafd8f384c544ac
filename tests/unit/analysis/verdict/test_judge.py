"""Why a run ended: every failure of the samples, every end of a real Slurm, and the seed's own."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from failure_lines import FAILURES, HARMLESS, OTHERS, REMEDIES, SEED, TORCHRUN
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped, interleaved_lines
from support import SAMPLES, needs_samples

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import (
    CONSEQUENCE,
    VERDICTS,
    StepState,
    TextLine,
    VerdictEvidence,
    lines_of,
)
from harness_analysis.verdict.rules import load_rules, parse_rules
from harness_analysis.verdict.suspects import (
    CollectiveProgress,
    suspects_from_progress,
    suspects_from_watchdog,
)
from harness_schemas.spi import IngestContext, RankExit

LOGS = SAMPLES / "logs" if SAMPLES else Path()


def verdict_of(text, source="log", **known):
    return judge(VerdictEvidence(lines=lines_of(source, text), **known))


@needs_samples
@pytest.mark.parametrize("number", sorted(FAILURES))
def test_every_failure_of_the_samples(number):
    [path] = (LOGS / "failures").glob(f"{number}_*")
    text = path.read_text(errors="replace")
    found = verdict_of(text)
    assert (found.name, found.suspects) == FAILURES[number]
    assert found.remedy
    # The evidence is a line of the file, cut to its point where it is glued to something else.
    shown = found.evidence.removeprefix("... ").removesuffix(" ...")
    assert any(shown in " ".join(line.split("\x00")) for line in text.splitlines())


@needs_samples
def test_all_failures_of_the_samples_are_asked():
    present = {path.name[:2] for path in (LOGS / "failures").glob("*.log")}
    assert present == set(FAILURES)


@needs_samples
def test_the_xid_that_others_follow_from_is_the_one_shown():
    [path] = (LOGS / "failures").glob("22_*")
    found = verdict_of(path.read_text(), source="kernel")
    assert found.rule == "xid-nvlink"
    assert "caused by previous Xid 149" in found.evidence


@pytest.mark.parametrize("line", sorted(SEED))
def test_the_failures_of_the_seed_report_lead_to_their_remedy(line):
    name, word = SEED[line]
    found = verdict_of(line, source="stderr", exit_code=1)
    assert found.name == name
    assert word in found.remedy


@pytest.mark.parametrize("line", sorted(OTHERS))
def test_lines_that_others_reported(line):
    assert verdict_of(line).name == OTHERS[line]


@pytest.mark.parametrize("line", sorted(REMEDIES))
def test_a_cause_that_names_itself_leads_to_its_remedy(line):
    name, word = REMEDIES[line]
    found = verdict_of(line)
    assert (found.name, word in found.remedy) == (name, True)


@pytest.mark.parametrize(
    ("code", "rule"), [(-11, "crash"), (-9, "killed"), (1, "child-failed"), (-6, "child-failed")]
)
def test_the_summary_of_torchrun_names_the_rank(code, rule):
    """A local rank is no rank; an exit code says less than an exception does."""
    text = TORCHRUN.format(code=code)
    found = verdict_of(text)
    assert (found.name, found.rule, found.suspects) == ("rank_failed", rule, (13,))
    found = verdict_of(f"ValueError: 1 < 0\n{text}")
    assert found.rule == (rule if rule in ("crash", "killed") else "exception")
    assert found.suspects == (13,)


def test_a_task_of_torchrun_is_no_rank():
    text = f"{TORCHRUN.format(code=-6)}srun: error: n1: task 0: Exited with exit code 1\n"
    assert verdict_of(text).suspects == (13,)


def test_the_task_that_slurm_did_not_end_is_the_one_that_failed():
    words = "error: *** STEP 1.0 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TASK FAILURE ***\n"
    listed = "srun: error: n1: tasks 0-2,4-5: Terminated\nsrun: error: n2: tasks 6-7: Terminated\n"
    assert verdict_of(words + listed).suspects == (3,)
    assert verdict_of(words + listed.replace("0-2,", "")).suspects == ()


def test_an_error_that_is_joined_to_a_line_of_nccl_is_read():
    where = 'File "/usr/lib/python3/dist-packages/engine/worker.py", line 9, in step ' * 2
    joined = f"{where}RuntimeError: NCCL error: unhandled cuda error n1:7:7 [0] NCCL INFO comm"
    assert verdict_of(joined).name == "nccl_error"


def test_srun_names_first_the_task_that_ended_first():
    text = "srun: error: n1: task 6: Killed\nsrun: error: n1: tasks 4-5,7: Exited with exit code 1"
    assert verdict_of(text).suspects == (6,)


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless_lines_are_no_cause(line):
    assert verdict_of(line, exit_code=1).name == "rank_failed"
    assert verdict_of(line, exit_code=1).rule == "launcher-exit"


# --- what is known against what is written -----------------------------------------------------


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


# --- suspects ----------------------------------------------------------------------------------


def progress(group, entered, left, members=()):
    return [CollectiveProgress(rank, group, entered[rank], left[rank], members) for rank in entered]


def test_the_rank_missing_from_the_last_collective():
    at = progress("g", {0: 7, 1: 7, 2: 6, 3: 7}, {0: 6, 1: 6, 2: 6, 3: 6})
    found = suspects_from_progress(at)
    assert found.ranks == (2,)
    assert "collective 7 of group g" in found.why


def test_a_member_that_never_entered_is_missing_too():
    at = progress("g", {0: 0, 1: 0}, {0: -1, 1: -1}, members=(0, 1, 2))
    assert suspects_from_progress(at).ranks == (2,)


def test_nobody_is_suspect_where_all_wait_or_none_does():
    assert suspects_from_progress(progress("g", {0: 7, 1: 7}, {0: 6, 1: 6})).ranks == ()
    assert suspects_from_progress(progress("g", {0: 7, 1: 6}, {0: 7, 1: 6})).ranks == ()
    assert suspects_from_progress([]).ranks == ()


def test_a_chain_of_waits_is_followed_to_its_end():
    """Rank 0 waits for 1 in one group; 1 waits for 3 in another; 3 waits for nobody."""
    at = [
        *progress("a", {0: 5, 1: 4}, {0: 4, 1: 4}),
        *progress("b", {1: 9, 3: 8}, {1: 8, 3: 8}),
    ]
    assert suspects_from_progress(at).ranks == (3,)


def test_a_circle_of_waits_names_all_in_it():
    at = [
        *progress("a", {0: 5, 1: 4}, {0: 4, 1: 4}),
        *progress("b", {1: 9, 0: 8}, {1: 8, 0: 8}),
    ]
    assert suspects_from_progress(at).ranks == (0, 1)


def watchdog(rank, number, prefix="", group=""):
    return (
        f"{prefix}[E ProcessGroupNCCL.cpp:607] [{group}Rank {rank}] Watchdog caught collective "
        f"operation timeout: WorkNCCL(SeqNum={number}, OpType=ALLREDUCE, Timeout(ms)=600000) ran"
    )


def test_watchdogs_name_the_silent_rank_not_the_first_to_shout():
    lines = [watchdog(rank, 90) for rank in (3, 0, 2)]
    assert suspects_from_watchdog(lines, 4).ranks == (1,)
    assert suspects_from_watchdog(lines, 4).why == "did not report waiting at collective 90"
    assert suspects_from_watchdog([*lines, watchdog(1, 90)], 4).ranks == ()


def test_the_ranks_that_horovod_last_missed():
    said = "op_a [missing ranks: 0, 3]\nop_b [missing ranks: 3]\nop_a [missing ranks: 3]\n"
    assert verdict_of(said).suspects == (3,)
    assert verdict_of("op_a [ready ranks: 1]").suspects == ()


def test_watchdogs_name_the_rank_that_was_behind():
    lines = [watchdog(0, 90), watchdog(1, 88), watchdog(2, 90)]
    assert suspects_from_watchdog(lines, None).ranks == (1,)
    said = "[rank5]:[E1 x] [PG ID 0 PG GUID 0(default_pg) Rank 5] Timeout at NCCL work: 90, "
    said += "last enqueued NCCL work: 86, last completed NCCL work: 86."
    default = "PG ID 0 PG GUID 0(default_pg) "
    lines = [watchdog(rank, 90, f"[rank{rank}]:", default) for rank in (0, 1)] + [said]
    assert suspects_from_watchdog(lines, 8).ranks == (5,)


def test_ranks_of_a_subgroup_are_not_taken_for_global_ones():
    group = "PG ID 3 PG GUID 12 "
    lines = [watchdog(rank, 90, f"[rank{rank + 4}]:", group) for rank in (0, 1)]
    assert suspects_from_watchdog(lines, 8).ranks == ()
    behind = [*lines, watchdog(2, 80, "[rank6]:", group)]
    assert suspects_from_watchdog(behind, 8).ranks == (6,)


def test_the_recorders_own_pages_come_before_the_watchdog():
    at = progress("g", {0: 7, 1: 6}, {0: 6, 1: 6})
    lines = lines_of("stderr", "\n".join(watchdog(rank, 9) for rank in (0, 1, 2)))
    found = judge(VerdictEvidence(exit_code=1, progress=tuple(at), lines=lines, world_size=4))
    assert (found.name, found.suspect) == ("nccl_timeout", 1)
    hung = judge(VerdictEvidence(timed_out=True, progress=tuple(at)))
    assert (hung.name, hung.suspect) == ("timeout", 1)
    assert "suspect: rank 1" in hung.detail()


# --- the table ---------------------------------------------------------------------------------


def test_every_rule_is_well_formed_and_every_name_can_be_given():
    rules = load_rules()
    assert len({rule.id for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.remedy.endswith(".")
        assert len(rule.remedy) < 300
    assert {rule.verdict for rule in rules} | {"ok"} == set(VERDICTS)


@pytest.mark.parametrize(
    "change", ['verdict = "broken"', 'sources = ["dmesg"]', 'suspect = "all"', 'pattern = "("']
)
def test_a_malformed_rule_is_refused(change):
    fields = {"id": '"x"', "verdict": '"xid"', "pattern": '"a"', "remedy": '"b"'}
    name, _, value = change.partition(" = ")
    text = "[[rule]]\n" + "".join(f"{k} = {v}\n" for k, v in {**fields, name: value}.items())
    with pytest.raises(Exception, match=r".") as wrong:
        parse_rules(text)
    assert type(wrong.value).__name__ in ("ValueError", "error", "PatternError")


def test_evidence_is_fit_to_be_shown():
    line = "CUDA out of memory HF_TOKEN=hf_abcdefghijklmnop \x1b[31m\x00 " + "x" * 10_000
    found = verdict_of(line)
    assert "hf_" not in found.evidence
    assert found.evidence.isprintable()
    assert len(found.evidence) < 420
    assert "\n" not in found.detail()


# --- robustness --------------------------------------------------------------------------------

TEXT = "\n".join([*SEED, *OTHERS, *REMEDIES, watchdog(1, 9), watchdog(2, 9)]).encode()


@settings(deadline=None)
@given(st.one_of(cuts(TEXT), flipped(TEXT), interleaved_lines(TEXT, b"a\nb\n")))
def test_damaged_text(data):
    text = data.decode("utf-8", "replace")
    found = verdict_of(text)
    assert found.name in VERDICTS
    assert found == verdict_of(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(OTHERS)), max_size=8), st.randoms())
def test_the_order_of_lines_does_not_change_the_verdict(lines, shuffle):
    """But for exceptions, which decide over a hang only where they stand before it."""
    overruling = {rule.id for rule in load_rules() if rule.overrules}
    lines = [line for line in lines if verdict_of(line).rule not in overruling]
    shuffled = list(lines)
    shuffle.shuffle(shuffled)
    assert verdict_of("\n".join(lines)).name == verdict_of("\n".join(shuffled)).name


@pytest.mark.parametrize(
    "unit", ["[rank0]:", "NCCL WARN ", "task 1,", "NVRM: Xid (", "a.", "9", "Connect ", ": "]
)
def test_no_line_costs_more_than_its_length(unit):
    lines = tuple(TextLine("log", unit * 500) for _ in range(200))
    began = time.process_time()
    judge(VerdictEvidence(lines=lines, exit_code=1))
    assert time.process_time() - began < 5


def test_a_tail_of_twenty_thousand_lines_is_read_in_seconds():
    shuffle = random.Random(1)
    words = ["step", "loss", "token", "rank", "layer", "12", "0.5", "INFO", "[rank0]:", "ok"]
    lines = tuple(
        TextLine("stderr", " ".join(shuffle.choices(words, k=12)), n % 8) for n in range(20_000)
    )
    began = time.process_time()
    assert judge(VerdictEvidence(lines=lines, exit_code=1)).rule == "launcher-exit"
    assert time.process_time() - began < 10


def test_the_file_to_read_is_that_of_the_rank():
    exits = (RankExit(3, 1, "RuntimeError: no such layer", 1),)
    verdict = judge(VerdictEvidence(exit_code=1, rank_exits=exits))
    assert verdict.suspect == 3 and "logs/rank-00003.err" in verdict.remedy


def test_a_killed_script_is_the_cause_of_what_its_ranks_say():
    steps = (
        StepState("7", None, "FAILED", 0, 9),
        StepState("7", "batch", "CANCELLED", 0, 9),
        StepState("7", "1", "FAILED", 15, 0),
    )
    lines = (TextLine("spool", "signal: ended by SIGTERM", 0),)
    verdict = judge(VerdictEvidence(exit_code=137, lines=lines, steps=steps))
    assert verdict.rule == "slurm-script-killed" and verdict.suspect is None
    cancelled = (StepState("7", None, "CANCELLED", 0, 0), *steps[1:])
    assert judge(VerdictEvidence(exit_code=143, steps=cancelled)).name == "cancelled"


@pytest.mark.parametrize(
    ("code", "number", "rule"), [(9, 0, "slurm-failed"), (0, 9, "slurm-killed")]
)
def test_an_exit_code_of_nine_is_no_signal(code, number, rule):
    steps = (StepState("7", None, "FAILED", code, number),)
    assert judge(VerdictEvidence(exit_code=code or 137, steps=steps)).rule == rule


def test_killed_samplers_are_no_verdict():
    steps = (
        StepState("7", None, "COMPLETED", 0, derived_exit="0:9"),
        StepState("7", "0", "CANCELLED", 0, 9, name="harness-samplers"),
        StepState("7", "1", "COMPLETED", 0, name="harness-ranks"),
    )
    assert judge(VerdictEvidence(exit_code=0, steps=steps)).name == "ok"
    assert judge(VerdictEvidence(exit_code=0, steps=(steps[0], *steps[2:]))).name == "ok"


def test_accounting_that_the_runs_own_exit_code_denies_is_wrong():
    wrong = (StepState("7", None, "FAILED", 1), StepState("7", "0", "FAILED", 1))
    assert judge(VerdictEvidence(exit_code=0, steps=wrong)).name == "ok"
    assert judge(VerdictEvidence(exit_code=1, steps=wrong)).name == "rank_failed"
    step_only = (StepState("7", None, "COMPLETED", 0), wrong[1])
    assert judge(VerdictEvidence(exit_code=0, steps=step_only)).name == "rank_failed"
