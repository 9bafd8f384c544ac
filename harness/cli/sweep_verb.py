"""`harness sweep`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import format_options, refuse_given
from harness.cli.output import emit_rows

if TYPE_CHECKING:
    from harness.progress import Narrator
    from harness.sweep.folder import Done
    from harness.sweep.plan import Item, SweepPlan
    from harness.sweep.refusals import Refusals
    from harness_schemas.spec.sweep import SweepSpec

DRY_COLUMNS = ("cell", "ranks", "runs", "done", "failed", "seconds", "seconds_from", "key")


@click.command(
    "sweep",
    epilog="Examples: `harness sweep examples/strong.toml`; `harness sweep SPEC --preset batch "
    "--repeats 3`; `harness sweep SPEC --grid parallel.tp=1,2 --grid generation.batch_size=1,4`",
)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--grid", multiple=True, metavar="KEY=V,V", help="Values of a key; repeatable.")
@click.option("--preset", type=click.Choice(["strong", "weak", "batch"]), help="A known study.")
@click.option("--ranks", metavar="1,2,4", help="Ranks of the presets strong and weak.")
@click.option("--axis", type=click.Choice(["tp", "pp"]), help="What grows with the ranks.")
@click.option("--batches", metavar="1,2,4", help="Batch sizes of the preset batch.")
@click.option("--repeats", type=click.IntRange(1), help="Times every cell is run, interleaved.")
@click.option("--budget-gpuh", type=click.FloatRange(0, min_open=True), help="Refuse more.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--name", metavar="NAME", help="Name of the sweep.")
@click.option(
    "--output",
    metavar="DIR",
    envvar=["HARNESS_SWEEP_OUTPUT", "HARNESS_OUTPUT"],
    help="Folder in which the sweep's folder is made.",
)
@click.option("--retry-failed", is_flag=True, help="Run failed cells again.")
@click.option("--fresh", is_flag=True, help="Begin a new folder; do not go on in an earlier one.")
@click.option("--strict", is_flag=True, help="A collector that cannot run is an error.")
@click.option(
    "--launcher",
    type=click.Choice(["auto", "local", "slurm"]),
    help="slurm: one job with a step a run.",
)
@click.option("--array", is_flag=True, help="With --launcher slurm: a job array, a task a run.")
@click.option("--detach", is_flag=True, help="Submit to Slurm and do not wait.")
@click.option("--dry-run", is_flag=True, help="List the cells and what they cost, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="No narration on stderr.")
@format_options
def command(spec: Path, style: str, **options: Any) -> int:
    """Run SPEC with every combination of the given values, into one folder.

    What is varied stands in the table [sweep] of SPEC, or in options, which override it. Called
    again, it goes on where it ended: runs that are done are not run again, also when values or
    repeats were added. A cell that fails is recorded, and the rest continued; one that cannot run
    here (a layout that the model does not allow) is named before anything starts.

    Exit code 0: every run is good; 1: some failed; 2: wrong or over the budget, nothing was
    started; 125: the harness failed; 130: interrupted.
    """
    from harness.progress import Narrator
    from harness.sweep.estimate import check_budget, earlier_walls, estimate
    from harness.sweep.execute import run_sweep, session_runner
    from harness.sweep.folder import done_runs, pending, sweep_folder
    from harness.sweep.refusals import refused_runs

    data, sweep = _read(spec, options)
    if sweep.preset not in ("strong", "weak"):
        refuse_given({"ranks": "--ranks", "axis": "--axis"}, "--preset strong or weak")
    if sweep.preset != "batch":
        refuse_given({"batches": "--batches"}, "--preset batch")
    plan, root = _plan(spec, data, sweep)
    folder = sweep_folder(root, plan, options["fresh"])
    done = done_runs(folder)
    walls = earlier_walls(root)
    every = pending(plan, done, options["retry_failed"])
    refusals = _refusals(plan, every, options)
    left = [item for item in every if item.cell.key not in refusals]
    cost = estimate(left, walls)
    narrator = Narrator(options["quiet"])
    narrator.say(f"sweep {folder}: {len(plan.cells)} cells x {plan.repeats}, {len(left)} to run")
    for cell in (cell for cell in plan.cells if cell.key in refusals):
        narrator.say(f"  {cell.label} cannot run and is left out: {refusals[cell.key]}")
    narrator.say(cost.sentence())
    if left and _through_slurm(plan, options):
        check_budget(cost, sweep.budget_gpuh)
        refused = refused_runs(every, refusals)
        return _submit(plan, folder, left, refused, narrator, spec, options, style)
    if options["dry_run"]:
        emit_rows(DRY_COLUMNS, _dry_rows(plan, done, walls, refusals), style)
        return 0
    check_budget(cost, sweep.budget_gpuh)
    runner = session_runner(folder, plan.sweep_id, narrator, options["strict"])
    result = run_sweep(plan, folder, runner, narrator, options["retry_failed"], refusals)
    _conclude(folder, result.interrupted, narrator, style)
    return result.exit_code


def _refusals(plan: SweepPlan, left: list[Item], options: dict[str, Any]) -> Refusals:
    """Cells that cannot run: on this machine, or, as far as this node can tell, in a job."""
    from harness.jobs.submit import slurm_problems
    from harness.sweep.refusals import find_refusals
    from harness_runners.preflight import preflight

    return find_refusals(left, slurm_problems if _through_slurm(plan, options) else preflight)


def _through_slurm(plan: SweepPlan, options: dict[str, Any]) -> bool:
    """Whether the sweep is to be submitted: asked for, and this is no job already."""
    import os

    kind = options["launcher"] or plan.cells[0].spec.launcher.kind
    if kind != "slurm" and (options["array"] or options["detach"]):
        raise click.UsageError("--array and --detach go with --launcher slurm")
    return kind == "slurm" and not os.environ.get("SLURM_JOB_ID")


def _submit(
    plan: SweepPlan,
    folder: Path,
    left: list[Item],
    refused: Done,
    narrator: Narrator,
    spec: Path,
    options: dict[str, Any],
    style: str,
) -> int:
    """Submit what is left; the script is what `--dry-run` prints."""
    from harness.cli.output import emit
    from harness.jobs.sweep import plan_sweep_job, see_sweep_through, submit_sweep
    from harness_slurm.job.controller import Controller

    words = _words(spec.absolute(), folder, options)
    job = replace(plan_sweep_job(plan, folder, left, words, options["array"]), refused=refused)
    if options["dry_run"]:
        emit((job.theirs or job.script).rstrip("\n"))
        return 0
    controller = Controller()
    record = submit_sweep(job, narrator, controller)
    if options["detach"]:
        emit(record.job_id)
        return 0
    code = see_sweep_through(job, record, narrator, controller)
    if code != 130:
        _conclude(folder, False, narrator, style)
    return code


def _words(spec: Path, folder: Path, options: dict[str, Any]) -> list[str]:
    """The same sweep as the job itself runs it: in the folder that was begun."""
    words = [str(spec), "--output", str(folder.parent.absolute())]
    for name in ("name", "preset", "ranks", "axis", "batches", "repeats", "budget_gpuh"):
        if options[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    for flag, values in (("--grid", options["grid"]), ("--set", options["overrides"])):
        words += [word for value in values for word in (flag, value)]
    words += ["--strict"] if options["strict"] else []
    return [*words, "--retry-failed"] if options["retry_failed"] else words


def _read(spec: Path, options: dict[str, Any]) -> tuple[dict[str, Any], SweepSpec]:
    """The specification's keys, and its table [sweep] with the options put over it."""
    import json

    from pydantic import ValidationError

    from harness.setup.specfile import problems_of, read_spec
    from harness.sweep.plan import parse_grid
    from harness_schemas.errors import SpecError, UsageError
    from harness_schemas.spec.sweep import SweepSpec

    named = [("name", options["name"]), ("output.dir", options["output"])]
    more = [f"{key}={json.dumps(value)}" for key, value in named if value is not None]
    data = read_spec(spec, [*options["overrides"], *more])
    table = data.pop("sweep", {})
    if not isinstance(table, dict):
        raise UsageError(f"{spec}: [sweep] is not a table")
    for name in ("preset", "axis", "repeats", "budget_gpuh"):
        if options[name] is not None:
            table[name] = options[name]
    for name in ("ranks", "batches"):
        if options[name] is not None:
            table[name] = parse_grid(f"{name}={options[name]}")[1]
    if options["grid"]:
        table["grid"] = {**table.get("grid", {}), **dict(map(parse_grid, options["grid"]))}
    try:
        return data, SweepSpec.model_validate(table)
    except ValidationError as error:
        problems = [(f"sweep.{path}", text) for path, text in problems_of(error, SweepSpec)]
        raise SpecError(str(spec), problems) from None


