"""The main path: a specification in, a run folder with a database out.

    plan -> prepare the model -> start samplers -> launch ranks -> compare with the reference ->
    judge -> ingest

`plan_run` is pure apart from looking at the machine; `--dry-run` prints what it returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.conclude import RunResult, conclude
from harness.ending import witness as witnesses
from harness.ending.outcome import Outcome, end_of, judge_run
from harness.ending.room import keep, with_disk, with_room
from harness.progress import Narrator, follow
from harness.setup.capture import Capture, plan_capture
from harness.setup.interpreter import Interpreter, choose_interpreter
from harness.setup.record import first_record
from harness.setup.spool_staging import patience_s, say_what_stayed, with_mover
from harness.status.hang_plan import beside, limit_ns, with_watch
from harness_runners.plan import RunPlan, make_plan, resolve_device
from harness_runners.preflight import preflight
from harness_schemas import spool
from harness_schemas.errors import ExitCode, HarnessError, LaunchError, SpecError, UsageError
from harness_schemas.rundir import RunDir, create_run, name_run
from harness_schemas.spi import LaunchPlan, LaunchResult
from harness_schemas.units import parse_duration_ns
from harness_slurm.local import LocalLauncher
from harness_slurm.processes import check_port
from harness_slurm.step.launcher import SrunLauncher, beside_environment
from harness_slurm.step.placement import Allocation

if TYPE_CHECKING:
    from harness_schemas.spec import RunSpec

SAMPLERS_END_S = 10.0
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DS_ACCELERATOR": "",
}


@dataclass(frozen=True)
class SessionPlan:
    """Everything that will be done: argv, environment and files."""

    spec: RunSpec
    run: RunDir
    device: str
    ranks: RunPlan
    launch: LaunchPlan
    capture: Capture
    launcher: LocalLauncher | SrunLauncher
    python: Interpreter = field(default_factory=Interpreter)

    def describe(self) -> str:
        """What `--dry-run` prints."""
        launcher = self.launcher.command(self.launch)
        lines = ["# commands"]
        lines.append(shlex.join(prepare_command(self.run, self.python)))
        if self.capture.samplers:
            lines.append(shlex.join(agent_command(self.run, self.capture, self.launcher)))
        lines.append(shlex.join(launcher))
        lines.append(f"  each of {self.launch.world_size} ranks: {shlex.join(self.launch.argv)}")
        if self.spec.check.reference:
            lines.append(shlex.join(reference_command(self.run, self.python)))
        lines.append("# environment")
        lines += [f"{key}={value}" for key, value in sorted(self.launch.env.items())]
        lines.append("# files")
        names = ("run.json", "plan.json", "spans/", "logs/", "artifacts/", "completions/")
        lines += [str(self.run.path / name) for name in (*names, "run.duckdb")]
        lines.append(f"{self.ranks.model.folder} (model)")
        lines.append("# collectors")
        lines += [f"{name}: {dict(self.capture.options[name])}" for name in self.capture.plans]
        lines += [
            f"{row['collector']}: {row['state']}: {row['reason']}" for row in self.capture.skipped
        ]
        lines += self.capture.notes
        lines.append("# plan.json")
        lines.append(json.dumps(self.ranks.to_json(), indent=2))
        return "\n".join(lines)


def plan_run(spec: RunSpec, run: RunDir, strict: bool = False) -> SessionPlan:
    """Check a specification against this machine and plan its run.

    Raises:
        SpecError: all mistakes, with their paths.
        UsageError: cuda without a GPU, collectors that exclude each other.
    """
    problems = preflight(spec)
    if problems:
        raise SpecError(spec.name, problems)
    device = resolve_device(spec.device)
    launcher = choose_launcher(spec)
    if isinstance(launcher, LocalLauncher) and spec.launcher.port is not None:
        _check_port(spec, spec.launcher.port)
    capture = plan_capture(spec, device, run.path.absolute(), strict)
    capture = with_watch(capture, run.path, limit_ns(spec.launcher.hang_timeout))
    ranks = make_plan(spec, run, capture.hooks, strict)
    capture = with_mover(capture, ranks.stage, spec.stage.every)
    timeout = spec.launcher.timeout
    python = choose_interpreter(spec, ranks, isinstance(launcher, SrunLauncher))
    worker = python.rank("harness_runners.rank.worker", "--plan", str(run.plan_json.absolute()))
    launch = LaunchPlan(
        argv=(*capture.argv_prefix, *worker),
        env={**rank_environment(spec, device, launcher), **capture.env},
        world_size=spec.world_size,
        run_dir=run.path.absolute(),
        port=spec.launcher.port,
        timeout_s=parse_duration_ns(timeout) / 1e9 if timeout else None,
    )
    return SessionPlan(spec, run, device, ranks, launch, capture, launcher, python)


def _check_port(spec: RunSpec, port: int) -> None:
    """Before a model is made: the launcher, which looks again, comes minutes later."""
    try:
        check_port(port)
    except LaunchError as error:
        raise SpecError(spec.name, [("launcher.port", f"{error.message}; {error.hint}")]) from None


def choose_launcher(spec: RunSpec) -> LocalLauncher | SrunLauncher:
    """The launcher of this place: srun inside a Slurm job, unless `local` is asked for.

    Raises:
        UsageError: the job's nodes cannot hold the ranks as they are to lie.
    """
    kind, slurm, parallel = spec.launcher.kind, spec.slurm, spec.parallel
    inside = None if kind == "local" else Allocation.read(os.environ, slurm.cpus_per_task or 1)
    if inside:
        return SrunLauncher(inside, parallel.tp, parallel.pp, slurm)
    if kind == "slurm":
        raise UsageError("launcher.kind is slurm, and this is no Slurm job", "or use local")
    return LocalLauncher()


def rank_environment(
    spec: RunSpec, device: str, launcher: LocalLauncher | SrunLauncher
) -> dict[str, str]:
    """Environment of the ranks: offline, one device kind, threads that do not fight."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    here = spec.world_size
    if isinstance(launcher, SrunLauncher):
        here = max(launcher.hosts.count(host) for host in launcher.hosts)
    threads = spec.launcher.threads or spec.slurm.cpus_per_task or max(1, cores // here)
    environment = {**OFFLINE, "DS_ACCELERATOR": device, "OMP_NUM_THREADS": str(threads)}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def run_spec(
    spec: RunSpec, narrator: Narrator, strict: bool = False, marks: Mapping[str, Any] | None = None
) -> RunResult:
    """Run a specification and build its database. Ends with a database whatever happens.

    `marks`: what else run.json says of the run, as to which sweep it belongs.

    Raises:
        HarnessError: before anything was started (a folder may then exist, marked failed).
    """
    run = name_run(Path(spec.output.dir), spec.name)
    plan = plan_run(spec, run, strict)
    create_run(run)
    plan.capture.make_folders(run.artifacts)
    narrator.say(f"run {run.path}")
    outcome = record_run(plan, narrator, marks or {})
    narrator.say("ingest")
    return conclude(run, outcome, narrator)


def record_run(plan: SessionPlan, narrator: Narrator, marks: Mapping[str, Any]) -> Outcome:
    """Run what is planned into its folder, which exists, and say in run.json how it ended.

    Raises:
        HarnessError: the ranks could not be started; run.json says so.
    """
    run, spec = plan.run, plan.spec
    for note in plan.capture.notes:
        narrator.say(note)
    data = {**_initial_record(plan), **marks}
    run.write(data)
    plan.ranks.write()
    witness = witnesses.begin()
    try:
        with traced(run, spec.name) as trace:
            plan = replace(plan, launch=replace(plan.launch, env={**plan.launch.env, **trace}))
            result = _execute(plan, narrator)
    except HarnessError as error:
        told = with_room(error, run)
        outcome = Outcome("failed", "unknown", told.message, told.exit_code)
        _finish(run, data, outcome, narrator)
        raise told from None
    end = with_disk(end_of(result, witness), run)
    data["end"] = end.to_json()
    outcome = judge_run(run, end, spec.world_size)
    correctness = read_correctness(run)
    if correctness is not None:
        data["correctness"] = correctness
    _finish(run, data, outcome, narrator)
    return outcome


def _initial_record(plan: SessionPlan) -> dict[str, Any]:
    inside = plan.launcher.allocation if isinstance(plan.launcher, SrunLauncher) else None
    job: dict[str, Any] = {}
    if inside:
        job = {"job_id": inside.shown_id, "attempt": inside.restart}
    return first_record(
        plan.spec.name,
        run_id=plan.run.run_id,
        device=plan.device,
        spec=plan.spec.model_dump(mode="json"),
        collection=list(plan.capture.skipped),
        **job,
    )


def _execute(plan: SessionPlan, narrator: Narrator) -> LaunchResult:
    check_weights(plan, narrator)
    prepare_model(plan, narrator)
    tp, pp = plan.spec.parallel.tp, plan.spec.parallel.pp
    ranks = "1 rank" if plan.launch.world_size == 1 else f"{plan.launch.world_size} ranks"
    narrator.say(f"launch {ranks} (TP {tp} x PP {pp}) on {plan.device}")
    page = plan.run.spans / f"rank-00000{spool.LIVE}"
    with samplers(plan.run, plan.capture, plan.launcher):
        limit = limit_ns(plan.spec.launcher.hang_timeout)
        progress = beside(follow(page, narrator), plan.run, limit, narrator)
        result = plan.launcher.launch(plan.launch, progress)
    say_what_stayed(plan.ranks.stage, narrator)
    if result.exit_code == 0 and plan.spec.check.reference:
        narrator.say("compare with the reference")
        command = reference_command(plan.run, plan.python)
        run_helper(command, plan.run, plan.launch.env, check=False)
    return result


def prepare_command(run: RunDir, python: Interpreter) -> tuple[str, ...]:
    """Makes or converts the model, once."""
    return python.module("harness_runners.prepare", "--plan", str(run.plan_json.absolute()))


def reference_command(run: RunDir, python: Interpreter) -> tuple[str, ...]:
    """Compares tokens and logits with plain transformers."""
    return python.module("harness_runners.check.reference", "--plan", str(run.plan_json.absolute()))


def agent_command(
    run: RunDir, capture: Capture, launcher: LocalLauncher | SrunLauncher | None = None
) -> tuple[str, ...]:
    """Runs the samplers of this node; with srun, those of every node of the ranks."""
    module = (sys.executable, "-m", "harness_collectors.agent")
    argv = (*module, "--run-dir", str(run.path), "--samplers", capture.samplers_json())
    if isinstance(launcher, SrunLauncher):
        return launcher.beside(argv)
    return argv


def check_weights(plan: SessionPlan, narrator: Narrator) -> None:
    """Compare the weights with their checksums, where that is asked for.

    Raises:
        HarnessError: they differ, or there are none to compare with.
    """
    if plan.spec.model.checksums:
        narrator.say("compare the weights with their checksums")
        command = plan.python.module(
            "harness_runners.files.checksums", "--plan", str(plan.run.plan_json.absolute())
        )
        run_helper(command, plan.run, plan.launch.env, check=True)


def prepare_model(plan: SessionPlan, narrator: Narrator) -> None:
    """Make the model where it is not there yet.

    Raises:
        HarnessError: it could not be made.
    """
    with contextlib.suppress(OSError):  # a container binds it; who cannot make it is told below
        Path(plan.ranks.cache_dir).mkdir(parents=True, exist_ok=True)
    if Path(plan.ranks.model.folder).is_dir():
        return
    narrator.say(f"prepare the model in {plan.ranks.model.folder}")
    command = prepare_command(plan.run, plan.python)
    run_helper(command, plan.run, plan.launch.env, check=True)


def run_helper(command: Sequence[str], run: RunDir, env: Mapping[str, str], check: bool) -> None:
    """Run one of our own single-process helpers, its output in the logs.

    Raises:
        HarnessError: it failed and `check` is set; the message is its last line.
    """
    name = command[command.index("-m") + 1].rpartition(".")[2]
    log = run.logs / f"{name}.log"
    with log.open("wb") as stream:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            check=False,
        )
    if check and done.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = [line.removeprefix("harness: ") for line in lines if line.startswith("harness: ")]
        message = said[-1] if said else lines[-1] if lines else f"{name} failed"
        kept = done.returncode in (ExitCode.USAGE, ExitCode.NOT_READY)
        code = done.returncode if kept else ExitCode.HARNESS_FAILED
        raise HarnessError(message, f"see {log}", code)


