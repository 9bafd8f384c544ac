"""Asking Slurm, gently: one call for all jobs, seldom, with a limit, and then something else.

sacct answers out of a database that may lag behind the job, be down, or not exist. It is asked
again only after `Policy.interval_s`, at most `Policy.calls` times. `scontrol show job`, which
forgets a job minutes after its end, is asked once: at last, or at once where the database is
down, for then nobody is to wait for steps' figures that may never come. What came is written as
it came, with a header line of the fields, so that ingest can be repeated anywhere.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from harness_collectors.sacct.fields import ENDED_STATES, QUERY_FIELDS, Step
from harness_collectors.sacct.scontrol import read_scontrol
from harness_collectors.sacct.table import read_table
from harness_schemas.errors import UsageError

DELIMITER: Final = "\x1f"
"""ASCII's own unit separator: sacct takes any text, and nobody types this one into a field."""
TIMEOUT_S: Final = 30.0
FETCH_FORMAT: Final = "harness-sacct-fetch"
DISABLED: Final = "accounting storage is disabled"
_JOB_ID = re.compile(r"\d{1,12}(?:_\d+|\+\d+)?")
_BAD_FIELD = re.compile(r"[Ii]nvalid field requested:\s*\"?(\w+)")
_BAD_FIELDS_MOST = 3


@dataclass(frozen=True)
class Answer:
    """What a command of Slurm's gave back; `code` 127: there is no such command."""

    code: int
    out: str
    err: str


class SlurmClient(Protocol):
    """Runs one command of Slurm's. Tests pass their own, which counts."""

    def run(self, argv: Sequence[str]) -> Answer:
        """Run and wait; never raises for what Slurm or the machine may do."""


class CommandClient:
    """Runs the commands on PATH, with times as Unix seconds and messages in English."""

    def run(self, argv: Sequence[str]) -> Answer:
        """Run and wait for at most `TIMEOUT_S`."""
        env = {**os.environ, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                argv, capture_output=True, env=env, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError:
            return Answer(127, "", f"{argv[0]} is not on PATH")
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"{argv[0]} did not answer within {TIMEOUT_S:.0f} s")
        except OSError as error:
            return Answer(126, "", f"{argv[0]}: {error.strerror or error}")
        return Answer(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )


@dataclass(frozen=True)
class Policy:
    """How often sacct may be asked. `clock` and `sleep` are for tests."""

    interval_s: float = 60.0
    calls: int = 3
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Fetched:
    """What was fetched. `state` is one of `COLLECTION_STATES`."""

    state: str
    reason: str
    method: str
    calls: int
    steps: list[Step] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def sacct_argv(jobs: Sequence[str], fields: Sequence[str] = QUERY_FIELDS) -> tuple[str, ...]:
    """The one question: all rows of all jobs, earlier runs of requeued ones included."""
    return (
        "sacct",
        "-j",
        ",".join(jobs),
        "-n",
        "-P",
        f"--delimiter={DELIMITER}",
        "--duplicates",
        "-o",
        ",".join(fields),
    )


def fetch(
    jobs: Sequence[str],
    folder: Path,
    client: SlurmClient | None = None,
    policy: Policy | None = None,
    ended: bool = True,
) -> Fetched:
    """Fetch the accounting of `jobs` into `folder`; waits for the rows to be final if `ended`.

    With `ended` false (the job is still running, as when asked from inside it) there is one call.

    Raises:
        UsageError: a job id that is none.
    """
    for job in jobs:
        if not _JOB_ID.fullmatch(job):
            raise UsageError(f"{job!r} is no Slurm job id", "a job id is a number, as 4711 or 8_2")
    asker = _Asker(list(jobs), folder, client or CommandClient(), policy or Policy())
    found = asker.accounting(ended)
    if found.state != "ok":
        asker.fall_back(found)
    asker.note(found)
    return found


