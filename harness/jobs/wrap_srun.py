"""`harness run -- srun ...`: their step as it is, samplers beside it on every node."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.jobs.finish import told_sleep
from harness.jobs.follow import SETTLE_SECONDS
from harness.progress import Narrator
from harness.session import agent_command
from harness.setup.capture import Capture
from harness_collectors.sacct.query import Policy, fetch
from harness_schemas.rundir import RunDir
from harness_slurm.job.arguments import split_line
from harness_slurm.job.marks import folder
from harness_slurm.step.launcher import beside_environment, beside_ranks
from harness_slurm.step.nodelist import expand_nodes

LOOK_SECONDS = 0.25
STOP_SECONDS = 10.0
PROLOG = """#!/bin/sh
# Written by `harness run -- srun`: the step's first task says where it runs.
[ "$SLURM_PROCID" = 0 ] || exit 0
echo "$SLURM_JOB_ID $SLURM_STEP_NODELIST" >{where}.new && mv {where}.new {where}
"""


@dataclass
class Step:
    """The step of an srun line, once its first task has told."""

    run: RunDir
    capture: Capture
    job_id: str | None = None
    agent: subprocess.Popen[bytes] | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def told(self) -> Path:
        """The file that the first task writes."""
        return folder(self.run).absolute() / "step"

    def environment(self) -> dict[str, str]:
        """What makes the first task tell. A task prolog of theirs stays theirs, and none tells."""
        if "SLURM_TASK_PROLOG" in os.environ:
            return {}
        prolog = folder(self.run).absolute() / "prolog.sh"
        prolog.parent.mkdir(exist_ok=True)
        prolog.write_text(PROLOG.format(where=shlex.quote(str(self.told))))
        prolog.chmod(0o755)
        return {"SLURM_TASK_PROLOG": str(prolog)}

    def watch(self) -> None:
        """Start the samplers as soon as the step is known."""
        while not self.ended.wait(LOOK_SECONDS):
            with contextlib.suppress(OSError, ValueError):
                self._sample(expand_nodes(self.look()))
                return

    def look(self) -> str:
        """Read what the first task has told; returns the step's nodes.

        Raises:
            OSError, ValueError: it has told nothing yet.
        """
        self.job_id, nodes = self.told.read_text().split(maxsplit=1)
        return nodes

    def _sample(self, hosts: Sequence[str]) -> None:
        if not self.capture.samplers:
            return
        first, *rest = beside_ranks(hosts, agent_command(self.run, self.capture))
        with (self.run.logs / "agent.log").open("wb") as log:
            self.agent = subprocess.Popen(
                (first, f"--jobid={self.job_id}", *rest),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=beside_environment(),
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the samplers."""
        if self.agent is None or self.agent.stdin is None:
            return
        self.agent.stdin.close()
        try:
            self.agent.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.agent.wait()


@contextlib.contextmanager
def beside_step(run: RunDir, capture: Capture, narrator: Narrator) -> Iterator[Step]:
    """Sample beside the step that srun is about to start, and fetch its accounting after it."""
    step = Step(run, capture)
    watcher = threading.Thread(target=step.watch, name="step-watch")
    watcher.start()
    try:
        yield step
    finally:
        step.ended.set()
        watcher.join()
        step.stop()
        with contextlib.suppress(OSError, ValueError):
            step.look()  # of a step too short for the watcher
    if step.job_id is not None:
        _account(run, step.job_id, narrator)


def _account(run: RunDir, job: str, narrator: Narrator) -> None:
    """Ask for the accounting: once where the job goes on, in an allocation of the user's own."""
    inside = "SLURM_JOB_ID" in os.environ
    if not inside:
        narrator.say("accounting")
        time.sleep(SETTLE_SECONDS)
    try:
        policy = Policy(sleep=told_sleep(narrator))
        fetch([job], run.collector_dir("sacct", socket.gethostname()), None, policy, not inside)
    except KeyboardInterrupt:
        narrator.say("  not waited for")


def keep_exported(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The srun line with our variables added to its own `--export`, where it names some.

    `--export=NONE` is kept: their tasks then see nothing of us.
    """
    line = split_line(argv[1:], "srun")
    value = line.value("export")
    if value is None or value.split(",")[0] in ("ALL", "NONE", "NIL"):
        return tuple(argv)
    more = ",".join((value, *sorted(env)))
    return (argv[0], *line.without("export"), f"--export={more}", *line.rest)
