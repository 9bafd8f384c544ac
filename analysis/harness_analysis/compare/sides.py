"""Which runs repeat each other, and what is compared with what."""

from __future__ import annotations

from collections.abc import Sequence

from harness_analysis.compare.effects import Side
from harness_analysis.compare.load import RunData
from harness_schemas.errors import UsageError

Named = tuple[str, Sequence[RunData]]
"""A name as the user gave it, and the runs that it stands for."""


def pair_sides(named: Sequence[Named]) -> list[tuple[Side, Side]]:
    """Pairs to compare, the first side against every other.

    A name is a side and its runs repeat each other; runs of several cells of a sweep make a side
    of each cell. Runs named one by one that belong to one cell are one side. Where every name
    holds the same cells, each cell is compared with its own.

    Raises:
        UsageError: fewer than two sides.
    """
    groups = [(name, cells_of(name, runs)) for name, runs in named if runs]
    if len(groups) > 1 and _same_cells(groups):
        first = groups[0]
        return [
            (_relabel(a, first[0]), _relabel(cells[cell], name))
            for name, cells in groups[1:]
            for cell, a in first[1].items()
        ]
    sides = _distinct(_merge([side for _, cells in groups for side in cells.values()]))
    if len(sides) < 2:
        count = len(sides[0].runs) if sides else 0
        held = {0: "nothing", 1: "one run"}.get(count, f"{count} runs of one configuration")
        raise UsageError(
            f"a comparison needs two sides; these names hold {held}",
            "name a second run, or a sweep with several cells",
        )
    return [(sides[0], side) for side in sides[1:]]


def cells_of(name: str, runs: Sequence[RunData]) -> dict[str, Side]:
    """Sides by the cell of the sweep; runs outside sweeps are one side under the name's own."""
    if len(runs) == 1:
        return {_cell(runs[0]) or runs[0].name: Side(label_of(name, runs), tuple(runs))}
    found: dict[str, list[RunData]] = {}
    for run in runs:
        found.setdefault(_cell(run) or name, []).append(run)
    return {cell: Side(cell, tuple(members)) for cell, members in found.items()}


def label_of(name: str, runs: Sequence[RunData]) -> str:
    """What a side is called: a run by its id, several by what they were named with."""
    return runs[0].name if len(runs) == 1 else name


def _cell(run: RunData) -> str:
    cell = run.row.get("cell")
    return str(cell) if cell is not None and run.row.get("sweep_id") is not None else ""


def _same_cells(groups: Sequence[tuple[str, dict[str, Side]]]) -> bool:
    cells = [set(found) for _, found in groups]
    return len(cells[0]) > 1 and all(found == cells[0] for found in cells)


def _relabel(side: Side, name: str) -> Side:
    return Side(f"{name}: {side.label}", side.runs)


def _distinct(sides: Sequence[Side]) -> list[Side]:
    """Sides with names that tell them apart: by the folder where runs bear the same id."""
    labels = [side.label for side in sides]
    if len(set(labels)) == len(labels):
        return list(sides)
    paths = [side.runs[0].path for side in sides]
    names = [path.stem if path.stem != "run" else path.resolve().parent.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [Side(name, side.runs) for name, side in zip(names, sides, strict=True)]


def _merge(sides: Sequence[Side]) -> list[Side]:
    """Runs of one cell named one by one are repeats, not sides."""
    found: dict[object, Side] = {}
    for index, side in enumerate(sides):
        run = side.runs[0]
        key: object = (run.row.get("sweep_id"), _cell(run)) if _cell(run) else index
        before = found.get(key)
        if before is None:
            found[key] = side
        else:
            found[key] = Side(_cell(run), (*before.runs, *side.runs))
    return list(found.values())
