"""The launcher inside a Slurm allocation: one srun for all ranks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness_schemas.errors import ExitCode, LaunchError
from harness_schemas.rundir import RunDir, write_json
from harness_schemas.spec.slurm import SlurmSpec
from harness_schemas.spi import LaunchPlan, LaunchResult, RankExit
from harness_slurm.failures import Ended, explain, last_words
from harness_slurm.step.placement import Allocation, place_ranks
from harness_slurm.step.task import rank_mark
from harness_slurm.waiting import (
    Ending,
    result_of_ending,
    result_of_failures,
    shell_code,
    wait_for,
)

STOP_SECONDS = 4.0
"""How long srun may take to end once it has been told to."""
FLUSH_SECONDS = 0.5
ENDED_BY_SLURM = 128 + signal.SIGTERM


class SrunLauncher:
    """Starts all ranks as one step of the job that this process runs in (spi.Launcher).

    A stage stays within a node (`place_ranks`). The step's first failing rank ends the others.
    SIGUSR2, Slurm's warning ahead of the time limit, is passed on: the ranks then flush. SIGTERM
    ends the ranks, and the result says that Slurm ended the run.
    """

    name = "srun"

    def __init__(self, allocation: Allocation, tp: int, stages: int, slurm: SlurmSpec) -> None:
        self.allocation = allocation
        self.cpus_per_task = slurm.cpus_per_task
        self.hosts = place_ranks(
            allocation.nodes, tp, stages, slurm.ntasks_per_node, slurm.tp_across_nodes
        )
        self._stopped_by = 0
        self._step: subprocess.Popen[bytes] | None = None

    def command(self, plan: LaunchPlan) -> tuple[str, ...]:
        """The argv of srun. Pure."""
        cpus = self.cpus_per_task
        # -P: a `random.py` in the user's folder must not stand in for the standard library's.
        module = (
            "-P",
            "-m",
            "harness_slurm.step.task",
            "--plan",
            str(plan.run_dir / "launch.json"),
        )
        return (
            *("srun", "--job-name=harness-ranks", f"--ntasks={plan.world_size}"),
            *self._places(),
            f"--cpus-per-task={cpus}" if cpus else "--cpu-bind=none",
            *(("--overlap",) if self.allocation.nested else ()),
            *("--kill-on-bad-exit=1", "--quit-on-interrupt", "--mpi=none", "--input=none"),
            *(sys.executable, *module),
        )

    def beside(self, argv: Sequence[str]) -> tuple[str, ...]:
        """`argv` once on every node of the ranks, sharing their resources."""
        used = list(dict.fromkeys(self.hosts))
        return beside_ranks(used, argv)

    def environment(self, plan: LaunchPlan) -> dict[str, str]:
        """What srun's own environment gets: the nodes of the ranks where they are uneven."""
        uneven = "--distribution=arbitrary" in self._places()
        return {"SLURM_HOSTFILE": str(plan.run_dir / "job" / "hosts")} if uneven else {}

    def launch(self, plan: LaunchPlan, progress: Iterable[Any] | None = None) -> LaunchResult:
        """Start the ranks and wait for them; `progress` is advanced about ten times a second.

        Raises:
            LaunchError: srun could not start them.
        """
        run = RunDir(plan.run_dir)
        self._write(plan, run)
        ending: Ending = "interrupted"
        with self._signals():
            self._step = step = self._start(plan, run)
            try:
                ending = wait_for(step, plan.timeout_s, progress, lambda: self._stopped_by != 0)
            finally:
                _stop(step)
        return self._result(ending, step.returncode, run, plan.world_size)

    def _places(self) -> tuple[str, ...]:
        used = list(dict.fromkeys(self.hosts))
        each = {self.hosts.count(host) for host in used}
        nodes = (f"--nodes={len(used)}", f"--nodelist={','.join(used)}")
        if len(each) == 1:
            return (*nodes, f"--ntasks-per-node={each.pop()}", "--distribution=block")
        return (f"--nodes={len(used)}", "--distribution=arbitrary")

    def _write(self, plan: LaunchPlan, run: RunDir) -> None:
        folder = run.path / "job"
        folder.mkdir(exist_ok=True)
        (folder / "hosts").write_text("\n".join(self.hosts) + "\n")
        for rank in range(plan.world_size):
            rank_mark(run, rank).unlink(missing_ok=True)
        plain = {"argv": list(plan.argv), "env": dict(plan.env), "port": plan.port}
        write_json(plan.run_dir / "launch.json", {**plain, "run_dir": str(plan.run_dir)})

    def _start(self, plan: LaunchPlan, run: RunDir) -> subprocess.Popen[bytes]:
        with (
            (run.logs / "launcher.out").open("ab") as out,
            (run.logs / "launcher.err").open("ab") as err,
        ):
            try:
                return subprocess.Popen(
                    self.command(plan),
                    env=step_environment({**plan.env, **self.environment(plan)}),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,  # Ctrl-C on the terminal is ours to handle
                )
            except FileNotFoundError:
                raise LaunchError("srun is not on PATH", "load Slurm's commands") from None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take Slurm's signals while the step runs."""

        def stop(number: int, frame: Any) -> None:
            self._stopped_by = number

        def warn(number: int, frame: Any) -> None:
            if self._step is not None and self._step.poll() is None:
                self._step.send_signal(number)

        handlers = {signal.SIGTERM: stop, signal.SIGUSR2: warn}
        if threading.current_thread() is not threading.main_thread():
            handlers = {}
        before = {number: signal.signal(number, call) for number, call in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _result(self, ending: Ending, code: int, run: RunDir, world_size: int) -> LaunchResult:
        if (ended_by_us := result_of_ending(ending)) is not None:
            return ended_by_us
        failures = tuple(failed_ranks(run, world_size))
        if self._stopped_by:
            ended_with_it = (-signal.SIGTERM, -signal.SIGKILL)
            own = tuple(one for one in failures if one.exit_code not in ended_with_it)
            return LaunchResult(ENDED_BY_SLURM, own)
        if failures:
            return result_of_failures(failures)
        if code == 0:
            return LaunchResult(ExitCode.OK)
        said = last_words(run.logs / "launcher.err")
        if any(rank_mark(run, rank).exists() for rank in range(world_size)) or started(run):
            return LaunchResult(shell_code(code))
        raise LaunchError(f"srun ended with code {code}" + (f": {said}" if said else ""))


def beside_ranks(hosts: Sequence[str], argv: Sequence[str]) -> tuple[str, ...]:
    """`argv` once on each of `hosts`, in a step that shares everything with the others.

    srun's standard input reaches all of them: where it ends, they are to end. (srun answers
    SIGTERM by killing its tasks.)
    """
    count = len(hosts)
    return (
        *("srun", "--overlap", "--job-name=harness-samplers", f"--nodes={count}"),
        *(f"--ntasks={count}", "--ntasks-per-node=1", f"--nodelist={','.join(hosts)}"),
        *("--cpus-per-task=1", "--cpu-bind=none", "--mem=0", "--mpi=none", *argv),
    )


BENDING = (
    *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_DISTRIBUTION"),
    *("SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_EXPORT_ENV", "SLURM_NNODES"),
)
MEMORY = ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_GPU")


def step_environment(added: Mapping[str, str], less: Sequence[str] = BENDING) -> dict[str, str]:
    """This process's environment with `added`, less what would bend srun's own options.

    A batch script's SLURM_NTASKS and the like are defaults of srun, and fight what it is told.
    """
    kept = {name: value for name, value in os.environ.items() if name not in less}
    return {**kept, **added}


def beside_environment() -> dict[str, str]:
    """The environment in which to start what `beside_ranks` says: it claims no memory either."""
    return step_environment({}, (*BENDING, *MEMORY))


def started(run: RunDir) -> bool:
    """Whether any rank got so far as to record."""
    return any(run.spans.glob("rank-*.meta.jsonl"))


def failed_ranks(run: RunDir, world_size: int) -> list[RankExit]:
    """The ranks whose marks say that they failed, the cause first."""
    ended = []
    for rank in range(world_size):
        with contextlib.suppress(OSError, ValueError, KeyError):
            mark = json.loads(rank_mark(run, rank).read_text())
            if mark["exit_code"] != 0:
                ended.append(Ended(rank, int(mark["exit_code"]), int(mark["ended_ns"])))
    return explain(ended, run, STOP_SECONDS)


def _stop(step: subprocess.Popen[bytes]) -> None:
    """End the step: its ranks flush on SIGUSR2; on SIGTERM srun has them killed."""
    patience = {signal.SIGUSR2: FLUSH_SECONDS, signal.SIGTERM: STOP_SECONDS, signal.SIGKILL: None}
    for number, seconds in patience.items():
        if step.poll() is not None:
            return
        step.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            step.wait(seconds)
