"""The first lines about a run: whether it stands, where and on whom, and which run it is."""

from __future__ import annotations

from collections.abc import Iterator

from harness.status.hang_report import HangReport
from harness.status.progress import Progress
from harness.status.snapshot import Snapshot
from harness_analysis.hang.diagnose import SET_UP_LIMITS
from harness_analysis.hang.say import REMEDIES, named, sentence
from harness_schemas.units import format_ns, format_share
from harness_slurm.job.marks import JobRecord, attempts, read_begin, read_end

MOVES_NS = 2_000_000_000
"""A rank that recorded something this lately moves."""


def headline(now: Snapshot, progress: Progress | None, report: HangReport | None) -> list[str]:
    """Whether it stands, where and on whom; then how far it is."""
    found = now.diagnosis
    states = {rank.state.rank: rank.state for rank in now.ranks}
    quiet = format_ns(found.quiet_ns) if found.quiet_ns is not None else "an unknown time"
    if not now.ranks:
        return _not_begun(now)
    if now.over:
        return list(_ended(now, report))
    told = sentence(found, states)
    if found.hangs:
        lines = [f"HANGS: no rank recorded anything for {quiet}: {told}"]
        return lines + ([f"  to do: {REMEDIES[found.kind]}"] if REMEDIES[found.kind] else [])
    if found.quiet_ns is None:
        lines = ["unknown: no rank says when it last recorded anything"]
    elif found.quiet_ns > MOVES_NS:
        lines = [f"quiet: no rank recorded anything for {quiet} ({_patience(now)})"]
        lines += [f"  so far: {told}"] if found.calls else []
    else:
        lines = [f"runs: a rank recorded something {quiet} ago"]
    return [*lines, _progress_text(progress)] if progress else lines


def _patience(now: Snapshot) -> str:
    if not now.diagnosis.patient:
        return f"called a hang after {format_ns(now.limit_ns)}"
    longer = format_ns(SET_UP_LIMITS * now.limit_ns)
    return f"loading and the like may be silent for long: called a hang after {longer}"


def _progress_text(progress: Progress) -> str:
    text = f"  {format_share(progress.share)} of the plan: batch {progress.batch} of "
    text += f"{progress.batches}, {progress.done:,} of at most {progress.planned:,} steps"
    left = progress.left_ns
    return text + (f"; about {format_ns(left)} left at this rate" if left is not None else "")


def _not_begun(now: Snapshot) -> list[str]:
    begin = read_begin(now.run)
    if now.data.get("status") in ("finished", "failed"):
        return [f"ended: {_verdict(now).rstrip('.')}; no rank had begun to record"]
    if told := _left_by_job(now):
        return [told]
    if (record := unbegun_job(now)) is not None:
        since = age_text(record.submitted_ns or None, now) or "an unknown time"
        asked = f"squeue -j {record.job_id}" + (f" -M {record.cluster}" if record.cluster else "")
        first = f"waits: job {record.job_id} was submitted {since} ago and has not begun"
        return [first, f"  `{asked}` says why; this is read from its folder alone"]
    if begin is not None:
        where = f"job {begin.job_id} began on {begin.host} {age_text(begin.began_ns, now)} ago"
        return [f"unknown: {where}, and no rank has begun to record"]
    return ["unknown: no rank has begun to record"]


def unbegun_job(now: Snapshot) -> JobRecord | None:
    """The job of a run that it has not begun, as far as its folder says."""
    return None if now.ranks or now.over or read_begin(now.run) else JobRecord.read(now.run)


def _left_by_job(now: Snapshot) -> str | None:
    """What a job's end mark says of a run that nobody has judged yet; None: there is none."""
    record, end = JobRecord.read(now.run), read_end(now.run)
    if record is None or end is None:
        return None
    job, code = record.job_id, end.exit_code
    if end.stopped:
        again = f"requeued, it begins again (`squeue -j {job}`)"
        return f"ended: job {job} was told to end, code {code}; {again}"
    return f"ended: job {job} ended with code {code}; `harness run --attach {job}` says more"


def _ended(now: Snapshot, report: HangReport | None) -> Iterator[str]:
    found = now.diagnosis
    status = now.data.get("status")
    if report is not None and now.data.get("verdict") == "hang":
        yield f"ended: hang, declared after {format_ns(report.quiet_ns)}: {report.sentence}"
        yield f"  to do: {report.remedy}"
        return
    if status in ("finished", "failed"):
        yield f"ended: {_verdict(now)}"
    else:
        none = "ended: no rank is left, and run.json does not say how it ended"
        yield _left_by_job(now) or none
    cut = [rank.state.rank for rank in now.ranks if rank.state.begun and not rank.state.ended]
    if found.calls:
        states = {rank.state.rank: rank.state for rank in now.ranks}
        yield f"  when it ended: {sentence(found, states)}"
    elif cut and len(cut) < len(now.ranks):
        yield f"  {named(cut)} did not close the spool"


def _verdict(now: Snapshot) -> str:
    verdict, detail = now.data.get("verdict"), now.data.get("verdict_detail")
    return ": ".join(str(part) for part in (verdict or "no verdict", detail) if part)


def facts(now: Snapshot) -> str:
    """Which run this is: ranks, hosts, job, attempt."""
    begun = sum(rank.state.begun for rank in now.ranks)
    world = "?" if now.world_size is None else f"{now.world_size:,}"
    parts = [f"{begun:,} of {world} ranks recorded"]
    if now.hosts:
        few = ", ".join(now.hosts[:3]) + (" ..." if len(now.hosts) > 3 else "")
        parts.append(f"{len(now.hosts)} host{'s' if len(now.hosts) > 1 else ''}: {few}")
    record, begin, end = JobRecord.read(now.run), read_begin(now.run), read_end(now.run)
    job = record.job_id if record else now.data.get("job_id")
    if job is not None:
        parts.append(f"job {job}" + (f", attempt {begin.attempt}" if begin else ""))
    if before := len(attempts(now.run)):
        parts.append(f"{before} earlier attempt{'s' if before > 1 else ''}")
    if end is not None:
        parts.append(f"the job left its end mark (code {end.exit_code})")
    return "  " + "; ".join(parts)


def age_text(at_ns: int | None, now: Snapshot) -> str | None:
    """How long ago that was; None where it is not known."""
    return None if at_ns is None else format_ns(max(0, now.now_ns - at_ns))
