"""How a run ended: exit codes, error lines and logs gathered for the verdict, and an exit code."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.ending.outputs import KEPT_BYTES
from harness.ending.witness import Witness
from harness.status.hang_report import read_report
from harness.status.snapshot import take_snapshot
from harness_analysis.hang.model import HANG_LINE, DeclaredHang
from harness_analysis.hang.say import reason
from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import TextLine, Verdict, VerdictEvidence, lines_of
from harness_analysis.verdict.suspects import CollectiveProgress, Suspects
from harness_schemas.errors import ExitCode, HarnessError
from harness_schemas.live import read_page
from harness_schemas.redact import redact
from harness_schemas.rundir import RunDir
from harness_schemas.spi import LaunchResult, RankExit
from harness_schemas.spool import rank_of
from harness_schemas.units import format_ns
from harness_schemas.vocabulary import group_name
from harness_slurm.job.marks import read_begin

LOG_TAIL_BYTES = 16 << 10
TAIL_LINES = 12


@dataclass(frozen=True)
class Outcome:
    """What run.json and the database say about the end of a run."""

    status: str
    verdict: str
    detail: str | None
    exit_code: int
    rank: int | None = None
    tail: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its keys of run.json."""
        return {
            "status": self.status,
            "verdict": self.verdict,
            "verdict_detail": self.detail,
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True)
class End:
    """What is known of an end besides the files of the run; kept in run.json as `end`.

    None: not known, as of a run whose harness was killed.
    """

    exit_code: int | None = None
    timed_out: bool = False
    interrupted: bool = False
    rank_exits: tuple[RankExit, ...] = ()
    oom_kills: int | None = None
    kernel_lines: tuple[str, ...] = ()
    hung: bool = False

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        data = asdict(self)
        data["kernel_lines"] = [redact(line) for line in self.kernel_lines]
        for item in data["rank_exits"]:
            item["message"] = redact(item["message"])
        return data

    @staticmethod
    def from_json(data: Any) -> End:
        """Out of run.json; what is not there, or is no such record, is not known."""
        try:
            exits = tuple(RankExit(**item) for item in data["rank_exits"])
            fields = ("exit_code", "timed_out", "interrupted", "oom_kills")
            known = {name: data[name] for name in fields}
            lines, hung = tuple(data["kernel_lines"]), bool(data.get("hung"))
            return End(**known, rank_exits=exits, kernel_lines=lines, hung=hung)
        except (TypeError, KeyError):
            return End()


def end_of(result: LaunchResult, witness: Witness) -> End:
    """How a launch ended, with what the machine says about it."""
    killed = any(failure.exit_code == -signal.SIGKILL for failure in result.failures)
    killed = killed or result.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    return End(
        result.exit_code,
        result.timed_out,
        result.interrupted,
        result.failures,
        witness.oom_kills_since(),
        witness.kernel_lines(killed) if result.exit_code else (),
        result.hung,
    )


def judge_run(run: RunDir, end: End, world_size: int | None) -> Outcome:
    """Judge how the workload ended; `tail` holds the last log lines of the rank to look at."""
    evidence = gather(run, end, world_size)
    verdict = judge(evidence)
    if verdict.name == "ok":
        return Outcome("finished", "ok", None, ExitCode.OK)
    failed = end.rank_exits[0].rank if end.rank_exits else None
    rank = verdict.suspect if verdict.suspect is not None else failed
    return Outcome(
        "failed",
        verdict.name,
        _detail(verdict, failed),
        _exit_code(end),
        rank,
        log_tail(run, rank),
    )


def settled(run: RunDir, outcome: Outcome, database: Path) -> Outcome:
    """The outcome with the verdict of the database, which rests on more: accounting, NCCL's logs.

    run.json is brought up to date with it; the exit code stays the workload's.
    """
    from harness_analysis.store import open_database

    with open_database(database) as con:
        row = con.execute("SELECT verdict, verdict_detail FROM runs").fetchone()
    if row is None or row[0] is None or row == (outcome.verdict, outcome.detail):
        return outcome
    with contextlib.suppress(HarnessError):  # a folder that takes no more
        run.write({**run.read(), "verdict": row[0], "verdict_detail": row[1]})
    return replace(outcome, verdict=row[0], detail=row[1])


def _exit_code(end: End) -> int:
    if end.timed_out:
        return ExitCode.TIMED_OUT
    if end.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.HARNESS_FAILED if end.exit_code is None else end.exit_code


def _detail(verdict: Verdict, failed: int | None) -> str | None:
    first = f"rank {failed} failed first" if failed is not None else None
    return "; ".join(text for text in (first, verdict.detail()) if text) or None


