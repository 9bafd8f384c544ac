"""Measurements of the machine itself, started and collected by the session's side."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.progress import Narrator
from harness.runs import find_databases
from harness.setup.provenance import provenance
from harness_analysis.store import open_database
from harness_runners.bench.plan import ITEM_BYTES, OPS, BenchPlan, Issued
from harness_runners.plan import resolve_device
from harness_schemas.errors import HarnessError, UsageError
from harness_schemas.rundir import RunDir, write_json
from harness_schemas.spi import LaunchPlan
from harness_slurm.failures import last_words
from harness_slurm.local import LocalLauncher

COLLECTOR = "floors"
MOST_ISSUED = 48
"""Of the sizes that a run issues the most frequent ones are measured: prefills have many."""
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Wanted:
    """What to measure. None: decided by the machine, or by `run`."""

    sizes: tuple[int, ...]
    run: str | None = None
    ranks: int | None = None
    groups: tuple[int, ...] = ()
    ops: tuple[str, ...] = OPS
    dtype: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class FromRun:
    """What a run issues: sizes, its ranks and its data type."""

    issued: tuple[Issued, ...]
    ranks: int
    dtype: str | None
    folder: Path | None


def bench_collectives(wanted: Wanted, output: Path | None, narrator: Narrator) -> dict[str, Any]:
    """Measure, write the file and return its content.

    `output`: default is the run's artifacts/floors/<host>/floors.json, else ./floors.json.

    Raises:
        UsageError: no such run, or fewer than two ranks.
        HarnessError: the ranks failed.
    """
    run = read_run(wanted.run) if wanted.run else None
    plan, ranks = plan_bench(wanted, run)
    target = output or default_output(run)
    narrator.say(f"measure {len(plan.cells())} cells with {ranks} ranks on {plan.device}")
    document = {**launch(plan, ranks), "provenance": provenance()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, document)
    narrator.say(f"wrote {target}")
    for text in sorted({item["reason"] for item in document["skipped"]}):
        narrator.say(f"not measured: {text}")
    if run is not None and run.folder is not None:
        narrator.say("next:")
        more = "" if output is None else f" {shlex.quote(str(target))} -o run-with-floors.duckdb"
        narrator.say(f"  harness ingest {shlex.quote(str(run.folder))}{more}")
    return document


def plan_bench(wanted: Wanted, run: FromRun | None) -> tuple[BenchPlan, int]:
    """The ranks' plan (its output is still open), and how many ranks.

    Raises:
        UsageError: fewer than two ranks, or an operation or type that there is not.
    """
    device = resolve_device(wanted.device)
    ranks = wanted.ranks or (run.ranks if run else 0) or (gpu_count() if device == "cuda" else 2)
    if ranks < 2:
        raise UsageError("a collective needs two ranks", "say how many with --ranks")
    unknown = sorted(set(wanted.ops) - set(OPS))
    if unknown:
        raise UsageError(f"no operation {unknown[0]!r}", f"there are {', '.join(OPS)}")
    dtype = wanted.dtype or (run.dtype if run else None)
    dtype = dtype or ("bfloat16" if device == "cuda" else "float32")
    issued = run.issued if run else ()
    # A run of TP x PP never calls all its ranks together while it decodes.
    groups = {*wanted.groups, *({item.group_size for item in issued} or {ranks})}
    plan = BenchPlan(
        output="",
        ops=wanted.ops,
        sizes=wanted.sizes,
        groups=tuple(sorted(group for group in groups if 2 <= group <= ranks)),
        issued=issued,
        dtype=dtype,
        device=device,
    )
    return plan, ranks


def read_run(name: str) -> FromRun:
    """What a run's database says that it issued, the most frequent sizes first.

    Raises:
        UsageError: no such run, or it has no database.
    """
    database = find_databases([name])[0]
    with open_database(database) as con:
        rows = con.execute(_ISSUED, [MOST_ISSUED]).fetchall()
        world = con.execute("SELECT coalesce(any_value(world_size), 0) FROM runs").fetchone()
        types = con.execute(
            "SELECT dtype FROM collectives WHERE bytes > 0 GROUP BY dtype ORDER BY count(*) DESC"
        ).fetchall()
    dtype = next((found for (found,) in types if found in ITEM_BYTES), None)
    folder = RunDir(database.parent)
    return FromRun(
        issued=tuple(Issued(*row) for row in rows),
        ranks=int(world[0]) if world else 0,
        dtype=dtype,
        folder=folder.path if folder.run_json.is_file() else None,
    )


_ISSUED = """
SELECT CASE WHEN op IN ('send', 'recv') THEN 'send_recv' ELSE op END AS op, bytes,
  CASE WHEN op IN ('send', 'recv') THEN 2 ELSE group_size END AS size
FROM collectives WHERE bytes > 0 AND (group_size > 1 OR op IN ('send', 'recv'))
  AND (phase IS NULL OR phase IN ('prefill', 'decode', 'mixed', 'all'))
GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2, 3 LIMIT ?
"""


def default_output(run: FromRun | None) -> Path:
    """The run's own artifacts where there are any, else the current folder."""
    if run is None or run.folder is None:
        return Path("floors.json")
    return RunDir(run.folder).collector_dir(COLLECTOR, socket.gethostname()) / "floors.json"


def launch(plan: BenchPlan, ranks: int) -> dict[str, Any]:
    """Start the ranks in a folder of their own and return what rank 0 wrote.

    Raises:
        HarnessError: they failed; the folder with their logs is kept.
    """
    folder = Path(tempfile.mkdtemp(prefix="harness-bench-"))
    run = RunDir(folder)
    run.logs.mkdir()
    result, file = folder / "floors.json", folder / "bench.json"
    replace(plan, output=str(result)).write(file)
    argv = (sys.executable, "-m", "harness_runners.bench.collectives", "--plan", str(file))
    environment = {"OMP_NUM_THREADS": "1"}
    if plan.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    ended = LocalLauncher().launch(
        LaunchPlan(argv, environment, ranks, folder, timeout_s=TIMEOUT_S)
    )
    if ended.exit_code != 0 or not result.is_file():
        rank = ended.failures[0].rank if ended.failures else 0
        said = last_words(run.rank_log(rank, "err"))
        code = ended.exit_code or 125
        raise HarnessError(f"the ranks failed: {said or code}", f"see {run.logs}", code)
    document: dict[str, Any] = json.loads(result.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    return document


def gpu_count() -> int:
    """GPUs that ranks here would see, without asking CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
