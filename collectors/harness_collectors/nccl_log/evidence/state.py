"""What has been learnt from NCCL logs so far: processes, communicators, calls and choices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, Final

from harness_collectors.nccl_log.evidence.call_log import CallLog
from harness_collectors.nccl_log.evidence.edges import Edges, lowest
from harness_collectors.nccl_log.grammar.lines import Choice, Edge, Ends
from harness_collectors.nccl_log.pages.stream import Intake

MAX_THINGS: Final = 100_000
"""Processes, communicators and kinds of calls that are kept; real logs have thousands at most."""
MAX_EDGES: Final = 1_000_000
"""Of all communicators; a rank prints some eight of each."""
MAX_STRAY_EDGES: Final = 65_536
"""Of a thread, before it names their communicator."""
MAX_EVENTS: Final = 10_000

_SURE: Final = 3
"""A value that lines contradict counts only with this many times their votes."""


def agreed(votes: Mapping[Any, int]) -> Any:
    """The value that lines agree on; None where they contradict each other, or none says it."""
    if len(votes) <= 1:
        for value in votes:
            return value
        return None
    best, count = max(votes.items(), key=itemgetter(1))
    return best if count >= _SURE * (sum(votes.values()) - count) else None


_counts: Final[Callable[[], dict[Any, int]]] = partial(defaultdict, int)
"""Counters for those that every process and file has: made in a tenth of a Counter's time."""


@dataclass(eq=False, slots=True)
class Comm:
    """A communicator as one process sees it."""

    process: Process
    pointer: str | None
    order: int
    seen_init: bool = False
    state: str | None = None
    function: str | None = None
    parent: Comm | None = None
    init_ns: int | None = None
    init_end_ns: int | None = None
    init_parts: Mapping[str, int] = field(default_factory=dict)
    edges: dict[Edge, int] = field(default_factory=dict)
    """The channels of each edge, as bits, in the order in which the edges were first printed."""
    rings: set[str] = field(default_factory=set)
    trees: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    # What the resolution adds:
    rank: int | None = None
    """Rank in the communicator, and its size: what lines say (`settle`), where it is believed."""
    nranks: int | None = None
    global_rank: int | None = None
    members: tuple[int, ...] | None = None
    group: str | None = None
    owned: Mapping[str, int] = field(default_factory=dict)
    """Edges by transport, each counted in one communicator only."""
    group_edges: Edges[str] | None = None
    """Transports of all edges that any rank of the group printed."""
    # What lines say, by name: kept as they say it, counted only where they contradict each other.
    _heard: list[Mapping[str, Any]] = field(default_factory=list)
    _known: dict[str, Any] | None = field(default_factory=dict)
    _votes: dict[str, Counter[Any]] | None = None

    def hear(self, said: Mapping[str, Any]) -> None:
        """A line says that these names have these values."""
        heard, known = self._heard, self._known
        heard.append(said)
        if known is None:
            if self._votes is not None:
                _count(self._votes, said)
        elif not known:
            self._known = dict(said)
        elif said is not heard[-2] and said is not heard[0]:  # an end repeats its beginning
            for name, value in said.items():
                if known.setdefault(name, value) != value:
                    self._known = None
                    return

    def says(self, name: str, value: Any) -> None:
        """A line says that `name` is `value`."""
        self.hear({name: value})

    @property
    def votes(self) -> dict[str, Counter[Any]]:
        """How often which value was said, by name. What is changed in it counts."""
        if self._votes is None:
            self._votes, self._known = {}, None
            for said in self._heard:
                _count(self._votes, said)
        return self._votes

    @property
    def names(self) -> Mapping[str, Any]:
        """The names of which lines say something; the values are not for use."""
        return self._known if self._known is not None else self.votes

    @property
    def known(self) -> Mapping[str, Any]:
        """What lines agree on, by name; left out or None: unknown."""
        if self._known is not None:
            return self._known
        return {name: agreed(votes) for name, votes in self.votes.items() if votes}

    def get(self, name: str) -> Any:
        """What lines agree on; None: unknown."""
        if self._known is not None:
            return self._known.get(name)
        votes = self.votes.get(name)
        return agreed(votes) if votes else None

    def said_nranks(self) -> int | None:
        """Size of the communicator: init lines, else what its calls say."""
        known = self._known
        if known is not None and "nranks" in known:
            return known["nranks"] or None
        return self.get("nranks" if "nranks" in self.names else "call_nranks") or None

    def said_rank(self) -> int | None:
        """Rank in the communicator; None: unknown, or beyond its size."""
        rank, nranks = self.get("rank"), self.said_nranks()
        return None if rank is None or (nranks is not None and rank >= nranks) else rank

    def settle(self) -> None:
        """Take for its rank and size what its lines say now."""
        self.rank, self.nranks = self.said_rank(), self.said_nranks()


