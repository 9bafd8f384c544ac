"""Jobs that are ended on purpose, on a real Slurm, and what is left and said when they are.

A scene is one run in a folder of its own: `harness` as typed, ranks that can be told to fail in
the middle of a step, every question to Slurm counted, and every process of the run marked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import slurm_jobs as jobs
from unit.probe.spool import inflated

MARK = "HARNESS_ENDS_SCENE"
RAISE, RAISE_GPU_OOM, EAT = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2, signal.SIGRTMIN + 3
"""Signals with which a rank raises, raises as torch does on a full GPU, or eats memory."""

AT_WORK_SECONDS = 2.0

SPEC = """
name = "ends"
device = "cpu"
[model]
synthetic = "tiny-llama"
layers = 2
[prompts]
limit = 1
[parallel]
tp = 1
pp = 2
[generation]
new_tokens = 12
repeats = 2000
warmup = 0
stop_at_eos = false
[launcher]
kind = "slurm"
threads = 1
[check]
reference = false
[slurm]
nodes = 2
time = "5min"
mem = "1500M"
"""
"""Two ranks on two nodes, at work until somebody ends them."""

FAULTS = f"""
import os, signal

def fail(number, frame):
    import torch
    if number == {int(RAISE)}:
        raise RuntimeError("the weights of layer 1 are not finite")
    if number == {int(RAISE_GPU_OOM)}:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
            "79.10 GiB of which 1.19 GiB is free."
        )
    eaten = []
    while True:
        eaten.append(b"x" * (64 << 20))

if "RANK" in os.environ or "SLURM_PROCID" in os.environ:
    for number in ({int(RAISE)}, {int(RAISE_GPU_OOM)}, {int(EAT)}):
        signal.signal(number, fail)
"""
"""Python imports it at start (sitecustomize), so the ranks' own program stays as it is."""


LAST_SPANS = """
SELECT rank, max(end_ns) FROM spans
WHERE source = 'app_timers' AND complete AND rank IS NOT NULL GROUP BY rank
"""


@dataclass(frozen=True)
class Answer:
    """What `harness` returned, printed and said, and when (Unix ns) it was done."""

    code: int
    out: str
    err: str
    at_ns: int


