"""The launcher of one host: torch's elastic agent in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness_schemas.errors import ExitCode, LaunchError
from harness_schemas.rundir import RunDir, write_json
from harness_schemas.spi import LaunchPlan, LaunchResult, RankExit
from harness_slurm.failures import last_words
from harness_slurm.processes import LAUNCH_ID, check_port, sweep
from harness_slurm.waiting import Ending, result_of_ending, result_of_failures, wait_for

STOP_SECONDS = 6.0
"""From SIGTERM to SIGKILL of the agent, which itself gives its ranks 3 s."""


class LocalLauncher:
    """Starts all ranks on this host and leaves none of them behind (spi.Launcher).

    Each rank's output goes to its own files in `logs/`, the agent's to `logs/launcher.out` and
    `.err`. `plan.env` is added to the harness's own environment.
    """

    name = "local"

    def command(self, plan: LaunchPlan) -> tuple[str, ...]:
        """The agent's argv. Pure."""
        # -P: a `random.py` in the user's folder must not stand in for the standard library's.
        module = "harness_slurm.local_agent"
        return (sys.executable, "-P", "-m", module, "--plan", str(plan_file(plan.run_dir)))

    def launch(self, plan: LaunchPlan, progress: Iterable[Any] | None = None) -> LaunchResult:
        """Start the ranks and wait for them; `progress` is advanced about ten times a second.

        An interrupt (SIGINT) ends the ranks and is reported in the result; a second one while
        they end kills them at once.

        Raises:
            LaunchError: the port is taken, or the agent could not do its work.
        """
        if plan.port is not None:
            check_port(plan.port)
        launch_id = secrets.token_hex(8)
        result_file = plan.run_dir / "launch-result.json"
        result_file.unlink(missing_ok=True)
        write_json(plan_file(plan.run_dir), _agent_plan(plan, result_file))
        ending: Ending = "interrupted"
        agent = self._start(plan, launch_id)
        try:
            ending = wait_for(agent, plan.timeout_s, progress)
        finally:
            _stop(agent)
            sweep(launch_id)
        return _result(ending, agent.returncode, result_file, RunDir(plan.run_dir))

    def _start(self, plan: LaunchPlan, launch_id: str) -> subprocess.Popen[bytes]:
        logs = RunDir(plan.run_dir).logs
        logs.mkdir(exist_ok=True)
        with (logs / "launcher.out").open("wb") as out, (logs / "launcher.err").open("wb") as err:
            return subprocess.Popen(
                self.command(plan),
                env={**os.environ, **plan.env, LAUNCH_ID: launch_id},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C on the terminal is ours to handle
            )


def plan_file(run_dir: Path) -> Path:
    """Where the agent finds what to do."""
    return run_dir / "launch.json"


def _agent_plan(plan: LaunchPlan, result_file: Path) -> dict[str, Any]:
    return {
        "argv": list(plan.argv),
        "env": dict(plan.env),
        "world_size": plan.world_size,
        "run_dir": str(plan.run_dir),
        "port": plan.port,
        "parent_pid": os.getpid(),
        "result": str(result_file),
    }


def _stop(agent: subprocess.Popen[bytes]) -> None:
    """Have the agent end its ranks and itself; kill it if it does not, or on an interrupt."""
    if agent.poll() is not None:
        return
    agent.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        agent.wait(STOP_SECONDS)
        return
    agent.kill()
    agent.wait()


def _result(ending: Ending, agent_code: int, result_file: Path, run: RunDir) -> LaunchResult:
    if (ended_by_us := result_of_ending(ending)) is not None:
        return ended_by_us
    try:
        outcome = json.loads(result_file.read_text())
    except (OSError, ValueError):
        outcome = {"stopped": True, "failures": []}
    if outcome["stopped"]:
        said = last_words(run.logs / "launcher.err")
        raise LaunchError(
            f"the ranks' launcher ended with code {agent_code}" + (f": {said}" if said else ""),
            f"see {run.logs / 'launcher.err'}",
        )
    failures = [RankExit(**failure) for failure in outcome["failures"]]
    return result_of_failures(failures) if failures else LaunchResult(ExitCode.OK)
