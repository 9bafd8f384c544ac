"""Communication time against the truth: who looks slow, and for whom the others waited."""

from __future__ import annotations

from collections.abc import Sequence

from harness_analysis.report.blocks import Bar, BarColumn, BarRow, Bars, Block, Note, Section
from harness_analysis.report.numbers.blame import Blame, RankBlame, StepTimes
from harness_schemas.units import format_count, format_ns, format_share

MOST_ROWS = 16
"""Ranks that have a line; of more, those for which the others waited most and those that show
the most communication."""


def blame_section(blame: Blame | None) -> Section | None:
    """Two bars a rank, and the step without the late rank."""
    if blame is None:
        return None
    blocks: list[Block] = [_rank_bars(blame)]
    if blame.step is not None:
        blocks.append(_step_bars(blame.step))
    blocks.append(Note(basis(blame)))
    return Section(
        "truth", f"{comm_word(blame)} time against the truth", "Truth", lead(blame), blocks
    )


def comm_word(blame: Blame) -> str:
    """What a profiler calls it."""
    return "NCCL" if blame.device == "cuda" else "Communication"


def lead(blame: Blame) -> str:
    """What the picture says, in words."""
    share = blame.wait_share
    text = f"Of all time in joint collectives, {format_share(share)} is waiting. " if share else ""
    if blame.culprit is None or not any(row.rank == blame.culprit for row in blame.ranks):
        return (
            text + "No rank is shown to be late in most steps at a material cost: nobody is named."
        )
    row = blame.of_rank(blame.culprit)
    place = sorted((other.comm_ns for other in blame.ranks), reverse=True).index(row.comm_ns) + 1
    caused = sum(other.caused_ns for other in blame.ranks)
    rank = f"Rank {row.rank}, the one that the others wait for"
    if place == len(blame.ranks):
        shows = "shows the least communication time of all"
    else:
        shows = f"is number {place} of {len(blame.ranks)} by communication time"
    share_caused = format_share(row.caused_ns / caused if caused else None)
    return f"{text}{rank}, {shows}, and causes {share_caused} of the waiting."


def basis(blame: Blame) -> str:
    """What the picture rests on."""
    text = f"From {blame.source}: {format_count(blame.steps)} decode steps"
    text += "" if blame.headline else " that a collector slowed (no others tell waiting)"
    text += f", {format_count(blame.collectives)} collectives, in {format_count(blame.decided)} of "
    text += "which a last rank can be named. Times are means a step, summed over the step's "
    text += "collectives; waiting that computing hides is in them. Messages and broadcasts are "
    text += "not: they wait for a sender, in a pipeline by construction."
    if blame.step is not None:
        text += (
            " The prediction: the rank had always come with the next to last, all else as it was."
        )
    hidden = len(blame.ranks) - len(chosen_ranks(blame))
    return text + (f" {hidden} more ranks are in the tables below." if hidden else "")


def chosen_ranks(blame: Blame, most: int = MOST_ROWS) -> list[RankBlame]:
    """All ranks, or of many those that cause most waiting and those that communicate most."""
    if len(blame.ranks) <= most:
        return list(blame.ranks)
    causing = sorted(blame.ranks, key=lambda row: (-row.caused_ns, row.rank))[: most // 2]
    rest = [row for row in blame.ranks if row not in causing]
    loud = sorted(rest, key=lambda row: (-row.comm_ns, row.rank))[: most - len(causing)]
    return sorted([*causing, *loud], key=lambda row: row.rank)


def _rank_bars(blame: Blame) -> Bars:
    rows = chosen_ranks(blame)
    most_comm = max(row.comm_ns for row in rows)
    most_caused = max(row.caused_ns for row in rows)
    columns = [
        BarColumn(f"{comm_word(blame)} time", "what profilers show, a decode step"),
        BarColumn("Waiting it caused", "what happened, summed over the others"),
    ]
    drawn = [
        BarRow(
            f"rank {row.rank}",
            [
                Bar(_comm_pieces(row, most_comm), format_ns(row.comm_ns)),
                Bar(
                    [("comm_wait_ns", _part(row.caused_ns, most_caused))],
                    format_ns(row.caused_ns),
                    solid=True,
                ),
            ],
            marked=row.rank == blame.culprit,
        )
        for row in rows
    ]
    return Bars("Each rank", columns, drawn, ("comm_transfer_ns", "comm_wait_ns"))


def _comm_pieces(row: RankBlame, most: float) -> Sequence[tuple[str, float]]:
    """Transfer, then waiting; what cannot be told apart as a whole."""
    if row.transfer_ns is None or row.wait_ns is None:
        return [("comm_unsplit_ns", _part(row.comm_ns, most))]
    transfer = min(row.transfer_ns, row.comm_ns)
    waits = min(row.wait_ns, row.comm_ns - transfer)
    pieces = [("comm_transfer_ns", transfer), ("comm_wait_ns", waits)]
    pieces.append(("comm_unsplit_ns", row.comm_ns - transfer - waits))
    return [(part, _part(ns, most)) for part, ns in pieces if ns > 0]


def _part(ns: float, most: float) -> float:
    return ns / most if most else 0.0


def step_lines(step: StepTimes) -> list[tuple[str, str, float]]:
    """(what, part that colours it, nanoseconds) of the measured and the predicted step."""
    lines = [
        ("measured", "comm_wait_ns", step.measured_ns),
        (f"predicted without rank {step.rank}'s lateness", "compute_ns", step.predicted_ns),
    ]
    if step.baseline_ns is not None:
        lines.append(
            (f"measured without it ({step.baseline})", "comm_transfer_ns", step.baseline_ns)
        )
    return lines


def _step_bars(step: StepTimes) -> Bars:
    lines = step_lines(step)
    most = max(ns for _, _, ns in lines)
    rows = [
        BarRow(what, [Bar([(part, _part(ns, most))], format_ns(ns), True)])
        for what, part, ns in lines
    ]
    return Bars("The decode step", [BarColumn("a decode step, median", "")], rows, ())
