"""Flight Recorder dumps as rows: collectives as they were issued, and those that never ended."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.flight_recorder.dumps import Dump, other_attempts, shares
from harness_collectors.flight_recorder.file import Unreadable, read_dump
from harness_collectors.flight_recorder.missing import AT_END, NEVER_ENDED, Progress
from harness_collectors.nccl_log.beforehand import relative_name
from harness_collectors.reading.text_evidence import batch
from harness_schemas.redact import redact
from harness_schemas.spi import Batch
from harness_schemas.vocabulary import group_name

SOURCE: Final = "flight_recorder"
NOT_TIMED: Final = "recorded when issued; the watchdog only polls for starts and ends"
OLD: Final = "of an earlier attempt than the dumps in another folder, not used: ingest it by itself"
_MAX_EVENTS: Final = 1000
_MAX_INT: Final = (1 << 63) - 1
_CLOCK_NS: Final = 1_000

_RANK_IN_NAME: Final = re.compile(r"(?:^|[_-]|rank)(\d{1,7})(?:\.(?:json|pkl|pickle))?(?:\.gz)?$")
_RANK_NAMED: Final = re.compile(
    r"(?:^|[^a-z])rank[-_]?(\d{1,7})(?=\.(?:json|pkl|pickle)|\.gz|$)", re.I
)
_PEERS: Final = re.compile(r"(send|recv) (\d{1,7})(?:->|<-)(\d{1,7})$")
_OPS: Final = {
    "allgather": "all_gather",
    "allreduce": "all_reduce",
    "alltoall": "all_to_all",
    "reducescatter": "reduce_scatter",
    "all_reduce_barrier": "barrier",
}
_VARIANT: Final = re.compile(r"^_|_(?:base|coalesced|into_tensor|oop|single|sparse|tensor)(?=_|$)")
"""What torch puts around an operation's name: `_all_gather_base`, `ALLGATHER_coalesced`."""
_DTYPES: Final = {
    "Float": ("float32", 4),
    "Double": ("float64", 8),
    "Half": ("float16", 2),
    "BFloat16": ("bfloat16", 2),
    "Long": ("int64", 8),
    "Int": ("int32", 4),
    "Short": ("int16", 2),
    "Char": ("int8", 1),
    "Byte": ("uint8", 1),
    "Bool": ("bool", 1),
    "Float8_e4m3fn": ("float8_e4m3fn", 1),
    "Float8_e5m2": ("float8_e5m2", 1),
}
_FROM_OUTPUT: Final = frozenset({"all_gather", "recv"})


def all_batches(paths: Sequence[Path], root: Path) -> Iterator[Batch]:
    """Clocks, collectives, pending ones and the state of the collection, of all dumps."""
    states = []
    progress = Progress()
    old = other_attempts(paths, rank_of, _read)
    for group in _by_rank([path for path in paths if path not in old]):
        dumps: list[tuple[Dump, bool]] = []
        for path in group:
            name = relative_name(path, root)
            try:
                content, size = read_dump(path)
            except Unreadable as error:
                states.append(_state_row(name, None, "failed", f"{name}: {error}", {}))
                continue
            dump = read_entries(content, name, rank_of(path))
            dumps.append((dump, path.name.startswith(AT_END)))
            states.append(_summary(dump, content, size))
        yield from _rank_batches(dumps, progress)
    last = list(progress.graded())
    yield from _tables([row for row, _ in last], [event for _, event in last])
    for path in sorted(old):
        name = relative_name(path, root)
        states.append(_state_row(name, rank_of(path), "failed", f"{name}: {OLD}", {}))
    if states:
        yield batch("collection", states)


def _rank_batches(dumps: Sequence[tuple[Dump, bool]], progress: Progress) -> Iterator[Batch]:
    """Rows of one rank's dumps, with whether each is of its end; those that other ranks' dumps
    may yet explain are held."""
    at_end = {dump.name for dump, ends in dumps if ends}
    for share in shares([dump for dump, _ in dumps]):
        dump = share.dump
        if dump.rank is not None and dump.rows:
            yield batch("clock_anchors", [_anchor(dump)])
        held: list[Any] = []
        if dump.name not in at_end:
            held = progress.hold(dump.rank, dump.groups, dump.rows, share.pending)
        yield from _tables(
            [row for row in share.rows if not any(row is other for other, _ in held)],
            [event for _, event in share.pending if not any(event is x for _, x in held)],
        )


