"""From files to a database: find evidence by its content, let its collector read it, build."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.registry import all_collectors
from harness_analysis.build import build_database, safe_run_id
from harness_schemas.errors import EvidenceError, UsageError
from harness_schemas.rundir import RunDir
from harness_schemas.spi import Batch, Collector, IngestContext

HEAD_BYTES = 64 << 10
SKIPPED_NAMES = frozenset({"run.json", "plan.json", "run.duckdb", "report.html", "harness.log"})


def ingest_run(run: RunDir) -> Path:
    """Build `run.duckdb` of a run folder anew; returns its path."""
    data = run.read()
    evidence = find_evidence([run.path])
    context = IngestContext(root=run.path, run=data)
    run_id = str(data.get("run_id") or run.path.resolve().name)
    build_database(run.database, run_id, run_row(data), _batches(evidence, context, data))
    return run.database


def ingest_paths(paths: Sequence[Path], output: Path) -> Path:
    """Build one database from whatever evidence lies under `paths`.

    Raises:
        UsageError: a path does not exist.
        EvidenceError: nothing in them was recognised.
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
    evidence = find_evidence(paths)
    if not evidence:
        names = ", ".join(str(path) for path in paths)
        raise EvidenceError(
            f"no evidence recognised in {names}",
            "`harness list --collectors` says what each collector reads",
        )
    data = _run_json(paths)
    root = Path(os.path.commonpath([path.resolve() for path in paths]))
    context = IngestContext(root=root, run=data)
    run_id = str(data.get("run_id") or safe_run_id(output.stem))
    build_database(output, run_id, run_row(data), _batches(evidence, context, data))
    return output


def _run_json(paths: Sequence[Path]) -> dict[str, Any]:
    folders = [path for path in paths if (path / "run.json").is_file()]
    return RunDir(folders[0]).read() if len(folders) == 1 else {}


def find_evidence(paths: Iterable[Path]) -> dict[str, tuple[Collector, list[Path]]]:
    """Files by the collector that recognises them, in the order of the registry."""
    collectors = all_collectors()
    found: dict[str, tuple[Collector, list[Path]]] = {}
    for path in _walk(paths):
        head = read_head(path)
        for collector in collectors:
            if _recognises(collector, path, head):
                found.setdefault(collector.name, (collector, []))[1].append(path)
                break
    return {c.name: found[c.name] for c in collectors if c.name in found}


def _recognises(collector: Collector, path: Path, head: bytes) -> bool:
    try:
        return collector.recognise(path, head)
    except Exception:  # noqa: BLE001 - one reader's defect must not cost the others' evidence
        return False


def _walk(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            for folder, names, files in os.walk(path):
                names.sort()
                for name in sorted(files):
                    if name not in SKIPPED_NAMES:
                        yield Path(folder) / name
        else:
            yield path


def read_head(path: Path) -> bytes:
    """The first 64 KiB of a file, decompressed where it is gzip; empty where unreadable."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as stream:
                return stream.read(HEAD_BYTES)
        return head
    except (OSError, EOFError, zlib.error):
        return b""


def _batches(
    evidence: dict[str, tuple[Collector, list[Path]]],
    context: IngestContext,
    data: dict[str, Any],
) -> Iterator[Batch]:
    import pyarrow as pa

    for collector, files in evidence.values():
        try:
            yield from collector.ingest(files, context)
        except Exception as error:  # noqa: BLE001 - recorded; the other evidence is still good
            reason = f"its reader failed: {type(error).__name__}: {error}"
            row = {"collector": [collector.name], "state": ["failed"], "reason": [reason[:500]]}
            yield Batch("collection", pa.table(row))
    # What the plan already knew: collectors that were asked for and could not run.
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
