"""Runs the cells that are left, one after the other, and records how each ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.progress import Narrator
from harness.sweep.folder import CellRun, claimed, done_runs, pending, write_sweep
from harness.sweep.plan import Item, SweepPlan
from harness.sweep.refusals import REFUSED, Refusals, refused_runs, say_problems
from harness_schemas.errors import ExitCode, HarnessError, SpecError
from harness_schemas.rundir import RunDir, point_latest

Runner = Callable[[Item], CellRun]
"""Runs one item to its end; steps of one allocation would be another runner."""


@dataclass(frozen=True)
class SweepResult:
    """What is there when a sweep ends. `interrupted`: not everything that was planned."""

    folder: Path
    runs: tuple[CellRun, ...]
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: every run is good; 1: some are not; 130: interrupted."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.OK if all(run.good for run in self.runs) else ExitCode.GATE_FAILED


def run_sweep(
    plan: SweepPlan,
    folder: Path,
    runner: Runner,
    narrator: Narrator,
    retry_failed: bool = False,
    refusals: Refusals | None = None,
) -> SweepResult:
    """Run what is left of a sweep. A failed cell is recorded and the rest continued.

    `refusals`: why cells cannot run; they are recorded and not tried.

    Raises:
        UsageError: another process works in the folder.
        HarnessError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(
            f"cannot create {folder}: {error.strerror or error}",
            "choose a place you can write with --output",
        ) from None
    point_latest(RunDir(folder))
    with claimed(folder):
        done = done_runs(folder)
        left = pending(plan, done, retry_failed)
        refused = refused_runs(left, refusals or {})
        left = [item for item in left if (item.cell.key, item.repeat) not in refused]
        done |= refused
        total = plan.repeats * len(plan.cells) - len(refused)
        write_sweep(folder, plan, done, "running")
        interrupted, began = False, time.monotonic()
        for position, item in enumerate(left):
            each = (time.monotonic() - began) / position if position else None
            narrator.say(_place(total, item, len(left) - position, each))
            found = _guarded(runner, item, folder / "harness.log")
            narrator.say(f"  {_ended(found)}")
            if found.exit_code == ExitCode.INTERRUPTED:
                interrupted = True
                break
            done[item.cell.key, item.repeat] = found
            write_sweep(folder, plan, done, "running")
        write_sweep(folder, plan, done, "interrupted" if interrupted else "finished")
    wanted = [(item.cell.key, item.repeat) for item in plan.items()]
    runs = tuple(done[place] for place in wanted if place in done)
    return SweepResult(folder, runs, interrupted)


def _guarded(runner: Runner, item: Item, log: Path) -> CellRun:
    """What a run that could not even be started says, as the end of that run."""
    began = time.monotonic()
    try:
        return runner(item)
    except HarnessError as error:
        wall = time.monotonic() - began
        text = (
            say_problems(error.problems)
            if isinstance(error, SpecError)
            else " ".join(error.message.split())
        )
        return CellRun(item.repeat, None, "failed", REFUSED, text, error.exit_code, wall)
    except KeyboardInterrupt:
        return CellRun(item.repeat, None, "failed", "interrupted", None, ExitCode.INTERRUPTED, None)
    except Exception as error:  # noqa: BLE001 - a defect in one cell; the others still count
        log.write_text(traceback.format_exc())
        text = f"{type(error).__name__}: {error}; a defect of the harness, see {log}"
        wall, code = time.monotonic() - began, ExitCode.HARNESS_FAILED
        return CellRun(item.repeat, None, "failed", "defect", text, code, wall)


def _place(total: int, item: Item, left: int, each_s: float | None) -> str:
    """`[4/9] tp=2, repeat 1; about 3 min left`, from what a run took on average so far."""
    text = f"[{total - left + 1}/{total}] {item.cell.label}, repeat {item.repeat}"
    if each_s is None:
        return text
    seconds = left * each_s
    about = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{text}; about {about} left"


def _ended(run: CellRun) -> str:
    wall = "" if run.wall_s is None else f" after {run.wall_s:.1f} s"
    detail = f": {run.detail}" if run.detail else ""
    return f"{run.verdict}{wall}{detail}"


def session_runner(folder: Path, sweep_id: str, narrator: Narrator, strict: bool) -> Runner:
    """Runs items as `harness run` does, in this process, into the sweep's folder."""
    from harness.session import run_spec
    from harness.sweep.folder import cell_run

    def run(item: Item) -> CellRun:
        output = item.cell.spec.output.model_copy(update={"dir": str(folder)})
        spec = item.cell.spec.model_copy(update={"output": output})
        marks = {
            "sweep_id": sweep_id,
            "cell": item.cell.label,
            "cell_key": item.cell.key,
            "repeat": item.repeat,
        }
        result = run_spec(spec, narrator, strict, marks)
        found = cell_run(result.run.run_id, result.run.read())
        if result.problems:
            return replace(found, status="failed", verdict="no_database", detail=result.problems[0])
        return found

    return run
