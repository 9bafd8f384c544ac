"""Speed-up, efficiency and limits of configurations against the smallest feasible one. Pure.

Strong: S = T_p0 / T_p, E = T_p0 p0 / (T_p p). Weak: E = T_p0 / T_p, and its throughput form.
Batch: E = throughput_B B0 / (B throughput_B0). Where cells generated different numbers of tokens,
S and E compare time per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from harness_analysis.scaling.cells import Cell, describe, group_cells, kinds_of, series_of
from harness_analysis.scaling.cells import varied_keys as _varied
from harness_analysis.scaling.facts import RunFacts
from harness_analysis.scaling.intervals import Estimate, mean, ratio
from harness_analysis.scaling.knee import find_knee
from harness_analysis.scaling.limits import Limit, largest, limit, mean_parts, pop
from harness_analysis.scaling.marks import watermarks
from harness_analysis.scaling.model import Point, Study


def make_studies(runs: Sequence[RunFacts], preset: str | None = None) -> list[Study]:
    """Every table that the runs allow. Without a preset, cells of which no series has a second
    one stand in a table of their own."""
    cells = group_cells(runs)
    if not cells:
        return []
    found = [
        (kind, name, members)
        for kind in kinds_of(cells, preset)
        for name, members in series_of(cells, kind)
        if preset is not None or len(members) > 1
    ]
    shown = {id(cell) for _, _, members in found for cell in members}
    alone = [cell for cell in cells if id(cell) not in shown]
    if alone:
        found.append(("grid", "in no series" if found else "", alone))
    return [_study(*series) for series in found]


def _study(kind: str, series: str, cells: list[Cell]) -> Study:
    ordered = sorted(cells, key=lambda cell: _size(cell, kind) or 0)
    base = None if kind == "grid" else _base(ordered, kind)
    keys = _varied(ordered)
    labels = [describe(cell, keys) for cell in ordered]
    if len(ordered) > 1:  # the only one whose configuration is known differs in no key
        labels = [label or cell.runs[0].run_id for label, cell in zip(labels, ordered, strict=True)]
    points = tuple(
        _point(cell, kind, base, label) for cell, label in zip(ordered, labels, strict=True)
    )
    knee = find_knee([(p.size, p.throughput) for p in points]) if kind == "batch" else None
    return Study(kind, series, points, watermarks(kind, ordered, points), knee)


def _size(cell: Cell, kind: str) -> int | None:
    return cell.batch_size if kind == "batch" else cell.world_size


def _base(cells: Sequence[Cell], kind: str) -> Cell | None:
    """The smallest that ran; of several of its size the fastest."""
    able = [cell for cell in cells if cell.walls and _size(cell, kind)]
    return min(
        able, key=lambda cell: (_size(cell, kind), sum(cell.walls) / len(cell.walls)), default=None
    )


def _point(cell: Cell, kind: str, base: Cell | None, label: str) -> Point:
    first = cell.runs[0]
    good = cell.good
    pops = [found for run in good if (found := pop(run)) is not None]
    parts = mean_parts(good)
    speedup, efficiency, other = _scaling(cell, kind, base)
    return Point(
        label=label,
        size=_size(cell, kind),
        base=cell is base,
        tp=first.tp,
        pp=first.pp,
        runs=len(good),
        failures=cell.failures,
        wall_s=mean([Fraction(wall, 10**9) for wall in cell.walls]),
        speedup=speedup,
        efficiency=efficiency,
        throughput_efficiency=other,
        throughput=mean(cell.throughputs),
        resource_use=mean([run.resource_use for run in good], most=1.0),
        io_s=mean([run.io_s for run in good]),
        communication_s=mean([run.communication_s for run in good]),
        wait_share=mean([run.wait_share for run in good], most=1.0),
        preprocessing_s=mean([run.preprocessing_s for run in good]),
        tpot_ms=mean([run.tpot_ms for run in good]),
        load_balance=mean([found.load_balance for found in pops], most=1.0),
        communication_efficiency=mean([found.communication_efficiency for found in pops], most=1.0),
        pop_efficiency=mean([found.parallel_efficiency for found in pops], most=1.0),
        decode_compute=mean([run.part_share("compute_ns") for run in good], most=1.0),
        decode_transfer=mean([run.part_share("comm_transfer_ns") for run in good], most=1.0),
        decode_wait=mean([run.part_share("comm_wait_ns") for run in good], most=1.0),
        limit=_limit(cell, kind, base),
        parts_ns=None if parts is None else {name: float(ns) for name, ns in parts.items()},
    )


def _scaling(
    cell: Cell, kind: str, base: Cell | None
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Speed-up, efficiency, and weak scaling's efficiency by throughput."""
    factor = None if base is None else _work(cell, base)
    if base is None or factor is None:
        return None, None, None
    grown = Fraction(_size(cell, kind) or 1, _size(base, kind) or 1)
    if cell is base:
        one = Estimate(1.0, len(cell.walls))
        return one, one, one if kind == "weak" else None
    speedup = ratio(base.walls, cell.walls, factor)
    by_throughput = ratio(base.walls, cell.walls, factor / grown)
    if kind == "weak":
        return speedup, ratio(base.walls, cell.walls), by_throughput
    return speedup, by_throughput, None


def _work(cell: Cell, base: Cell) -> Fraction | None:
    """Tokens of a cell over those of the base; None where they are unknown."""
    if not cell.tokens or not base.tokens:
        return None
    return cell.tokens / base.tokens


def _limit(cell: Cell, kind: str, base: Cell | None) -> Limit | None:
    here = mean_parts(cell.good)
    if base is None or cell is base:
        return largest(here)
    work = _work(cell, base)
    if work is None:
        return None
    grown = Fraction(_size(cell, kind) or 1, _size(base, kind) or 1)
    return limit(mean_parts(base.good), here, work / grown)
