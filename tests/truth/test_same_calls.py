"""One call seen by several sources is one row that knows what each of them knew (same_calls).

The truth: two ranks issue the same calls; a profiler shows a window of them, NCCL's log prints
them all, as far as it is there. Whatever is missing, no call gets another call's facts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from truth.simulate_devices import EPOCH_NS, make_batch

from harness_analysis.build.database import build_database
from harness_analysis.build.same_calls import TAKEN, UNKNOWN, Calls, Fold, fitting_places
from harness_analysis.store import open_database

STEP = [4096, 4096, 65536]
ALGOS = {4096: ("RING", "LL", 1), 65536: ("TREE", "SIMPLE", 24), 77: ("RING", "LL128", 2)}
RANKS = (0, 1)


@dataclass(frozen=True)
class Scene:
    """Sizes of all calls in order, which of them the profiler saw, and what the log lost."""

    sizes: tuple[int, ...]
    window: range
    stamps: bool = False
    lost: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    """Ranks without a log."""
    restless: bool = False
    """NCCL chooses otherwise every second time."""

    def choice(self, call: int) -> tuple[str, str, int]:
        algo, proto, channels = ALGOS[self.sizes[call]]
        return ("NVLS" if self.restless and call % 2 else algo, proto, channels)


def launched(call: int) -> int:
    return EPOCH_NS + call * 300_000 + random.Random(call).randint(0, 60_000)


def kernels(scene: Scene, rank: int) -> list[dict[str, object]]:
    return [
        {
            **{"rank": rank, "source": "torch_profiler", "timeline": "device", "seq": k},
            **{"op": "all_reduce", "comm_group": "[0,1]#0", "group_size": 2},
            **{"bytes": scene.sizes[call], "enqueue_ns": launched(call)},
            "start_ns": launched(call) + 10_000 + 5_000 * rank,
            "end_ns": launched(call) + 40_000,
        }
        for k, call in enumerate(scene.window)
    ]


def log_lines(scene: Scene, rank: int) -> list[dict[str, object]]:
    """Only rank 0 prints choices; a lost line leaves its ordinal to the next."""
    kept = [call for call in range(len(scene.sizes)) if call not in scene.lost]
    rows = []
    for seq, call in enumerate(kept):
        algo, proto, channels = scene.choice(call) if rank == 0 else (None, None, None)
        rows.append(
            {
                **{"rank": rank, "source": "nccl_log", "timeline": "host", "seq": seq},
                **{"op": "all_reduce", "comm_group": "[0,1]#3", "group_size": 2},
                **{"bytes": scene.sizes[call], "transport": "P2P", "dtype": "bfloat16"},
                **{"algo": algo, "proto": proto, "channels": channels},
                "enqueue_ns": (launched(call) - 12_000) // 1000 * 1000 if scene.stamps else None,
            }
        )
    return rows


def build(path: Path, scene: Scene) -> Path:
    rows = [row for rank in RANKS for row in kernels(scene, rank)]
    told = [rank for rank in RANKS if rank not in scene.silent]
    lines = [row for rank in told for row in log_lines(scene, rank)]
    state = "degraded" if scene.lost else "ok"
    logs = [{"collector": "nccl_log", "rank": rank, "state": state} for rank in told]
    batches = [make_batch("collectives", rows), make_batch("collectives", lines)]
    build_database(path, "joined", {"tp": 2}, [*batches, make_batch("collection", logs)])
    return path


def rows_of(path: Path, sql: str) -> list[tuple]:
    with open_database(path) as con:
        return con.execute(sql).fetchall()


FACTS = """
SELECT rank, seq, nccl_seq, algo, proto, channels, transport, dtype, joined
FROM collectives WHERE source = 'torch_profiler' ORDER BY rank, seq
"""


def test_a_whole_log_that_fits_at_one_place_gives_each_call_its_own_line(tmp_path):
    scene = Scene((77, *STEP * 4), range(4, 10))
    path = build(tmp_path / "d.duckdb", scene)
    # The window of two steps fits at three places: what all of them agree on is known.
    found = rows_of(path, FACTS)
    assert {row[2] for row in found} == {None} and {row[8] for row in found} == {"~nccl_log"}
    assert [row[3:7] for row in found] == [
        (*scene.choice(call), "P2P") for _ in RANKS for call in scene.window
    ]
    scene = Scene((77, *STEP * 4), range(13))
    found = rows_of(build(tmp_path / "e.duckdb", scene), FACTS)
    assert [row[2:] for row in found] == [
        (call, *scene.choice(call), "P2P", "bfloat16", "nccl_log")
        for _ in RANKS
        for call in scene.window
    ]


def test_stamps_tell_calls_apart_and_nothing_is_counted_twice(tmp_path):
    scene = Scene(tuple(STEP * 8), range(9, 18), stamps=True, restless=True)
    path = build(tmp_path / "d.duckdb", scene)
    assert [row[2:6] for row in rows_of(path, FACTS)] == [
        (call, *scene.choice(call)) for _ in RANKS for call in scene.window
    ]
    counted = rows_of(
        path, "SELECT rank, count(*), sum(bytes) FROM collectives GROUP BY 1 ORDER BY 1"
    )
    assert counted == [(rank, len(scene.sizes), sum(scene.sizes)) for rank in RANKS]
    everything = rows_of(
        path,
        """
        SELECT count(*), count(*) FILTER (aside = 'same call'),
          count(DISTINCT call) FILTER (aside = 'same call')
        FROM collectives_all
        """,
    )
    aside = len(RANKS) * len(scene.window)
    assert everything == [(len(RANKS) * len(scene.sizes) + aside, aside, aside)]


def test_choices_that_differ_and_places_that_cannot_be_told_leave_the_choice_unknown(tmp_path):
    scene = Scene(tuple(STEP * 6), range(3, 9), restless=True, silent=frozenset({1}))
    found = rows_of(build(tmp_path / "d.duckdb", scene), FACTS)
    assert {row[2:5] for row in found} == {(None, None, None)}
    assert {row[:1] + row[6:7] for row in found} == {(0, "P2P"), (1, None)}


def test_a_rank_without_a_log_knows_what_its_group_chose_and_not_its_own_edges(tmp_path):
    scene = Scene((77, *STEP), range(4), silent=frozenset({1}))
    found = rows_of(build(tmp_path / "d.duckdb", scene), FACTS)
    assert [row[2:7] for row in found] == [
        *((call, *scene.choice(call), "P2P") for call in scene.window),
        *((None, *scene.choice(call), None) for call in scene.window),
    ]


def test_the_log_of_another_run_is_not_joined(tmp_path):
    scene = Scene((77, *STEP * 4), range(1, 13))
    rows = [row for rank in RANKS for row in kernels(scene, rank)]
    other = Scene((77, 77, 77, 4096), range(0))
    lines = [row for rank in RANKS for row in log_lines(other, rank)]
    for row in rows:
        row["bytes"] = 2 * row["bytes"]
    build_database(
        tmp_path / "d.duckdb",
        "two",
        {"tp": 2},
        [make_batch("collectives", rows), make_batch("collectives", lines)],
    )
    found = rows_of(tmp_path / "d.duckdb", FACTS)
    assert {row[2:] for row in found} == {(None,) * 7}


# -- the matching itself, on anything ----------------------------------------------------------


def table(rows: list[dict[str, int]]) -> Calls:
    return Calls(
        {name: np.array([row.get(name, UNKNOWN) for row in rows], np.int64) for name in TAKEN}
    )


@given(
    sizes=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=40),
    begin=st.integers(0, 40),
    length=st.integers(1, 40),
    lost=st.sets(st.integers(0, 40)),
    stamps=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_no_call_is_ever_taken_for_another(sizes, begin, length, lost, stamps, seed):
    delay = random.Random(seed)
    window = range(min(begin, len(sizes) - 1), min(begin + length, len(sizes)))
    at = [call * 200_000 for call in range(len(sizes))]
    same = {"sort": 5, "stream": 5, "comm": 1}
    ours = [
        {**same, "row_id": call, "size": sizes[call], "seq": k, "enqueue_ns": at[call]}
        for k, call in enumerate(window)
    ]
    theirs = [
        {
            **{**same, "row_id": 1000 + call, "size": sizes[call], "seq": call},
            "enqueue_ns": at[call] - delay.randint(5_000, 60_000) if stamps else UNKNOWN,
        }
        for call in range(len(sizes))
        if call not in lost
    ]
    fold = Fold(table(ours))
    if theirs:
        fold.add(table(theirs), untimed=True, whole=not lost)
    kept = 0
    for row, master, aside in zip(*fold.table().to_pydict().values(), strict=True):
        kept += aside is None
        if aside == "same call":
            assert row - 1000 == master
    # Each call at most once, and every interval stays.
    assert len(window) <= kept <= len(sizes)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=30))
def test_places_are_those_of_a_plain_search(part, whole):
    n = len(part)
    plain = [k for k in range(len(whole) - n + 1) if whole[k : k + n] == part] if n else []
    found = fitting_places(np.array(part, np.int64), np.array(whole, np.int64))
    assert found == plain[:2]
