"""One rank of a step: `srun ... python -m harness_slurm.step.task --plan launch.json`.

Tells the rank its place in torch's words, gives it log files of its own, and leaves a mark of how
it ended (`job/rank-00003.json`), which is how the launcher knows who failed first. The standard
library is all it needs, so hundreds of ranks start fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir, write_json
from harness_slurm.step.ranks import TaskFacts

RANK_EXEC = Path(__file__).parents[1] / "rank_exec.py"
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(argv: list[str] | None = None) -> int:
    """Run the rank to its end; returns its exit code, 128 + N if signal N killed it."""
    parser = argparse.ArgumentParser(prog="harness_slurm.step.task")
    parser.add_argument("--plan", type=Path, required=True)
    plan = json.loads(parser.parse_args(argv).plan.read_text())
    try:
        facts = TaskFacts.read(os.environ)
    except HarnessError as error:
        sys.stderr.write(f"harness: {error.message}\n")
        return error.exit_code
    # Inherited by the rank until it waits for it: a warning while it starts must not kill it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    run = RunDir(Path(plan["run_dir"]))
    rank = subprocess.Popen(
        [sys.executable, "-I", "-S", RANK_EXEC, str(os.getpid()), run.logs, *plan["argv"]],
        env={**os.environ, **plan["env"], **facts.environment(plan["port"])},
    )
    pass_on(rank)
    code = rank.wait()
    mark = {"rank": facts.rank, "exit_code": code, "ended_ns": time.time_ns()}
    with contextlib.suppress(HarnessError):  # a full disk is not the rank's failure
        write_json(rank_mark(run, facts.rank), mark)
    return code if code >= 0 else 128 - code


def rank_mark(run: RunDir, rank: int) -> Path:
    """The file that says how a rank ended."""
    return run.path / "job" / f"rank-{rank:05d}.json"


def pass_on(rank: subprocess.Popen[bytes]) -> None:
    """Hand the signals of Slurm to the rank.

    With proctrack/cgroup slurmstepd signals only its own children (this process), with
    proctrack/linuxproc and pgid all processes: the rank then has the signal twice, which does no
    harm.
    """

    def hand_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            rank.send_signal(number)

    for number in PASSED_ON:
        signal.signal(number, hand_on)


if __name__ == "__main__":
    sys.exit(main())