@dataclass
class Scene:
    """One run, and everything that is known about its end."""

    folder: Path
    name: str
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    provoked_ns: int = 0
    ended_ns: int = 0
    """From when the answer is waited for, where that is not the last rank's exit."""
    note: str = ""
    root: Path | None = None
    """Where the runs lie, if not in `runs`."""

    @classmethod
    def make(cls, folder: Path, name: str, spec: str = SPEC, env: Mapping[str, str] = {}) -> Scene:
        """A folder with a specification, counted commands and faults to order."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.toml").write_text(spec)
        (folder / "faults").mkdir()
        (folder / "faults" / "sitecustomize.py").write_text(FAULTS)
        path, _ = jobs.counting_path(folder)
        found = {
            **path,
            "PYTHONPATH": f"{folder / 'faults'}:{os.environ.get('PYTHONPATH', '')}",
            MARK: f"{name}-{os.getpid()}",
            "OMP_NUM_THREADS": "1",
        }
        return cls(folder, name, {**found, **env})

    # -- to its middle -----------------------------------------------------------------------

    def start(self, *arguments: str) -> None:
        """`harness run spec.toml ...`, going on."""
        words = ("run", "spec.toml", *arguments)
        self.process = jobs.start(*words, cwd=self.folder, **self.env)

    def wrap(self, body: str, options: str = "", *arguments: str) -> None:
        """`harness run -- sbatch` of a script that runs a light rank of somebody else's."""
        name = jobs.script(self.folder, f"{self.name}.sbatch", body, options)
        words = ("run", *arguments, "--", "sbatch", name)
        self.process = jobs.start(*words, cwd=self.folder, **self.env)

    def to_decode(self, ranks: int = 2, steps: int = 40, seconds: float = 150) -> None:
        """Wait until every rank has begun so many decode steps, and been at it for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(self.steps(rank) >= steps for rank in range(ranks)):
                time.sleep(AT_WORK_SECONDS)
                return
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise AssertionError(f"{self.name}: the ranks did not come to decode")

    def steps(self, rank: int) -> int:
        """Decode steps that a rank has begun."""
        with contextlib.suppress(OSError):
            return inflated(self.stem(rank), ".units.jsonl.gz").count(b'"phase":"decode"')
        return 0

    def stem(self, rank: int) -> Path:
        """What the names of a rank's files begin with."""
        return self.run / "spans" / f"rank-{rank:05d}"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return ((self.root or self.folder / "runs") / "latest").resolve()

    @property
    def job(self) -> str:
        """Its Slurm job."""
        return jobs.job_of(self.run)

    def pid(self, rank: int) -> int:
        """A rank's process."""
        lines = self.stem(rank).with_suffix(".meta.jsonl").read_text().splitlines()
        return int(json.loads(lines[0])["pid"])

    def provoke(self, act: Callable[[], object]) -> None:
        """Do it, and remember when."""
        self.provoked_ns = time.time_ns()
        act()

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to a rank's process."""
        self.provoke(lambda: os.kill(self.pid(rank), number))

    def kill_named(self, word: str) -> int:
        """SIGKILL this run's processes in whose command the word is, srun excepted; how many."""
        killed = 0
        for line in marked(self.env[MARK], 4000):
            pid, command = line.split(" ", 1)
            if word in command and "srun" not in command.split()[0]:
                os.kill(int(pid), signal.SIGKILL)
                killed += 1
        return killed

    # -- its end -----------------------------------------------------------------------------

    def end(self, timeout: float = 300) -> Answer:
        """Wait for what was started."""
        assert self.process is not None
        code, out, err = jobs.end(self.process, timeout)
        return Answer(code, out, err, time.time_ns())

    def harness(self, *arguments: str) -> Answer:
        """Another `harness ...` of the same user in the same place."""
        code, out, err = jobs.harness(*arguments, cwd=self.folder, **self.env)
        return Answer(code, out, err, time.time_ns())

    def rank_ends(self, run: Path | None = None) -> dict[int, int]:
        """When each rank's process ended (Unix ns), as far as it was seen."""
        found = {}
        for path in ((run or self.run) / "job").glob("rank-*.json"):
            data = json.loads(path.read_text())
            found[int(data["rank"])] = int(data["ended_ns"])
        return found

    def lost_seconds(self, run: Path | None = None, until: str = "blow") -> float | None:
        """Between the end and the last span before it, of the rank of which most is lost.

        `until`: `blow`, since after it ranks only wait for a peer that is gone (a rank that
        ended earlier: until then); `exit`: until the rank's process ended, where that is known.
        """
        run = run or self.run
        found = jobs.rows(run, LAST_SPANS)
        last = {int(str(rank)): int(str(end)) for rank, end in found}
        ends = self.rank_ends(run)
        blow = self.provoked_ns or sys.maxsize
        if until == "exit":
            cuts = {rank: ends.get(rank, blow) for rank in last}
        else:
            cuts = {rank: min(blow, ends.get(rank, sys.maxsize)) for rank in last}
        known = [(cut - last[rank]) / 1e9 for rank, cut in cuts.items() if cut < sys.maxsize]
        return max(0.0, *known) if known else None

    def ingest_seconds(self) -> float:
        """Between the accounting's arrival and the database."""
        fetched = [path.stat().st_mtime for path in self.run.glob("artifacts/sacct/*/fetch.json")]
        return (self.run / "run.duckdb").stat().st_mtime - max(fetched) if fetched else 0.0

    def verdict(self, run: Path | None = None) -> tuple[str, str]:
        """The database's verdict, and the sentence that says what to do."""
        ((verdict, detail),) = jobs.rows(
            run or self.run, "SELECT verdict, verdict_detail FROM runs"
        )
        return str(verdict), str(detail or "")

    def asked(self) -> str:
        """Questions to Slurm as `squeue 2, sacct 1`."""
        log = self.folder / "calls.log"
        counts = {name: len(jobs.calls(log, name)) for name in jobs.COUNTED}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)

    def asked_too_often(self) -> list[str]:
        """Questions that came too soon after the one before."""
        log = self.folder / "calls.log"
        found = []
        for name, least in (("squeue", 4.9), ("sacct", 59.0)):
            for earlier, later in itertools.pairwise(jobs.calls(log, name)):
                if later - earlier < least:
                    found.append(f"{name} after {later - earlier:.1f} s")
        return found

    def left(self, patience_s: float = 5.0) -> list[str]:
        """Processes of this run that still live, after some patience."""
        deadline = time.monotonic() + patience_s
        while found := marked(self.env[MARK]):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found

    def clear(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        with contextlib.suppress(OSError, ValueError, KeyError):
            subprocess.run(["scancel", "--quiet", self.job], capture_output=True)


def marked(value: str, shown: int = 80) -> list[str]:
    """Living processes in whose environment the mark has this value, as `pid command`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={value}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words and int(entry.name) != os.getpid():
                found.append(f"{entry.name} {words[:shown].strip()}")
    return found


def remedy(detail: str) -> str:
    """The part of a verdict's detail that says what to do: its last sentence."""
    return re.split(r"; (?=[A-Z])", detail)[-1]
