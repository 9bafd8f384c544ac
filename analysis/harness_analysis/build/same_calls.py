"""Which rows of `collectives` are one call, seen by different evidence of the same rank.

Evidence is taken from the best to the weakest; what it shows of a call that better evidence
has already is joined to it. Three ways to know a call again, the surest first:

    unit    both know the unit of work: the k-th of its operation and group in the unit is the
            k-th, where both show equally many
    time    both know when the host issued it (or when it ended): each is the other's nearest
    order   the one record is whole, and the other's calls fit it at one place only

What fits several places, or none, is not joined: unknown, never wrong. Such a row may still be
a call that another row shows, so it must not be counted beside it: it is put aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_schemas.vocabulary import evidence_order

if TYPE_CHECKING:
    import duckdb

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
UNKNOWN = np.iinfo(np.int64).min
TAKEN = (
    *("row_id", "stream", "comm", "sort", "unit", "slot", "size", "seq"),
    *("enqueue_ns", "start_ns", "end_ns", "host"),
)
UNTIMED = ("flight_recorder", "nccl_log")
"""Records of calls, not of intervals."""
NUMBERED = frozenset({"nccl_log"})
"""Records that begin with the first call of a communicator, and number every one of them."""
SLACK_NS = 5_000
"""By how much a record's clock may be off the host's: stamps are cut to microseconds."""
SLOWEST_NS = 50_000_000
"""Between the two ends of one call (record and launch, end and its being noticed)."""
PAUSE = 20
"""A gap of so many usual ones: the recording stopped and began anew."""
FEW = 4
AGREEING = 0.9
"""Share of a stream that must be found again, or two records are not of the same run."""

SAME = "same call"
MAYBE = "may be a call that another row shows"
UNIT = "better evidence shows the unit's calls"


@dataclass(frozen=True)
class Calls:
    """Rows of one rank and evidence, in the order of the calls: a column a name of `TAKEN`."""

    columns: dict[str, Ints]

    def __len__(self) -> int:
        return len(self.columns["row_id"])

    def __getitem__(self, name: str) -> Ints:
        return self.columns[name]

    def take(self, index: NDArray[Any]) -> Calls:
        """Some of the rows."""
        return Calls({name: values[index] for name, values in self.columns.items()})

    def known(self, name: str) -> Flags:
        """Which rows have a value."""
        known: Flags = self.columns[name] != UNKNOWN
        return known


@dataclass(frozen=True)
class Pairs:
    """`theirs[k]` is the call `ours[k]`; both are places in the two tables compared."""

    ours: Ints
    theirs: Ints


NONE = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))


def same_calls(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """(row_id, master, aside): the row that shows the same call best (itself: it is that), and
    why the row is to be put aside (NULL: it stays). Input: temp table call_rows."""
    found = con.execute("SELECT DISTINCT rank, source FROM call_rows ORDER BY ALL").fetchall()
    whole = _whole_logs(con)
    tables = []
    for rank in dict.fromkeys(rank for rank, _ in found):
        sources = sorted((source for r, source in found if r == rank), key=_place)
        if len(sources) > 1:
            fold = Fold(_read(con, rank, sources[0]))
            for source in sources[1:]:
                sure = source in NUMBERED and (None in whole or rank in whole)
                fold.add(_read(con, rank, source), source in UNTIMED, sure)
            tables.append(fold.table())
    schema = pa.schema([("row_id", pa.int64()), ("master", pa.int64()), ("aside", pa.string())])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _place(source: str) -> tuple[bool, int, str]:
    return source in UNTIMED, *evidence_order(source)


def _whole_logs(con: duckdb.DuckDBPyConnection) -> set[int | None]:
    """Ranks whose logs are undamaged; None: those of ranks that share a file."""
    rows = con.execute(
        """
        SELECT rank, bool_and(state = 'ok') FROM run.collection
        WHERE collector = 'nccl_log' GROUP BY rank
        """
    ).fetchall()
    # A row without a rank speaks for logs of any rank.
    if not all(sound for rank, sound in rows if rank is None):
        return set()
    return {rank for rank, sound in rows if sound}


def _read(con: duckdb.DuckDBPyConnection, rank: int, source: str) -> Calls:
    names = ", ".join(f"coalesce({name}, {UNKNOWN}) AS {name}" for name in TAKEN)
    found = con.execute(
        f"""
        SELECT {names} FROM call_rows WHERE rank = ? AND source = ?
        ORDER BY coalesce(start_ns, enqueue_ns), seq, row_id
        """,
        [rank, source],
    ).fetchnumpy()
    return Calls({name: np.ma.getdata(found[name]).astype(np.int64) for name in TAKEN})


class Fold:
    """The calls of a rank, and for every row seen so far which call it is."""

    def __init__(self, best: Calls) -> None:
        self.calls = best
        self._rows = [(best["row_id"], best["row_id"], np.full(len(best), None, object))]

    def add(self, other: Calls, untimed: bool, whole: bool) -> None:
        """Take the rows of the next evidence."""
        master = other["row_id"].copy()
        joined = np.zeros(len(other), bool)
        taken = np.zeros(len(self.calls), bool)
        settled = np.zeros(len(other), bool)
        steps: list[Callable[[Calls, Calls], Pairs]] = [by_unit, by_time]
        if whole:
            steps.append(by_order)
        for pair in steps:
            ours, theirs = np.flatnonzero(~taken), np.flatnonzero(~joined)
            found = pair(self.calls.take(ours), other.take(theirs))
            ours, theirs = ours[found.ours], theirs[found.theirs]
            master[theirs] = self.calls["row_id"][ours]
            taken[ours] = joined[theirs] = True
            if pair is by_order:
                # Where the one place is known, what lies outside it is certainly another call.
                settled |= np.isin(other["sort"], np.unique(other["sort"][theirs]))
        why = np.full(len(other), None, object)
        why[_covered(self.calls, other) & ~joined] = UNIT
        if untimed:
            why[_possible(self.calls.take(~taken), other) & ~joined & ~settled] = MAYBE
        why[joined] = SAME
        self._rows.append((other["row_id"], master, why))
        new = other.take(why == None)  # noqa: E711 - elementwise
        self.calls = _merged(self.calls, new)

    def table(self) -> pa.Table:
        """Rows of `same_calls`."""
        row, master, why = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        return pa.table(
            {"row_id": row, "master": master, "aside": pa.array(why.tolist(), pa.string())}
        )


def _merged(one: Calls, other: Calls) -> Calls:
    return Calls({name: np.concatenate([one[name], other[name]]) for name in TAKEN})


def _covered(calls: Calls, other: Calls) -> Flags:
    """Rows of units whose calls better evidence shows too: counted with it, not beside it.

    Calls of the host alone, as gloo's, no evidence of the device could have shown.
    """
    shown: Flags = np.isin(other["unit"], calls["unit"][calls.known("unit")])
    shown &= other.known("unit") & (other["host"] != 1)
    return shown


def _possible(left: Calls, other: Calls) -> Flags:
    """Rows that may be one of the calls left: of the same sort and size, and of no other time."""
    unsized = left["sort"][~left.known("size")]
    fits: Flags = np.isin(_symbols(other, True), _symbols(left, True)) | np.isin(
        other["sort"], unsized
    )
    fits |= ~other.known("size") & np.isin(other["sort"], left["sort"])
    if not len(left) or not left.known("enqueue_ns").all():
        return fits
    times, stamped = left["enqueue_ns"], other["enqueue_ns"]
    apart = (stamped < times.min() - SLOWEST_NS) | (stamped > times.max() + SLACK_NS)
    fits &= ~(apart & other.known("enqueue_ns"))
    return fits


# -- three ways to know a call again -----------------------------------------------------------


def by_unit(calls: Calls, other: Calls) -> Pairs:
    """The k-th of an operation and group in a unit is the k-th of it."""
    ours = np.flatnonzero(calls.known("slot"))
    theirs = np.flatnonzero(other.known("slot"))
    ours = ours[np.argsort(calls["slot"][ours], kind="stable")]
    theirs = theirs[np.argsort(other["slot"][theirs], kind="stable")]
    mine, counts = np.unique(calls["slot"][ours], return_counts=True)
    foreign, numbers = np.unique(other["slot"][theirs], return_counts=True)
    both, at, there = np.intersect1d(mine, foreign, return_indices=True)
    equal = both[counts[at] == numbers[there]]
    ours = ours[np.isin(calls["slot"][ours], equal)]
    theirs = theirs[np.isin(other["slot"][theirs], equal)]
    wrong = ~_fit(calls["size"][ours], other["size"][theirs])
    keep = ~np.isin(calls["slot"][ours], calls["slot"][ours][wrong])
    return Pairs(ours[keep], theirs[keep])


def by_time(calls: Calls, other: Calls) -> Pairs:
    """A record is printed before its launch, and an end noticed after it: nearest pairs.

    Of a sort with few calls, as the barrier that opens a run, the usual distance is that of the
    other sorts.
    """
    found: list[Pairs] = []
    few: list[tuple[Ints, Ints]] = []
    for ours, theirs in _common_sorts(calls, other):
        pairs = _in_time(calls, other, ours, theirs, 0)
        found.append(pairs)
        few += [] if len(pairs.ours) else [(ours, theirs)]
    usual = _usual(calls, other, _joined(found))
    found += [_in_time(calls, other, ours, theirs, usual) for ours, theirs in few if usual]
    return _joined(found)


def _usual(calls: Calls, other: Calls, pairs: Pairs) -> int:
    """Within what distance most of the pairs lie; 0: too few to say."""
    one, two = calls.take(pairs.ours), other.take(pairs.theirs)
    name = _compared(one, two)
    if name is None or len(pairs.ours) < FEW:
        return 0
    both = one.known(name) & two.known(name)
    return 2 * int(np.median(np.abs(one[name][both] - two[name][both]))) + SLACK_NS


def _compared(one: Calls, two: Calls) -> str | None:
    """The time that both know: when calls were issued, else when they ended."""
    names = ("enqueue_ns", "end_ns")
    return next((n for n in names if one.known(n).any() and two.known(n).any()), None)


def _in_time(calls: Calls, other: Calls, ours: Ints, theirs: Ints, usual: int) -> Pairs:
    one, two = calls.take(ours), other.take(theirs)
    name = _compared(one, two)
    if name is None:
        return NONE
    if name == "enqueue_ns":
        pairs = _nearest(two, one, name, usual)
        pairs = Pairs(pairs.theirs, pairs.ours)
    else:
        pairs = _nearest(one, two, name, usual)
    fit = _fit(one["size"][pairs.ours], two["size"][pairs.theirs])
    if not len(fit) or fit.mean() < AGREEING:
        return NONE
    return Pairs(ours[pairs.ours[fit]], theirs[pairs.theirs[fit]])


def _nearest(first: Calls, then: Calls, name: str, usual: int) -> Pairs:
    """Pairs that are each other's nearest, `first` before `then`; none where most have none.

    `usual`: the distance within which other sorts' pairs lie, for a sort too few to tell its own.
    """
    ours = np.flatnonzero(first.known(name))
    theirs = np.flatnonzero(then.known(name))
    ours = ours[np.argsort(first[name][ours], kind="stable")]
    theirs = theirs[np.argsort(then[name][theirs], kind="stable")]
    a, b = first[name][ours], then[name][theirs]
    before = np.searchsorted(a, b + SLACK_NS, side="right") - 1
    after = np.searchsorted(b, a - SLACK_NS, side="left")
    index = np.arange(len(b))
    mutual = (before >= 0) & (after[before] == index)
    distance = b - a[before]
    mutual &= distance <= SLOWEST_NS
    if not mutual.any():
        return NONE
    # Between two of them nothing but the record of the second can lie. What lies before the
    # first of a recording may be that of a call before it, where its own record is lost.
    opening = (
        np.append(True, np.diff(b) > PAUSE * np.median(np.diff(b))) if len(b) > 1 else index == 0
    )
    sure = distance[mutual & ~opening]
    usual = 2 * int(np.median(sure)) + SLACK_NS if len(sure) >= FEW else usual
    mutual &= ~opening | (distance <= usual)
    overlap = (b >= a[0] - SLACK_NS) & (b <= a[-1] + max(usual, SLACK_NS))
    if mutual.sum() < AGREEING * min(int(overlap.sum()), len(a)):
        return NONE
    return Pairs(ours[before[mutual]], theirs[mutual])


def by_order(calls: Calls, other: Calls) -> Pairs:
    """The calls of a stream, in their order, fit the whole record of it at one place only."""
    found = []
    for stream in np.intersect1d(calls["stream"], other["stream"]).tolist():
        ours = np.flatnonzero(calls["stream"] == stream)
        # A process may have several communicators of the same members: each counts from 0.
        of_stream = np.flatnonzero((other["stream"] == stream) & other.known("seq"))
        comms = np.unique(other["comm"][of_stream]).tolist()
        parts = [_in_order(of_stream[other["comm"][of_stream] == comm], other) for comm in comms]
        one = calls.take(ours)
        sized = bool(one.known("size").all() and other.take(of_stream).known("size").all())
        places = [
            (part, place)
            for part in parts
            for place in fitting_places(_symbols(one, sized), _symbols(other.take(part), sized))
        ]
        if len(places) == 1:
            part, place = places[0]
            found.append(Pairs(ours, part[place : place + len(ours)]))
    return _joined(found)


def _in_order(rows: Ints, calls: Calls) -> Ints:
    return rows[np.argsort(calls["seq"][rows], kind="stable")]


def _symbols(calls: Calls, sized: bool) -> Ints:
    """What a call is, as one number: its sort, and its size where all are known."""
    with np.errstate(over="ignore"):
        return calls["sort"] + (calls["size"] * np.int64(1_000_003) if sized else 0)


def fitting_places(part: Ints, whole: Ints) -> list[int]:
    """Where `part` occurs in `whole`, two places at most. Linear: by a rolling hash, checked."""
    n = len(part)
    if not 0 < n <= len(whole):
        return []
    with np.errstate(over="ignore"):
        base = np.uint64(0x9E3779B97F4A7C15)
        powers = np.cumprod(np.concatenate([[np.uint64(1)], np.full(len(whole), base)]))
        sums = np.concatenate(
            [[np.uint64(0)], np.cumsum(whole.astype(np.uint64) * powers[: len(whole)])]
        )
        wanted = np.sum(part.astype(np.uint64) * powers[:n], dtype=np.uint64)
        starts = np.arange(len(whole) - n + 1)
        likely = sums[starts + n] - sums[starts] == wanted * powers[starts]
    places = (k for k in np.flatnonzero(likely).tolist() if np.array_equal(whole[k : k + n], part))
    return [place for place, _ in zip(places, range(2), strict=False)]


def _common_sorts(calls: Calls, other: Calls) -> Iterable[tuple[Ints, Ints]]:
    for sort in np.intersect1d(calls["sort"], other["sort"]).tolist():
        yield np.flatnonzero(calls["sort"] == sort), np.flatnonzero(other["sort"] == sort)


def _fit(one: Ints, other: Ints) -> Flags:
    """Which sizes do not contradict each other."""
    fit: Flags = (one == other) | (one == UNKNOWN) | (other == UNKNOWN)
    return fit


def _joined(found: list[Pairs]) -> Pairs:
    if not found:
        return NONE
    return Pairs(
        np.concatenate([pairs.ours for pairs in found]),
        np.concatenate([pairs.theirs for pairs in found]),
    )
