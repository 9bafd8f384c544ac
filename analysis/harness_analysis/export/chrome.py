"""A run as Chrome trace events (JSON), which Perfetto, chrome://tracing and our reader open.

Format: "Trace Event Format" of Chromium's catapult: `X` complete events and `B` for what never
ended, `M` metadata, `s`, `t` and `f` flows bound to the slice that encloses their time (`bp: e`).
Microseconds with three decimals, after `baseTimeNanoseconds`; names of arguments and categories
of kernels as libkineto writes them, so that Kineto's readers find kernels and collectives.

The text is made by DuckDB and streamed: memory does not grow with the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness_analysis.export.files import bounded, text_bytes, whole_text
from harness_analysis.export.tracks import ON_TRACK, load_tracks, place_tracks
from harness_schemas.errors import EvidenceError

if TYPE_CHECKING:
    from io import TextIOWrapper

    import duckdb

TORCH_DTYPES: Final = {
    "bool": ("Bool", 1), "uint8": ("Byte", 1), "int8": ("Char", 1), "int16": ("Short", 2),
    "int32": ("Int", 4), "int64": ("Long", 8), "float16": ("Half", 2),
    "bfloat16": ("BFloat16", 2), "float32": ("Float", 4), "float64": ("Double", 8),
    "float8_e4m3fn": ("Float8_e4m3fn", 1), "float8_e5m2": ("Float8_e5m2", 1),
}  # fmt: skip
"""As torch's record_param_comms names data types, and the bytes of an element."""
KERNEL_SOURCES: Final = ("torch_profiler", "nsys")
"""Evidence whose device rows are kernels; of others they are intervals."""


@dataclass(frozen=True)
class Selection:
    """Which part of a run: ranks and steps (both ends included); empty and None mean all."""

    ranks: Sequence[int] = ()
    steps: tuple[int, int] | None = None

    def sql(self, table: str = "") -> str:
        """A condition on rows that have rank and step."""
        at = f"{table}." if table else ""
        conditions = [f"{at}rank IS NOT NULL AND {at}start_ns IS NOT NULL"]
        if self.ranks:
            conditions.append(f"{at}rank IN ({', '.join(map(str, self.ranks))})")
        if self.steps:
            conditions.append(f"{at}step BETWEEN {self.steps[0]} AND {self.steps[1]}")
        return " AND ".join(conditions)


def write_chrome(
    con: duckdb.DuckDBPyConnection, path: Path, selection: Selection | None = None
) -> int:
    """Write the spans of a run; returns how many there were. gzip where `path` ends in .gz.

    Raises:
        EvidenceError: nothing to write.
        HarnessError: the file cannot be written.
    """
    chosen = selection or Selection()
    with bounded(con):
        tracks = load_tracks(con, chosen.sql())
        if not tracks:
            raise EvidenceError("the run has no such spans: there is nothing to export")
        place_tracks(con, tracks)
        _write_heads(con, chosen)
        row = con.execute(
            f"SELECT min(start_ns), count(*) FROM spans WHERE {chosen.sql()}"
        ).fetchone()
        base, count = row or (0, 0)
        with whole_text(path) as file:
            file.write(_header(con, base))
            events = [*_process_events(con, {t.rank for t in tracks})]
            for position, track in enumerate(tracks):
                events += track.metadata(position)
            file.write(",\n".join(events))
            for sql in (_spans_sql(chosen, base), _flows_sql(chosen, base)):
                _stream(file, con, sql)
            file.write("\n]}\n")
    return int(count)


def _stream(file: TextIOWrapper, con: duckdb.DuckDBPyConnection, sql: str) -> None:
    file.flush()
    for text in text_bytes(con, sql):
        file.buffer.write(text)


# -- what stands before the events -----------------------------------------------------------


