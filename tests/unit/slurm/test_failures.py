"""Which of several failed ranks is named as the cause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.rundir import RunDir
from harness_slurm.failures import Ended, explain, last_words

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3"
NCCL = "torch.distributed.DistBackendError: NCCL error: remote process exited or network error"


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path)
    run.logs.mkdir()
    return run


def say(run, rank, text):
    run.rank_log(rank, "err").write_text(text)


def ranks(failures):
    return [failure.rank for failure in failures]


def test_none_failed(run):
    assert explain([], run, 3) == []


@pytest.mark.parametrize("complaint", [GLOO, NCCL])
def test_own_error_comes_before_an_earlier_complaint_about_a_peer(run, complaint):
    say(run, 0, f"Traceback (most recent call last):\n  ...\n{complaint}\n")
    say(run, 3, "Traceback (most recent call last):\n  ...\nValueError: bad layer\nbye\n")
    ended = [Ended(0, 1, START), Ended(3, 1, START + SECOND // 10)]
    first, second = explain(ended, run, 3)
    assert (first.rank, first.message) == (3, "ValueError: bad layer")
    assert (second.rank, second.message) == (0, complaint)


def test_error_file_marks_the_cause_even_if_the_agent_ended_the_rank(run):
    say(run, 0, GLOO)
    ended = [Ended(0, 1, START), Ended(1, -15, START + SECOND, error="ValueError: bad layer")]
    failures = explain(ended, run, 3)
    assert ranks(failures) == [1, 0]
    assert failures[0].message == "ValueError: bad layer"


def test_abort_of_a_victim_is_no_cause(run):
    say(run, 0, "terminate called after throwing an instance of c10::DistBackendError\n")
    ended = [Ended(0, -6, START), Ended(1, -9, START + 1)]
    failures = explain(ended, run, 3)
    assert ranks(failures) == [1, 0]
    assert failures[0].message == "killed by SIGKILL"


def test_first_sigterm_is_not_the_agents_and_a_later_one_is(run):
    ended = [Ended(0, -15, START + SECOND // 5), Ended(2, -15, START)]
    failures = explain(ended, run, 3)
    assert ranks(failures) == [2, 0]
    assert failures[0].message == "killed by SIGTERM"
    assert "another rank" in failures[1].message


def test_sigkill_is_the_agents_only_after_its_patience(run):
    def message(delay_ns):
        ended = [Ended(0, 1, START), Ended(1, -9, START + delay_ns)]
        return {f.rank: f.message for f in explain(ended, run, 3)}[1]

    assert message(SECOND) == "killed by SIGKILL"
    assert "another rank" in message(3 * SECOND)


def test_unknown_signal_has_a_number(run):
    assert explain([Ended(0, -77, START)], run, 3)[0].message == "killed by signal 77"


def test_last_words_prefer_an_exception_over_what_follows(tmp_path):
    log = tmp_path / "log"
    log.write_text("x\n" * 20_000 + "[rank1]: KeyError: 'q'\nsys:1: ResourceWarning\n")
    assert last_words(log) == "[rank1]: KeyError: 'q'"
    log.write_bytes(b"\xff\n\n")
    assert last_words(log) == "\N{REPLACEMENT CHARACTER}"
    assert last_words(tmp_path / "absent") == ""


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, -6, -9, -11, -15]), st.integers(0, 10 * SECOND)),
        min_size=1,
        max_size=6,
    )
)
def test_every_failure_is_told_once_and_the_first_to_end_is_the_cause(tmp_path_factory, deaths):
    ended = [Ended(rank, code, START + delay) for rank, (code, delay) in enumerate(deaths)]
    failures = explain(ended, RunDir(tmp_path_factory.getbasetemp()), 3)
    assert sorted(ranks(failures)) == list(range(len(deaths)))
    assert failures[0].noticed_ns == min(one.ended_ns for one in ended)


def test_what_a_killed_rank_said_before_is_no_reason(tmp_path):
    log = tmp_path / "err"
    log.write_text("[W1] Warning: FLAG is deprecated\nloading: 100%\n")
    assert last_words(log, killed=True) == ""
    log.write_text("  what():  CUDA error: unspecified launch failure\nframe #0: x\n")
    assert last_words(log, killed=True).startswith("what():  CUDA error")
