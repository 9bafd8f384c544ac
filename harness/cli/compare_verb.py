"""`harness compare`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import HTML, check_ending, format_options
from harness.cli.output import emit


@click.command(
    "compare",
    epilog="Example: `harness compare runs/before runs/after --fail-on 'tpot_p50 > +5%'`",
)
@click.argument("runs", nargs=-1, required=True, metavar="A [B ...]")
@click.option(
    "--fail-on",
    "conditions",
    multiple=True,
    metavar="GATE",
    help="Exit 1 when METRIC > CHANGE or METRIC < CHANGE is shown, 3 when that cannot be told; "
    "CHANGE is what B adds: +5%, +200us. Repeatable.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Also write an HTML page.")
@click.option("--ranks", is_flag=True, help="Show every rank's parts, not only those that moved.")
@format_options
def command(
    runs: tuple[str, ...],
    conditions: tuple[str, ...],
    html: Path | None,
    ranks: bool,
    style: str,
) -> int:
    """Say what changed from A to B, by how much, how surely, and why.

    A and B are runs, databases, globs or folders of runs. One name is one side, and its runs
    repeat each other; a sweep makes a side of each of its cells. The first side is the baseline.
    """
    from harness.cli.printing.comparison import render_comparisons
    from harness.runs.sides import load_named
    from harness_analysis.compare import compare_sides
    from harness_analysis.compare.gates import exit_state, parse_gate
    from harness_analysis.compare.sides import pair_sides
    from harness_schemas.errors import ExitCode

    check_ending("--html", html, HTML)
    gates = [parse_gate(text) for text in conditions]
    pairs = pair_sides(load_named(runs, lambda line: click.echo(line, err=True)))
    found = [compare_sides(a, b, gates) for a, b in pairs]
    emit(render_comparisons(found, style, ranks))
    if html is not None:
        from harness_analysis.report.compare import write_comparison

        write_comparison(found, html)
        click.echo(f"page: {html}", err=True)
    results = [result for comparison in found for result in comparison.gates]
    if style != "table":
        for result in results:
            click.echo(f"gate {result.gate}: {result.state}; {result.reason}", err=True)
    codes = {"failed": ExitCode.GATE_FAILED, "cannot tell": ExitCode.UNDERPOWERED}
    return int(codes.get(exit_state(results), ExitCode.OK))
