"""`harness run`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import refuse_given
from harness.cli.output import emit

if TYPE_CHECKING:
    from harness.conclude import RunResult
    from harness.jobs.drive import JobAnswer
    from harness.progress import Narrator
    from harness_schemas.spec import RunSpec


_DASHES = "harness.run.dashes"


class _Run(click.Command):
    """A command line in which `--` says that a command follows, were it one word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether `--` stands in it, which click takes away."""
        ctx.meta[_DASHES] = "--" in args
        return super().parse_args(ctx, args)


@click.command(
    "run",
    cls=_Run,
    context_settings={"ignore_unknown_options": False},
    epilog="Examples: `harness run examples/quickstart.toml --set parallel.tp=1`; "
    "`harness run -- torchrun --nproc-per-node 2 mine.py`; "
    "`harness run examples/quickstart.toml --launcher slurm --dry-run`; "
    "`harness run -- sbatch mine.sbatch`",
)
# Not a Path: of a command `./` must stay.
@click.argument("spec", required=False, metavar="SPEC | -- COMMAND...")
@click.argument("wrapped", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--name", metavar="NAME", help="Name of the run.")
@click.option(
    "--output",
    metavar="DIR",
    envvar=["HARNESS_RUN_OUTPUT", "HARNESS_OUTPUT"],
    help="Folder in which the run's folder is made.",
)
@click.option(
    "--inject", metavar="rank=R,delay=D,every=step|layer", help="Delay a rank on purpose."
)
@click.option("--override/--no-override", default=None, help="Tokenise again / use the cache.")
@click.option("--strict", is_flag=True, help="A collector that cannot run is an error.")
@click.option(
    "--launcher",
    type=click.Choice(["auto", "local", "slurm"]),
    help="Where the ranks start: here, or in a Slurm job (auto: in the one this runs in).",
)
@click.option(
    "--hang-timeout",
    metavar="SECONDS",
    help="End the run, with the stacks of its ranks, when none makes progress for so long.",
)
@click.option("--detach", is_flag=True, help="Submit to Slurm and do not wait.")
@click.option("--attach", metavar="JOB", help="Wait for a job submitted earlier, and answer.")
@click.option("--in-job", type=click.Path(path_type=Path), hidden=True)
@click.option(
    "--split",
    is_flag=True,
    help="Where collectors exclude each other, make a run of the configuration with each.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="No narration on stderr.")
def command(
    spec: str | None,
    wrapped: tuple[str, ...],
    overrides: tuple[str, ...],
    name: str | None,
    output: str | None,
    inject: str | None,
    override: bool | None,
    strict: bool,
    launcher: str | None,
    hang_timeout: str | None,
    detach: bool,
    attach: str | None,
    in_job: Path | None,
    split: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Run SPEC (TOML, YAML or JSON) and say where every step went.

    With `-- COMMAND...` instead of SPEC, wrap any command unchanged. The exit code is the
    workload's own; 2: usage, 123: what the ranks need is not there, 124: timed out or hung,
    125: the harness failed, 130: interrupted.
    """
    from harness.progress import Narrator

    narrator = Narrator(quiet)
    if in_job is not None:
        return _inside(in_job, narrator)
    if attach is not None:
        if spec is not None:
            raise click.UsageError("--attach names a job that runs already: leave the rest out")
        return _attach(attach, output, narrator)
    if spec is None or wrapped or click.get_current_context().meta.get(_DASHES):
        argv = ((spec,) if spec else ()) + wrapped
        return _wrap(argv, Path(output or "runs"), name, hang_timeout, narrator, dry_run, detach)
    from harness.setup.specfile import load_spec

    extra = [*overrides, *_options_as_overrides(name, output, inject, override)]
    extra += [f'launcher.kind="{launcher}"'] if launcher else []
    extra += [f'launcher.hang_timeout="{hang_timeout}"'] if hang_timeout else []
    loaded = load_spec(Path(spec), extra)
    if split:
        return _run_split(loaded, narrator, strict, dry_run)
    if loaded.launcher.kind == "slurm" and not os.environ.get("SLURM_JOB_ID"):
        return _submit(loaded, narrator, strict, dry_run, detach)
    if detach:
        raise click.UsageError("--detach goes with --launcher slurm")
    return _run_spec(loaded, narrator, strict, dry_run)


def _inside(folder: Path, narrator: Narrator) -> int:
    """What the batch script of `--launcher slurm` calls on the job's first node."""
    from harness.jobs.inside import run_inside
    from harness_schemas.rundir import RunDir

    return run_inside(RunDir(folder), narrator)


def _wrap(
    argv: tuple[str, ...],
    output: Path,
    name: str | None,
    hang_timeout: str | None,
    narrator: Narrator,
    dry_run: bool,
    detach: bool,
) -> int:
    """Run somebody's command as it is; where it is sbatch, submit their script."""
    if not argv:
        raise click.UsageError("name a specification, or a command after --")
    submits = Path(argv[0]).name == "sbatch"
    _refuse_specs_options(submits)
    if submits:
        if hang_timeout is not None:
            raise click.UsageError(
                "--hang-timeout watches a step: write into the script "
                "`harness run --hang-timeout SECONDS -- srun ...`"
            )
        done = _wrap_sbatch(argv, output, name, narrator, dry_run, detach)
        if done is not None:
            return done
    from harness.wrap import plan_wrap, run_wrapped

    plan = plan_wrap(argv, output, name, hang_timeout)
    if dry_run:
        emit(plan.describe())
        return 0
    return _conclude(run_wrapped(plan, narrator), narrator)


