"""`harness run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import emit

if TYPE_CHECKING:
    from harness.session import RunResult
    from harness_schemas.spec import RunSpec


@click.command(
    "run",
    context_settings={"ignore_unknown_options": False},
    epilog="Examples: `harness run examples/quickstart.toml --set parallel.tp=1`; "
    "`harness run -- torchrun --nproc-per-node 2 mine.py`",
)
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@click.argument("wrapped", nargs=-1, type=click.UNPROCESSED)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--name", help="Name of the run.")
@click.option("--output", metavar="DIR", help="Folder in which the run's folder is made.")
@click.option(
    "--inject", metavar="rank=R,delay=D,every=step|layer", help="Delay a rank on purpose."
)
@click.option("--override/--no-override", default=None, help="Tokenise again / use the cache.")
@click.option("--strict", is_flag=True, help="A collector that cannot run is an error.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="No narration on stderr.")
def command(
    spec: Path | None,
    wrapped: tuple[str, ...],
    overrides: tuple[str, ...],
    name: str | None,
    output: str | None,
    inject: str | None,
    override: bool | None,
    strict: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Run SPEC (TOML, YAML or JSON) and say where every step went.

    With `-- COMMAND...` instead of SPEC, wrap any command unchanged. The exit code is the
    workload's own; 125: the harness failed, 124: timed out, 2: usage, 130: interrupted.
    """
    from harness.progress import Narrator

    narrator = Narrator(quiet)
    if spec is None or wrapped:
        from harness.wrap import plan_wrap, run_wrapped

        argv = tuple(str(part) for part in ((spec,) if spec else ())) + wrapped
        if not argv:
            raise click.UsageError("name a specification, or a command after --")
        plan = plan_wrap(argv, Path(output or "runs"), name)
        if dry_run:
            emit(plan.describe())
            return 0
        return _conclude(run_wrapped(plan, narrator), narrator)
    from harness.specfile import load_spec

    extra = [*overrides, *_options_as_overrides(name, output, inject, override)]
    return _run_spec(load_spec(spec, extra), narrator, strict, dry_run)


def _run_spec(spec: RunSpec, narrator: Any, strict: bool, dry_run: bool) -> int:
    from harness.session import plan_run, run_spec
    from harness_schemas.rundir import name_run

    if dry_run:
        emit(plan_run(spec, name_run(Path(spec.output.dir), spec.name), strict).describe())
        return 0
    return _conclude(run_spec(spec, narrator, strict), narrator)


def _conclude(result: RunResult, narrator: Any) -> int:
    """Print the answer on stdout, what to do next on stderr; return the exit code."""
    from harness.cli.report_verb import answer_text

    outcome = result.outcome
    for problem in result.problems:
        narrator.say(f"no database: {problem}")
    if not result.problems:
        emit(answer_text(result.run.database))
    if outcome.verdict != "ok":
        narrator.say(f"verdict: {outcome.verdict}: {outcome.detail or ''}")
        for line in outcome.tail:
            narrator.say(f"  | {line}")
    narrator.say("next:")
    narrator.say(f"  harness report {result.run.path} --html")
    narrator.say(f'  harness query {result.run.path} "FROM step_breakdown LIMIT 20"')
    return result.exit_code


def _options_as_overrides(
    name: str | None, output: str | None, inject: str | None, override: bool | None
) -> list[str]:
    import json

    found = []
    if name is not None:
        found.append(f"name={json.dumps(name)}")
    if output is not None:
        found.append(f"output.dir={json.dumps(output)}")
    if override is not None:
        found.append(f"prompts.override={'true' if override else 'false'}")
    for part in inject.split(",") if inject else []:
        key, sign, value = part.partition("=")
        if not sign:
            raise click.BadParameter(f"{part!r} is not key=value", param_hint="--inject")
        text = value if key.strip() == "rank" else json.dumps(value.strip())
        found.append(f"inject.{key.strip()}={text}")
    return found
