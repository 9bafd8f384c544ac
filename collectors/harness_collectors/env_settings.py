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
