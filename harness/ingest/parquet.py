"""Evidence to a folder of Parquet files, share by share: nodes of a large run do it at once.

    DIR/share-00003-of-00008.json                       written last: this share is whole
    DIR/spans/run_id=RUN/rank=12/share-00003-of-00008-00017.parquet
    DIR/samples/run_id=RUN/share-00003-of-00008.parquet

Spans and collectives are partitioned by rank, other tables are small. Times are raw: only
`harness ingest DIR` knows the clocks of all shares.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.ingest.parts import Task, read_task
from harness.ingest.progress import Watch
from harness_analysis.store.masking import masked
from harness_schemas.errors import HarnessError, UsageError
from harness_schemas.parquet import FORMAT, PARTITIONED, Manifest
from harness_schemas.rundir import write_json
from harness_schemas.spi import Batch, IngestContext
from harness_schemas.tables import BY_NAME, arrow_schema

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_NOBODY: Final = "__HIVE_DEFAULT_PARTITION__"
"""Hive's spelling of NULL."""


@dataclass(frozen=True)
class Share:
    """The `number`-th of `of` shares (from 1); a share with a `name` takes all it is shown."""

    number: int = 1
    of: int = 1
    name: str = ""

    @staticmethod
    def parse(text: str) -> Share:
        """Read `3/8`, `slurm` (this task's share of the job step), or a word for a node that sees
        only its own evidence.

        Raises:
            UsageError: it is neither.
        """
        if text == "slurm" and "SLURM_PROCID" in os.environ:
            task = int(os.environ["SLURM_PROCID"])
            return Share(task + 1, int(os.environ.get("SLURM_NTASKS", task + 1)))
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found and 1 <= int(found[1]) <= int(found[2]):
            return Share(int(found[1]), int(found[2]))
        if not found and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", text):
            return Share(name=text)
        raise UsageError(
            f"{text!r} names no share",
            "3/8 is the third of eight; a word (node7) names all the evidence seen from there",
        )

    @property
    def stem(self) -> str:
        """Beginning of its files' names."""
        return self.name or f"share-{self.number:05d}-of-{self.of:05d}"

    def of_tasks(self, tasks: Sequence[Task]) -> list[tuple[int, Task]]:
        """Its tasks with their numbers among all."""
        return [(n, task) for n, task in enumerate(tasks) if n % self.of == self.number - 1]


def write_share(
    folder: Path,
    run_id: str,
    tasks: Sequence[Task],
    context: IngestContext,
    share: Share,
    watch: Watch,
) -> Path:
    """Write one share; returns its manifest, which appears when everything else is there.

    Memory: that of one batch, and of one open file a table and rank of a part.

    Raises:
        HarnessError: the folder cannot be written.
    """
    own = share.of_tasks(tasks)
    manifest = folder / f"{share.stem}.json"
    try:
        with contextlib.suppress(FileNotFoundError):
            manifest.unlink()
        with watch, _Files(folder, run_id, share.stem) as small:
            watch.begin(len(own), sum(task.size for _, task in own), 1)
            for number, task in own:
                with _Files(folder, run_id, f"{share.stem}-{number:05d}") as large:
                    for batch in read_task(task, context):
                        (large if batch.table in PARTITIONED else small).add(batch)
                watch.advance(task.size)
            rows = dict(small.rows)
    except OSError as error:
        raise HarnessError(
            f"cannot write {error.filename or folder}: {error.strerror}",
            "choose another folder with --parquet",
        ) from None
    said = Manifest(run_id, share.number, share.of, share.name, dict(context.run), rows)
    write_json(manifest, {"format": FORMAT, **said.to_json()})
    return manifest


class _Files:
    """Open Parquet files by table and rank; they get their names when all of them are whole."""

    def __init__(self, folder: Path, run_id: str, stem: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._stem = stem
        self._open: dict[tuple[str, str], tuple[Path, pyarrow.parquet.ParquetWriter]] = {}
        self.rows: dict[str, int] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for path, writer in self._open.values():
            temporary = _temporary(path)
            writer.close()
            if kind is None:
                temporary.replace(path)
            else:
                temporary.unlink(missing_ok=True)

    def add(self, batch: Batch) -> None:
        """Append a batch's rows to the files of its ranks."""
        self.rows[batch.table] = self.rows.get(batch.table, 0) + batch.data.num_rows
        for partition, data in _partitions(batch):
            if data.num_rows:
                data = masked(_whole(batch.table, data))
                self._file(batch.table, partition, data.schema).write_table(data)

    def _file(
        self, table: str, partition: str, schema: pyarrow.Schema
    ) -> pyarrow.parquet.ParquetWriter:
        import pyarrow.parquet as pq

        if (table, partition) not in self._open:
            folder = self._folder / table / f"run_id={self._run_id}" / partition
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{self._stem}.parquet"
            writer = pq.ParquetWriter(_temporary(path), schema, compression="zstd")
            self._open[table, partition] = (path, writer)
        return self._open[table, partition][1]


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _partitions(batch: Batch) -> Iterator[tuple[str, pyarrow.Table]]:
    """A partitioned table's rows by rank; others whole, under no folder."""
    import pyarrow.compute as pc

    if batch.table not in PARTITIONED:
        yield "", batch.data
        return
    if "rank" not in batch.data.column_names:
        yield f"rank={_NOBODY}", batch.data
        return
    column = batch.data["rank"]
    rest = batch.data.drop_columns(["rank"])
    ranks = pc.unique(column).to_pylist()
    for rank in ranks:
        chosen = rest
        if len(ranks) > 1:
            chosen = rest.filter(pc.is_null(column) if rank is None else pc.equal(column, rank))
        yield f"rank={_NOBODY if rank is None else rank}", chosen


def _whole(table: str, data: pyarrow.Table) -> pyarrow.Table:
    """All columns of the table in its order: every file of a table has one schema."""
    import pyarrow as pa

    left_out = {"run_id", "rank"} if table in PARTITIONED else {"run_id"}
    fields: Iterable[pyarrow.Field] = arrow_schema(BY_NAME[table])
    kept = [field for field in fields if field.name not in left_out]
    columns = [
        data[field.name].cast(field.type)
        if field.name in data.column_names
        else pa.nulls(data.num_rows, field.type)
        for field in kept
    ]
    return pa.table(columns, schema=pa.schema(kept))
