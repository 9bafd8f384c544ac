"""Wait for a job: its state while it waits, its log while it runs, its end from its own marks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.progress import Narrator
from harness_schemas.rundir import RunDir
from harness_slurm.job.controller import Controller, JobState
from harness_slurm.job.marks import JobRecord, read_begin, read_end

TICK_SECONDS = 0.25
RUNNING_SECONDS = 20.0
"""Between two questions while the job runs: only one that was killed leaves no end mark."""
SETTLE_SECONDS = 1.0
SETTLE_TRIES = 3
FOLLOWED = 8
"""Logs of the first tasks of an array that are shown."""
_CHUNK = 1 << 16


@dataclass
class _Task:
    """One job, or one task of an array, as far as it is known."""

    run: RunDir
    state: JobState | None = None
    done: bool = False
    attempt: int | None = None
    positions: dict[Path, int] = field(default_factory=dict)


class Follower:
    """Follows the jobs of one record until all have ended.

    The controller is asked every 5 s while a job waits or has been stopped (a requeued one goes
    on), every 20 s while it runs, and not at all about one that has left its end mark.
    """

    def __init__(
        self,
        record: JobRecord,
        run: RunDir,
        narrator: Narrator,
        controller: Controller,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.record = record
        self.narrator = narrator
        self.controller = controller
        self.tasks = {job: _Task(own) for job, own in record.runs(run).items()}
        self._clock = clock
        self._sleep = sleep
        self._asked = -RUNNING_SECONDS

    def wait(self) -> Mapping[str, JobState | None]:
        """Block until every job has ended; returns what the controller last said of each."""
        while not self.tick():
            self._sleep(TICK_SECONDS)
        return {job: task.state for job, task in self.tasks.items()}

    def tick(self) -> bool:
        """Look once; returns whether all have ended."""
        for job, task in self.tasks.items():
            begin = None if task.done else read_begin(task.run)
            if begin is not None and begin.attempt != task.attempt:
                task.attempt, task.state = begin.attempt, task.state if not begin.attempt else None
                again = f", attempt {begin.attempt}" if begin.attempt else ""
                self._note(job, task, JobState("RUNNING", begin.host + again))
        for task in self._open():
            end = read_end(task.run)
            if end is not None and not end.stopped:
                task.done = True
        if self._open() and self._clock() - self._asked >= self._patience():
            self._ask()
        for task in list(self.tasks.values())[:FOLLOWED]:
            self._show_log(task)
        return not self._open()

    def settle(self) -> None:
        """Wait until the controller has noted the end too, and accounting had time to follow."""
        known = [task.state for task in self.tasks.values()]
        for _ in range(0 if all(s and not s.active for s in known) else SETTLE_TRIES):
            self._sleep(max(SETTLE_SECONDS, self.controller.due()))
            states = self.controller.states(list(self.tasks))
            if states is not None and not any(state.active for state in states.values()):
                for job, state in states.items():
                    self.tasks[job].state = state
                break
        self._sleep(SETTLE_SECONDS)

    def _open(self) -> list[_Task]:
        return [task for task in self.tasks.values() if not task.done]

    def _patience(self) -> float:
        running = all(read_begin(task.run) and not read_end(task.run) for task in self._open())
        return RUNNING_SECONDS if running else 0.0

    def _ask(self) -> None:
        states = self.controller.states([job for job, task in self.tasks.items() if not task.done])
        if states is None:
            return
        self._asked = self._clock()
        for job, state in states.items():
            self._note(job, self.tasks[job], state)
            self.tasks[job].done = not state.active

    def _note(self, job: str, task: _Task, now: JobState) -> None:
        before, task.state = task.state, now
        told = "" if now.state == "RUNNING" else f" ({now.reason})" if now.reason else ""
        if now.state == "RUNNING" and now.reason:
            told = f" on {now.reason}"
        waits_for_else = now.state == "PENDING" and before is not None and before != now
        if before is None or before.state != now.state or waits_for_else:
            self.narrator.say(f"job {job} {now.state.lower()}{told}")

    def _show_log(self, task: _Task) -> None:
        begin = read_begin(task.run)
        names = (begin.stdout, begin.stderr) if begin else ()
        for path in dict.fromkeys(Path(name) for name in names if name):
            for line in _new_lines(path, task.positions):
                self.narrator.say(line)


def _new_lines(path: Path, positions: dict[Path, int]) -> list[str]:
    """Whole lines that came since the last look."""
    try:
        with path.open("rb") as stream:
            stream.seek(positions.get(path, 0))
            data = stream.read(_CHUNK)
    except OSError:
        return []
    whole = data.rfind(b"\n") + 1
    positions[path] = positions.get(path, 0) + (whole or (len(data) if len(data) == _CHUNK else 0))
    return data[:whole].decode(errors="replace").splitlines()
