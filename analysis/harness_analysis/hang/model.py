"""What is known of every rank at one moment, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HANG_LINE = "no rank made progress"
"""How the line of a declared hang begins, which `verdict/rules.toml` looks for."""

Kind = Literal["none", "missing", "halted", "cycle", "mismatch", "inside", "behind", "unknown"]
"""What ranks stand on, where they wait: `missing` ranks that did not enter a call, `halted` ranks
whose process is stopped or gone, a `cycle` of ranks that wait for each other, a `mismatch` of what
they call, `inside` a call that all have entered; `behind`: nobody is known to wait (calls on a
device return at once), but some made fewer calls than others. `none`: nobody waits."""


@dataclass(frozen=True)
class Call:
    """A communication call that a rank has entered and not left.

    `group`: its name (`[0,1]#0`), `members` its global ranks; `peer`: the other side of a message.
    `since_ns`: when it was entered, Unix time. None: not known.
    """

    op: str
    group: str | None = None
    members: tuple[int, ...] = ()
    ordinal: int | None = None
    num_bytes: int | None = None
    peer: int | None = None
    since_ns: int | None = None


@dataclass(frozen=True)
class RankState:
    """One rank at one moment. Times are Unix ns; None: not known.

    `begun`: it has recorded anything. `ended`: it said that it ends. `halted`: its process is
    `stopped` (by a signal or a debugger) or `gone`. `entered`: the ordinal of the last collective
    entered, by group. `sent` and `received`: the same of messages, by (group, peer). `readable`:
    its page and its definitions could be read, so that what is not in them was not entered.
    `full`: its page has no room for more groups, so that of one that is not there nothing is known.
    `sets_up`: it is outside of prefill and decode, where it may be silent for long.
    """

    rank: int
    begun: bool = True
    ended: bool = False
    halted: Literal["stopped", "gone"] | None = None
    moved_ns: int | None = None
    call: Call | None = None
    entered: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[tuple[str, int], int] = field(default_factory=dict)
    received: Mapping[tuple[str, int], int] = field(default_factory=dict)
    readable: bool = True
    full: bool = False
    sets_up: bool = False
    where: str = ""


@dataclass(frozen=True)
class PendingCall:
    """A call in which ranks wait. `missing`: who has not entered it, and the ordinal it has reached
    in its group (-1: none); `unknown`: members of which nothing can be read; `halted`: members
    inside it whose process is stopped or gone."""

    op: str
    group: str | None
    ordinal: int | None
    num_bytes: int | None
    waiting: tuple[int, ...]
    missing: Mapping[int, int] = field(default_factory=dict)
    unknown: tuple[int, ...] = ()
    halted: tuple[int, ...] = ()
    since_ns: int | None = None
    mismatch: str = ""
    peer: int | None = None

    @property
    def blockers(self) -> tuple[int, ...]:
        """The ranks that have to do something before the others can go on."""
        return tuple(sorted({*self.missing, *self.halted}))


@dataclass(frozen=True)
class Diagnosis:
    """What the states of all ranks say.

    `quiet_ns`: since any rank last recorded something; None: not known. `hangs`: that is longer
    than the limit; `patient`: it is, but the ranks that keep the others set up, which may take
    long in silence. `culprits`: ranks at the end of the chain of waiting; empty where nobody can
    be named. `decisive`: the call that others stand in because of them. `blocked`: ranks that
    wait, directly or through others.
    """

    kind: Kind
    quiet_ns: int | None
    hangs: bool
    culprits: tuple[int, ...] = ()
    calls: tuple[PendingCall, ...] = ()
    decisive: PendingCall | None = None
    blocked: tuple[int, ...] = ()
    patient: bool = False


@dataclass(frozen=True)
class DeclaredHang:
    """A hang that the harness declared and ended: in one line, on whom, and what to do."""

    text: str
    suspects: tuple[int, ...] = ()
    remedy: str = ""
