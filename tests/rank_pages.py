"""Spools of many ranks at a standstill, written with the recorder's own files."""

from __future__ import annotations

import json
import time

from harness_probe.lines import MetaFile, UnitsFile
from harness_probe.live import LiveFile, packed_unit, slot_of
from harness_probe.spool import SpanFile

SECOND = 1_000_000_000


def write_rank(
    spans,
    rank,
    world,
    *,
    groups,
    entered,
    left=None,
    pending=None,
    quiet_s=40.0,
    host="node0",
    boot="another-boot",
    pid=4_000_000,
    unit=("decode", 7, 0),
    ended=False,
    facts=None,
    began_s=900.0,
    clock_s=-5.0,
):
    """`groups`: id -> ranks; `entered`: (op, group, peer) -> ordinal; `pending`: one of those keys.

    `clock_s`: its CLOCK_MONOTONIC against ours, which another host does not share.
    """
    spans.mkdir(parents=True, exist_ok=True)
    stem = spans / f"rank-{rank:05d}"
    mono = time.monotonic_ns() + round(clock_s * SECOND)
    moved = mono - round(quiet_s * SECOND)
    meta = MetaFile(stem.with_suffix(".meta.jsonl"))
    start = {"rank": rank, "world_size": world, "local_rank": rank % 8, "host": host, "pid": pid}
    meta.write("start", version=1, **start, boot_id=boot, live=True)
    wall, before = time.time_ns(), round(began_s * SECOND)
    meta.write("anchor", mono_ns=mono - before, wall_ns=wall - before, width_ns=100)
    if facts:
        meta.write("fact", **facts)
    for number, ranks in groups.items():
        meta.write("group", id=number, ranks=list(ranks), ordinal=0, name="")
    ops = ("all_reduce", "send", "recv")
    for number, op in enumerate(ops, 1):
        meta.write("desc", id=number, name=op, category="comm", op=op, dtype="f", timeline="host")
    phase, step, batch = unit
    key = {"phase": phase, "step": step, "batch": batch, "microbatch": 0, "repeat": 0}
    key |= {"warmup": False, "perturbed_by": None}
    units = UnitsFile(stem.with_suffix(".units.jsonl.gz"))
    units.write("unit", id=3, start_ns=moved, **key)
    units.close()
    meta.write("anchor", mono_ns=mono, wall_ns=wall, width_ns=100)
    if ended:
        meta.write("end", mono_ns=mono, records=0, dropped=0, dropped_meta=0)
    SpanFile(stem.with_suffix(".spans.gz")).close()
    live = LiveFile(stem.with_suffix(".live"))
    live.unit(packed_unit(3, moved, key))
    for (op, group, peer), ordinal in entered.items():
        done = ordinal - ((op, group, peer) == pending) if left is None else left
        live.group(slot_of(op, group, peer), ordinal, done)
    if pending is None:
        live.update(moved, 3, entered=9)
    else:
        op, group, peer = pending
        place = (ops.index(op) + 1, group << 32 | (peer + 1), entered[pending])
        live.update(moved, 3, *place, moved, 4096, 9)
    live.close()
    meta.close()


def write_run(folder, world, *, tp=8, missing=(), stage=None, **more):
    """A run of `world` ranks in groups of `tp` and one of all. `missing` did not enter the last
    all_reduce of their group; all others of the group are in it, other groups in one of all."""
    run = folder / "20260101-000000-big-0001"
    (run / "logs").mkdir(parents=True)
    (run / "artifacts").mkdir()
    spec = {"parallel": {"tp": tp, "pp": world // tp}}
    data = {"version": 1, "run_id": run.name, "status": "running", "verdict": None, "spec": spec}
    (run / "run.json").write_text(json.dumps(data))
    everyone = range(world)
    stuck = {rank // tp for rank in missing}
    for rank in everyone:
        own = range(rank // tp * tp, rank // tp * tp + tp)
        entered = {("all_reduce", 1, -1): 5, ("all_reduce", 2, -1): 1200}
        pending = ("all_reduce", 2, -1)
        if rank // tp not in stuck:
            entered["all_reduce", 1, -1] = 6
            pending = ("all_reduce", 1, -1)
        elif rank in missing:
            entered["all_reduce", 2, -1], pending = 1199, None
        where = {"host": f"node{rank // 8}", "quiet_s": 40 + rank % 7 / 10, **more}
        groups = {1: everyone, 2: own}
        write_rank(
            run / "spans", rank, world, groups=groups, entered=entered, pending=pending, **where
        )
    return run
