"""`harness plan`."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import format_options
from harness.cli.output import emit_sections

DTYPES = ("float32", "bfloat16", "float16")


@click.command(
    "plan",
    epilog="Examples: `harness plan examples/quickstart.toml`; "
    "`harness plan --model-config llama-3.3-70b --tp 8 --pp 2 --gpu h100-80g`; "
    "`harness plan latest`",
)
@click.argument("what", required=False, metavar="[SPEC | RUN]")
@click.option(
    "--model-config", metavar="MODEL", help="A config.json, its folder, or a shipped shape."
)
@click.option("--tp", type=click.IntRange(1), help="Ranks that share a layer; default: suggested.")
@click.option("--pp", type=click.IntRange(1), help="Pipeline stages.")
@click.option("--layers", metavar="N,N,N", help="Layers of each stage, as in 27,26,27.")
@click.option("--batch", type=click.IntRange(1), help="Requests decoded together.")
@click.option("--microbatches", type=click.IntRange(1), help="Micro-batches in flight.")
@click.option("--context", type=click.IntRange(1), help="Tokens held a request at the end.")
@click.option("--prompt", type=click.IntRange(1), help="Tokens prefilled a request.")
@click.option("--dtype", type=click.Choice(DTYPES), help="Weights and activations.")
@click.option("--kv-dtype", type=click.Choice([*DTYPES, "fp8"]), help="Keys and values.")
@click.option(
    "--gpu", metavar="CARD", help="Card, as in h100-80g (its default), h200, a100-80g, t4."
)
@click.option("--gpus-per-node", type=click.IntRange(1), help="Default: 8.")
@click.option(
    "--measured", multiple=True, metavar="FILE|RUN", help="Take floors and peaks from these."
)
@click.option("--only", metavar="TABLE", help="model, memory, ranks, step, splits or measured.")
@format_options
def command(
    what: str | None,
    model_config: str | None,
    measured: tuple[str, ...],
    only: str | None,
    style: str,
    **options: Any,
) -> int:
    """Memory of every GPU and the floor of a step, before running; with RUN: against a run.

    Says which splits and batches fit a card and suggests one. Every number comes with its
    formula; estimates, datasheet figures and assumptions are called so.
    """
    from harness.planning.request import Options, parse_layers
    from harness.planning.session import make_sections
    from harness_schemas.errors import UsageError

    options["layers"] = parse_layers(options["layers"])
    sections = make_sections(what, model_config, Options(**options), measured)
    if only is not None:
        chosen = [section for section in sections if section.key == only]
        if not chosen:
            names = ", ".join(section.key for section in sections)
            raise UsageError(f"there is no table {only!r} here", f"there are {names}")
        sections = chosen
    emit_sections(sections, style)
    return 0
