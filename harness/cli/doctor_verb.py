"""`harness doctor`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import format_options
from harness.cli.output import emit, emit_rows

if TYPE_CHECKING:
    from harness.doctor import Check
    from harness_analysis.verdict.model import Verdict

COLUMNS = ("state", "check", "found", "what that costs", "how to mend it")
VERDICT_COLUMNS = ("verdict", "evidence", "source", "suspect", "why", "mend", "also")
WIDTH = 100


@click.command(
    "doctor",
    epilog="Examples: `harness doctor --json`; `harness doctor --log slurm-4711.out`; "
    "`harness doctor latest`",
)
@click.argument("run", required=False)
@click.option(
    "--log",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Explain the failure in a log; `-` reads standard input.",
)
@click.option(
    "--require",
    type=click.Choice(["gpu"]),
    help="Only look whether programs can reach a GPU here; one line and exit code 123 if not.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Check a model directory instead; exit code 123 if it is not whole.",
)
@click.option("--checksums", is_flag=True, help="Read all weights of --model and compare.")
@format_options
def command(
    run: str | None,
    log: Path | None,
    require: str | None,
    model: Path | None,
    checksums: bool,
    style: str,
) -> int:
    """Check this machine: what can be recorded here, what is missing, and how to mend it.

    With RUN or --log, say instead why that failed, on which line that rests, and what to do; of
    a RUN also how its ranks lay on processors and network.
    Changes nothing. Returns 0 whatever it finds (a missing collector is no failure), except
    with --require and --model, which job scripts ask before they start anything.
    """
    if require is not None:
        return _require_gpu()
    if run is not None or log is not None:
        found = _explain(run, log)
        if style != "table":
            emit_rows(VERDICT_COLUMNS, [_row(found)], style)
            return 0
        emit("\n".join(explain(found)))
        checks = _surroundings(run) if run is not None else []
        if checks:
            emit("\n" + "\n".join(line for check in checks for line in describe(check)))
        return 0
    if model is not None:
        return _check_model(model, checksums, style)
    if checksums:
        raise click.UsageError("--checksums goes with --model DIRECTORY")
    from harness.doctor import diagnose

    _show(diagnose(), style)
    return 0


def _show(checks: list[Check], style: str) -> None:
    if style == "table":
        emit("\n".join(line for check in checks for line in describe(check)))
        return
    rows = [
        (check.state, check.name, check.found, check.cost or None, check.mend or None)
        for check in checks
    ]
    emit_rows(COLUMNS, rows, style)


def _check_model(folder: Path, checksums: bool, style: str) -> int:
    from harness.doctor.model_checks import model_checks
    from harness_schemas.errors import ExitCode

    checks = list(model_checks(folder, checksums))
    _show(checks, style)
    return 0 if all(check.state == "ok" for check in checks) else ExitCode.NOT_READY


def _require_gpu() -> int:
    import socket

    from harness.doctor.gate import refusal
    from harness.doctor.gather import gather_gpus
    from harness_schemas.errors import ExitCode, HarnessError

    said = refusal(gather_gpus(), socket.gethostname())
    if said is not None:
        raise HarnessError(*said, ExitCode.NOT_READY)
    emit("ok: a GPU and its driver can be reached")
    return 0


def _explain(run: str | None, log: Path | None) -> Verdict:
    from harness.doctor.explain import explain_log, explain_run, explain_text
    from harness.runs import find_run

    if run is not None and log is not None:
        raise click.UsageError("name a run or a log, not both")
    if log is None:
        return explain_run(find_run(run or "latest"))
    if str(log) == "-":
        return explain_text(sys.stdin.buffer.read())
    return explain_log(log)


def _surroundings(run: str) -> list[Check]:
    """How the run lay on its hosts; nothing where it has no database."""
    from harness.doctor.run_checks import read_run_facts, run_checks
    from harness.runs import find_run
    from harness_schemas.rundir import RunDir

    path = find_run(run)
    database = path if path.is_file() else RunDir(path).database
    if not database.is_file():
        return []
    record = RunDir(path)
    wrapped = record.run_json.is_file() and "command" in record.read()
    return list(run_checks(read_run_facts(database, wrapped)))


def _row(found: Verdict) -> tuple[str | None, ...]:
    suspects = ", ".join(map(str, found.suspects)) or None
    also = ", ".join(found.also)
    texts = (found.evidence, found.source, suspects, found.why_suspect, found.remedy, also)
    return (found.name, *(text or None for text in texts))


def explain(found: Verdict) -> Iterator[str]:
    """A verdict as lines: its name, the line behind it, the suspects, what to do."""
    yield f"verdict {found.name}"
    who = ", ".join(map(str, found.suspects))
    parts = (
        ("said", f"{found.source}: {found.evidence}" if found.source else found.evidence),
        ("suspect", f"rank {who}: {found.why_suspect}".rstrip(": ") if who else ""),
        ("do", found.remedy),
        ("also", ", ".join(found.also)),
    )
    for label, text in parts:
        yield from _labelled(f"  {label + ':':<9}", text)


def describe(check: Check) -> Iterator[str]:
    """A check as lines: what was found, and below it what that costs and how to mend it."""
    yield f"{check.state:<8} {check.name:<26} {check.found}".rstrip()
    if check.state != "ok":
        for label, text in (("costs", check.cost), ("mend", check.mend)):
            yield from _labelled(f"{'':8} {label + ':':>9} ", text)


def _labelled(label: str, text: str) -> Iterator[str]:
    """Text behind a label, wrapped below its own beginning."""
    inner = WIDTH - len(label)
    for number, line in enumerate(textwrap.wrap(text, inner, break_on_hyphens=False)):
        yield (label if number == 0 else " " * len(label)) + line