class _Asker:
    """One fetch: what is asked of whom, and where the answers go."""

    def __init__(self, jobs: list[str], folder: Path, client: SlurmClient, policy: Policy) -> None:
        self.jobs = jobs
        self.folder = folder
        self.client = client
        self.policy = policy
        self.fields = list(QUERY_FIELDS)
        self._told: str | None = None

    def accounting(self, ended: bool) -> Fetched:
        """Ask sacct until the rows are final, the calls are used up or it cannot answer at all."""
        found = Fetched("degraded", "", "sacct", 0)
        while True:
            asked = self.policy.clock()
            answer = self._ask(found)
            if answer.code == 0:
                self._keep(answer.out, found)
                found.reason = _unfinished(self.jobs, found.steps)
                found.state = "degraded" if found.reason else "ok"
            else:
                found.reason = _first_line(answer.err) or f"sacct ended with {answer.code}"
            hopeless = answer.code == 127 or DISABLED in (answer.err + answer.out)
            if found.state == "ok" or hopeless or not ended or found.calls >= self.policy.calls:
                return found
            if answer.code and self._all_final(read_scontrol(self._controller()).steps):
                return found
            self.policy.sleep(max(0.0, self.policy.interval_s - (self.policy.clock() - asked)))

    def _ask(self, found: Fetched) -> Answer:
        """One answer; a field that this version lacks is left out (sacct refuses it by itself)."""
        found.calls += 1
        answer = self.client.run(sacct_argv(self.jobs, self.fields))
        for _ in range(_BAD_FIELDS_MOST):
            bad = _BAD_FIELD.search(answer.err) if answer.code else None
            kept = [name for name in self.fields if not bad or name.lower() != bad[1].lower()]
            if len(kept) == len(self.fields):
                break
            self.fields = kept
            answer = self.client.run(sacct_argv(self.jobs, self.fields))
        return answer

    def _keep(self, out: str, found: Fetched) -> None:
        text = DELIMITER.join(self.fields) + "\n" + out
        found.steps = read_table(text).steps
        found.files = []
        self._write("sacct.txt", text, found)

    def fall_back(self, found: Fetched) -> None:
        """Take the rows of jobs that sacct had no final word on from scontrol."""
        text = "" if self._all_final(found.steps) else self._controller()
        if text:
            found.method = "sacct+scontrol" if found.steps else "scontrol"
            self._write("scontrol.txt", text, found)
            found.steps += read_scontrol(text).steps
            found.reason += "; the job's own row is from scontrol, which knows no steps"
        elif not found.steps:
            found.method, found.state = "none", "skipped"

    def _controller(self) -> str:
        """What scontrol says, one question a job or array; empty where it knows none."""
        if self._told is None:
            texts = []
            for job in dict.fromkeys(job.partition("_")[0] for job in self.jobs):
                answer = self.client.run(("scontrol", "show", "job", "-o", job))
                texts += [answer.out] if answer.code == 0 and "JobState=" in answer.out else []
            self._told = "".join(texts)
        return self._told

    def _all_final(self, steps: Sequence[Step]) -> bool:
        settled = {step.raw_job_id for step in steps if _is_final(step)}
        settled |= {step.job_id for step in steps if _is_final(step)}
        return settled.issuperset(self.jobs)

    def note(self, found: Fetched) -> None:
        """Write down how it went, for ingest."""
        about: dict[str, Any] = {
            "format": FETCH_FORMAT,
            "jobs": self.jobs,
            "state": found.state,
            "reason": found.reason,
            "method": found.method,
            "calls": found.calls,
        }
        self._write("fetch.json", json.dumps(about, indent=2) + "\n", found)

    def _write(self, name: str, text: str, found: Fetched) -> None:
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:  # what was said is known, if not kept
            found.reason += f"; {path} could not be written: {error.strerror or error}"
            return
        found.files.append(path)


def _is_final(step: Step) -> bool:
    return step.step_id is None and step.state in ENDED_STATES and step.ended_ns is not None


def _unfinished(jobs: Sequence[str], steps: Sequence[Step]) -> str:
    """Why the rows are not the last word yet; empty if they are."""
    latest: dict[str | None, Step] = {}
    for step in steps:
        if step.step_id is None:
            latest[step.raw_job_id] = latest[step.job_id] = step
    for job in jobs:
        own = latest.get(job)
        if own is None:
            return f"the accounting has no row of job {job} yet"
        if not _is_final(own):
            return f"the accounting still shows job {job} as {own.state or 'of unknown state'}"
    running = [f"{s.job_id}.{s.step_id}" for s in steps if s.state == "RUNNING"]
    return f"the accounting still shows step {running[0]} as RUNNING" if running else ""


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
