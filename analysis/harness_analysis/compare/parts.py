"""The effect of B against A on every part of a phase's units, over the ranks and rank by rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness_analysis.compare.effects import (
    CANNOT,
    NO_DIFFERENCE,
    SEED,
    Effect,
    Side,
    draw_blocks,
    pair_runs,
    runs_method,
    word_of,
)
from harness_analysis.compare.load import Floats, RunData
from harness_analysis.compare.stats import (
    Counts,
    Interval,
    between_runs,
    chance,
    discoveries,
    from_draws,
)
from harness_schemas.vocabulary import PARTS


@dataclass(frozen=True)
class Columns:
    """A phase of one run as a table: a row a unit, a column a part (of a rank), NaN: unknown."""

    keys: tuple[object, ...]
    window: Floats
    values: Floats
    names: tuple[tuple[str, int | None], ...]
    """(part, rank) of each column; rank None: mean over ranks."""


WINDOW = "window_ns"


def part_effects(a: Side, b: Side, phase: str) -> list[Effect]:
    """Effects on every part of a phase's units: mean over ranks, then rank by rank.

    Ranks are compared one by one only where both sides cut the model in the same way. So many
    intervals exclude zero by chance; a rank's word is given by the false discovery rate.
    """
    runs_a, runs_b, paired = pair_runs(a, b)
    reason = _parts_why_not(runs_a, runs_b, phase)
    if reason:
        return [Effect(f"{phase}.window", "ns", None, None, None, CANNOT, reason,
                       phase=phase, part=WINDOW)]  # fmt: skip
    by_rank = same_layout(runs_a, runs_b, phase)

    def effects_of(estimated: bool) -> list[Effect]:
        first = [phase_columns(run, phase, by_rank, estimated) for run in runs_a]
        second = [phase_columns(run, phase, by_rank, estimated) for run in runs_b]
        if len(runs_a) == len(runs_b) == 1:
            return _within_columns(phase, first[0], second[0])
        return _between_columns(phase, first, second, paired)

    effects = effects_of(estimated=False)
    if _told_by_samples((*runs_a, *runs_b), phase):
        effects = [e for e in effects if e.part == WINDOW]
        effects += [
            dataclasses.replace(e, method=f"{e.method}, sampled and scaled to the others' length")
            for e in effects_of(estimated=True)
            if e.part != WINDOW
        ]
    return _only_discoveries(effects)


def _told_by_samples(runs: Sequence[RunData], phase: str) -> bool:
    """Whether computing is known of sampled units only in some runs, and of headline units in the
    others."""
    rest = [run for run in runs if phase not in run.estimated]
    compute = PARTS.index("compute_ns")
    told = all(np.isfinite(run.phases[phase].parts[:, :, compute]).any() for run in rest)
    return len(rest) < len(runs) and told


def _parts_why_not(runs_a: Sequence[RunData], runs_b: Sequence[RunData], phase: str) -> str:
    bases = []
    for label, runs in (("A", runs_a), ("B", runs_b)):
        lacking = [run.name for run in runs if phase not in run.phases]
        if lacking:
            return f"{label}: no {phase} units in {lacking[0]}"
        bases.append("; ".join(sorted({run.phases[phase].basis for run in runs})))
    if bases[0] != bases[1]:
        return f"A rests on the {bases[0]}, B on the {bases[1]}"
    return ""


def same_layout(runs_a: Sequence[RunData], runs_b: Sequence[RunData], phase: str) -> bool:
    """Whether rank r has the same share of the model on both sides."""
    layouts = {
        (run.row.get("tp"), run.row.get("pp"), run.phases[phase].ranks)
        for run in (*runs_a, *runs_b)
    }
    return len(layouts) == 1


def phase_columns(run: RunData, phase: str, by_rank: bool, estimated: bool) -> Columns:
    """Means over ranks, then the ranks' own columns; `estimated`: of sampled units, if there are
    any."""
    units = (run.estimated if estimated and phase in run.estimated else run.phases)[phase]
    cube = np.concatenate((units.window[:, :, None], units.parts), axis=2)
    parts = (WINDOW, *PARTS)
    known = np.isfinite(cube)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, cube, 0).sum(axis=1) / known.sum(axis=1)
    names: list[tuple[str, int | None]] = [(part, None) for part in parts]
    values = mean
    if by_rank:
        names += [(part, rank) for rank in units.ranks for part in parts]
        values = np.concatenate((mean, cube.reshape(len(cube), -1)), axis=1)
    return Columns(units.keys, mean[:, 0], values, tuple(names))


def _between_columns(
    phase: str, a: Sequence[Columns], b: Sequence[Columns], paired: bool
) -> list[Effect]:
    means = [np.array([_column_means(table.values) for table in side]) for side in (a, b)]
    method = runs_method(len(a), len(b), paired)
    sizes = [sum(len(table.keys) for table in side) for side in (a, b)]
    found = []
    for k, name in enumerate(a[0].names):
        first, second = (side[:, k] for side in means)
        if np.isfinite(first).all() and np.isfinite(second).all():
            interval = between_runs(first, second, paired, SEED)
            found.append(_part_effect(phase, name, first, second, sizes, interval, method))
        elif np.isfinite(first).any() or np.isfinite(second).any():
            found.append(_part_effect(phase, name, first, second, sizes, None, method))
    return found


def _column_means(values: Floats) -> Floats:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))


def _within_columns(phase: str, first: Columns, second: Columns) -> list[Effect]:
    blocks = draw_blocks("step", first.keys, second.keys, first.window, second.window)
    sizes = [len(first.keys), len(second.keys)]
    means = [_column_means(table.values) for table in (first, second)]
    drawn = None
    if not isinstance(blocks, str):
        drawn = [
            _drawn_columns(table.values, counts)
            for table, counts in ((first, blocks.counts_a), (second, blocks.counts_b))
        ]
    found = []
    for k, name in enumerate(first.names):
        one, other = (side[k : k + 1] for side in means)
        if not (np.isfinite(one).any() or np.isfinite(other).any()):
            continue
        interval, why = None, blocks if isinstance(blocks, str) else ""
        if drawn is not None and np.isfinite(one).all() and np.isfinite(other).all():
            assert not isinstance(blocks, str)
            points = (float(one[0]), float(other[0]))
            interval = from_draws(*points, drawn[0][:, k], drawn[1][:, k], blocks.units)
        method = "" if isinstance(blocks, str) else blocks.method
        found.append(_part_effect(phase, name, one, other, sizes, interval, method, why))
    return found


def _drawn_columns(values: Floats, counts: Counts) -> Floats:
    known = np.isfinite(values)
    weights = counts.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ np.where(known, values, 0)) / (weights @ known))


def _part_effect(
    phase: str,
    name: tuple[str, int | None],
    a: Floats,
    b: Floats,
    counts: Sequence[int],
    interval: Interval | None,
    method: str,
    why: str = "",
) -> Effect:
    part, rank = name
    known = [float(side.mean()) if np.isfinite(side).all() else None for side in (a, b)]
    label = f"{phase}.{part.removesuffix('_ns').removeprefix('comm_')}"
    label += "" if rank is None else f"[{rank}]"
    word = CANNOT if interval is None else word_of(interval)
    reason = ""
    if interval is None:
        lacking = [side for side, value in zip("AB", known, strict=True) if value is None]
        reason = f"unknown in {' and '.join(lacking)}" if lacking else why
    return Effect(
        label, "ns", known[0], known[1], interval, word, reason, method, counts[0], counts[1],
        phase=phase, part=part, rank=rank,
    )  # fmt: skip


def _only_discoveries(effects: list[Effect]) -> list[Effect]:
    """Rank by rank, words only for what chance among so many does not explain."""
    asked = [
        k for k, effect in enumerate(effects)
        if effect.rank is not None and effect.interval is not None
    ]  # fmt: skip
    kept = discoveries([chance(interval) for k in asked if (interval := effects[k].interval)])
    for k, keep in zip(asked, kept, strict=True):
        if not keep:
            effects[k] = dataclasses.replace(effects[k], word=NO_DIFFERENCE)
    return effects
