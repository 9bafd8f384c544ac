"""Why a run ended: every failure of the samples and the seed's own, and damage to their words."""

from __future__ import annotations

import random
import time

import pytest
from failure_lines import FAILURES, HARMLESS, OTHERS, REMEDIES, SEED, TORCHRUN
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped, interleaved_lines
from support import needs_samples
from unit.analysis.verdict.judged import LOGS, verdict_of, watchdog

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import (
    VERDICTS,
    StepState,
    TextLine,
    VerdictEvidence,
)
from harness_analysis.verdict.rules import load_rules, parse_rules
from harness_schemas.spi import RankExit


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