def _plan(spec: Path, data: dict[str, Any], sweep: SweepSpec) -> tuple[SweepPlan, Path]:
    from harness.sweep.plan import plan_sweep

    plan = plan_sweep(data, sweep, spec)
    return plan, Path(plan.cells[0].spec.output.dir)


def _dry_rows(
    plan: SweepPlan, done: Done, walls: dict[str, float], refusals: Refusals
) -> list[tuple[Any, ...]]:
    from harness.sweep.estimate import estimate_cell

    rows = []
    for cell in plan.cells:
        runs = [done[place] for r in range(plan.repeats) if (place := (cell.key, r)) in done]
        good = sum(run.good for run in runs)
        cost = estimate_cell(cell, walls)
        counts = (cell.spec.world_size, plan.repeats, good, len(runs) - good)
        refused = cell.key in refusals
        expected = (None, "cannot run here") if refused else (cost.seconds, cost.how)
        rows.append((cell.label, *counts, *expected, cell.key))
    return rows


def _conclude(folder: Path, interrupted: bool, narrator: Any, style: str) -> None:
    """Print the tables on stdout; on stderr, what to type next."""
    if interrupted:
        narrator.say("interrupted; the same command goes on where this one ended")
        return
    from harness.cli.printing.sweep import report_sweep

    report_sweep(folder, style)
    narrator.say("next:")
    where = shlex.quote(str(folder))
    narrator.say(f"  harness report {where} --html")
    sql = "SELECT cell, repeat, tok_per_s FROM run_summary JOIN runs USING (run_id)"
    narrator.say(f'  harness query {where} "{sql}"')
