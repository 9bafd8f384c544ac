"""From files to a database: find evidence by its content, let its collector read it, build."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.ingest.ahead import ahead
from harness.ingest.asked import with_silent
from harness.ingest.evidence import find_evidence, read_head, run_folders, survey
from harness.ingest.parquet import Share, write_share
from harness.ingest.parts import Task, in_pieces, joined, plan_tasks, read_task
from harness.ingest.progress import PartWatch, Watch
from harness.ingest.unread import Failures, say_unread
from harness.ingest.workers import Workers
from harness_schemas.errors import EvidenceError, UsageError
from harness_schemas.rundir import RunDir
from harness_schemas.spi import Batch, IngestContext

__all__ = [
    "Share",
    "find_evidence",
    "ingest_paths",
    "ingest_run",
    "ingest_stored",
    "read_head",
    "run_row",
    "store_share",
    "use_rules",
]

WORTH_PROCESSES = 8 << 20
"""Bytes of evidence below which starting processes takes longer than reading."""


def ingest_run(
    run: RunDir,
    jobs: int | None = None,
    watch: Watch | None = None,
    output: Path | None = None,
    data: Mapping[str, Any] | None = None,
    more: Sequence[Path] = (),
) -> Path:
    """Build `run.duckdb` of a run folder anew, or `output`; returns its path.

    `jobs`: processes that read (None: the cores at hand, where there is enough to read). `data`:
    what stands for run.json where that could not be written. `more`: evidence outside of it.
    """
    data = dict(data or run.read())
    output = output or run.database
    tasks = plan_tasks(find_evidence([run.path, *more]))
    context = IngestContext(root=run.path, run=data)
    run_id = str(data.get("run_id") or run.path.resolve().name)
    _build(output, run_id, tasks, context, jobs, watch or Watch())
    return output


def ingest_paths(
    paths: Sequence[Path], output: Path, jobs: int | None = None, watch: Watch | None = None
) -> Path:
    """Build one database from whatever evidence lies under `paths`; `jobs` as in `ingest_run`.

    Raises:
        UsageError: a path does not exist, several runs of ours lie there, or `output` is among
            the evidence.
        EvidenceError: nothing in them was recognised.
    """
    watch = watch or Watch()
    tasks, context = find_tasks(paths, watch)
    if output.exists() and any(output.samefile(path) for task in tasks for path in task.part.files):
        raise UsageError(f"{output} is itself evidence", "name another file with -o")
    run_id = _run_id(context, output.stem)
    _build(output, run_id, tasks, context, jobs, watch)
    return output


def use_rules(path: Path) -> None:
    """Classify by the rules of a file before the built-in ones, in this process and its workers.

    Raises:
        UsageError: the file cannot be read, or a rule is not well-formed.
    """
    from harness_collectors.names.classify import RULES_ENV, load_rules

    load_rules(path)
    os.environ[RULES_ENV] = str(path.resolve())


def ingest_stored(folder: Path, output: Path, watch: Watch | None = None) -> Path:
    """Build the database of a folder of Parquet files (`write_share`); its spans stay there.

    Raises:
        EvidenceError: shares in it do not belong together.
    """
    from harness_analysis.build.database import build_database
    from harness_analysis.build.parquet import ParquetSet

    stored = ParquetSet.open(folder)
    run = dict(stored.manifests[0].run)
    with watch or Watch() as heard:
        row = run_row(run)
        rows = itertools.chain(stored.batches(), _planned(run))
        build_database(output, stored.run_id, row, rows, tell=heard.phase, stored=stored)
    return output


def store_share(
    paths: Sequence[Path], folder: Path, share: Share, watch: Watch | None = None
) -> Path:
    """Write one share of the evidence under `paths` to Parquet files; returns its manifest.

    Raises as `ingest_paths` does, and HarnessError where the folder cannot be written.
    """
    watch = watch or Watch()
    tasks, context = find_tasks(paths, watch)
    run_id = _run_id(context, folder.resolve().name)
    return write_share(folder, run_id, tasks, context, share, watch)


def find_tasks(
    paths: Sequence[Path], watch: Watch | None = None
) -> tuple[list[Task], IngestContext]:
    """What lies under `paths`, divided, and what ingest knows of the run; `watch` hears what is
    left unread. Raises as `ingest_paths` does."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
    evidence, unread = survey(paths)
    root = Path(os.path.commonpath([path.resolve() for path in paths]))
    root = root if root.is_dir() else root.parent  # names are relative to it: a file alone has one
    say_unread(unread, root, watch or Watch())
    if not evidence:
        names = ", ".join(str(path) for path in paths)
        raise EvidenceError(
            f"no evidence recognised in {names}",
            "`harness list --collectors` says what each collector reads",
        )
    runs = run_folders(evidence)
    if len(runs) > 1:
        raise UsageError(
            f"{runs[0]} and {runs[1]} are two runs: one database holds one",
            "ingest each by itself; `harness query` and `harness report` take several at once",
        )
    return plan_tasks(evidence), IngestContext(root=root, run=_run_json(paths))


