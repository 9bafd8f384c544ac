"""Runs of the same configuration, and what differs between configurations. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from harness_analysis.scaling.facts import RunFacts

NOTHING_MEASURED = "no batch was measured"
PLACES = ("name", "output.", "launcher.port")
"""Keys that say where a run goes, not what it is."""
PARALLEL = ("parallel.", "launcher.threads", "launcher.nodes")
PROMPTS = ("prompts.limit",)
BATCH = ("generation.batch_size",)
AXES: Mapping[str, tuple[str, ...]] = {
    "strong": PARALLEL,
    "weak": (*PARALLEL, *PROMPTS),
    "batch": BATCH,
    "grid": (),
}
"""Keys along which each kind of study runs; the others tell its series apart."""


@dataclass(frozen=True)
class Cell:
    """The runs of one configuration."""

    settings: Mapping[str, Any]
    runs: tuple[RunFacts, ...]

    @property
    def known(self) -> bool:
        """Whether a specification was recorded."""
        return bool(self.runs[0].settings)

    @property
    def good(self) -> tuple[RunFacts, ...]:
        """Runs that may be measured by."""
        return tuple(run for run in self.runs if run.good)

    @property
    def failures(self) -> tuple[str, ...]:
        """Verdicts of the others, each once."""
        bad = (run.verdict for run in self.runs if not run.good)
        told = (NOTHING_MEASURED if verdict in ("ok", None) else verdict for verdict in bad)
        return tuple(dict.fromkeys(str(text) for text in told))

    @property
    def world_size(self) -> int | None:
        """Ranks."""
        return self.runs[0].world_size

    @property
    def batch_size(self) -> int | None:
        """Prompts decoded together."""
        return self.runs[0].batch_size

    @property
    def tokens(self) -> Fraction | None:
        """Tokens that a good run generated, the mean; None where one's are unknown."""
        found = [run.output_tokens for run in self.good]
        known = [tokens for tokens in found if tokens]
        return Fraction(sum(known), len(known)) if known and len(known) == len(found) else None

    @property
    def walls(self) -> list[int]:
        """Wall clock of the good runs, ns."""
        return [run.wall_ns for run in self.good if run.wall_ns is not None]

    @property
    def throughputs(self) -> list[Fraction]:
        """Tokens per second of the good runs."""
        return [
            Fraction(run.output_tokens * 10**9, run.wall_ns)
            for run in self.good
            if run.output_tokens and run.wall_ns
        ]


def group_cells(runs: Iterable[RunFacts]) -> list[Cell]:
    """Runs by configuration, in the order in which the configurations first appear.

    Runs whose specification nobody recorded repeat nothing that is known: each is a cell.
    """
    groups: dict[str, list[RunFacts]] = {}
    for run in runs:
        text = json.dumps(_what(run), sort_keys=True, default=str)
        groups.setdefault(text, []).append(run)
    return [Cell(_what(found[0]), tuple(found)) for found in groups.values()]


def _what(run: RunFacts) -> dict[str, Any]:
    if not run.settings:
        return {"run": run.run_id}
    return {key: value for key, value in run.settings.items() if not key.startswith(PLACES)}


def varied_keys(cells: Sequence[Cell]) -> list[str]:
    """Keys whose value is not the same in all cells whose configuration is known."""
    cells = [cell for cell in cells if cell.known]
    keys = dict.fromkeys(key for cell in cells for key in cell.settings)
    return [
        key
        for key in keys
        if len({json.dumps(c.settings.get(key), default=str) for c in cells}) > 1
    ]


def kinds_of(cells: Sequence[Cell], preset: str | None) -> list[str]:
    """Which studies the cells are: the preset's, else what their differences allow."""
    if preset is not None and preset in AXES:
        return [preset]
    found = []
    if _several(cells, lambda cell: cell.world_size):
        found.append("weak" if _proportional(cells) else "strong")
    if _several(cells, lambda cell: cell.batch_size):
        found.append("batch")
    return found or ["grid"]


def _several(cells: Sequence[Cell], size: Callable[[Cell], int | None]) -> bool:
    return len({size(cell) for cell in cells} - {None}) > 1


def _proportional(cells: Sequence[Cell]) -> bool:
    """Whether prompts grow exactly with the ranks."""
    pairs = [(cell.settings.get(PROMPTS[0]), cell.world_size) for cell in cells]
    each = {Fraction(limit, size) for limit, size in pairs if limit and size}
    return len(each) == 1 and all(limit and size for limit, size in pairs)


def series_of(cells: Sequence[Cell], kind: str) -> list[tuple[str, list[Cell]]]:
    """Cells that differ along the study's own keys only, under the name of the other ones."""
    others = [key for key in varied_keys(cells) if not key.startswith(AXES[kind])]
    if kind == "grid":
        return [("", list(cells))]
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(describe(cell, others), []).append(cell)
    return list(found.items())


def describe(cell: Cell, keys: Iterable[str]) -> str:
    """`tp=2 batch_size=4`; of a cell whose configuration nobody recorded its run."""
    parts = []
    if not cell.known:
        keys = cell.settings
    for key in keys:
        value = cell.settings.get(key)
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        parts.append(f"{key.rpartition('.')[2]}={text}")
    return " ".join(parts)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; lists stay whole."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found
