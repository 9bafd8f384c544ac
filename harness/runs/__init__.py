"""Runs by name: `folders` (where they lie), `names` (what a word on the command line means)."""

from harness.runs.names import find_databases, find_run, find_split, find_sweep

__all__ = ["find_databases", "find_run", "find_split", "find_sweep"]
