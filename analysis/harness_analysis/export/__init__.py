"""A run's evidence in other tools' formats: Chrome/Perfetto JSON, OTLP, Parquet, CSV."""

from __future__ import annotations

from harness_analysis.export.chrome import Selection, write_chrome
from harness_analysis.export.otlp import send_otlp, write_otlp
from harness_analysis.export.tables import relations, write_tables

__all__ = [
    "Selection",
    "relations",
    "send_otlp",
    "write_chrome",
    "write_otlp",
    "write_tables",
]
