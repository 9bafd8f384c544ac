"""`harness run -- COMMAND...`: any command, unchanged, with samplers beside it.

The command keeps its stdin, stdout and stderr. A Python program in it that calls
`harness.probe.start()` leaves spans; one that does not still leaves samples and an exit code, and
started by srun NCCL's log.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.conclude import RunResult, conclude
from harness.ending import witness as witnesses
from harness.ending.outcome import End, Outcome, end_of, judge_run
from harness.ending.outputs import keep_outputs, open_outputs
from harness.ending.room import keep, with_disk
from harness.progress import Narrator
from harness.session import agent_command, samplers, traced
from harness.setup.capture import Capture, plan_wrap_capture
from harness.setup.record import first_record
from harness.status.hang_plan import limit_ns, with_watch
from harness.status.hang_watch import watch
from harness.status.snapshot import take_snapshot
from harness_schemas.errors import ExitCode, UsageError
from harness_schemas.rundir import RunDir, create_run, name_run
from harness_schemas.spi import LaunchResult

STOP_SECONDS = 10
WATCH_SECONDS = 0.1
_SPECIFICATIONS = (".toml", ".yaml", ".yml", ".json")


@dataclass(frozen=True)
class WrapPlan:
    """What will be run, with what added to its environment."""

    argv: tuple[str, ...]
    run: RunDir
    name: str
    capture: Capture
    hang_limit_ns: int | None = None

    @property
    def is_srun(self) -> bool:
        """Whether the command starts a step of a Slurm job: its nodes are not this one."""
        return Path(self.argv[0]).name == "srun"

    def describe(self) -> str:
        """What `--dry-run` prints."""
        lines = ["# commands"]
        if self.capture.samplers:
            lines.append(shlex.join(agent_command(self.run, self.capture)))
        lines.append(shlex.join(self.argv))
        lines.append("# environment")
        lines += [f"{key}={value}" for key, value in sorted(self.capture.env.items())]
        lines.append("# files")
        lines += [str(self.run.path / name) for name in ("run.json", "spans/", "artifacts/")]
        lines.append(str(self.run.database))
        return "\n".join(lines)


def plan_wrap(
    argv: Sequence[str], output: Path, name: str | None, hang_timeout: str | None
) -> WrapPlan:
    """Plan the run of a wrapped command.

    Raises:
        UsageError: no such command, or the limit is no duration.
    """
    try:
        limit = limit_ns(hang_timeout)
    except ValueError as error:
        raise UsageError(f"--hang-timeout: {error}") from None
    if shutil.which(argv[0]) is None:
        if argv[0].endswith(_SPECIFICATIONS):
            raise UsageError(f"{argv[0]} is no command", "a specification goes alone, without --")
        if Path(argv[0]).is_file():
            raise UsageError(f"{argv[0]} cannot be executed", f"chmod +x, or: -- python {argv[0]}")
        raise UsageError(f"no command {argv[0]!r} on PATH")
    title = name or Path(argv[0]).name
    run = name_run(output, title)
    on_other_nodes = Path(argv[0]).name == "srun"
    capture = plan_wrap_capture(run.path.absolute(), on_other_nodes)
    return WrapPlan(tuple(argv), run, title, with_watch(capture, run.path, limit), limit)


def run_wrapped(plan: WrapPlan, narrator: Narrator) -> RunResult:
    """Run the command, then judge and ingest. The command's exit code is the result's."""
    create_run(plan.run)
    plan.capture.make_folders(plan.run.artifacts)
    narrator.say(f"run {plan.run.path}")
    data = first_record(
        plan.name,
        argv=plan.argv,
        run_id=plan.run.run_id,
        command=Path(plan.argv[0]).name,
        collection=list(plan.capture.skipped),
    )
    plan.run.write(data)
    witness = witnesses.begin()
    outputs = open_outputs()
    with traced(plan.run, plan.name) as trace:
        watching = hang_watch(plan, narrator)
        if plan.is_srun:
            code, hung = _call_srun(plan, trace, data, watching, narrator)
        else:
            code, hung = _call_here(plan, trace, watching)
    ended = LaunchResult(code, interrupted=_interrupted(code), hung=hung)
    end = with_disk(end_of(ended, witness), plan.run)
    if code:
        with contextlib.suppress(OSError):  # a full disk is told by `with_disk`
            keep_outputs(plan.run, outputs)
    outcome = _judge(plan.run, end)
    data.update(outcome.to_json(), end=end.to_json(), ended_ns=time.time_ns())
    keep(plan.run, data, narrator)
    return conclude(plan.run, outcome, narrator, data)


def hang_watch(plan: WrapPlan, narrator: Narrator) -> Iterator[bool]:
    """Advanced while the command runs; yields True once it is to be ended as hung."""
    if plan.hang_limit_ns is None:
        return itertools.repeat(False)
    return watch(plan.run, plan.hang_limit_ns, narrator)


def _call_here(plan: WrapPlan, trace: dict[str, str], watching: Iterator[bool]) -> tuple[int, bool]:
    with samplers(plan.run, plan.capture):
        return _call(plan, plan.argv, {**plan.capture.env, **trace}, watching)


def _call_srun(
    plan: WrapPlan,
    trace: dict[str, str],
    data: dict[str, Any],
    watching: Iterator[bool],
    narrator: Narrator,
) -> tuple[int, bool]:
    from harness.jobs.wrap_srun import beside_step, keep_exported

    env = {**plan.capture.env, **trace}
    with beside_step(plan.run, plan.capture, narrator) as step:
        argv = keep_exported(plan.argv, env)
        ended = _call(plan, argv, {**env, **step.environment()}, watching)
    data["job_id"] = step.job_id
    return ended


def _call(
    plan: WrapPlan, argv: Sequence[str], env: Mapping[str, str], watching: Iterator[bool]
) -> tuple[int, bool]:
    """Run the command to its end; returns its code, and whether it was ended as hung."""
    child = subprocess.Popen(argv, env={**os.environ, **env})
    patience = None if plan.hang_limit_ns is None else WATCH_SECONDS
    interrupts = 0
    while True:
        try:
            code = child.wait(patience)
            return ExitCode.INTERRUPTED if code and interrupts else code, False
        except subprocess.TimeoutExpired:
            if next(watching):
                _end(child, plan.run)
                return ExitCode.TIMED_OUT, True
        except KeyboardInterrupt:
            # The terminal sent SIGINT to the child as well: let it end in its own way.
            interrupts += 1
            if plan.is_srun and interrupts == 1:
                continue  # srun goes on, too, and says that it wants a second one
            _end_interrupted(child)
            return ExitCode.INTERRUPTED, False


def _end_interrupted(child: subprocess.Popen[bytes]) -> None:
    """Wait for a child that was interrupted; who does not end, or not soon enough, is made to.

    SIGTERM first: srun then ends its tasks.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            child.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.send_signal(number)
    child.wait()