def _run_id(context: IngestContext, name: str) -> str:
    from harness_analysis.build.database import safe_run_id

    return str(context.run.get("run_id") or safe_run_id(name))


def _run_json(paths: Sequence[Path]) -> dict[str, Any]:
    folders = [path for path in paths if (path / "run.json").is_file()]
    return RunDir(folders[0]).read() if len(folders) == 1 else {}


def _build(
    output: Path,
    run_id: str,
    tasks: Sequence[Task],
    context: IngestContext,
    jobs: int | None,
    watch: Watch,
) -> None:
    from harness.ending.outcome import known_end  # which the processes that read never need
    from harness_analysis.build.database import build_database

    folder = output.with_name(output.name + ".tmp.parts")
    data = dict(context.run)
    jobs = count_jobs(tasks, jobs)
    if jobs > 1:
        tasks = in_pieces(tasks)
        jobs = min(jobs, len(tasks))
    failures = Failures(watch, all_failed=not data)
    found = with_silent(read_all(tasks, context, jobs, folder, watch), data)
    found = failures.heard(found)
    # Several processes read ahead of themselves.
    with watch, ahead(found) if jobs == 1 else contextlib.closing(found) as batches:
        ended = known_end(data, context.root)
        build_database(output, run_id, run_row(data), batches, tell=watch.phase, ended=ended)
    failures.say()


def count_jobs(tasks: Sequence[Task], wanted: int | None) -> int:
    """Processes that read: those wanted (None: the cores at hand, where it is worth it)."""
    if wanted is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        wanted = cores if sum(task.size for task in tasks) >= WORTH_PROCESSES else 1
    return max(1, wanted)


def read_all(
    tasks: Sequence[Task], context: IngestContext, jobs: int, folder: Path, watch: Watch
) -> Generator[Batch, None, None]:
    """Rows of all parts in their order, read here or by `jobs` processes that use `folder`."""
    watch.begin(len(tasks), sum(task.size for task in tasks), jobs)
    if jobs == 1:
        for task in tasks:
            part = PartWatch(watch, task.size)
            yield from read_task(task, replace(context, progress=part.advance))
            part.finish()
    else:
        with Workers(jobs, folder, context) as workers:
            yield from joined(_told(workers.read(tasks), watch), context)
    yield from _planned(context.run)


def _told(
    read: Iterator[tuple[Task, Iterator[Batch]]], watch: Watch
) -> Iterator[tuple[Task, Iterator[Batch]]]:
    for task, batches in read:
        yield task, batches
        watch.advance(task.size)


def _planned(data: Any) -> Iterator[Batch]:
    """What the plan already knew: collectors that were asked for and could not run."""
    import pyarrow as pa

    rows = [row for row in data.get("collection", []) if isinstance(row, dict)]
    if rows:
        names = ("collector", "host", "state", "reason")
        table = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
        yield Batch("collection", pa.table(table))


def run_row(data: dict[str, Any]) -> dict[str, Any]:
    """Columns of the table `runs` from run.json; what it does not hold stays unknown."""
    import json

    spec = data.get("spec") or {}
    generation, parallel = spec.get("generation") or {}, spec.get("parallel") or {}
    tp, pp = parallel.get("tp"), parallel.get("pp")

    def text(value: Any) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True)

    plain = ("name", "status", "verdict", "verdict_detail", "exit_code", "device", "started_ns")
    more = ("ended_ns", "sweep_id", "cell", "repeat", "job_id", "attempt")
    return {
        **{name: data.get(name) for name in (*plain, *more)},
        "spec": text(data.get("spec")),
        "provenance": text(data.get("provenance")),
        "correctness": text(data.get("correctness")),
        "runner": spec.get("runner"),
        "dtype": spec.get("dtype"),
        "tp": tp,
        "pp": pp,
        "batch_size": generation.get("batch_size"),
        "microbatches": generation.get("microbatches"),
        "world_size": tp * pp if tp and pp else None,
    }