def _header(con: duckdb.DuckDBPyConnection, base: int) -> str:
    run = con.execute("SELECT run_id, name, world_size FROM runs ORDER BY run_id").fetchone()
    run_id, name, world_size = run or (None, None, None)
    facts: dict[str, object] = {
        "schemaVersion": 1,
        "deviceProperties": [],
        "harness": {"run_id": run_id, "name": name},
    }
    ranks = [row[0] for row in con.execute("SELECT DISTINCT rank FROM track").fetchall()]
    if len(ranks) == 1:
        host = con.execute("SELECT host FROM ranks WHERE rank = ?", ranks).fetchone()
        facts["distributedInfo"] = {
            "rank": ranks[0],
            **({"world_size": world_size} if world_size else {}),
            "pg_config": _groups(con, ranks[0]),
        }
        facts |= {"host_name": host[0]} if host and host[0] else {}
    facts |= {"displayTimeUnit": "ns", "baseTimeNanoseconds": base}
    return json.dumps(facts)[:-1] + ',\n"traceEvents": [\n'


def _groups(con: duckdb.DuckDBPyConnection, rank: int) -> list[dict[str, object]]:
    """Process groups of a rank in the order of their ordinals."""
    rows = con.execute(
        "SELECT DISTINCT comm_group FROM collectives WHERE rank = ? AND comm_group LIKE '[%]#%' "
        "ORDER BY split_part(comm_group, '#', 2), comm_group",
        [rank],
    ).fetchall()
    found: list[dict[str, object]] = []
    for (group,) in rows:
        inside, _, ordinal = group.removeprefix("[").partition("]#")
        if ordinal.isdigit() and all(part.isdigit() for part in inside.split(",")):
            ranks = [int(part) for part in inside.split(",")]
            found.append({"pg_name": group, "pg_size": len(ranks), "ranks": ranks})
    return found


def _process_events(con: duckdb.DuckDBPyConnection, shown: set[int]) -> Iterator[str]:
    rows = con.execute("SELECT rank, host, stage, tp_rank FROM ranks").fetchall()
    places = {rank: rest for rank, *rest in rows}
    for rank in sorted(shown):
        host, stage, tp_rank = places.get(rank, (None, None, None))
        facts = [host] if host else []
        facts += [f"stage {stage}"] if stage is not None else []
        facts += [f"tp {tp_rank}"] if tp_rank is not None else []
        name = f"rank {rank}" + (f" ({', '.join(facts)})" if facts else "")
        event = {"ph": "M", "pid": rank + 1, "tid": 0}
        yield json.dumps({**event, "name": "process_name", "args": {"name": name}})
        sort = {"sort_index": rank}
        yield json.dumps({**event, "name": "process_sort_index", "args": sort})


# -- events by SQL ---------------------------------------------------------------------------


def _us(ns: str) -> str:
    """Integer nanoseconds as microseconds with three decimals, exact up to 104 days."""
    return f"((({ns}) / 1000)::DECIMAL(22, 3))"


def _number(key: str, value: str) -> str:
    """A member of an object; NULL where the value is, which concat_ws leaves out."""
    return f"""'"{key}":' || ({value})"""


def _text(key: str, value: str) -> str:
    return f"""'"{key}":' || to_json(({value})::VARCHAR)::VARCHAR"""


def _members(*members: str) -> str:
    """Those that are not NULL, and not empty, between commas."""
    return f"concat_ws(',', {', '.join(members)})"


UNIT: Final = """concat_ws(' ', 'harness:' || s.phase, 'batch=' || s.batch,
  'microbatch=' || s.microbatch, 'repeat=' || s.repeat, 'step=' || s.step,
  'warmup=' || coalesce(s.warmup, false)::INTEGER)"""
"""Steps are named as our own annotations are (step_marks.toml), so that reading finds them."""

CATEGORY: Final = f"""CASE
  WHEN s.timeline = 'device' AND s.source IN {KERNEL_SOURCES} THEN
    CASE s.category WHEN 'memcpy' THEN 'gpu_memcpy' WHEN 'memset' THEN 'gpu_memset'
      WHEN 'graph' THEN 'gpu_graph' ELSE 'kernel' END
  WHEN s.category = 'runtime' THEN 'cuda_runtime'
  WHEN s.category IN ('unit', 'phase') THEN 'user_annotation'
  WHEN s.source IN {KERNEL_SOURCES} AND s.category = 'comm' THEN 'user_annotation'
  WHEN s.source IN {KERNEL_SOURCES} AND s.category IN ('compute', 'other') THEN 'cpu_op'
  ELSE coalesce(s.category, 'other') END"""


