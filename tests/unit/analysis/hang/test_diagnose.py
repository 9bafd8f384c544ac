"""Who keeps the ranks waiting: ranks that are interpreted to a standstill, and hand-made states."""

from __future__ import annotations

import dataclasses
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from harness_analysis.hang.diagnose import diagnose
from harness_analysis.hang.model import Call, RankState

SECOND = 1_000_000_000
NOW = 1_000 * SECOND
LIMIT = 10 * SECOND


def name(group):
    return f"[{','.join(map(str, group))}]#0"


class Machine:
    """Ranks that run programs of matching calls until nobody can go on; nobody enters a call of
    its own accord once it is stopped."""

    def __init__(self, world, calls, stop):
        self.programs = {rank: [] for rank in range(world)}
        ordinals = {}
        for call in calls:  # one global order: programs that cannot deadlock
            key = call[1:] if call[0] == "message" else call[1]
            ordinal = ordinals[key] = ordinals.get(key, -1) + 1
            if call[0] == "message":
                source, target = call[1:]
                self.programs[source].append(("send", (source, target), ordinal, target))
                self.programs[target].append(("recv", (source, target), ordinal, source))
            else:
                for rank in call[1]:
                    self.programs[rank].append(("all_reduce", call[1], ordinal, None))
        self.stop = stop
        self.at = dict.fromkeys(range(world), 0)
        self.inside = dict.fromkeys(range(world), False)
        while any([self.enter(), self.leave()]):
            pass

    def enter(self):
        moved = False
        for rank, program in self.programs.items():
            stopped = self.stop is not None and (rank, self.at[rank]) == self.stop
            if not self.inside[rank] and self.at[rank] < len(program) and not stopped:
                self.inside[rank] = moved = True
        return moved

    def leave(self):
        ready = [rank for rank in self.programs if self.inside[rank] and self.complete(rank)]
        for rank in ready:
            self.inside[rank], self.at[rank] = False, self.at[rank] + 1
        return bool(ready)

    def complete(self, rank):
        _, group, ordinal, peer = self.programs[rank][self.at[rank]]
        others = [peer] if peer is not None else group
        return all(self.reached(other, group) >= ordinal for other in others)

    def reached(self, rank, group):
        done = self.programs[rank][: self.at[rank] + self.inside[rank]]
        return max((call[2] for call in done if call[1] == group), default=-1)

    def states(self):
        return [self.state(rank) for rank in self.programs]

    def state(self, rank):
        program, call = self.programs[rank], None
        done = program[: self.at[rank] + self.inside[rank]]
        if self.inside[rank]:
            op, group, ordinal, peer = program[self.at[rank]]
            members = () if peer is not None else group
            call = Call(op, name(group), members, ordinal, 64, peer, NOW - 40 * SECOND)
        found = RankState(rank, moved_ns=NOW - 40 * SECOND, call=call)
        found = dict(vars(found), entered={}, sent={}, received={})
        found["ended"] = self.at[rank] == len(program)
        for op, group, ordinal, peer in done:
            if op == "all_reduce":
                found["entered"][name(group)] = ordinal
            else:
                found["sent" if op == "send" else "received"][name(group), peer] = ordinal
        return RankState(**found)


@st.composite
def stopped_programs(draw):
    world = draw(st.integers(2, 7))
    ranks = range(world)
    group = st.lists(st.sampled_from(ranks), min_size=2, max_size=world, unique=True)
    message = st.permutations(ranks).map(lambda order: ("message", order[0], order[1]))
    call = group.map(lambda found: ("group", tuple(sorted(found)))) | message
    calls = draw(st.lists(call, min_size=1, max_size=25))
    victim = draw(st.sampled_from(ranks))
    own = [call for call in calls if victim in (call[1] if call[0] == "group" else call[1:])]
    return world, calls, (victim, draw(st.integers(0, max(0, len(own) - 1))))


@settings(max_examples=300, deadline=None)
@given(stopped_programs())
def test_the_rank_that_stopped_is_named_and_no_other(case):
    world, calls, stop = case
    machine = Machine(world, calls, stop)
    found = diagnose(machine.states(), NOW, LIMIT)
    waiting = {rank for rank, inside in machine.inside.items() if inside}
    if not waiting:  # nobody needed it any more
        assert found.calls == ()
        return
    assert (found.kind, found.culprits) == ("missing", (stop[0],))
    assert found.hangs and stop[0] in found.decisive.missing
    assert set(found.blocked) == waiting
    assert all(set(call.waiting) <= waiting for call in found.calls)


@settings(max_examples=100, deadline=None)
@given(stopped_programs(), st.randoms())
def test_the_order_in_which_ranks_are_given_does_not_matter(case, order):
    states = Machine(*case).states()
    shuffled = list(states)
    order.shuffle(shuffled)
    assert diagnose(shuffled, NOW, LIMIT) == diagnose(states, NOW, LIMIT)


@settings(max_examples=50, deadline=None)
@given(stopped_programs())
def test_programs_that_end_name_nobody(case):
    found = diagnose(Machine(case[0], case[1], None).states(), NOW, LIMIT)
    assert (found.kind, found.culprits, found.calls, found.hangs) == ("none", (), (), False)


def waits(rank, ordinal, group=(0, 1), op="all_reduce", size=64, **more):
    call = Call(op, name(group), group, ordinal, size, None, NOW - 40 * SECOND)
    more = {"moved_ns": NOW - 40 * SECOND, "entered": {name(group): ordinal}, **more}
    return RankState(rank, call=call, **more)


