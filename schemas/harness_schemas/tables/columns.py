"""What a declaration of a table is made of, and the columns that many of them share."""

from __future__ import annotations

from dataclasses import dataclass

BIGINT, INTEGER, DOUBLE, VARCHAR, BOOLEAN = "BIGINT", "INTEGER", "DOUBLE", "VARCHAR", "BOOLEAN"


@dataclass(frozen=True)
class Column:
    """A column: its DuckDB type and what it means (with its unit)."""

    name: str
    type: str
    doc: str


@dataclass(frozen=True)
class Table:
    """A table: what a row is, and its columns."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    def column_names(self) -> tuple[str, ...]:
        """Names in declaration order."""
        return tuple(column.name for column in self.columns)


def quoted(value: object) -> str:
    """A text as SQL has it: in quotes, those within it doubled."""
    return "'" + str(value).replace("'", "''") + "'"


def columns(text: str) -> tuple[Column, ...]:
    """Parse lines of `name TYPE what it means`."""
    lines = (line.split(None, 2) for line in text.strip().splitlines())
    return tuple(Column(name, kind, doc.strip()) for name, kind, doc in lines)


RUN = columns("run_id VARCHAR run that the row belongs to")
RANK = columns("rank INTEGER global rank; NULL: not known")
KEYS = columns(
    """
    batch INTEGER index of the batch handed to the engine
    microbatch INTEGER index of the micro-batch within the batch
    repeat INTEGER index of the repetition of the whole workload
    phase VARCHAR startup, load, preprocess, warmup, prefill, decode, mixed or postprocess
    step INTEGER decode step k >= 1 emits token k; step 0 is prefill; strangers' numbers kept
    warmup BOOLEAN the unit belongs to the warm-up and is left out of headline numbers
    perturbed_by VARCHAR collector known to slow the unit; NULL: none
    """
)
