"""What the numbers rest on, what was run, and what the words mean."""

from __future__ import annotations

import json

from harness_analysis.answer import Answer
from harness_analysis.overhead.lines import overhead_lines
from harness_analysis.report.blocks import Block, Column, Facts, Listing, Note, Section, Table
from harness_analysis.report.palette import STYLES
from harness_analysis.report.sections.drawing import part_label
from harness_schemas.units import format_bytes, format_count, format_ns, format_share
from harness_schemas.vocabulary import PARTS


def evidence_section(answer: Answer) -> Section:
    """Coverage, collectors, overhead and clocks."""
    blocks: list[Block] = []
    if answer.coverage:
        blocks.append(_coverage(answer))
    if answer.collectors:
        blocks.append(_collectors(answer))
    blocks.append(_overhead(answer) if answer.overhead else Note(overhead_lines(answer)[0]))
    if answer.clocks:
        blocks.append(_clocks(answer))
    if answer.unanswered:
        blocks.append(_unanswered(answer))
    lead = (
        "What was recorded, what was not and why, what recording cost, and how finely times of "
        "different ranks may be compared."
    )
    return Section("evidence", "What this rests on", "Evidence", lead, blocks)


def _coverage(answer: Answer) -> Table:
    columns = [Column("phase", number=False), Column("ranks"), Column("of"), Column("units")]
    columns += [
        Column("cut"),
        Column("not on all ranks"),
        Column("unresolved", part="unresolved_ns"),
    ]
    columns += [Column("unsplit", part="comm_unsplit_ns"), Column("why unsplit", number=False)]
    columns += [Column("evidence", number=False)]
    rows = [
        [
            row.phase or "-",
            format_count(row.ranks),
            format_count(row.world_size),
            format_count(row.units),
            format_count(row.incomplete),
            format_count(row.trimmed),
            format_share(row.unresolved_share),
            format_share(row.unsplit_share),
            row.unsplit_reason or "-",
            row.evidence or "-",
        ]
        for row in answer.coverage
    ]
    return Table("Coverage", columns, rows)


def _collectors(answer: Answer) -> Table:
    columns = [Column("collector", number=False), Column("state", number=False)]
    columns += [Column("places"), Column("read"), Column("records"), Column("dropped")]
    columns += [Column("unreadable"), Column("reason", number=False)]
    rows = [
        [
            row.collector,
            row.state,
            format_count(row.places),
            format_bytes(row.bytes),
            format_count(row.records),
            format_count(row.dropped),
            format_count(row.unreadable),
            row.reason or "-",
        ]
        for row in answer.collectors
    ]
    return Table("Collectors", columns, rows)


def _unanswered(answer: Answer) -> Table:
    """What is empty or NULL because nobody looked."""
    names = ("cannot answer", "columns", "because")
    rows = [
        [row.relation, row.of_columns or "all", row.reason or row.needs]
        for row in answer.unanswered
    ]
    return Table("Not recorded", [Column(name, number=False) for name in names], rows)


def _overhead(answer: Answer) -> Table:
    columns = [Column("collector", number=False), Column("phase", number=False), Column("pairs")]
    columns += [Column("unit without"), Column("effect"), Column("95 % from"), Column("to")]
    rows = [
        [
            row.collector,
            row.phase or "-",
            format_count(row.pairs),
            format_ns(row.off_ns),
            format_ns(row.effect_ns),
            format_ns(row.low_ns),
            format_ns(row.high_ns),
        ]
        for row in answer.overhead
    ]
    return Table("What observing cost", columns, rows, ". ".join(overhead_lines(answer)) + ".")


def _clocks(answer: Answer) -> Table:
    columns = [Column("evidence", number=False), Column("method", number=False), Column("clocks")]
    columns += [Column("not comparable"), Column("residual, at worst")]
    columns += [Column("largest drift"), Column("measurements")]
    rows = [
        [
            row.source,
            row.method or "-",
            format_count(row.clocks),
            format_count(row.unknown),
            format_ns(row.residual_ns),
            "-" if row.largest_drift_ppb is None else f"{row.largest_drift_ppb:,} ppb",
            format_count(row.samples),
        ]
        for row in answer.clocks
    ]
    note = "Two clocks are never compared more finely than their residual."
    return Table("Clocks", columns, rows, note)


def specification_section(spec: str | None, provenance: str | None) -> Section | None:
    """The resolved specification and where the run came from."""
    listings = [
        Listing(title, _pretty(text))
        for title, text in (("Resolved specification", spec), ("Provenance", provenance))
        if text
    ]
    if not listings:
        return None
    lead = "What was run: every key with the value it had, and the versions and hosts it ran with."
    return Section("specification", "Specification", "Specification", lead, listings)


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def glossary_section() -> Section:
    """The nine parts in a sentence each."""
    facts = [(part_label(part), STYLES[part].meaning) for part in PARTS]
    lead = (
        "A window is the time of one unit of work (one decode step, one prefill) on one rank. Its "
        "nine parts add up to it; a dash means that the evidence does not say, which is not zero."
    )
    return Section("glossary", "The nine parts", "Glossary", lead, [Facts(facts, PARTS)])
