"""A folder of Parquet files that holds a run's evidence: names, partitions, manifests.

Written by `harness ingest --parquet`, read by `harness ingest` (docs/scale.md).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from harness_schemas.errors import EvidenceError

FORMAT: Final = "harness-parquet-1"
HEAD_BYTES: Final = 256
"""A manifest names its format at once."""
PARTITIONED: Final = ("spans", "collectives")
"""Tables in folders by rank; the others are small."""


@dataclass(frozen=True)
class Manifest:
    """What one share holds. `rows`: of its small tables."""

    run_id: str
    share: int
    of: int
    name: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object in the file, but for `format`."""
        return asdict(self)


def is_parquet_set(path: Path) -> bool:
    """Whether a folder holds at least one whole share."""
    return path.is_dir() and bool(read_manifests(path))


def read_manifests(path: Path) -> list[Manifest]:
    """Manifests of the shares in a folder, in their order; files that are none are passed over."""
    found = []
    for file in sorted(path.glob("*.json")):
        try:
            with file.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
                # Beside them may lie traces of gigabytes, and JSON that no parser gets through.
                if FORMAT.encode() not in head:
                    continue
                data = json.loads(head + stream.read())
            if data.pop("format", None) == FORMAT:
                found.append(Manifest(**data))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    return sorted(found, key=lambda each: (each.name, each.share))


def missing_shares(manifests: list[Manifest]) -> list[int]:
    """Numbers of shares that are not there.

    Raises:
        EvidenceError: shares of different divisions or runs lie in one folder.
    """
    counted = [each for each in manifests if not each.name]
    if len({each.run_id for each in manifests}) > 1 or len({each.of for each in counted}) > 1:
        raise EvidenceError(
            "shares of different runs, or of different numbers, lie in one folder",
            "write them anew into a folder of their own",
        )
    total = counted[0].of if counted else 0
    return sorted(set(range(1, total + 1)) - {each.share for each in counted})
