"""Parts of evidence read in several processes, their rows handed on in one order.

The order of rows, and so the database, does not depend on how many processes there are. A
process that dies costs its part only. What was read but not yet taken waits in files, a few
parts at most.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.ingest.exchange import (
    Stored,
    decode_answer,
    encode_context,
    encode_task,
    read_batches,
)
from harness.ingest.parts import Task, failed_row
from harness_schemas.spi import Batch, IngestContext

WORKER: Final = (sys.executable, "-m", "harness.ingest.worker")
AHEAD: Final = 2
"""Parts a process may have read before their rows are taken: bounds the disk in use."""


@dataclass(frozen=True)
class Answer:
    """What became of a part: its file and the batches in it, or why there are none."""

    path: Path
    stored: Sequence[Stored] = ()
    failure: str = ""


class Workers:
    """Processes that read parts; `with` ends them, whatever they are doing."""

    def __init__(
        self, jobs: int, folder: Path, context: IngestContext, command: Sequence[str] = WORKER
    ) -> None:
        self._folder = folder
        self._context = context
        self._command = tuple(command)
        self._pool = ThreadPoolExecutor(jobs, "ingest")
        self._jobs = jobs
        self._own = threading.local()
        self._running: list[subprocess.Popen[str]] = []
        self._closed = False

    def __enter__(self) -> Workers:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        for process in self._running:
            process.kill()
        self._pool.shutdown(cancel_futures=True)
        for process in self._running:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pids(self) -> list[int]:
        """Process ids of all workers that were started."""
        return [process.pid for process in self._running]

    def read(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Iterator[Batch]]]:
        """Each task with its batches, in the order of `tasks`."""
        waiting: deque[tuple[Task, Future[Answer]]] = deque()
        left = deque(enumerate(tasks))
        while left or waiting:
            while left and len(waiting) < AHEAD * self._jobs:
                number, task = left.popleft()
                waiting.append((task, self._pool.submit(self._ask, number, task)))
            task, future = waiting.popleft()
            yield task, self._rows(task, future.result())

    def _rows(self, task: Task, answer: Answer) -> Iterator[Batch]:
        if answer.failure:
            return iter([failed_row(task, self._context, answer.failure)])
        return read_batches(answer.path, answer.stored)

    def _ask(self, number: int, task: Task) -> Answer:
        path = self._folder / f"{number}.arrows"
        process = self._process()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(encode_task(task, path))
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if line.endswith("\n"):
            return Answer(path, decode_answer(line))
        process.wait()
        self._own.process = None
        with contextlib.suppress(OSError):
            path.unlink()
        return Answer(path, failure=f"its reader died: {_death(process.returncode)}")

    def _process(self) -> subprocess.Popen[str]:
        """This thread's process, started where it has none."""
        process: subprocess.Popen[str] | None = getattr(self._own, "process", None)
        if process is None:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is this process's to answer
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            self._own.process = process
            self._running.append(process)
            if self._closed:
                process.kill()
            assert process.stdin is not None
            process.stdin.write(encode_context(self._context))
        return process


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    reason = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{reason}"
