"""Tracks of a timeline: one process a rank, one thread a (source, timeline, device, stream)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

ORDER = ("app_timers", "graph_events", "torch_profiler", "nsys", "nccl_inspector", "otel")


@dataclass(frozen=True)
class Track:
    """One row of the viewer. `stream` is the thread on the host timeline; -1: not known."""

    rank: int
    source: str
    timeline: str
    device: int
    stream: int
    pid: int
    tid: int

    @property
    def title(self) -> str:
        """What the viewer shows."""
        if self.timeline == "device":
            where = "device" if self.device < 0 else f"GPU {self.device}"
            where += "" if self.stream < 0 else f" stream {self.stream}"
        else:
            where = "main thread" if self.stream <= 0 else f"thread {self.stream}"
        return f"{where} ({self.source})"

    def metadata(self, position: int) -> list[str]:
        """Chrome events that name it and say where it stands."""
        place = {"ph": "M", "pid": self.pid, "tid": self.tid}
        events = [
            {**place, "name": "thread_name", "args": {"name": self.title}},
            {**place, "name": "thread_sort_index", "args": {"sort_index": position}},
        ]
        return [json.dumps(event) for event in events]


def load_tracks(con: duckdb.DuckDBPyConnection, kept: str) -> list[Track]:
    """Tracks of spans that fulfil `kept`, host before device, as the viewer shows them.

    Process ids are rank + 1 (viewers keep 0 for the system's idle task), thread ids are unique
    in the file, and a rank's main thread has its process's id, as on Linux.
    """
    rows = con.execute(
        f"""
        SELECT rank, source, coalesce(timeline, 'host') AS timeline, coalesce(device, -1) AS device,
          coalesce(stream, CASE WHEN timeline = 'device' THEN -1 ELSE 0 END) AS stream
        FROM spans WHERE {kept} GROUP BY ALL
        """
    ).fetchall()
    order = {name: place for place, name in enumerate(ORDER)}
    rows.sort(key=lambda r: (r[0], r[2] == "device", order.get(r[1], 99), r[1], r[3], r[4]))
    next_tid = max((row[0] for row in rows), default=0) + 2
    tracks, with_main = [], set()
    for rank, source, timeline, device, stream in rows:
        tid, next_tid = next_tid, next_tid + 1
        if timeline == "host" and stream == 0 and rank not in with_main:
            with_main.add(rank)
            tid = rank + 1
        tracks.append(Track(rank, source, timeline, device, stream, rank + 1, tid))
    return tracks


def place_tracks(con: duckdb.DuckDBPyConnection, tracks: list[Track]) -> None:
    """Make them a temporary table `track` to join with."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE track "
        "(rank INTEGER, source VARCHAR, timeline VARCHAR, device BIGINT, stream BIGINT,"
        " pid INTEGER, tid BIGINT)"
    )
    rows = [(t.rank, t.source, t.timeline, t.device, t.stream, t.pid, t.tid) for t in tracks]
    if rows:
        con.executemany("INSERT INTO track VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


ON_TRACK = """
  t.rank = s.rank AND t.source = s.source AND t.timeline = coalesce(s.timeline, 'host')
  AND t.device = coalesce(s.device, -1)
  AND t.stream = coalesce(s.stream, CASE WHEN s.timeline = 'device' THEN -1 ELSE 0 END)"""
"""SQL condition that span `s` is drawn on track `t`."""
