"""A database over Parquet files: spans stay there as a view, everything else is built from them.

Times in the files are raw. The view maps them to the run's axis as they are read, by the
mappings in `clock_offsets`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness_analysis.clocks.axis import aligned_select, clock_select
from harness_schemas.parquet import PARTITIONED, Manifest, missing_shares, read_manifests
from harness_schemas.spi import Batch
from harness_schemas.tables import BY_NAME, quoted
from harness_schemas.tables.columns import Table

if TYPE_CHECKING:
    import pyarrow

FIRST = ("clock_anchors", "clock_pingpongs")
"""Tables that the mapping of times needs before there are any."""


@dataclass(frozen=True)
class ParquetSet:
    """A folder of shares."""

    root: Path
    manifests: tuple[Manifest, ...]

    @staticmethod
    def open(root: Path) -> ParquetSet:
        """Read the manifests; raises EvidenceError where they do not belong together."""
        found = read_manifests(root)
        missing_shares(found)
        return ParquetSet(root, tuple(found))

    @property
    def run_id(self) -> str:
        """The run that the shares are of."""
        return self.manifests[0].run_id

    def batches(self) -> Iterator[Batch]:
        """Rows of the small tables, clocks first, in the order of the shares."""
        small = [name for name in BY_NAME if name not in PARTITIONED and name not in FIRST]
        for name in (*FIRST, *small):
            for file in self.files(name):
                yield from (Batch(name, table) for table in _read(file))
        missing = missing_shares(list(self.manifests))
        if missing:
            yield Batch("collection", _gap(missing, self.manifests[0].of))

    def files(self, table: str) -> list[Path]:
        """Files of a small table."""
        return sorted((self.root / table / f"run_id={self.run_id}").glob("*.parquet"))

    def has(self, table: str) -> bool:
        """Whether there are rows of a partitioned table."""
        return any((self.root / table / f"run_id={self.run_id}").glob("rank=*/*.parquet"))

    def scan(self, table: str, near: Path | None = None) -> str:
        """The table function that reads a partitioned table's files. Relative to the folder of
        the database `near` where they lie in it, so that both can be moved together."""
        root = self.root.resolve()
        if near is not None and root.is_relative_to(near.resolve().parent):
            root = Path(os.path.relpath(root, near.resolve().parent))
        pattern = str(root / table / f"run_id={self.run_id}" / "rank=*" / "*.parquet")
        return (
            f"read_parquet({quoted(pattern)}, hive_partitioning = true, "
            "hive_types = {'run_id': VARCHAR, 'rank': INTEGER})"
        )

    def view(self, table: Table, database: Path) -> str:
        """CREATE VIEW and comments of a partitioned table, aligned by `clock_offsets`."""
        names = table.column_names()
        body = aligned_select(table.name, names, self.scan(table.name, database))
        clocks = clock_select("clock_offsets")
        lines = [
            f"CREATE VIEW {table.name} AS WITH rank_clock AS ({clocks}) {body}",
            f"COMMENT ON VIEW {table.name} IS {quoted(table.doc)}",
        ]
        lines += [
            f"COMMENT ON COLUMN {table.name}.{column.name} IS {quoted(column.doc)}"
            for column in table.columns
        ]
        return ";\n".join(lines)


def _read(file: Path) -> Iterator[pyarrow.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # By its file alone: the folder's name would come back as a column.
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches():
            yield pa.Table.from_batches([batch])


def _gap(missing: list[int], of: int) -> pyarrow.Table:
    import pyarrow as pa

    numbers = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    reason = f"of {of} shares these were not written: {numbers}"
    row = {"collector": "parquet", "state": "degraded", "reason": reason}
    return pa.Table.from_pylist([row])
