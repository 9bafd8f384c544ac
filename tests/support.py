"""What tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""

_BESIDE = ROOT.parent / "shared" / "samples"

SAMPLES: Path | None = _BESIDE if _BESIDE.is_dir() else None
"""Real evidence of strangers, where it lies beside the repository."""

needs_samples = pytest.mark.skipif(SAMPLES is None, reason="shared samples are absent")
