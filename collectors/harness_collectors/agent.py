"""The agent: one process a node that runs the samplers beside the ranks.

    python -m harness_collectors.agent --run-dir D --samplers '[{"target": ..., "options": {}}]'

It ends when told to (SIGTERM, SIGHUP), when its standard input, if that is a pipe, reaches its
end, and when its parent dies. Where standard input is not the starter's to give (srun), say
`--ignore-stdin`. It never raises and returns 0: what a sampler could not do is in that
sampler's `state.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from harness_schemas.rundir import RunDir
from harness_schemas.spi import Sampler

POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


class ParentWatch:
    """Notices that the process that started the agent is gone."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        # The kernel sends the signal when the *thread* that started us ends, so it is only a
        # reason to look: what decides is whether the parent process is still there.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)

    def gone(self) -> bool:
        """Whether another process adopted the agent."""
        return os.getppid() != self._parent


class Agent:
    """Runs samplers until it is time to stop."""

    def __init__(self, run_dir: Path, host: str) -> None:
        self._run_dir = run_dir
        self._host = host
        self._stopping = False
        self._samplers: list[Sampler] = []

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM and SIGHUP end the agent; SIGUSR1 only wakes it to look for its parent."""
        if number != signal.SIGUSR1:
            self._stopping = True

    def start(self, specs: Sequence[Mapping[str, Any]]) -> None:
        """Start every sampler that can be started; for the others leave the reason behind."""
        for spec in specs:
            target = str(spec.get("target"))
            try:
                sampler = self._make(target, spec.get("options") or {})
                sampler.start()
                self._samplers.append(sampler)
            except Exception as error:  # noqa: BLE001 (the other samplers go on)
                complain(f"sampler {target} did not start: {type(error).__name__}: {error}")

    def _make(self, target: str, options: Mapping[str, Any]) -> Sampler:
        module, _, attribute = target.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
        sampler: Sampler = factory(self._run_dir, self._host, options)
        return sampler

    def wait(self, parent: ParentWatch, watch_stdin: bool) -> None:
        """Return when the agent has been told to stop or has nobody left to work for."""
        waker, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)  # a signal between the check and the wait is not lost
        fds = [0, waker] if watch_stdin and _is_pipe(0) else [waker]
        while not self._stopping and not parent.gone():
            ready, _, _ = select.select(fds, [], [], POLL_SECONDS)
            if waker in ready:
                os.read(waker, 64)
            if 0 in ready and not os.read(0, 4096):
                return

    def stop(self) -> None:
        """Stop all samplers at once: together they take as long as the slowest."""
        threads = [threading.Thread(target=sampler.stop) for sampler in self._samplers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def complain(text: str) -> None:
    """One line on standard error."""
    with contextlib.suppress(OSError):
        os.write(2, f"harness agent: {text}\n".encode(errors="replace"))


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _read_specs(text: str) -> list[Mapping[str, Any]]:
    specs = json.loads(text)
    if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
        raise ValueError("--samplers must be a JSON list of objects")
    return specs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the samplers named on the command line; returns the exit code."""
    parent = ParentWatch()
    parser = argparse.ArgumentParser(prog="python -m harness_collectors.agent")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--samplers", type=_read_specs, required=True)
    parser.add_argument("--host", default=socket.gethostname())
    parser.add_argument("--ignore-stdin", action="store_true")
    options = parser.parse_args(argv)
    agent = Agent(RunDir(options.run_dir).path, options.host)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, agent.on_signal)
    # Ctrl-C reaches the whole process group; the parent decides when sampling ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A warning ahead of a job's time limit is for the ranks.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        agent.start(options.samplers)
        agent.wait(parent, watch_stdin=not options.ignore_stdin)
    except Exception as error:  # noqa: BLE001 (nothing here may disturb the run)
        complain(f"{type(error).__name__}: {error}")
    finally:
        agent.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
