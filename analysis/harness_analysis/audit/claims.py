"""Tables of claimed results, out of CSV, Markdown or JSON: what each column means, every number
with the precision it was written with."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness_analysis.audit.markdown import Raw, markdown_tables
from harness_schemas.errors import EvidenceError

STRONG, WEAK, BATCH, UNKNOWN = "strong", "weak", "batch", "unknown"


@dataclass(frozen=True)
class Value:
    """A number as written; `half` is half a unit of its last digit."""

    number: float
    half: float = 0.0
    spread: float | None = None
    """How far the interval reaches that is written beside it; None: there is none."""

    def precision(self) -> float:
        """Relative error that its rounding, or its interval, leaves; of a rounded zero nothing is
        known."""
        reach = max(self.half, self.spread or 0.0)
        if not self.number:
            return math.inf if reach else 0.0
        return abs(reach / self.number)

    def scaled(self, factor: float) -> Value:
        """The value in another unit."""
        spread = None if self.spread is None else self.spread * factor
        return Value(self.number * factor, self.half * factor, spread)


@dataclass(frozen=True)
class Claim:
    """A row: its label, and its values by field (`FIELDS`), in s, tokens/s and shares of 1."""

    label: str
    values: Mapping[str, Value]

    def get(self, field: str) -> float | None:
        """A field's number; None: the row does not have it."""
        value = self.values.get(field)
        return None if value is None else value.number


@dataclass(frozen=True)
class ClaimTable:
    """Rows of one table; `kind` says what is held fixed: strong, weak, batch or unknown."""

    name: str
    kind: str
    rows: tuple[Claim, ...]

    def base(self) -> Claim | None:
        """The row that the others are measured against: fewest GPUs, smallest batch."""
        known = [row for row in self.rows if "gpus" in row.values or "batch" in row.values]
        return min(
            known, key=lambda row: (row.get("gpus") or 1, row.get("batch") or 1), default=None
        )


FIELDS: tuple[tuple[str, str], ...] = (
    ("repeats", r"repeat|repetition|^runs$|std|\+/-|confidence|\bci\b|interval"),
    ("wait_share", r"wait"),
    ("mbu", r"\bmbu\b|bandwidth util"),
    ("mfu", r"\bmfu\b|flops? util"),
    ("speedup", r"speed[-_ ]?up"),
    ("efficiency", r"efficien"),
    ("throughput", r"throughput|tok(en)?s?\s*(/|per|_per_)\s*s"),
    ("comm", r"comm"),
    ("io", r"\bi[/_]?o\b"),
    ("preprocess", r"pre[-_ ]?proc|tokeni[sz]"),
    ("resource_use", r"resource|utili[sz]ation|gpu use"),
    ("time", r"wall|time|elapsed|duration|\bt_p\b"),
    ("tp", r"^tp\b|tensor"),
    ("pp", r"^pp\b|pipeline|stages"),
    ("batch", r"batch"),
    ("requests", r"requests?|prompts?|queries"),
    ("tokens", r"tokens?"),
    ("nodes", r"nodes?"),
    ("gpus", r"gpus?|ranks?|world|devices?|processes|\bp\b"),
)
"""Field and what its heading contains, the first match counts."""
MEASURED = ("time", "speedup", "efficiency", "throughput", "comm", "io", "preprocess",
            "resource_use", "mbu", "mfu")  # fmt: skip
"""Fields that are results, not settings."""
SHARES = ("efficiency", "mbu", "mfu", "resource_use", "wait_share")
_INTERVAL = re.compile(r"\[\s*([^\[\],]+),\s*([^\[\]]+?)\s*\]")
_MARGIN = re.compile(r"(?:\+/-|\+-|\u00b1)\s*(.+)")
_NUMBER = re.compile(r"[-+]?(\d[\d,_]*)(\.\d+)?(?:[eE][-+]?\d+)?")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
_IN_LABEL = {
    "tp": r"\btp\s*[=:x ]?\s*(\d+)",
    "pp": r"\bpp\s*[=:x ]?\s*(\d+)",
    "gpus": r"(\d+)\s*(?:x\s*)?(?:gpus?|ranks?|t4|v100|a100|h100|h200)\b",
    "batch": r"\bbatch\s*(?:size)?\s*[=: ]?\s*(\d+)",
}


def is_claims_file(path: Path) -> bool:
    """Whether a path names a table of results."""
    return path.is_file() and path.suffix.lower() in (".csv", ".md", ".markdown", ".json")


