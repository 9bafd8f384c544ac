"""The top of the page: headline numbers and findings; latency and correctness in full."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness_analysis.answer import Answer, Correctness, Latency, total_parts
from harness_analysis.report.blocks import (
    Block,
    Column,
    Facts,
    Finding,
    Findings,
    Note,
    Section,
    Table,
    Tile,
    Tiles,
)
from harness_analysis.report.sections.parts import composition
from harness_schemas.units import format_count, format_ns, format_share

MOST_FINDINGS = 12
MOST_PROMPTS = 50
MAIN_PHASES = ("decode", "mixed", "prefill", "all")
"""Of which the page's first bar is drawn: the first that the run has."""
LATENCIES = {
    "ttft": "time to first token",
    "itl": "gap between tokens",
    "tpot": "time per output token after the first",
    "e2e": "request, start to last token",
}


def summary_section(answer: Answer) -> Section:
    """Headline numbers and what stands out."""
    blocks: list[Block] = [Tiles(_tiles(answer))]
    phase = _main_phase(answer)
    whole = composition(answer, phase) if phase else None
    if whole is not None:
        blocks.append(whole)
    blocks.append(_findings(answer))
    return Section("answer", "The answer", "Answer", "", blocks)


def _tiles(answer: Answer) -> list[Tile]:
    tiles = [_speed_tile(answer)]
    by_metric = {row.metric: row for row in answer.latency}
    for metric in ("ttft", "tpot"):
        tiles.append(_latency_tile(metric, by_metric.get(metric)))
    phase = _main_phase(answer)
    if phase:
        tiles += _share_tiles(answer, phase)
    tiles.append(_correctness_tile(answer.correctness))
    return tiles


def _main_phase(answer: Answer) -> str | None:
    present = answer.phases()
    return next((phase for phase in MAIN_PHASES if phase in present), None)


def _speed_tile(answer: Answer) -> Tile:
    speed = answer.throughput
    if speed is None or speed.tok_per_s is None:
        return Tile("-", "tokens/s", "no measured batch ended")
    wall = format_ns(None if speed.wall_s is None else speed.wall_s * 1e9)
    tokens, requests = format_count(speed.output_tokens), format_count(speed.requests)
    detail = f"{tokens} tokens of {requests} requests in {wall}"
    return Tile(_number(speed.tok_per_s), "tokens/s", detail)


def _latency_tile(metric: str, row: Latency | None) -> Tile:
    label = f"{metric.upper()}, median"
    if row is None:
        return Tile("-", label, "not measured")
    detail = f"p99 {format_ns(row.p99_ns)}, {format_count(row.count)} values"
    return Tile(format_ns(row.p50_ns), label, detail)


def _share_tiles(answer: Answer, phase: str) -> list[Tile]:
    rows = answer.of_phase(phase)
    total = total_parts(row.parts for row in rows)
    if total is None:
        return []
    of = "run" if phase == "all" else phase
    ranks = "1 rank" if len(rows) == 1 else f"mean of {len(rows)} ranks"
    transfer = format_share(total.share("comm_transfer_ns"))
    return [
        Tile(format_share(total.share("compute_ns")), f"{of} computing", ranks),
        Tile(
            format_share(total.share("comm_wait_ns")),
            f"{of} waiting",
            f"for other ranks; {transfer} moving data",
        ),
    ]


def _correctness_tile(found: Correctness | None) -> Tile:
    label = "correctness"
    if found is None:
        return Tile("-", label, "not compared with a reference")
    if found.equal is None or found.compared is None:
        return Tile(found.verdict or "-", label, found.why or "")
    ties = ""
    if found.ties:
        ties = f", {found.ties} declared tie{'' if found.ties == 1 else 's'}"
    equal = f"{format_count(found.equal)} of {format_count(found.compared)} tokens equal{ties}"
    return Tile(found.verdict or "-", label, equal)


def _findings(answer: Answer) -> Findings:
    shown = [Finding(f.severity, f.text) for f in answer.findings[:MOST_FINDINGS]]
    more = len(answer.findings) - len(shown)
    note = f'{more} more: harness query RUN "FROM findings"' if more > 0 else ""
    return Findings(shown, note if shown else "Nothing stands out.")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# -- latency --------------------------------------------------------------------------------


def latency_section(rows: Sequence[Latency]) -> Section | None:
    """Percentiles, each with the number of values it rests on."""
    if not rows:
        return None
    columns = [Column("", number=False), Column("count")]
    columns += [Column(name) for name in ("mean", "p50", "p90", "p95", "p99", "max")]
    cells = []
    for row in rows:
        times = (row.mean_ns, row.p50_ns, row.p90_ns, row.p95_ns, row.p99_ns, row.max_ns)
        cells.append([row.metric.upper(), format_count(row.count), *map(format_ns, times)])
    lead = "Warm-up and perturbed requests are left out. A percentile is only as good as its count."
    said = [
        f"{row.metric.upper()}: {LATENCIES[row.metric]}" for row in rows if row.metric in LATENCIES
    ]
    table = Table("Percentiles", columns, cells, "; ".join(said) + ".")
    return Section("latency", "Latency", "Latency", lead, [table])


# -- correctness ----------------------------------------------------------------------------


def correctness_section(found: Correctness | None) -> Section:
    """The comparison with a single-process reference."""
    lead = (
        "Greedy tokens and logits against a single-process reference. A tie is a token whose "
        "choice lies within the measured logit error."
    )
    if found is None:
        note = Note("This run was not compared with a reference.")
        return Section("correctness", "Correctness", "Correct?", lead, [note])
    share = format_share(found.share_equal)
    difference = None if found.max_logit_diff is None else f"{found.max_logit_diff:.3g}"
    facts = [
        ("verdict", found.verdict or "unknown"),
        ("why", found.why or "-"),
        ("tokens compared", format_count(found.compared)),
        ("equal", f"{format_count(found.equal)} ({share})"),
        ("declared ties", format_count(found.ties)),
        ("largest logit difference", difference or "-"),
    ]
    facts += [
        (name.replace("_", " "), _value(value))
        for name, value in found.details.items()
        if name != "per_prompt" and len(json.dumps(value)) < 200
    ]
    blocks: list[Block] = [Facts(facts)]
    prompts = found.details.get("per_prompt")
    if isinstance(prompts, list) and prompts:
        blocks.append(_prompt_table([row for row in prompts if isinstance(row, dict)]))
    return Section("correctness", "Correctness", "Correct?", lead, blocks)


def _prompt_table(prompts: Sequence[dict[str, object]]) -> Table:
    """Whatever the comparison says of each prompt."""
    names = list(dict.fromkeys(["id", *(name for row in prompts for name in row)]))
    columns = [Column(name.replace("_", " "), number=name != "id") for name in names]
    rows = [[_value(row.get(name)) for name in names] for row in prompts[:MOST_PROMPTS]]
    more = len(prompts) - len(rows)
    note = f"{more} more prompts were compared." if more > 0 else ""
    return Table("Prompt by prompt", columns, rows, note)


def _value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
