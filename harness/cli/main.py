"""The group `harness`, its verbs by name, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from harness import __version__

VERBS = {
    "run": "Run a specification, or wrap any command, and say where every step went.",
    "sweep": "Run a grid of configurations with repeats, and tabulate how it scales.",
    "status": "Say what a run is doing now: whether it hangs, where and on whom.",
    "ingest": "Turn evidence, whoever recorded it, into a DuckDB file.",
    "query": "Ask a run's database in SQL.",
    "report": "Print a run's answer, and write it as one HTML page.",
    "compare": "Say what changed between runs, by how much, how surely, and why; gates for CI.",
    "audit": "Flag what cannot be, in runs, sweeps and tables of claimed results.",
    "explain": "Say why the slowest units were slow, and who makes the others late.",
    "plan": "Tell memory of every GPU and the floor of a step before running, or against a run.",
    "export": "Write a run for Perfetto, OpenTelemetry, or as Parquet and CSV.",
    "list": "List the runs in a folder.",
    "bench": "Measure this machine: floors for a run's communication.",
    "schema": "Show tables, views and columns, or the JSON Schema of a specification.",
    "doctor": "Check this machine: what can be recorded, and how to mend what cannot.",
}

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
QUERY_INTERRUPTED = "Query interrupted"
"""What DuckDB's RuntimeError says where Ctrl-C met a query of its."""


class LazyGroup(click.Group):
    """Knows its verbs' names and one-line helps; imports a verb when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"harness.cli.{cmd_name}_verb")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with the verb that a mistyped one resembles."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            from harness_schemas.errors import meant

            raise click.UsageError(f"no command {args[0]!r}{meant(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "HARNESS"},
    epilog="A run is named by its folder, id, Slurm job id, or `latest`.",
)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Where did every microsecond of every decode step go, on every rank?"""


def run(argv: list[str] | None = None) -> None:
    """Run the command line and exit the process."""
    sys.exit(invoke(argv))


def invoke(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. No foreseeable mistake ends in a traceback."""
    from harness_schemas.errors import ExitCode, HarnessError

    try:
        result: Any = cli.main(args=argv, prog_name="harness", standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.OK
    except HarnessError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        said = " ".join(error.format_message().rstrip(".").split())
        said = said[:1].lower() + said[1:]
        for theirs, ours in (
            ("valid integer range", "whole number"),
            ("valid float range", "number"),
        ):
            said = said.replace(theirs, ours)
        _complain(said, _help_of(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted", "")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): not an error of ours.
        _quiet_stdout()
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001
        if isinstance(error, RuntimeError) and str(error) == QUERY_INTERRUPTED:
            _complain("interrupted", "")
            return ExitCode.INTERRUPTED
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            _quiet_stdout()
            _complain(f"cannot write: {error.strerror}", "free space, or write elsewhere")
            return ExitCode.HARNESS_FAILED
        # Ours to mend; without this its code would be that of a gate that failed.
        traceback.print_exc()
        _complain("a defect of the harness: the lines above say where", "")
        return ExitCode.HARNESS_FAILED


def _quiet_stdout() -> None:
    """Python flushes stdout once more at its end, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help_of(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"`{context.command_path} --help` says what there is" if context else ""


def _complain(message: str, hint: str) -> None:
    click.echo(f"harness: {message}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