def read_claims(path: Path) -> list[ClaimTable]:
    """The tables of a file that hold results.

    Raises:
        EvidenceError: the file holds no table with a column that is known.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = _READERS.get(path.suffix.lower(), _markdown)(text, path.stem)
    except (OSError, ValueError, csv.Error) as error:
        raise EvidenceError(f"{path} cannot be read as a table: {error}") from None
    found = [table for name, head, rows in raw if (table := claim_table(name, head, rows))]
    if not found:
        raise EvidenceError(
            f"{path} holds no table of results",
            "columns are known by their headings: GPUs, TP, PP, batch, wall clock, speed-up, "
            "efficiency, throughput, ...",
        )
    return found


def _csv(text: str, name: str) -> list[Raw]:
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    return [(name, rows[0], rows[1:])] if len(rows) > 1 else []


def _json(text: str, name: str) -> list[Raw]:
    data = json.loads(text)
    tables = data if isinstance(data, dict) else {name: data}
    found: list[Raw] = []
    for title, rows in tables.items():
        objects = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        head = list(dict.fromkeys(key for row in objects for key in row))
        cells = [["" if row.get(key) is None else str(row[key]) for key in head] for row in objects]
        found.append((str(title), head, cells))
    return found


def _markdown(text: str, name: str) -> list[Raw]:
    return markdown_tables(text, name, lambda heading: field_of(heading) in MEASURED)


_READERS = {".csv": _csv, ".json": _json}


def claim_table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> ClaimTable | None:
    """A table whose columns are understood; None where fewer than two rows hold a result."""
    fields = [field_of(heading) for heading in head]
    claims = []
    for cells in rows:
        label = " ".join(cells[0].split()) if cells else ""
        named = f"{head[0].strip()} {label}" if _NUMBER.fullmatch(label) else label
        values: dict[str, Value] = {}
        for field, heading, cell in zip(fields, head, cells, strict=False):
            value = parse_value(cell, heading, field) if field else None
            if field and value is not None:
                values.setdefault(field, value)
        claims.append(Claim(named, _completed(values, label)))
    known = [claim for claim in claims if any(field in claim.values for field in MEASURED)]
    if len(known) < 2:
        return None
    claims = _shares_of_one(known, dict(zip(fields, head, strict=True)))
    return ClaimTable(name, kind_of(name, claims), tuple(claims))


def field_of(heading: str) -> str | None:
    """What a heading means; None: nothing that is checked."""
    text = heading.lower().strip()
    return next((field for field, pattern in FIELDS if re.search(pattern, text)), None)


def parse_value(cell: str, heading: str, field: str) -> Value | None:
    """A cell's number in s, tokens/s or a share of 1, with half a unit of its last digit."""
    match = _NUMBER.search(cell)
    if match is None:
        return None
    plain = match[0].replace(",", "").replace("_", "")
    half = 0.5 * 10.0 ** -(len(match[2]) - 1 if match[2] else 0)
    rest = cell[match.end() :]
    scale = _scale(rest.strip().lower(), heading, field)
    if scale is None:
        return None
    number = float(plain) * scale
    return Value(number, half * scale, _spread(number, rest, heading, field))


def _spread(number: float, rest: str, heading: str, field: str) -> float | None:
    """How far `[low, high]` or `+/- margin` behind a number reaches."""
    interval, margin = _INTERVAL.search(rest), _MARGIN.search(rest)
    if interval is not None:
        # Thousands may be set off with commas: the first half of such an interval is cut short.
        ends = [parse_value(text, heading, field) for text in interval.groups()]
        return max((abs(end.number - number) for end in ends if end is not None), default=None)
    if margin is not None:
        value = parse_value(margin[1], heading, field)
        return None if value is None else value.number
    return None


def _scale(after: str, heading: str, field: str) -> float | None:
    """What a number is multiplied with for s, tokens/s or shares; None: it is a share of
    something that the table does not say."""
    scale = 1.0
    if field in SHARES and (after.startswith("%") or "%" in heading):
        scale = 0.01
    elif field in ("time", "comm", "io", "preprocess"):
        unit = re.match(r"[a-z]+", after) or re.search(
            r"(?<=[(\[_ ])(ns|us|ms|sec|s|min|h)\b", heading.lower()
        )
        if after.startswith("%") or "%" in heading:
            return None
        scale = _SECONDS.get(unit[0], 1.0) if unit else 1.0
    return scale


def _completed(values: dict[str, Value], label: str) -> dict[str, Value]:
    """Settings that the row's label or its other settings imply."""
    found = dict(values)
    for field, pattern in _IN_LABEL.items():
        match = re.search(pattern, label.lower())
        if match and field not in found:
            found[field] = Value(float(match[1]))
    if "gpus" not in found and ("tp" in found or "pp" in found):
        degrees = [found[field].number for field in ("tp", "pp") if field in found]
        found["gpus"] = Value(float(degrees[0] * (degrees[1] if len(degrees) > 1 else 1)))
    if "gpus" not in found and "nodes" in found:
        found["gpus"] = found["nodes"]
    return found


def _shares_of_one(claims: list[Claim], heads: Mapping[str | None, str]) -> list[Claim]:
    """Columns of percent without a sign: more than 3 is no share of 1."""
    bare = [
        field
        for field in SHARES
        if field in heads and max((claim.get(field) or 0.0 for claim in claims), default=0.0) > 3
    ]
    return [
        Claim(
            claim.label,
            {field: v.scaled(0.01) if field in bare else v for field, v in claim.values.items()},
        )
        for claim in claims
    ]


def kind_of(name: str, claims: Sequence[Claim]) -> str:
    """What the table scales: by its title, else by what varies."""
    for kind in (STRONG, WEAK, BATCH):
        if kind in name.lower():
            return kind
    gpus = {claim.get("gpus") for claim in claims}
    batches = {claim.get("batch") for claim in claims}
    if len(gpus) == 1 and len(batches) > 1:
        return BATCH
    work = {claim.get("tokens") or claim.get("requests") for claim in claims}
    return STRONG if len(gpus) > 1 and len(work) == 1 and len(batches) == 1 else UNKNOWN
