"""Delays put into a rank on purpose, to prove that they are found (harness run --inject)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import harness_probe as probe
from harness_runners.plan import InjectPlan
from harness_schemas.errors import UsageError


class Injector:
    """Called by the pipeline before each step and around each layer. Records no delay itself:
    the evidence has to show it."""

    def before_step(self) -> None:
        """The step's input has arrived, its first layer has not begun."""

    def layer(self, index: int) -> AbstractContextManager[Any, Any]:
        """The span of a layer."""
        return probe.span("layer", category="layer", layer=index)


class BusyHost(Injector):
    """Keeps the host busy for `delay_ns`, as slow Python or a stolen core would."""

    def __init__(self, delay_ns: int, every: str) -> None:
        self._delay_ns = delay_ns
        self._every = every

    def before_step(self) -> None:
        if self._every == "step":
            self._spin()

    def layer(self, index: int) -> AbstractContextManager[Any, Any]:
        return self._late_layer(index) if self._every == "layer" else super().layer(index)

    @contextlib.contextmanager
    def _late_layer(self, index: int) -> Iterator[None]:
        with super().layer(index):
            self._spin()
            yield

    def _spin(self) -> None:
        end = time.monotonic_ns() + self._delay_ns
        while time.monotonic_ns() < end:
            pass


def make_injector(plan: InjectPlan | None, rank: int) -> Injector:
    """The injector of this rank.

    Raises:
        UsageError: the delay cannot be put where the plan wants it.
    """
    if plan is None or plan.rank != rank or plan.delay_ns == 0:
        return Injector()
    if plan.where == "device":
        raise UsageError("inject.where = device is not available yet", "use inject.where = host")
    return BusyHost(plan.delay_ns, plan.every)