def gather(run: RunDir, end: End, world_size: int | None) -> VerdictEvidence:
    """Everything that the run folder says about its end."""
    lines = [TextLine("kernel", text) for text in end.kernel_lines]
    for path in sorted(run.logs.glob("*.err")):
        rank = rank_of(path)
        # Of a command all ranks speak in one file: the first that failed is not at its end.
        most = KEPT_BYTES if path == run.command_log else LOG_TAIL_BYTES
        lines += lines_of("stderr", _tail_text(path, most), rank)
    for path in outputs_elsewhere(run):
        lines += lines_of("stderr", _tail_text(path))
    for owner, row in _meta_rows(run, b'{"t":"error"'):
        lines += lines_of("spool", f"{row.get('kind')}: {row.get('message')}", owner)
    return VerdictEvidence(
        exit_code=end.exit_code,
        timed_out=end.timed_out,
        interrupted=end.interrupted,
        world_size=world_size,
        rank_exits=end.rank_exits,
        lines=tuple(lines),
        oom_kills=end.oom_kills,
        progress=tuple(progress(run)),
        hang=declared_hang(run) if end.hung else None,
        standing=left_standing(run) if end.exit_code != 0 else Suspects(),
    )


def outputs_elsewhere(run: RunDir) -> list[Path]:
    """Where a job's own script writes, if not into the run's folder: its `--output`, `--error`."""
    begin = read_begin(run)
    named = [Path(name) for name in (begin.stdout, begin.stderr) if name] if begin else []
    inside = run.path.resolve()
    return [path for path in dict.fromkeys(named) if inside not in path.resolve().parents]


def left_standing(run: RunDir) -> Suspects:
    """For whom the others waited when the ranks ended; nobody where the pages do not say."""
    found = take_snapshot(run, 1).diagnosis
    why = reason(found)
    return Suspects(found.culprits, why) if why else Suspects()


def declared_hang(run: RunDir) -> DeclaredHang:
    """What the run folder says of a hang that was declared; without its report, that it was."""
    report = read_report(run)
    if report is None:
        return DeclaredHang(f"{HANG_LINE} for longer than the limit")
    quiet = format_ns(report.quiet_ns)
    text = f"{HANG_LINE} for {quiet}: {report.sentence}"
    return DeclaredHang(text, report.culprits, report.remedy)


def known_end(data: Mapping[str, Any], folder: Path) -> VerdictEvidence:
    """What run.json, and the folder where it is a run's, say of an end: for the ingest."""
    end = End.from_json(data["end"]) if "end" in data else End(exit_code=data.get("exit_code"))
    parallel = (data.get("spec") or {}).get("parallel") or {}
    size = parallel["tp"] * parallel["pp"] if {"tp", "pp"} <= parallel.keys() else None
    run = RunDir(folder)
    if run.run_json.is_file():
        return gather(run, end, size)
    return VerdictEvidence(
        exit_code=end.exit_code,
        timed_out=end.timed_out,
        interrupted=end.interrupted,
        world_size=size,
        rank_exits=end.rank_exits,
        lines=tuple(TextLine("kernel", text) for text in end.kernel_lines),
        oom_kills=end.oom_kills,
    )


def progress(run: RunDir) -> Iterator[CollectiveProgress]:
    """How far every rank was in each of its groups, from the live pages."""
    groups: dict[int, dict[int, tuple[str, tuple[int, ...]]]] = {}
    for rank, row in _meta_rows(run, b'{"t":"group"'):
        ranks = tuple(row.get("ranks", ()))
        name = group_name(ranks, row.get("ordinal"))
        groups.setdefault(rank, {})[int(row["id"])] = (name, ranks)
    for path in sorted(run.spans.glob("rank-*.live")):
        owner = rank_of(path)
        if owner is None:
            continue
        page = read_page(path)
        for slot in page.slots if page else ():
            known = groups.get(owner, {}).get(slot.group)
            if known is not None and slot.op is None:
                yield CollectiveProgress(owner, known[0], slot.entered, slot.left, known[1])


def _meta_rows(run: RunDir, beginning: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for path in sorted(run.spans.glob("rank-*.meta.jsonl")):
        rank = rank_of(path)
        if rank is None:
            continue
        with path.open("rb") as stream:
            for line in stream:
                if line.startswith(beginning):
                    try:
                        yield rank, json.loads(line)
                    except ValueError:
                        continue


def _tail_text(path: Path, most: int = LOG_TAIL_BYTES) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - most))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def log_tail(run: RunDir, rank: int | None) -> tuple[str, ...]:
    """The last lines of a rank's stderr (of the launcher's where no rank is known), redacted."""
    path = run.logs / "launcher.err" if rank is None else run.rank_log(rank, "err")
    kept = [line for line in _tail_text(path).splitlines() if line.strip()]
    return tuple(redact(line) for line in kept[-TAIL_LINES:])
