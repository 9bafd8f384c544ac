"""The one error tree. Everything a user can cause is a `HarnessError`; the CLI catches it once."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes are an interface (docs/exit-codes.md). `run` otherwise returns the workload's."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    UNDERPOWERED = 3
    NOT_READY = 123
    TIMED_OUT = 124
    HARNESS_FAILED = 125
    INTERRUPTED = 130


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'spans'?` where a mistyped word resembles a known one, else nothing."""
    like = get_close_matches(word, known, n=1)
    return f"; did you mean {like[0]!r}?" if like else ""


def said_by(error: BaseException) -> str:
    """What an error says, in a line: the system's words without its number where they are its."""
    said = str(getattr(error, "strerror", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


class HarnessError(Exception):
    """A foreseeable failure: one line that says what is wrong, one that says what to do.

    `hint` is empty only where nothing can be done. `exit_code` is what the process returns.
    """

    def __init__(
        self, message: str, hint: str = "", exit_code: int = ExitCode.HARNESS_FAILED
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = int(exit_code)


class UsageError(HarnessError):
    """The command line, the specification or a query is wrong: the user can mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, ExitCode.USAGE)


class SpecError(UsageError):
    """A specification with mistakes: all of them, each with its dotted path."""

    def __init__(self, source: str, problems: list[tuple[str, str]]) -> None:
        lines = [f"  {path}: {text}" if path else f"  {text}" for path, text in problems]
        noun = "mistake" if len(problems) == 1 else "mistakes"
        super().__init__(
            f"{source}: {len(problems)} {noun} in the specification\n" + "\n".join(lines),
            "see `harness schema run` for every key and its meaning",
        )
        self.problems = problems


class EvidenceError(HarnessError):
    """Evidence that cannot be used at all (nothing readable in it). Torn evidence is used."""


class LaunchError(HarnessError):
    """The ranks could not be started."""
