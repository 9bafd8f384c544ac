"""`harness bench`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import format_options
from harness.cli.output import emit_rows

COLUMNS = (
    "op",
    "implementation",
    "dtype",
    "bytes",
    "group_size",
    "calls",
    "p10_us",
    "p50_us",
    "p90_us",
    "algbw_gb_s",
    "busbw_gb_s",
)


@click.group("bench")
def command() -> None:
    """Measure this machine: what a run's numbers are compared with."""


@command.command(
    "collectives",
    short_help="Floors of collectives: times when nobody is late.",
    epilog="Examples: `harness bench collectives --run latest`; "
    "`harness bench collectives --ranks 4 --groups 2,4 --sizes 4KiB:1MiB`",
)
@click.option("--run", "run", metavar="RUN", help="Measure also the sizes that this run issues.")
@click.option("--sizes", default="1KiB:64MiB", help="Doubling ranges or single sizes, or ''.")
@click.option("--ranks", type=click.IntRange(2), help="Default: those of RUN, else GPUs here.")
@click.option(
    "--groups",
    default="",
    help="Sizes of groups besides the run's (without a run: all ranks), as in 2,4.",
)
@click.option("--ops", default="", help="all_reduce, all_gather, reduce_scatter, send_recv.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (JSON).")
@click.option("-q", "--quiet", is_flag=True, help="No narration on stderr.")
@format_options
def collectives(
    run: str | None,
    sizes: str,
    ranks: int | None,
    groups: str,
    ops: str,
    dtype: str | None,
    device: str,
    output: Path | None,
    quiet: bool,
    style: str,
) -> int:
    """How long collectives take when nobody is late: floors for a run's transfers.

    NCCL and torch's symmetric memory inside CUDA graphs; gloo on a CPU. With --run the file lies
    in the run's artifacts, and `harness ingest RUN` compares the run with it.
    """
    from harness.bench import Wanted, bench_collectives
    from harness.progress import Narrator
    from harness_runners.bench.plan import OPS, parse_sizes

    wanted = Wanted(
        sizes=parse_sizes(sizes),
        run=run,
        ranks=ranks,
        groups=_numbers(groups),
        ops=tuple(name.strip() for name in ops.split(",") if name.strip()) or OPS,
        dtype=dtype,
        device=device,
    )
    document = bench_collectives(wanted, output, Narrator(quiet))
    emit_rows(COLUMNS, [[row[name] for name in COLUMNS] for row in document["rows"]], style)
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise click.BadParameter(f"{text!r} is not a list of numbers", param_hint="--groups")
    return tuple(map(int, parts))
