"""The user's cache folder: what is made once and used by many runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """HARNESS_CACHE_DIR, else `harness` in the user's cache folder."""
    named = os.environ.get("HARNESS_CACHE_DIR")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
