"""Options of a collector that does not know them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


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
