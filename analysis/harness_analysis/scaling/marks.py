"""What a reader must know before believing a scaling table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from harness_analysis.findings.launches import LAUNCH_BOUND
from harness_analysis.scaling.cells import Cell
from harness_analysis.scaling.facts import UNRESOLVED_AT_MOST, RunFacts
from harness_analysis.scaling.limits import pop
from harness_analysis.scaling.model import Point

FORMS_AGREE = 0.01
"""How far the two forms of weak efficiency may lie apart."""


def watermarks(kind: str, cells: Sequence[Cell], points: Sequence[Point]) -> tuple[str, ...]:
    """Sentences, the gravest first."""
    found = [
        _launch_bound(cells),
        _oversubscribed(cells),
        _different_work(kind, cells),
        _forms(points),
        _failed(points),
        _unresolved(cells, points),
        _sampled(cells),
        _single(points),
    ]
    return tuple(text for text in found if text)


def _names(values: Sequence[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _launch_bound(cells: Sequence[Cell]) -> str:
    """On a GPU: whether the device waited for its host."""
    good = [run for cell in cells for run in cell.good]
    # Of strangers' runs nobody recorded the device; one that is seen to idle is there.
    runs = [run for run in good if run.device == "cuda" or run.idle_share is not None]
    bound = [run for run in runs if run.idle_share is not None and run.idle_share > LAUNCH_BOUND]
    if bound:
        most = max(run.idle_share or 0 for run in bound)
        return (
            f"launch-bound: a rank's device idles {100 * most:.0f} % of decode at "
            f"{_names([_ranks(run) for run in bound])}; these numbers measure "
            "Python's launches, not the GPU (generation.mode = 'graph' removes them)"
        )
    eager = [run for run in runs if run.settings.get("generation.mode") != "graph"]
    if any(run.idle_share is None for run in eager):
        return (
            "may be launch-bound: eager decode on a GPU without kernel evidence; record some "
            "steps with the collector torch_profiler to tell"
        )
    return ""


def _ranks(run: RunFacts) -> str:
    if not run.settings:
        return run.run_id
    return "1 rank" if run.world_size == 1 else f"{run.world_size} ranks"


def _oversubscribed(cells: Sequence[Cell]) -> str:
    crowded = [
        run
        for cell in cells
        for run in cell.good
        if run.device == "cpu" and run.cpus and run.world_size
        if run.world_size > run.cpus * (run.hosts or 1)
    ]
    if not crowded:
        return ""
    sizes = _names(sorted({run.world_size for run in crowded if run.world_size}))
    return (
        f"{sizes} ranks shared {crowded[0].cpus} cores: there more ranks add no computing power, "
        "a waiting rank takes a core from the one it waits for, and efficiency cannot exceed "
        "cores / ranks"
    )


def _different_work(kind: str, cells: Sequence[Cell]) -> str:
    tokens = sorted({run.output_tokens for cell in cells for run in cell.good if run.output_tokens})
    if kind in ("weak", "grid") or len(tokens) < 2:
        return ""
    return (
        f"the cells did not generate the same number of tokens ({tokens[0]} to {tokens[-1]}): "
        "speed-up and efficiency compare time per token"
    )


def _forms(points: Sequence[Point]) -> str:
    for point in points:
        time, other = point.efficiency, point.throughput_efficiency
        if time and other and abs(time.value - other.value) > FORMS_AGREE * time.value:
            return (
                f"work per rank was not fixed: at {point.size} ranks the efficiency is "
                f"{time.value:.3g} by time and {other.value:.3g} by throughput"
            )
    return ""


def _failed(points: Sequence[Point]) -> str:
    failed = [
        f"{point.label or 'all'}: {_names(point.failures)}" for point in points if point.failures
    ]
    return f"runs left out: {'; '.join(failed)}" if failed else ""


def _unresolved(cells: Sequence[Cell], points: Sequence[Point]) -> str:
    """Time that is neither computing nor communicating; in the base it flatters the others."""
    shares = {id(cell): [s for run in cell.good if (s := _disturbed(run))] for cell in cells}
    everyone = [share for found in shares.values() for share in found]
    if not everyone:
        return ""
    noun = "run" if len(everyone) == 1 else "runs"
    most = f"up to {100 * max(everyone):.0f} % of their time"
    bad = [run for cell in cells for run in cell.good if _disturbed(run) is not None]
    if all((found := pop(run)) is not None and found.of_decode for run in bad):
        return (
            f"outside decode computing is not resolved in {len(everyone)} {noun} ({most}): POP "
            "efficiencies are those of decode"
        )
    text = (
        f"computing is not resolved in {len(everyone)} {noun} ({most} is unclassified"
        f"{', as when other processes take the cores' if bad[0].device == 'cpu' else ''}): "
        "no POP efficiencies from those"
    )
    base = [cell for cell, point in zip(cells, points, strict=True) if point.base]
    if any(shares[id(cell)] for cell in base) and len(cells) > 1:
        text += "; the base is among them, so speed-up and efficiency of the others look too good"
    return text


def _sampled(cells: Sequence[Cell]) -> str:
    """Of CUDA graphs, only the replays with stamps inside show what they hold."""
    runs = [run for cell in cells for run in cell.good if run.sampled_steps]
    if not runs:
        return ""
    steps = sorted(run.sampled_steps or 0 for run in runs)
    counts = f"{steps[0]} to {steps[-1]}" if steps[0] < steps[-1] else f"{steps[0]}"
    longer = 100 * max(max(run.slowed or 0, 0) for run in runs)
    return (
        f"the parts of decode are estimated from {counts} sampled steps a run, which observing "
        f"made up to {longer:.1f} % longer; wall clock, "
        "speed-up and throughput are those of all other steps"
    )


def _disturbed(run: RunFacts) -> float | None:
    share = run.unresolved_share
    return share if share is not None and share > UNRESOLVED_AT_MOST else None


def _single(points: Sequence[Point]) -> str:
    if any(point.runs == 1 for point in points):
        return "single runs carry no interval: repeat them (--repeats) before believing differences"
    return ""
