"""Units of work of a rank: opened here, recorded, and announced to the rank hooks."""

from __future__ import annotations

import contextlib
import importlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness_probe as probe
from harness_runners.engines import BatchJob
from harness_runners.plan import HookPlan, RunPlan
from harness_schemas.errors import HarnessError
from harness_schemas.spi import UnitKey
from harness_schemas.vocabulary import RECORDER, calibrated

if TYPE_CHECKING:
    from harness_runners.rank.telemetry import Telemetry


class Hooks:
    """The rank hooks of the collectors. One that raises is switched off and recorded as failed;
    with `strict` its error ends the run."""

    def __init__(self, plan: RunPlan, rank: int) -> None:
        self._strict = plan.strict
        self._hooks: list[Any] = []
        self._silent: frozenset[int] = frozenset()
        for planned in plan.hooks:
            with self._guard(planned.target, None):
                self._start(planned, plan, rank)

    def _start(self, planned: HookPlan, plan: RunPlan, rank: int) -> None:
        module, _, attribute = planned.target.partition(":")
        hook = getattr(importlib.import_module(module), attribute)(**planned.options)
        folder = Path(plan.run_dir) / "artifacts" / hook.name / socket.gethostname()
        folder.mkdir(parents=True, exist_ok=True)
        hook.start(rank, plan.world_size, folder)
        self._hooks.append(hook)

    @contextlib.contextmanager
    def _guard(self, name: str, hook: Any) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a collector never harms the workload
            if hook in self._hooks:
                self._hooks.remove(hook)
            reason = f"{type(error).__name__}: {error}"
            probe.collection(name, "failed", reason)
            if self._strict:
                raise HarnessError(f"collector {name} failed: {reason}") from error

    def before(self, key: UnitKey) -> str | None:
        """Tell all hooks what comes; returns the name of one that will perturb it."""
        perturbed_by = None
        for hook in self._told():
            with self._guard(hook.name, hook):
                perturbed_by = hook.before_unit(key) or perturbed_by
        return perturbed_by

    def after(self, key: UnitKey) -> None:
        """Tell all hooks what has run."""
        for hook in self._told():
            with self._guard(hook.name, hook):
                hook.after_unit(key)

    @contextlib.contextmanager
    def silenced(self, name: str) -> Iterator[None]:
        """No unit is told to the hook of that name (`RECORDER`: to any); what it had open ends."""
        asked = [hook for hook in self._hooks if name in (RECORDER, hook.name)]
        for hook in asked:
            with self._guard(hook.name, hook):
                hook.pause()
        silent, self._silent = self._silent, frozenset(id(hook) for hook in asked)
        try:
            yield
        finally:
            self._silent = silent

    def _told(self) -> list[Any]:
        return [hook for hook in self._hooks if id(hook) not in self._silent]

    def stop(self) -> None:
        """End all hooks."""
        for hook in list(self._hooks):
            with self._guard(hook.name, hook):
                hook.stop()
        self._hooks.clear()


class Units:
    """Opens units: the hooks are asked first, the recorder is told, then the telemetry.

    `hooks` and `telemetry` are None until the rank has them; the first unit is older than both.
    `pauses`: on one rank, what holds the samplers of a collector.
    """

    def __init__(self) -> None:
        self.pauses: Callable[[str], AbstractContextManager[None]] | None = None
        self.hooks: Hooks | None = None
        self.telemetry: Telemetry | None = None

    @contextlib.contextmanager
    def phase(self, phase: str, job: BatchJob | None = None) -> Iterator[int]:
        """A unit that is no step: startup, load, preprocess, warmup, postprocess."""
        key = UnitKey(phase)
        if job is not None:
            key = UnitKey(phase, batch=job.index, repeat=job.repeat, warmup=job.warmup)
        start = time.monotonic_ns()
        with self._open(key, job.perturbed_by if job else None) as unit_id:
            yield unit_id
        if self.telemetry is not None:
            self.telemetry.add(
                phase, start, time.monotonic_ns(), batch=key.batch, repeat=key.repeat
            )

    @contextlib.contextmanager
    def recording(self, job: BatchJob) -> Iterator[None]:
        """Around the generation of a batch. One that is calibrated `off` leaves its units in the
        spool and nothing else: recorder and hooks are silent. With a collector's name that
        collector alone is: its hook is told nothing, its samplers pause on all nodes."""
        collector, on = calibrated(job.perturbed_by) or ("", True)
        with contextlib.ExitStack() as off:
            if not on and self.hooks is not None:
                off.enter_context(self.hooks.silenced(collector))
            if not on and collector == RECORDER:
                off.enter_context(probe.quiet())
            elif not on and self.pauses is not None:
                off.enter_context(self.pauses(collector))
            yield

    def stop_hooks(self) -> None:
        """End the collectors' hooks; idempotent."""
        if self.hooks is not None:
            self.hooks.stop()

    def close(self) -> None:
        """End hooks and telemetry; idempotent."""
        self.stop_hooks()
        if self.telemetry is not None:
            self.telemetry.close()

    @contextlib.contextmanager
    def step(
        self,
        phase: str,
        job: BatchJob,
        microbatch: int,
        step: int,
        perturbed_by: str | None = None,
    ) -> Iterator[int]:
        """Prefill (step 0) or a decode step of a micro-batch."""
        key = UnitKey(phase, job.index, microbatch, job.repeat, step, job.warmup)
        with self._open(key, job.perturbed_by or perturbed_by) as unit_id:
            yield unit_id

    @contextlib.contextmanager
    def _open(self, key: UnitKey, perturbed_by: str | None) -> Iterator[int]:
        hooks = self.hooks
        if hooks is not None:
            # What the run itself does to the unit comes first: pairs are found by that name.
            asked = hooks.before(key)
            perturbed_by = perturbed_by or asked
        with probe.unit(
            key.phase,
            step=key.step,
            batch=key.batch,
            microbatch=key.microbatch,
            repeat=key.repeat,
            warmup=key.warmup,
            perturbed_by=perturbed_by,
        ) as unit_id:
            yield int(unit_id or 0)
        if hooks is not None:
            hooks.after(key)
