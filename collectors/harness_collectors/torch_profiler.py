"""torch.profiler over chosen units (being written)."""

from __future__ import annotations

from harness_collectors.unavailable import NotBuilt

COLLECTOR = NotBuilt("torch_profiler", "torch.profiler over chosen units of chosen ranks")
