"""Why something failed: an error text, or a run, explained by the rules of the verdict."""

from __future__ import annotations

from pathlib import Path

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import TextLine, Verdict, VerdictEvidence
from harness_collectors.failure_log.lines import Notable, notable, notable_lines
from harness_collectors.reading.text_evidence import as_utf8
from harness_collectors.reading.wrapped import unwrapped
from harness_schemas.errors import UsageError
from harness_schemas.rundir import RunDir


def explain_text(text: bytes) -> Verdict:
    """The verdict of an error text, as somebody pastes or pipes it."""
    return _judged(notable(unwrapped(as_utf8(text))))


def explain_log(path: Path) -> Verdict:
    """The verdict of a log.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        lines = notable_lines(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    return _judged(lines)


def _judged(lines: list[Notable]) -> Verdict:
    said = tuple(TextLine(line.kind, line.text, line.rank) for line in lines)
    return judge(VerdictEvidence(lines=said))


def explain_run(path: Path) -> Verdict:
    """The verdict of a run, judged anew from what its folder holds, or as its database has it.

    Raises:
        UsageError: it is neither a run folder nor a database.
    """
    run = RunDir(path)
    database = path if path.is_file() else run.database
    kept = _of_database(database) if database.is_file() else None
    if not run.run_json.is_file():
        if kept is None and database.is_file():
            return Verdict("unknown", remedy="the evidence in it says nothing about an end")
        if kept is None:
            raise UsageError(f"{path} is neither a run folder nor a database")
        return kept
    from harness.ending.outcome import known_end

    found = judge(known_end(run.read(), path))
    return kept if kept is not None and kept.name != found.name else found


def _of_database(path: Path) -> Verdict | None:
    """What ingest decided, which rests on more than the folder's logs; None: nothing."""
    from harness_analysis.store import open_database

    with open_database(path) as con:
        row = con.execute("SELECT verdict, verdict_detail FROM runs").fetchone()
    return Verdict(row[0], row[1] or "") if row and row[0] else None