def _end(child: subprocess.Popen[bytes], run: RunDir) -> None:
    """End a command that hangs, and those of its ranks on this host that outlive it."""
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for rank in take_snapshot(run, 1).ranks:
        pid = rank.files.start.get("pid")
        if rank.process not in (None, "gone") and rank.here and isinstance(pid, int):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _interrupted(code: int) -> bool:
    return code in (ExitCode.INTERRUPTED, -signal.SIGINT)


def _judge(run: RunDir, end: End) -> Outcome:
    """The verdict by what the run left; what went to a terminal or a pipe is not known to us."""
    outcome = judge_run(run, end, None)
    code = end.exit_code or 0
    if outcome.verdict == "ok" or end.interrupted or end.hung:
        return outcome
    if code > 0:
        said = f"the command returned {code}"
    else:
        said = f"the command was killed by {signal.Signals(-code).name}"
        outcome = replace(outcome, exit_code=128 - code)
    if f"ended with code {code}" in (outcome.detail or ""):  # nothing says more
        if not run.command_log.exists():
            said += (
                "; its output passed by: keep it (2>&1 | tee FILE), and `harness doctor --log "
                "FILE` says why"
            )
        return replace(outcome, verdict="unknown", detail=said)
    return replace(outcome, detail=f"{said}; {outcome.detail}")
