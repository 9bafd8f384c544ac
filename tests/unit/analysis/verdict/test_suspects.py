"""Whom a hang is about: the rank that is missing, not those that shout."""

from __future__ import annotations

from unit.analysis.verdict.judged import verdict_of, watchdog

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import (
    VerdictEvidence,
    lines_of,
)
from harness_analysis.verdict.suspects import (
    CollectiveProgress,
    suspects_from_progress,
    suspects_from_watchdog,
)


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