SPAN_KIND: Final = (
    *("rank", "source", "timeline", "device", "stream", "name", "category", "phase", "layer"),
    *("request", "perturbed_by"),
)
"""What many spans have in common: its text is made once."""
CALL_KIND: Final = (
    *("op", "dtype", "bytes", "group_size", "comm_group", "src_rank", "dst_rank", "wait_method"),
    "unsplit_reason",
)
"""The same of collectives and messages."""


def _kind(table: str, names: Sequence[str]) -> str:
    return f"hash({', '.join(f'{table}.{name}' for name in names)})"


def _write_heads(con: duckdb.DuckDBPyConnection, chosen: Selection) -> None:
    """Temporary tables of the texts of every kind of span and of call, by the hash of the kind."""
    title = "CASE WHEN s.category IS DISTINCT FROM 'unit' OR s.phase IS NULL THEN "
    title += "coalesce(s.name, s.category, 'span') END"
    event = _members(
        _text("cat", CATEGORY), _number("pid", "t.pid"), _number("tid", "t.tid"),
        _text("name", title),
    )  # fmt: skip
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE span_kind AS
        SELECT {_kind("s", SPAN_KIND)} AS kind, {event} AS event, nullif({_span_args()}, '') AS args
        FROM (SELECT DISTINCT {", ".join(SPAN_KIND)} FROM spans WHERE {chosen.sql()}) s
        JOIN track t ON {ON_TRACK}"""
    )
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE call_kind AS
        SELECT {_kind("c", CALL_KIND)} AS kind, nullif({_call_args()}, '') AS args
        FROM (SELECT DISTINCT {", ".join(CALL_KIND)} FROM collectives_all) c"""
    )
    # Of 64 bits two in a million kinds are equal by chance once in 40 million runs.
    for table in ("span_kind", "call_kind"):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT DISTINCT ON (kind) * FROM {table}"
        )


def _spans_sql(chosen: Selection, base: int) -> str:
    """Events of spans. What a rank's part in a collective says is among its arguments."""
    args = _members(
        "k.args",
        _number("correlation", "s.correlation"),
        _number("graph id", "s.graph_id"),
        _number("bytes", "coalesce(c.bytes, s.bytes)"),
        _number("step", "s.step"),
        _number("batch", "s.batch"),
        "d.args",
        _number("Seq", "c.seq"),
        _number("wait_us", _us("c.wait_ns")),
        _number("transfer_us", _us("c.transfer_ns")),
    )
    event = _members(
        "k.event",
        _text("name", f"CASE WHEN s.category = 'unit' AND s.phase IS NOT NULL THEN {UNIT} END"),
        _number("ts", _us(f"s.start_ns - {base}")),
        _number("dur", _us("greatest(s.end_ns - s.start_ns, 0)")),
    )
    return f"""
      SELECT CASE WHEN s.end_ns IS NULL THEN ',\n{{"ph":"B",' ELSE ',\n{{"ph":"X",' END
        || {event} || ',"args":{{' || {args} || '}}}}'
      FROM spans s JOIN span_kind k ON k.kind = {_kind("s", SPAN_KIND)}
      LEFT JOIN collectives_all c
        ON c.source = s.source AND c.rank = s.rank AND c.span_id = s.span_id
      LEFT JOIN call_kind d ON c.rank IS NOT NULL AND d.kind = {_kind("c", CALL_KIND)}
      WHERE {chosen.sql("s")}"""


