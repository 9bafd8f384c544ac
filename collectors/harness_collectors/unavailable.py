"""Collectors that are designed and not built: registered, so that asking for one is answered.

A collector that is built replaces its line in `harness/registry.py` and its constant here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext


@dataclass(frozen=True)
class NotBuilt:
    """Answers honestly that it cannot do anything yet."""

    name: str
    title: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The source its rows would carry."""
        return (self.name,)

    def check(self, device: str) -> Availability:
        """Not available, whatever the machine."""
        return Availability(False, "not available yet in this version")

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options cannot be checked yet; they are kept as given."""
        return dict(given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Nothing to do to a run."""
        return CapturePlan()

    def recognise(self, path: Path, head: bytes) -> bool:
        """It reads nothing."""
        return False

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """No rows."""
        return iter(())


NSYS = NotBuilt("nsys", "Nsight Systems reports")
