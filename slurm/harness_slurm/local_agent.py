"""The process in which torch's elastic agent starts and watches the ranks of one host.

`python -P -m harness_slurm.local_agent --plan launch.json` is started by `LocalLauncher`, so
that the harness itself never imports torch. It writes launch-result.json beside the plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from harness_schemas.rundir import RunDir, write_json
from harness_slurm.failures import Ended, explain
from harness_slurm.processes import LAUNCH_ID, die_with_parent, sweep
from harness_slurm.watch import RankWatch

MONITOR_SECONDS = 0.1
SHUTDOWN_SECONDS = 3
RANK_EXEC = Path(__file__).with_name("rank_exec.py")


def main(argv: list[str] | None = None) -> int:
    """Run the ranks of a plan to their end; returns 0 if the result could be written."""
    parser = argparse.ArgumentParser(prog="harness_slurm.local_agent")
    parser.add_argument("--plan", type=Path, required=True)
    plan = json.loads(parser.parse_args(argv).plan.read_text())
    # Before torch is imported: from here on the agent cannot outlive the harness.
    die_with_parent(plan["parent_pid"], signal.SIGTERM)
    run = RunDir(Path(plan["run_dir"]))
    try:
        outcome = run_ranks(plan, run)
    finally:
        sweep(os.environ[LAUNCH_ID])
        shutil.rmtree(run.logs / "elastic", ignore_errors=True)
    write_json(Path(plan["result"]), outcome)
    return 0


def run_ranks(plan: dict[str, Any], run: RunDir) -> dict[str, Any]:
    """Start the ranks and wait; `{"failures": [...], "stopped": bool}`, root cause first."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    _take_torn_error_files()
    watch = RankWatch(plan["world_size"], plan["parent_pid"], SHUTDOWN_SECONDS)
    # torch replaces ${local_rank} in the words, and $$ by $: a shell's $$ is to stay.
    argv = [word.replace("$", "$$") for word in plan["argv"]]
    command = ("-I", "-S", str(RANK_EXEC), str(os.getpid()), str(run.logs), *argv)
    watch.start()
    try:
        elastic_launch(_config(plan, run), sys.executable)(*command)
    except ChildFailedError as error:
        ended = [_ended(rank, failure, watch) for rank, failure in error.failures.items()]
        failures = explain(ended, run, SHUTDOWN_SECONDS)
        return {"failures": [dataclasses.asdict(f) for f in failures], "stopped": False}
    except SignalException:
        return {"failures": [], "stopped": True}
    finally:
        watch.stop()
    return {"failures": [], "stopped": False}


def _take_torn_error_files() -> None:
    """Let a rank's torn error file count as none: a rank that is killed while it writes why it
    ends would otherwise end torch's agent, and with it what is known of all ranks."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    read = ProcessFailure.__post_init__

    def read_or_none(failure: ProcessFailure) -> None:
        try:
            read(failure)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            failure.error_file = ""
            read(failure)

    ProcessFailure.__post_init__ = read_or_none


def _config(plan: dict[str, Any], run: RunDir) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    known = {field.name for field in dataclasses.fields(LaunchConfig)}
    # Given port: the store that the agent opens there is the ranks' own. None given: the c10d
    # backend binds a free one for them at once, so nobody can take it in between.
    given = plan["port"] is not None
    options: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": plan["world_size"],
        "run_id": run.run_id,
        "role": "rank",
        "rdzv_backend": "static" if given else "c10d",
        "rdzv_endpoint": f"127.0.0.1:{plan['port'] if given else 0}",
        "rdzv_configs": {"rank": 0} if given else {"is_host": True},
        "local_addr": "127.0.0.1",
        "max_restarts": 0,
        "monitor_interval": MONITOR_SECONDS,
        "logs_specs": DefaultLogsSpecs(log_dir=str(run.logs / "elastic")),
        "shutdown_timeout": SHUTDOWN_SECONDS,  # torch before 2.10 has none
    }
    return LaunchConfig(**{name: value for name, value in options.items() if name in known})


def _ended(rank: int, failure: Any, watch: RankWatch) -> Ended:
    """What torch and the watch know of a rank that did not end with 0."""
    message = failure.message
    wrote_error = isinstance(message, dict)
    if wrote_error:
        message = message.get("message", "")
    return Ended(
        rank=rank,
        exit_code=int(failure.exitcode),
        ended_ns=watch.ended_ns(failure.pid) or time.time_ns(),
        error=str(message) if wrote_error else "",
    )


if __name__ == "__main__":
    sys.exit(main())