@contextlib.contextmanager
def samplers(
    run: RunDir, capture: Capture, launcher: LocalLauncher | SrunLauncher | None = None
) -> Iterator[None]:
    """Run samplers beside the ranks; they end when their stdin closes."""
    if not capture.samplers:
        yield
        return
    log = (run.logs / "agent.log").open("wb")
    argv = agent_command(run, capture, launcher)
    env = beside_environment() if argv[0] == "srun" else None
    agent = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
    try:
        yield
    finally:
        if agent.stdin is not None:
            agent.stdin.close()
        try:
            agent.wait(timeout=patience_s(capture, SAMPLERS_END_S))
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()
        log.close()


@contextlib.contextmanager
def traced(run: RunDir, name: str) -> Iterator[dict[str, str]]:
    """The run's OpenTelemetry span around the launch; yields the ranks' TRACEPARENT."""
    from harness_runners.rank.telemetry import run_span

    with run_span(run.spans / "session.otel.jsonl", name, run.run_id) as traceparent:
        yield {"TRACEPARENT": traceparent}


def read_correctness(run: RunDir) -> dict[str, Any] | None:
    """The comparison with the reference; None where it was not made."""
    try:
        data = json.loads((run.artifacts / "correctness" / "result.json").read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _finish(run: RunDir, data: dict[str, Any], outcome: Outcome, narrator: Narrator) -> None:
    data.update(outcome.to_json(), ended_ns=time.time_ns())
    keep(run, data, narrator)
