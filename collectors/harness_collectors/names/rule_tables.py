"""Tables of rules in TOML, `[[rule]]` after `[[rule]]`: the shipped ones, and a user's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Set
from importlib import resources
from pathlib import Path
from typing import Any

from harness_schemas.errors import UsageError, said_by

Entry = dict[str, Any]


def read_entries(path: Path | None, shipped: str, name: str, hint: str) -> list[tuple[str, Entry]]:
    """(place, entry) of every `[[name]]` in `path`; None: in the file of ours called `shipped`.

    Raises:
        UsageError: the file cannot be read, or holds no list of tables of this name.
    """
    source = str(path) if path else shipped
    try:
        text = (
            path.read_text() if path else resources.files(__package__).joinpath(shipped).read_text()
        )
        entries = tomllib.loads(text).get(name, [])
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the rules in {source}: {said_by(error)}", hint) from None
    if not isinstance(entries, list):
        raise UsageError(f"{source}: `{name}` must be a list of tables", f"write [[{name}]]")
    placed = [(f"{source}: {name} {number}", entry) for number, entry in enumerate(entries, 1)]
    for place, entry in placed:
        if not isinstance(entry, dict):
            raise UsageError(f"{place} is not a table", f"write [[{name}]]")
    return placed


def check_keys(entry: Entry, place: str, required: Set[str], optional: Set[str]) -> None:
    """Refuse an entry with keys that are unknown or missing.

    Raises:
        UsageError: it has such.
    """
    if unknown := set(entry) - required - optional:
        raise UsageError(f"{place} has unknown keys: {', '.join(sorted(unknown))}")
    if missing := required - set(entry):
        raise UsageError(f"{place} lacks {', '.join(sorted(missing))}")


def compiled(pattern: Any, place: str, flags: int = 0) -> re.Pattern[str]:
    """A rule's regular expression.

    Raises:
        UsageError: it is none.
    """
    try:
        return re.compile(str(pattern), flags)
    except re.error as error:
        raise UsageError(f"{place}: not a regular expression: {error}") from None