def _count(votes: dict[str, Counter[Any]], said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        votes.setdefault(name, Counter())[value] += 1


def identity_by(get: Callable[[str], Any]) -> tuple[Any, ...] | None:
    """What tells a communicator from another at the same address, of what is said of it."""
    if (comm_id := get("commId")) is not None:
        return ("id", comm_id)
    parent, color = get("parent"), get("color")
    if parent is None or color is None:
        return None
    return ("split", parent, get("splitCount") or get("childCount"), color)


@dataclass(eq=False, slots=True)
class Thread:
    """A thread of a process: which communicator its unnamed lines are about."""

    slot: int
    comm: Comm | None = None
    since_row: int = 0
    """Calls from this row on are later than `comm`."""
    edges: Edges[tuple[str, str, int | None]] = field(default_factory=Edges)
    """Edges whose communicator is not known yet: side, transport, CUDA device."""
    channels: dict[str, int] | None = None
    """Numbers of channels, by name, whose communicator is not known yet."""

    def keep_edges(self, ends: Ends, kind: tuple[str, str, int | None], channels: int) -> None:
        """Keep edges until their communicator is known; the first word counts."""
        known = self.edges.known(ends)
        new = lowest(channels & ~known, max(MAX_STRAY_EDGES - self.edges.size, 0))
        self.edges.add(ends, kind, new, overrules=False)


@dataclass(eq=False, slots=True)
class Process:
    """One process that printed lines. `host` and `pid` are None where lines have no prefix."""

    folder: str
    host: str | None
    pid: int | None
    order: int
    comms: dict[str, Comm] = field(default_factory=dict)
    all_comms: list[Comm] = field(default_factory=list)
    threads: dict[int | None, Thread] = field(default_factory=dict)
    versions: dict[tuple[str, str, str | None], int] = field(default_factory=_counts)
    """(library, version, CUDA version)."""
    networks: dict[str, int] = field(default_factory=_counts)
    edge_ranks: dict[int, int] = field(default_factory=dict)
    """Ranks as which it printed transports."""
    ring_sizes: dict[int, int] = field(default_factory=_counts)
    """Ranks in the ring maps that it printed, as rank 0 alone does."""
    files: list[LogFile] = field(default_factory=list)
    first_ns: int | None = None
    rank: int | None = None
    """Global rank, where the process has one."""
    stray_edges: dict[str, int] = field(default_factory=_counts)
    """Edges by transport whose communicator is not known."""
    stray_trees: set[str] = field(default_factory=set)
    """Trees whose communicator is not known: its init lines are not in the log."""


@dataclass(eq=False, slots=True)
class LogFile:
    """One file: what was counted in it."""

    name: str
    folder: str
    intake: Intake
    lines: int = 0
    records: int = 0
    """Lines that became knowledge."""
    unreadable: int = 0
    ends_cut: int = 0
    """Of the unreadable ones, those that are the file's last line, cut."""
    is_structured: bool = False
    """Its records are whole or not at all (JSON): nothing looks whole that was glued."""
    tails: int = 0
    """Lines that are the end of a record, without its prefix."""
    dropped: int = 0
    """Records beyond a limit."""
    init_complete: int = 0
    choices: int = 0
    warnings: int = 0
    bare_versions: dict[tuple[str, str, str | None], int] = field(default_factory=_counts)
    processes: list[Process] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    plugins: set[str] = field(default_factory=set)
    gdr: dict[str, set[str]] = field(default_factory=dict)

    @property
    def is_torn(self) -> bool:
        """Whether it has pieces of lines, so that what looks whole may be glued from two."""
        pieces = self.unreadable > self.ends_cut or self.tails > 0 or self.intake.overlong > 0
        return pieces and not self.is_structured


@dataclass(frozen=True)
class CallKind:
    """What calls that differ only in buffers and size have in common."""

    file: LogFile
    comm: Comm
    slot: int
    op: str
    op_name: str
    dtype: str
    element_bytes: int
    root: int
    nranks: int
    globalrank: int | None


@dataclass(frozen=True)
class Event:
    """A warning or watchdog line."""

    process: Process | None
    rank: int | None
    ts_ns: int | None
    severity: str
    kind: str
    text: str
    attrs: dict[str, Any]


class Evidence:
    """Everything read so far, of all files."""

    def __init__(self) -> None:
        self.files: list[LogFile] = []
        self.processes: dict[tuple[str, str | None, int | None], Process] = {}
        self.comms: list[Comm] = []
        self.kinds: list[CallKind] = []
        self.calls = CallLog()
        self.choices: dict[Choice, int] = {}
        self.choice_counts: Counter[tuple[int, int, int]] = Counter()
        """Lines by (order of the process, order of the communicator or -1, choice)."""
        self.events: list[Event] = []
        self.edges = 0
        self.slots = 0

    def process(self, file: LogFile, host: str | None, pid: int | None) -> Process | None:
        """The process, made on first sight; None: too many. Without a name: one for the file."""
        scope = file.folder if host is not None else f"{file.folder}/{file.name}"
        found = self.processes.get((scope, host, pid))
        if found is None:
            if len(self.processes) >= MAX_THINGS:
                return None
            found = Process(file.folder, host, pid, order=len(self.processes))
            self.processes[(scope, host, pid)] = found
        if file not in found.files:
            found.files.append(file)
            file.processes.append(found)
        return found

    def thread(self, process: Process, tid: int | None) -> Thread:
        """The thread, made on first sight."""
        found = process.threads.get(tid)
        if found is None:
            found = process.threads[tid] = Thread(self.slots)
            self.slots += 1
        return found

    def new_comm(self, process: Process, pointer: str | None) -> Comm | None:
        """A communicator of the process; None: too many."""
        if len(self.comms) >= MAX_THINGS:
            return None
        comm = Comm(process, pointer, len(self.comms))
        self.comms.append(comm)
        process.all_comms.append(comm)
        if pointer is not None:
            process.comms[pointer] = comm
        return comm

    def add_edge(self, comm: Comm, edge: Edge, channels: int) -> None:
        """Note channels (as bits) of an edge of a communicator."""
        known = comm.edges.get(edge)
        if known is not None:
            comm.edges[edge] = known | channels
        elif self.edges < MAX_EDGES:
            self.edges += 1
            comm.edges[edge] = channels