def _refuse_specs_options(submits: bool) -> None:
    """Options that would say nothing about a command after --, which runs as it is.

    Raises:
        click.UsageError: one of them was given.
    """
    names = {"overrides": "--set", "inject": "--inject", "override": "--override"}
    names |= {"strict": "--strict", "launcher": "--launcher", "split": "--split"}
    as_it_is = "the command after -- runs as it is"
    refuse_given(names, f"a specification: {as_it_is}")
    if not submits:
        refuse_given({"detach": "--detach"}, f"sbatch or a specification: {as_it_is}")


def _submit(spec: RunSpec, narrator: Narrator, strict: bool, dry_run: bool, detach: bool) -> int:
    from harness.jobs.drive import leave, see_through
    from harness.jobs.submit import plan_submission, submit
    from harness_slurm.job.controller import Controller

    plan = plan_submission(spec, strict)
    if dry_run:
        emit(plan.script.rstrip("\n"))
        return 0
    controller = Controller()
    record = submit(plan, narrator, controller)
    if detach:
        leave(plan.run, record, narrator, 0)
        emit(record.job_id)
        return 0
    return _conclude_job(see_through(plan.run, record, narrator, controller), narrator)


def _wrap_sbatch(
    argv: tuple[str, ...],
    output: Path,
    name: str | None,
    narrator: Narrator,
    dry_run: bool,
    detach: bool,
) -> int | None:
    """Submit somebody's own script; None where their line submits nothing, as with --help."""
    from harness.jobs.drive import leave, see_through
    from harness.jobs.wrap import plan_sbatch, submit_wrapped
    from harness_slurm.job.controller import Controller

    plan = plan_sbatch(argv, output, name)
    if plan is None:
        return None
    if dry_run:
        emit(plan.describe())
        return 0
    controller = Controller()
    record, printed = submit_wrapped(plan, narrator, controller)
    if said := plan.said(printed):
        emit(said)
    if detach:
        leave(plan.run, record, narrator, 0)
        return 0
    return _conclude_job(see_through(plan.run, record, narrator, controller), narrator)


def _attach(job: str, output: str | None, narrator: Narrator) -> int:
    from harness.jobs.drive import job_of, see_through
    from harness.runs import find_run
    from harness_schemas.rundir import RunDir

    run = RunDir(find_run(job, Path(output) if output else None))
    return _conclude_job(see_through(run, job_of(run), narrator), narrator)


def _conclude_job(answer: JobAnswer, narrator: Narrator) -> int:
    """One run's answer as ever; of an array one row a task."""
    if len(answer.results) == 1:
        return _conclude(answer.results[0], narrator)
    if answer.results:
        from harness.cli.output import emit_rows

        rows = []
        for result in answer.results:
            outcome = result.outcome
            task = result.run.run_id.removeprefix("task-")
            job = f"{answer.job_id}_{task}"
            rows.append((job, outcome.status, outcome.verdict, outcome.exit_code))
        emit_rows(("job", "status", "verdict", "exit_code"), rows, "table")
        narrator.say("next:")
        narrator.say(f"  harness report {rows[0][0]}")
        narrator.say(f'  harness query {answer.job_id} "FROM run_summary"')
    return answer.exit_code


def _run_spec(spec: RunSpec, narrator: Narrator, strict: bool, dry_run: bool) -> int:
    from harness.session import plan_run, run_spec
    from harness_schemas.rundir import name_run

    if dry_run:
        emit(plan_run(spec, name_run(Path(spec.output.dir), spec.name), strict).describe())
        return 0
    return _conclude(run_spec(spec, narrator, strict), narrator)


def _run_split(spec: RunSpec, narrator: Narrator, strict: bool, dry_run: bool) -> int:
    """A run with each of the collectors that exclude each other; the first bad exit code."""
    from harness.cli.printing.split import report_split
    from harness.split import group_folder, run_split, split_spec
    from harness_runners.plan import resolve_device

    if spec.launcher.kind == "slurm" and not os.environ.get("SLURM_JOB_ID"):
        raise click.UsageError("--split runs here: give it inside the job, or submit each part")
    parts = split_spec(spec, resolve_device(spec.device))
    if len(parts) == 1:
        narrator.say("nothing to split: no collector that can run here excludes another")
        return _run_spec(spec, narrator, strict, dry_run)
    if dry_run:
        for part in parts:
            emit(f"# with {part.label}")
            _run_spec(part.spec, narrator, strict, dry_run)
        return 0
    folder = group_folder(spec)
    results = run_split(parts, folder, narrator, strict)
    report_split(folder, "table")
    narrator.say(f"next:\n  harness report {shlex.quote(str(folder))}")
    codes = [result.exit_code for result in results]
    return next((code for code in codes if code), 0 if len(codes) == len(parts) else 125)


def _conclude(result: RunResult, narrator: Narrator) -> int:
    """Print the answer on stdout, what to do next on stderr; return the exit code."""
    from harness.cli.report_verb import answer_text

    outcome = result.outcome
    for problem in result.problems:
        narrator.say(f"no database: {problem}")
    if result.database is not None:
        emit(answer_text(result.database))
    if outcome.verdict != "ok":
        narrator.say(f"verdict: {outcome.verdict}: {outcome.detail or ''}")
        for line in outcome.tail:
            narrator.say(f"  | {line}")
    own = result.database in (None, result.run.database)
    where = shlex.quote(str(result.run.path if own else result.database))
    narrator.say("next:")
    narrator.say(f"  harness report {where} --html")
    narrator.say(f'  harness query {where} "FROM step_breakdown LIMIT 20"')
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