def _by_rank(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Dumps that name the same rank together, in the order of the first; others one by one."""
    groups: dict[int | Path, list[Path]] = {}
    for path in paths:
        rank = rank_of(path)
        groups.setdefault(path if rank is None else rank, []).append(path)
    yield from groups.values()


def _read(path: Path) -> Dump | None:
    try:
        content, _ = read_dump(path)
    except Unreadable:
        return None
    return read_entries(content, path.name, rank_of(path))


def _tables(rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> Iterator[Batch]:
    if rows:
        yield batch("collectives", rows)
    if events:
        yield batch("nccl_events", events)


def rank_of(path: Path) -> int | None:
    """The rank in a dump's name, at its end as torch writes it, or in its folder's; None: none."""
    named = _RANK_NAMED.search(path.name) or _RANK_NAMED.search(path.parent.name)
    match = named or _RANK_IN_NAME.search(path.name)
    return int(match[1]) if match else None


def read_entries(content: Mapping[str, Any], name: str, rank: int | None) -> Dump:
    """A dump's entries as rows; those that are of another form are counted."""
    groups = _groups(content.get("pg_config"))
    known = {number for _, ranks in groups.values() for number in ranks}
    if rank is not None and known and rank not in known:
        rank = None
    completed = _last_completed(content.get("pg_status"))
    dump = Dump(name, rank, groups, completed, list(content["entries"]))
    pairs: Counter[tuple[Any, ...]] = Counter()
    dump.coalesces = any(
        isinstance(entry, dict) and "coalesced" in str(entry.get("profiling_name"))
        for entry in dump.entries
    )
    for entry in dump.entries:
        try:
            row, event = _read_entry(entry, dump, pairs)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError):
            dump.unreadable += 1
            continue
        dump.rows.append(row)
        if event is not None and len(dump.pending) < _MAX_EVENTS:
            dump.pending.append((row, event))
    _grade(dump)
    return dump