def _span_args() -> str:
    return _members(
        _number("device", "s.device"),
        _number("stream", "CASE WHEN s.timeline = 'device' THEN s.stream END"),
        _number("layer", "s.layer"),
        _text("request", "s.request"),
        _text("phase", "s.phase"),
        _text("category", "s.category"),
        _text("perturbed by", "s.perturbed_by"),
    )


def _call_args() -> str:
    dtype = "CASE c.dtype " + _cases(lambda pair: f"'{pair[0]}'") + " END"
    element = "CASE c.dtype " + _cases(lambda pair: str(pair[1])) + " END"
    elements = f"(c.bytes // {element})"
    gathers = "c.op = 'all_gather' AND c.group_size > 0"
    peers = "c.comm_group LIKE '[%]#%'"
    ranks = "replace(split_part(c.comm_group, '#', 1), ',', ', ')"
    return _members(
        _text("Collective name", "c.op"),
        _text("dtype", dtype),
        _number("In msg nelems", f"CASE WHEN {gathers} THEN {elements} // c.group_size"
                f" ELSE {elements} END"),
        _number("Out msg nelems", f"CASE WHEN c.op = 'reduce_scatter' AND c.group_size > 0"
                f" THEN {elements} // c.group_size ELSE {elements} END"),
        _number("Group size", "c.group_size"),
        _text("Process Group Name", f"CASE WHEN {peers} THEN c.comm_group END"),
        _text("Process Group Ranks", f"CASE WHEN {peers} THEN {ranks} END"),
        _number("Src Rank", "c.src_rank"),
        _number("Dst Rank", "c.dst_rank"),
        _text("wait_method", "c.wait_method"),
        _text("unsplit_reason", "c.unsplit_reason"),
    )  # fmt: skip


def _cases(value: Callable[[tuple[str, int]], str]) -> str:
    return " ".join(f"WHEN '{name}' THEN {value(pair)}" for name, pair in TORCH_DTYPES.items())


def _flows_sql(chosen: Selection, base: int) -> str:
    """Arrows through the parts of a collective in the order of arrival, and from send to recv.

    An arrow cannot point back in time: a message arrives when both sides are there.
    """
    p2p = "c.op IN ('send', 'recv')"
    event = _members(
        """'"ph":"' || CASE WHEN place = 1 THEN 's' WHEN place = parts THEN 'f","bp":"e'"""
        """ ELSE 't' END || '"'""",
        _number("id", "flow"),
        _text("name", "CASE WHEN p2p THEN 'message' ELSE op END"),
        _text("cat", "CASE WHEN p2p THEN 'p2p' ELSE 'collective' END"),
        _number("pid", "pid"),
        _number("tid", "tid"),
        _number("ts", _us(f"at_ns - {base}")),
    )
    return f"""
      WITH part AS (
        SELECT c.op, {p2p} AS p2p, t.pid, t.tid, c.start_ns, c.end_ns, c.rank,
          hash(c.source, {p2p}, CASE WHEN {p2p} THEN c.src_rank || '>' || c.dst_rank
            ELSE c.comm_group END, c.seq) >> 12 AS flow
        FROM collectives_all c
        JOIN spans s ON s.source = c.source AND s.rank = c.rank AND s.span_id = c.span_id
        JOIN track t ON {ON_TRACK}
        WHERE {chosen.sql("c")} AND c.seq IS NOT NULL
          AND CASE WHEN {p2p} THEN c.src_rank IS NOT NULL AND c.dst_rank IS NOT NULL
            ELSE c.comm_group IS NOT NULL END
      ), placed AS (
        SELECT *, count(*) OVER (PARTITION BY flow) AS parts,
          least(max(start_ns) OVER (PARTITION BY flow), end_ns) AS both_ns, row_number() OVER (
          PARTITION BY flow ORDER BY CASE WHEN p2p THEN op = 'recv' END, start_ns, rank) AS place
        FROM part
      )
      SELECT ',\n{{' || {event} || '}}' FROM (
        SELECT *, CASE WHEN p2p AND op = 'recv' THEN both_ns ELSE start_ns END AS at_ns FROM placed
      ) WHERE parts > 1 ORDER BY flow, place"""
