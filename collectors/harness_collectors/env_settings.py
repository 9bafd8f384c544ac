"""Environment that a collector asks for, without overriding what the user has set."""

from __future__ import annotations

import os
from collections.abc import Mapping

from harness_schemas.redact import redact
from harness_schemas.spi import CapturePlan


def keeping_the_users(
    collector: str, wanted: Mapping[str, str], override: bool = False
) -> CapturePlan:
    """A plan that sets `wanted`, except where the user's environment says otherwise.

    What is kept is said in the plan's notes; `override` sets everything.
    """
    kept = {
        name: os.environ[name]
        for name, value in wanted.items()
        if not override and os.environ.get(name, value) != value
    }
    notes = tuple(
        f"{collector}: {redact(f'{name}={value}')} is set by you and kept; the collector needs "
        f"{wanted[name]} (collectors.{collector}.override = true sets it)"
        for name, value in kept.items()
    )
    env = {name: value for name, value in wanted.items() if name not in kept}
    return CapturePlan(env=env, notes=notes)


def option_problems(given: Mapping[str, object], defaults: Mapping[str, object]) -> list[str]:
    """A sentence for each option that does not exist or is not of its default's type."""
    problems = [f"there is no option {name!r}" for name in given if name not in defaults]
    for name, value in given.items():
        kind = type(defaults.get(name, value))
        if name in defaults and type(value) is not kind:
            problems.append(f"`{name}` is {value!r}, not {_KINDS.get(kind, kind.__name__)}")
    return problems


_KINDS = {bool: "true or false", int: "a whole number", str: "text"}
