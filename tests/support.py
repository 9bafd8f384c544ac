"""What tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "samples"

SAMPLES: Path | None = _BESIDE if _BESIDE.is_dir() else None
"""Real evidence of strangers, where it lies beside the repository."""

needs_samples = pytest.mark.skipif(SAMPLES is None, reason="shared samples are absent")