def test_ranks_that_move_do_not_hang():
    moving = RankState(1, moved_ns=NOW - SECOND, entered={name((0, 1)): 6})
    found = diagnose([waits(0, 7), moving], NOW, LIMIT)
    assert not found.hangs and found.quiet_ns == SECOND
    assert found.culprits == (1,) and found.decisive.missing == {1: 6}


def test_a_process_that_is_stopped_inside_the_call_is_named():
    found = diagnose([waits(0, 7), waits(1, 7, halted="stopped")], NOW, LIMIT)
    assert (found.kind, found.culprits, found.blocked) == ("halted", (1,), (0,))


def test_nobody_is_named_where_all_are_inside():
    found = diagnose([waits(0, 7), waits(1, 7)], NOW, LIMIT)
    assert (found.kind, found.culprits) == ("inside", ())
    assert found.decisive.waiting == (0, 1)


def test_a_ring_of_waiting_is_a_cycle():
    first = waits(0, 3, entered={name((0, 1)): 3, name((0, 2)): 1})
    second = waits(1, 8, (1, 2), entered={name((0, 1)): 2, name((1, 2)): 8})
    third = waits(2, 2, (0, 2), entered={name((1, 2)): 7, name((0, 2)): 2})
    found = diagnose([first, second, third, waits(3, 0, (2, 3))], NOW, LIMIT)
    assert (found.kind, found.culprits) == ("cycle", (0, 1, 2))


def test_different_calls_at_one_place_are_a_mismatch():
    found = diagnose([waits(0, 7), waits(1, 7), waits(2, 7, op="all_gather")], NOW, LIMIT)
    assert found.kind == "mismatch" and found.decisive.mismatch.startswith("all_gather on 2")
    found = diagnose([waits(0, 7), waits(1, 7, size=128)], NOW, LIMIT)
    assert "128 bytes on 1" in found.decisive.mismatch


def test_a_rank_that_never_began_and_one_that_cannot_be_read_are_told_apart():
    found = diagnose([waits(0, 0, (0, 1, 2)), RankState(1, begun=False)], NOW, LIMIT)
    assert found.culprits == (1, 2) and found.decisive.missing == {1: -1, 2: -1}
    full = RankState(1, full=True, entered={"[1,2]#0": 5})
    assert diagnose([waits(0, 0), full], NOW, LIMIT).decisive.unknown == (1,)
    found = diagnose([waits(0, 0), RankState(1, readable=False)], NOW, LIMIT)
    assert (found.kind, found.culprits, found.decisive.unknown) == ("unknown", (), (1,))


def test_of_a_rooted_call_the_root_is_waited_for():
    call = Call("broadcast", name((0, 1, 2)), (0, 1, 2), 4, 64, 0, NOW)
    entered = {name((0, 1, 2)): 3}
    states = [RankState(0, entered=entered), RankState(1, entered=entered), RankState(2, call=call)]
    assert diagnose(states, NOW, LIMIT).culprits == (0,)


def test_without_a_pending_call_the_rank_that_made_fewest_is_behind():
    """Calls on a device return at once: the hosts stand in a synchronisation."""
    old = NOW - 60 * SECOND
    tp = [{name((0, 1)): 90}, {name((0, 1)): 74}, {name((2, 3)): 74}, {name((2, 3)): 74}]
    states = [RankState(rank, moved_ns=old, entered=of) for rank, of in enumerate(tp)]
    states[0] = RankState(0, moved_ns=old, entered=tp[0], sent={("[0,2]#0", 2): 4})
    states[2] = RankState(2, moved_ns=old, entered=tp[2], received={("[0,2]#0", 0): 5})
    found = diagnose(states, NOW, LIMIT)
    assert (found.hangs, found.kind, found.culprits) == (True, "behind", (1,))


def test_a_message_that_was_sent_keeps_nobody():
    pair = "[0,1]#0"
    receiver = RankState(1, call=Call("recv", pair, (0, 1), 3, 64, 0), received={(pair, 0): 3})
    sender = RankState(0, sent={(pair, 1): 3}, halted="stopped")
    found = diagnose([sender, receiver], NOW, LIMIT)
    assert (found.kind, found.culprits) == ("inside", ())


def test_a_thousand_ranks_and_one_that_is_missing():
    world = tuple(range(1024))
    states = [waits(rank, 12, world) for rank in world]
    missing = random.Random(5).choice(world)
    states[missing] = RankState(missing, moved_ns=NOW - 50 * SECOND, entered={name(world): 11})
    found = diagnose(states, NOW, LIMIT)
    assert (found.culprits, len(found.blocked), len(found.calls)) == ((missing,), 1023, 1)


def test_loading_may_be_silent_for_longer():
    loads = RankState(1, moved_ns=NOW - 40 * SECOND, entered={name((0, 1)): 6}, sets_up=True)
    found = diagnose([waits(0, 7), loads], NOW, LIMIT)
    assert (found.hangs, found.patient, found.culprits) == (False, True, (1,))
    found = diagnose([waits(0, 7), loads], NOW, 3 * SECOND)
    assert (found.hangs, found.patient) == (True, False)
    found = diagnose([waits(0, 7), dataclasses.replace(loads, halted="stopped")], NOW, LIMIT)
    assert (found.hangs, found.kind) == (True, "halted")  # a stopped process loads nothing
    alone = [RankState(rank, moved_ns=NOW - 40 * SECOND, sets_up=True) for rank in (0, 1)]
    assert diagnose(alone, NOW, LIMIT).patient
