"""The answer of a run as text, 110 columns wide, without colours.

Rich lays the tables out; it writes into a string, so a terminal and a pipe get the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.cli.printing.rows import WIDTH, printable, wrapped
from harness_analysis.answer import Parts, total_parts
from harness_analysis.overhead.lines import overhead_lines
from harness_schemas.units import format_count, format_ns, format_share
from harness_schemas.vocabulary import PART_LABELS, PARTS

if TYPE_CHECKING:
    from rich.table import Table

    from harness_analysis.answer import Answer, Correctness, Coverage, RankBreakdown, Throughput

NO_RATE = "- tokens/s: no measured batch ended"
TOP_FINDINGS = 5
MOST_RANKS = 16
"""Ranks of which every one has a line; of more, those that wait least and most."""
EXTREMES = 4
LONGEST_BAR = 44
SHORTEST_BAR = 12

GLYPHS: Mapping[str, tuple[str, str]] = {
    "compute_ns": ("\u2588", "#"),
    "fused_ns": ("\u2593", "%"),
    "comm_transfer_ns": ("\u2592", "="),
    "comm_wait_ns": ("\u2571", "/"),
    "comm_unsplit_ns": ("\u2573", "x"),
    "memcpy_ns": ("\u2584", "m"),
    "io_ns": ("\u2261", "o"),
    "idle_ns": ("\u00b7", "."),
    "unresolved_ns": ("?", "?"),
}
"""Letters of the bars: for UTF-8, and for anything less. Waiting is hatched, as in the page."""

ALWAYS = frozenset({"compute_ns", "comm_transfer_ns", "comm_wait_ns", "unresolved_ns"})
"""Parts that have a column whatever their size."""


def render_answer(answer: Answer, encoding: str | None = None) -> str:
    """The answer as text that ends in a newline.

    `encoding`: what the text will be written in (default: that of stdout); other than UTF-8 the
    bars are drawn in ASCII and other letters are escaped.
    """
    name = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    unicode = name.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig")
    blocks = [_head(answer), _findings(answer), _speed(answer)]
    blocks += [_breakdown(answer, phase, unicode) for phase in answer.phases()]
    blocks += [_correctness(answer.correctness), _evidence(answer)]
    text = "\n".join(block for block in blocks if block)
    return text if unicode else text.encode("ascii", "backslashreplace").decode()


# -- what was run ------------------------------------------------------------------------------


def _head(answer: Answer) -> str:
    run = answer.run
    ended = run.status or "status unknown"
    if run.judged and run.verdict and run.verdict != run.status:
        ended += f": {run.verdict}"
    lines = [f"{run.name or run.run_id}  {ended}"]
    if run.judged and run.verdict_detail:
        lines.append(run.verdict_detail)
    shape = f"TP {_known(run.tp)} x PP {_known(run.pp)}" if run.tp or run.pp else None
    hosts = f" on {run.hosts[0]}" if len(run.hosts) == 1 else f" on {len(run.hosts)} hosts"
    ranks = "1 rank" if run.ranks == 1 else f"{run.ranks or 'unknown'} ranks"
    if run.world_size is not None and run.world_size != run.ranks:
        ranks += f" of {run.world_size}"
    facts = [shape, ranks + (hosts if run.hosts else ""), run.device, run.dtype, run.runner]
    facts.append(f"batch {run.batch_size}" if run.batch_size else None)
    facts.append(f"Slurm job {run.job_id}" if run.job_id else None)
    lines.append(", ".join(fact for fact in facts if fact))
    return wrapped(lines)


def _findings(answer: Answer) -> str:
    if not answer.findings:
        return "Nothing stands out.\n"
    table = _grid(1)
    table.show_header = False
    table.add_column(justify="right")
    for finding in answer.findings[:TOP_FINDINGS]:
        _add(table, [str(finding.position + 1), finding.severity, finding.text])
    text = "What stands out\n" + _draw(table, indent=2)
    more = len(answer.findings) - TOP_FINDINGS
    return text + (f'  {more} more: harness query RUN "FROM findings"\n' if more > 0 else "")


# -- speed -----------------------------------------------------------------------------------


def _speed(answer: Answer) -> str:
    lines = ["Speed", *(f"  {line}" for line in _throughput(answer))]
    text = wrapped(lines)
    if not answer.latency:
        return text
    table = _grid(2)
    table.add_column("")
    for head in ("count", "mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(head, justify="right")
    for row in answer.latency:
        times = (row.mean_ns, row.p50_ns, row.p90_ns, row.p95_ns, row.p99_ns, row.max_ns)
        _add(table, [row.metric.upper(), format_count(row.count), *map(format_ns, times)])
    return text + _draw(table, indent=2)


def _rate(speed: Throughput, ranks: int) -> str:
    wall = format_ns(speed.wall_s * 1e9) if speed.wall_s is not None else "-"
    tokens, requests = format_count(speed.output_tokens), format_count(speed.requests)
    line = f"{_number(speed.tok_per_s)} tokens/s ({tokens} tokens of {requests} requests in {wall})"
    return line + (f", {_number(speed.tok_per_s_per_rank)} a rank" if ranks > 1 else "")


def _throughput(answer: Answer) -> list[str]:
    speed = answer.throughput
    if speed is None:
        return [NO_RATE]
    line = NO_RATE if speed.tok_per_s is None else _rate(speed, answer.run.world_size or 1)
    if speed.step_ms is not None:
        line += f"; a decode step spans {format_ns(speed.step_ms * 1e6)} over the ranks (median)"
    if speed.cadence_ms is not None:
        line += f", one ends every {format_ns(speed.cadence_ms * 1e6)}"
    return [line]


# -- where the time went -----------------------------------------------------------------------


def _breakdown(answer: Answer, phase: str, unicode: bool) -> str:
    rows = answer.of_phase(phase)
    total = total_parts(row.parts for row in rows)
    if total is None:
        return ""
    shown = [part for part in PARTS if part in ALWAYS or total.ns[part]]
    heads = ["rank", "stage", "tp", "window", *(PART_LABELS[part] for part in shown)]
    table = _grid(1)
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("", no_wrap=True)
    room = WIDTH - 2 - sum(max(8, len(head) + 1) for head in heads)
    width = max(SHORTEST_BAR, min(LONGEST_BAR, room))
    lines = [([str(r.rank), _known(r.stage), _known(r.tp_rank)], r.parts) for r in _chosen(rows)]
    if len(rows) > 1:
        lines.append((["mean", "", ""], _mean(total, len(rows))))
    for place, parts in lines:
        _add(table, [*_part_cells(place, parts, shown), bar(parts, width, unicode)])
    return _phase_title(rows, phase) + _draw(table, indent=2) + _legend(total, shown, unicode, rows)


def _phase_title(rows: Sequence[RankBreakdown], phase: str) -> str:
    first = rows[0]
    title = "Whole run" if phase == "all" else phase.capitalize()
    units = {row.units for row in rows if row.units is not None}
    if units:
        title += f": {_range(units)} unit{'' if units == {1} else 's'} a rank"
        left_out = {row.left_out or 0 for row in rows}
        if left_out != {0}:
            title += f" ({_range(left_out)} warm-up, perturbed or cut left out)"
    else:
        title += ": first to last activity of each rank"
    return wrapped([f"{title}, {first.timeline or 'unknown'} timeline, from {first.basis}"])


def _range(counts: set[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def _chosen(rows: Sequence[RankBreakdown]) -> list[RankBreakdown]:
    """Every rank, or of many those that wait least (the late ones) and most."""
    if len(rows) <= MOST_RANKS:
        return list(rows)
    order = sorted(rows, key=lambda row: (row.parts.share("comm_wait_ns") or 0.0, row.rank))
    return [*order[:EXTREMES], *order[-EXTREMES:]]


def _part_cells(place: list[str], parts: Parts, shown: list[str]) -> list[str]:
    shares = [format_share(parts.share(part)) for part in shown]
    return [*place, format_ns(parts.window_ns), *shares]


def _mean(total: Parts, count: int) -> Parts:
    return Parts(
        total.window_ns // count,
        {part: None if ns is None else ns // count for part, ns in total.ns.items()},
    )


def bar(parts: Parts, width: int, unicode: bool = True) -> str:
    """A window as `width` letters, shared out by largest remainder."""
    if parts.window_ns <= 0:
        return ""
    exact = {part: width * (parts.share(part) or 0.0) for part in PARTS}
    cells = {part: int(value) for part, value in exact.items()}
    missing = min(width, round(sum(exact.values()))) - sum(cells.values())
    by_remainder = sorted(PARTS, key=lambda part: cells[part] - exact[part])
    for part in by_remainder[: max(0, missing)]:
        cells[part] += 1
    return "".join(GLYPHS[part][0 if unicode else 1] * cells[part] for part in PARTS)


def _legend(total: Parts, shown: list[str], unicode: bool, rows: Sequence[RankBreakdown]) -> str:
    drawn = [part for part in shown if total.ns[part]]
    keys = [f"{GLYPHS[part][0 if unicode else 1]} {PART_LABELS[part]}" for part in drawn]
    lines = ["  " + "   ".join(keys)]
    unknown = ", ".join(PART_LABELS[part] for part in PARTS if total.ns[part] is None)
    zero = ", ".join(
        PART_LABELS[part] for part in PARTS if total.ns[part] == 0 and part not in shown
    )
    absent = [f"no evidence for {unknown}"] if unknown else []
    absent += [f"none found of {zero}"] if zero else []
    notes = ["; ".join(absent)] if absent else []
    if len(rows) > MOST_RANKS:
        notes.append(
            f"{2 * EXTREMES} of {len(rows)} ranks: the {EXTREMES} that wait least and the "
            f'{EXTREMES} that wait most; all: harness query RUN "FROM rank_breakdown"'
        )
    return wrapped([*lines, *(f"  {note}" for note in notes)])


# -- what it rests on ----------------------------------------------------------------------------


def _correctness(found: Correctness | None) -> str:
    if found is None:
        return "Correctness\n  not compared with a reference\n"
    parts = [found.verdict or "verdict unknown"]
    if found.equal is not None and found.compared is not None:
        share = format_share(found.share_equal)
        parts.append(f"{found.equal} of {found.compared} tokens equal ({share})")
    if found.ties is not None:
        parts.append(f"{found.ties} declared tie{'' if found.ties == 1 else 's'}")
    if found.max_logit_diff is not None:
        parts.append(f"largest logit difference {found.max_logit_diff:.2g}")
    lines = ["Correctness", "  " + ", ".join(parts)]
    if found.why and found.verdict != "pass":
        lines.append("  " + found.why)
    return wrapped(lines)


def _evidence(answer: Answer) -> str:
    lines = ["What this rests on"]
    for row in answer.coverage:
        if row.phase in answer.phases():
            lines.append("  " + _coverage_line(row))
    if answer.unclassified_share is not None:
        share = format_share(answer.unclassified_share)
        lines.append(f"  kernels: {share} of their time known to no rule, counted as computing")
    lines.append("  " + _clock_line(answer))
    lines += [f"  {line}" for line in overhead_lines(answer)]
    lines += [f"  {line}" for line in _unanswered_lines(answer)]
    for state in answer.collectors_not_ok():
        places = f" ({state.places} places)" if state.places > 1 else ""
        reason = state.reason or "no reason recorded"
        lines.append(f"  {state.collector} {state.state}{places}: {reason}")
    return wrapped(lines)


_ASKED = ("step_breakdown", "collective_waits", "stragglers", "latency")


def _unanswered_lines(answer: Answer) -> list[str]:
    """Views of the answer that nothing was recorded for; the page has the whole list."""
    whole = [row for row in answer.unanswered if row.of_columns is None and row.relation in _ASKED]
    reasons = dict.fromkeys(row.reason for row in whole)
    return [
        f"cannot answer: {', '.join(r.relation for r in whole if r.reason == reason)}: {reason}"
        for reason in reasons
    ]


def _coverage_line(row: Coverage) -> str:
    of = f" of {row.world_size}" if row.world_size is not None else ""
    line = (
        f"{row.phase}: {row.ranks}{of} ranks, {format_count(row.units)} units, "
        f"{format_share(row.unresolved_share)} unresolved"
    )
    if row.unsplit_share:
        line += f", {format_share(row.unsplit_share)} unsplit"
        line += f" ({row.unsplit_reason})" if row.unsplit_reason else ""
    if row.trimmed:
        line += f", {format_count(row.trimmed)} units left out (not on all ranks)"
    return line + (f", {row.incomplete} units cut" if row.incomplete else "")


def _clock_line(answer: Answer) -> str:
    clocks = sum(clock.clocks for clock in answer.clocks)
    if not clocks:
        return "clocks: none recorded"
    residual = answer.clock_residual_ns()
    unknown = sum(clock.unknown for clock in answer.clocks)
    methods = ", ".join(dict.fromkeys(clock.method or "-" for clock in answer.clocks))
    line = f"clocks: {clocks} aligned ({methods})"
    if residual is not None and clocks > unknown:
        line += f", comparable within {format_ns(residual)}"
    return line + (f"; {unknown} of them with no other" if unknown else "")


# -- drawing -------------------------------------------------------------------------------------


def _grid(padding: int) -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, padding, 0, 0), collapse_padding=False)


def _add(table: Table, cells: Iterable[str]) -> None:
    from rich.text import Text

    table.add_row(*(Text(printable(cell)) for cell in cells))


def _draw(table: Table, indent: int) -> str:
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out,
        width=WIDTH - indent,
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(table)
    return "".join(f"{' ' * indent}{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
