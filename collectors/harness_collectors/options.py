"""Options of collectors: names that they do not have, values of another type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_KINDS = {bool: "true or false", int: "a whole number", str: "text"}


def unknown_options(
    collector: str, given: Mapping[str, Any], known: Collection[str] = ()
) -> list[str]:
    """A sentence for each option that the collector does not have."""
    return [f"{collector} has no option {name!r}" for name in sorted(set(given) - set(known))]


def no_options(collector: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a collector without any.

    Raises:
        ValueError: some were given.
    """
    if wrong := unknown_options(collector, given):
        raise ValueError("\n".join(wrong))
    return {}


def option_problems(given: Mapping[str, object], defaults: Mapping[str, object]) -> list[str]:
    """A sentence for each option that does not exist or is not of its default's type."""
    problems = [f"there is no option {name!r}" for name in given if name not in defaults]
    for name, value in given.items():
        kind = type(defaults.get(name, value))
        if name in defaults and type(value) is not kind:
            problems.append(f"`{name}` is {value!r}, not {_KINDS.get(kind, kind.__name__)}")
    return problems