def _groups(config: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """`[0,1]#0` by group name: those of equal ranks are numbered in the order of their names."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    if not isinstance(config, dict):
        return found
    count: Counter[tuple[int, ...]] = Counter()
    for key in sorted(config, key=lambda key: (len(str(key)), str(key))):
        entry = config[key]
        text = entry.get("ranks") if isinstance(entry, dict) else None
        ranks = tuple(map(int, re.findall(r"\d{1,7}", str(text)[:1_000_000])))
        if ranks:
            found[str(key)] = (group_name(ranks, count[ranks]), ranks)
            count[ranks] += 1
    return found


def _last_completed(status: Any) -> dict[str, int]:
    found = {}
    for key, value in status.items() if isinstance(status, dict) else ():
        last = value.get("last_completed_collective") if isinstance(value, dict) else None
        if isinstance(last, int) or (isinstance(last, str) and last.lstrip("-").isdigit()):
            found[str(key)] = int(last)
    return found


def _read_entry(
    entry: Mapping[str, Any], dump: Dump, pairs: Counter[tuple[Any, ...]]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    backend, _, title = str(entry["profiling_name"]).partition(":")
    op, source, target = _operation(title or backend)
    group_name = _group_name(entry)
    label, ranks = _group(dump, group_name)
    created = _whole(entry["time_created_ns"])
    dtype, size = _message(op, entry)
    point_to_point = bool(entry.get("is_p2p", op in ("send", "recv")))
    number = _ordinal_of(entry) - 1
    row = {
        "rank": dump.rank,
        "source": SOURCE,
        "timeline": "host",
        "comm_group": label,
        "seq": number if number >= 0 else None,
        "op": op,
        "src_rank": _global(ranks, source),
        "dst_rank": _global(ranks, target),
        "bytes": size,
        "dtype": dtype,
        "group_size": len(ranks) or None,
        "enqueue_ns": created,
        "duration_ns": _duration(entry.get("duration_ms")),
        "unsplit_reason": NOT_TIMED,
    }
    if point_to_point:
        row["seq"] = _ordinal(dump, pairs, (op, row["src_rank"], row["dst_rank"]))
    state = str(entry["state"])[:20]
    dump.states[state] += 1
    dump.latest_ns = max(dump.latest_ns, created)
    return row, _pending(entry, dump, row, state)


def _operation(title: str) -> tuple[str, int | None, int | None]:
    """(op, sender, receiver) of a profiling name; ranks are those in the group."""
    if match := _PEERS.search(title):
        here, there = int(match[2]), int(match[3])
        return (match[1], here, there) if match[1] == "send" else (match[1], there, here)
    plain = _VARIANT.sub("", title.lower())
    name = _OPS.get(plain, plain)
    if not re.fullmatch(r"[a-z_]{1,40}", name):
        raise ValueError(name)
    return name, None, None


def _group_name(entry: Mapping[str, Any]) -> str:
    """Version 1 says `pg_name`, or only the number."""
    if "process_group" in entry:
        return str(entry["process_group"][0])
    return str(entry["pg_name"] if "pg_name" in entry else entry["pg_id"])


def _ordinal_of(entry: Mapping[str, Any]) -> int:
    """Of the collective in its group, from 1; version 1 calls it `seq_id`."""
    named = "collective_seq_id" if "collective_seq_id" in entry else "seq_id"
    return _whole(entry[named])


def _group(dump: Dump, name: str) -> tuple[str | None, tuple[int, ...]]:
    if name in dump.groups:
        return dump.groups[name]
    # Before anything was issued by NCCL the only group may stand under an empty name.
    if len(dump.groups) == 1 and "" in dump.groups:
        return dump.groups[""]
    return None, ()


def _global(ranks: tuple[int, ...], rank: int | None) -> int | None:
    return ranks[rank] if rank is not None and rank < len(ranks) else None


def _message(op: str, entry: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """(dtype, bytes) by the convention of nccl-tests; unknown where torch's name is."""
    if "input_dtypes" not in entry:  # version 1
        return None, None
    sides = []
    for side in ("input", "output"):
        sizes, names = entry[f"{side}_sizes"], entry[f"{side}_dtypes"]
        widths = [_DTYPES.get(str(name), (None, 0))[1] for name in names]
        pairs = zip(sizes, widths, strict=True)
        sides.append(sum(math.prod(map(_whole, shape)) * width for shape, width in pairs))
    names = [str(name) for name in (*entry["input_dtypes"], *entry["output_dtypes"])]
    dtype = _DTYPES.get(names[0], (None, 0))[0] if names else None
    size = sides[1] if op in _FROM_OUTPUT else max(sides)
    return dtype, size if dtype is not None and 0 < size <= _MAX_INT else None


def _whole(value: Any) -> int:
    """An integer that a column can hold, from a number or its text."""
    number = int(value)
    if isinstance(value, float) or not 0 <= number <= _MAX_INT:
        raise ValueError(value)
    return number


def _duration(value: Any) -> int | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return round(value * 1e6) if math.isfinite(value) and 0 <= value < 1e12 else None


def _ordinal(dump: Dump, pairs: Counter[tuple[Any, ...]], pair: tuple[Any, ...]) -> int | None:
    """Ordinal in a pair; unknown where the ring has lost its beginning."""
    if None in pair or _overwritten(dump) != 0:
        return None
    pairs[pair] += 1
    return pairs[pair] - 1


def _overwritten(dump: Dump) -> int | None:
    """Entries that the ring has lost: its records are numbered from 0. NULL: they are not."""
    first = dump.entries[0] if dump.entries else None
    number = first.get("record_id") if isinstance(first, dict) else None
    return min(number, _MAX_INT) if isinstance(number, int) and number >= 0 else None


def _pending(
    entry: Mapping[str, Any], dump: Dump, row: Mapping[str, Any], state: str
) -> dict[str, Any] | None:
    """An event for what was issued and not seen to end."""
    if state == "completed" or _is_over(entry, dump, row, state):
        return None
    number = "" if row["seq"] is None else f" {row['seq']}"
    where = f" of {row['comm_group']}" if row["comm_group"] else ""
    attrs = {
        "op": row["op"],
        "seq": row["seq"],
        "group": row["comm_group"],
        "state": state,
        "timeout_ms": entry.get("timeout_ms") if isinstance(entry.get("timeout_ms"), int) else None,
        "called_from": _caller(entry.get("frames")),
    }
    return {
        "rank": dump.rank,
        "ts_ns": row["enqueue_ns"],
        "severity": "notice",
        "kind": "pending",
        "text": f"{row['op']}{number}{where} was {state} and not seen to end",
        "attrs": json.dumps({key: value for key, value in attrs.items() if value is not None}),
        "source": SOURCE,
    }


def _is_over(entry: Mapping[str, Any], dump: Dump, row: Mapping[str, Any], state: str) -> bool:
    """Whether a call has ended, or may have, whose own state does not say so.

    torch never updates sends and receives of a coalesced batch, only the entry of the batch.
    """
    if row["op"] in ("send", "recv"):
        return state != "started" and dump.coalesces
    done = dump.last_completed.get(str(entry.get("pg_id")), -1)
    return row["seq"] is not None and done >= _ordinal_of(entry)


def _caller(frames: Any) -> str | None:
    """The innermost frame outside torch, as `function (file:line)`."""
    for frame in frames if isinstance(frames, list) else ():
        if isinstance(frame, dict) and "torch/distributed" not in str(frame.get("filename")):
            name, file = str(frame.get("name"))[:80], str(frame.get("filename"))[-120:]
            return redact(f"{name} ({file}:{frame.get('line')})")
    return None


def _grade(dump: Dump) -> None:
    """Pending for longer than its time-out is a problem, not just under way."""
    hung: set[Any] = set()
    for row, event in dump.pending:
        timeout = json.loads(event["attrs"]).get("timeout_ms")
        if timeout and dump.latest_ns - event["ts_ns"] > timeout * 1_000_000:
            event["severity"] = "problem"
            if row["comm_group"] not in hung:
                hung.add(row["comm_group"])
                row["unsplit_reason"] = NEVER_ENDED


def _anchor(dump: Dump) -> dict[str, Any]:
    """Entries are stamped with Unix time: the clock's anchor maps it to itself."""
    first = dump.rows[0]["enqueue_ns"]
    anchor = {"source": SOURCE, "rank": dump.rank, "raw_ns": first, "wall_ns": first}
    return {**anchor, "width_ns": _CLOCK_NS}


def _summary(dump: Dump, content: Mapping[str, Any], size: int) -> dict[str, Any]:
    problems = []
    if dump.unreadable:
        problems.append(f"{dump.unreadable} entries of another form")
    if dump.rank is None:
        problems.append("its name does not end with the rank")
    state = "degraded" if problems else "ok"
    if not dump.rows:
        state, problems = "failed", problems or ["it holds no entry"]
    reason = f"{dump.name}: {', '.join(problems)}" if problems else None
    detail = {
        "file": dump.name,
        "version": str(content.get("version"))[:20],
        "groups": {name: label for name, (label, _) in dump.groups.items()},
        "last_completed": dict(dump.last_completed),
        "states": dict(dump.states),
    }
    row = _state_row(dump.name, dump.rank, state, reason, detail)
    return {
        **row,
        "bytes": size,
        "records": len(dump.rows),
        "dropped": _overwritten(dump),
        "unreadable": dump.unreadable,
    }


def _state_row(
    name: str, rank: int | None, state: str, reason: str | None, detail: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "collector": SOURCE,
        "rank": rank,
        "state": state,
        "reason": reason,
        "detail": json.dumps({"file": name, **detail}, sort_keys=True),
    }
