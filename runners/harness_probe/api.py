"""The functions a script calls. Each is a no-op while no recorder is running."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from harness_probe.recorder import KIND_DEVICE, KIND_IO, KIND_SPAN, KIND_UNIT, Recorder
from harness_probe.spans import (
    NOOP,
    NOOP_FILE,
    Communication,
    Counted,
    File,
    Noop,
    NoopFile,
    Span,
    Unit,
    communication,
)

if TYPE_CHECKING:
    from harness_probe.device_calls import DeviceSpan
    from harness_probe.graphs import GraphMarks

_active: Recorder | None = None
_hooked = False


def start(
    folder: str | os.PathLike[str] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    local_rank: int | None = None,
) -> bool:
    """Begin to record; returns whether a recorder is running.

    Without `folder` the variable HARNESS_SPOOL_DIR decides, so a script may always call this:
    outside `harness run` it does nothing. Ranks default to RANK, WORLD_SIZE and LOCAL_RANK,
    then to SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID. A folder that cannot be written is
    one line on stderr, never an exception.
    """
    global _active, _hooked
    if _active is not None:
        return True
    target = folder or os.environ.get("HARNESS_SPOOL_DIR")
    if not target:
        return False
    try:
        _active = Recorder(
            Path(target),
            _env_int(rank, "RANK", "SLURM_PROCID", 0),
            _env_int(world_size, "WORLD_SIZE", "SLURM_NTASKS", 1),
            _env_int(local_rank, "LOCAL_RANK", "SLURM_LOCALID", 0),
        )
    except OSError as error:
        os.write(2, f"harness.probe: not recording: {error}\n".encode())
        return False
    if os.environ.get("HARNESS_HANG_DIR"):
        from harness_probe.stacks import register

        register(_active.rank)
    if not _hooked:
        atexit.register(stop)
        os.register_at_fork(after_in_child=_after_fork)
        _hooked = True
    return True


def _env_int(value: int | None, first: str, second: str, default: int) -> int:
    if value is not None:
        return value
    text = os.environ.get(first) or os.environ.get(second) or ""
    return int(text) if text.isdigit() else default


def _after_fork() -> None:
    global _active
    if _active is not None:
        _active.abandon()
        _active = None


def stop() -> None:
    """Flush, close and stop recording; idempotent."""
    global _active
    rec, _active = _active, None
    if rec is not None:
        rec.stop()


def enabled() -> bool:
    """Whether a recorder is running."""
    return _active is not None


def recorder() -> Recorder | None:
    """The running recorder, for those who build on it (`harness_probe.distributed`)."""
    return _active


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Record nothing but units of work inside, so that the price of the rest can be measured.

    Spans, files, communication and device intervals are silent; units are recorded with their
    device events, since step times come from these. Ordinals of groups go on, so what follows
    matches across ranks if all of them are quiet for the same calls. May be nested.
    """
    rec = _active
    if rec is None:
        yield
        return
    before, rec.paused = rec.paused, True
    try:
        yield
    finally:
        rec.paused = before


def is_quiet() -> bool:
    """Whether a recorder is running inside `quiet`."""
    return _active is not None and _active.paused


def flush() -> None:
    """Hand everything recorded so far to the operating system."""
    if _active is not None:
        _active.flush()


def span(name: str, category: str | None = None, layer: int | None = None) -> Span | Noop:
    """A named host interval, `with probe.span("sample"): ...`."""
    rec = _active
    if rec is None or rec.paused:
        return NOOP
    key: Any = name if layer is None and category is None else (name, category, layer)
    head = rec.heads.get(key)
    if head is None:
        head = rec.descriptor(
            KIND_SPAN, key, name=name, category=category or "other", layer=layer, timeline="host"
        )
    return Span(rec, head)


def unit(
    phase: str,
    *,
    step: int | None = None,
    batch: int | None = None,
    microbatch: int | None = None,
    repeat: int | None = None,
    warmup: bool = False,
    perturbed_by: str | None = None,
) -> Unit | Noop:
    """One unit of work: what is recorded inside belongs to it, and a breakdown divides it.

    `phase` is one of startup, load, preprocess, warmup, prefill, decode, mixed, postprocess.
    Prefill emits token 0 and decode step k >= 1 emits token k. Entering yields the unit's id
    (0 while nothing is recorded), by which `tokens` and `step_info` may name it later.
    """
    rec = _active
    if rec is None:
        return NOOP
    head = rec.descriptor(KIND_UNIT, ("unit", phase), name=phase, category="unit", timeline="host")
    unit_id, page = rec.define_unit(
        phase=phase,
        step=step,
        batch=batch,
        microbatch=microbatch,
        repeat=repeat,
        warmup=warmup,
        perturbed_by=perturbed_by,
    )
    return Unit(rec, head, unit_id, page, phase)


def collective(
    op: str, group: int, num_bytes: int, dtype: str = ""
) -> Communication | Counted | Noop:
    """A blocking collective of a registered group (see `group`)."""
    rec = _active
    if rec is None or get_ident() in rec.communicating:
        return NOOP
    if rec.paused:
        return Counted(rec, op, group, -1)
    return communication(rec, op, group, -1, num_bytes, dtype)


def p2p(
    op: str, peer: int, num_bytes: int, dtype: str = "", group: int = 0
) -> Communication | Counted | Noop:
    """A blocking `send` or `recv`; `peer` is the other side's global rank."""
    rec = _active
    if rec is None or get_ident() in rec.communicating:
        return NOOP
    if rec.paused:
        return Counted(rec, op, group, peer)
    return communication(rec, op, group, peer, num_bytes, dtype)


def io(op: str, path: str | os.PathLike[str], num_bytes: int = -1) -> File | NoopFile:
    """A file read or write: `with probe.io("read", path) as file: file.add(len(data))`."""
    rec = _active
    if rec is None or rec.paused:
        return NOOP_FILE
    head = rec.descriptor(KIND_IO, ("io", op), name=op, category="io", op=op, timeline="host")
    return File(rec, head, {"path": os.fspath(path)}, num_bytes)


def use_device(device: Any = None) -> bool:
    """Record on the GPU's timeline as well; returns whether it is recorded from now on.

    Needs torch and a CUDA device; without them it changes nothing. Units, communication on
    device tensors and `device_span` are recorded by event pairs, resolved by `resolve_device`.
    """
    rec = _active
    if rec is None or rec.device is not None:
        return rec is not None
    import torch

    if not torch.cuda.is_available():
        return False
    from harness_probe.device import DeviceTimeline

    if device is not None:
        torch.cuda.set_device(device)
    rec.device = DeviceTimeline(rec, torch, device)
    return True


def resolve_device(idle: bool = False) -> None:
    """Write device times of all that has happened. Call it after a synchronisation of your own;
    `idle` says that the device has nothing to do, so that its clock is paired with the host's."""
    rec = _active
    if rec is not None and rec.device is not None:
        rec.device.resolve()
        if idle:
            rec.device.pair_clocks()


def device_span(name: str, category: str = "other") -> DeviceSpan | Noop:
    """A named interval on the device: `with probe.device_span("copy", "memcpy"): ...`."""
    rec = _active
    if rec is None or rec.device is None or rec.paused:
        return NOOP
    from harness_probe.device_calls import DeviceSpan

    head = rec.descriptor(
        KIND_DEVICE,
        (name, category, "device"),
        name=name,
        category=category,
        timeline="device",
        source="app_timers",
    )
    return DeviceSpan(rec, rec.device, head)


def graph_marks(instrumented: bool) -> GraphMarks | None:
    """Marks for one CUDA graph about to be captured; None while no device is recorded."""
    rec = _active
    if rec is None or rec.device is None:
        return None
    from harness_probe import graphs

    return graphs.graph_marks(rec, rec.device, instrumented)


def group(ranks: list[int] | tuple[int, ...], name: str = "", token: Any = None) -> int:
    """Register a communication group by its ordered global ranks; returns its id."""
    if _active is None:
        return 0
    return _active.define_group(tuple(ranks), token, name)


def fact(**fields: Any) -> None:
    """State facts of this rank: tp_rank, stage, first_layer, last_layer, device, gpu_uuid ..."""
    if _active is not None:
        _active.meta.write("fact", **fields)


def batch(batch: int, request_ids: list[str], *, repeat: int | None = None) -> None:
    """Name the requests of a batch, in row order."""
    if _active is not None:
        _active.units.write("batch", batch=batch, repeat=repeat, requests=request_ids)


def step_info(
    *,
    batch_size: int,
    padded_batch: int,
    prefill_tokens: int,
    decode_tokens: int,
    kv_tokens: int,
    unit: int | None = None,
) -> None:
    """The engine's view of a unit, by default of the current one (table `steps`)."""
    if _active is not None:
        _active.units.write(
            "step",
            unit=_active.unit_id if unit is None else unit,
            batch_size=batch_size,
            padded_batch=padded_batch,
            prefill_tokens=prefill_tokens,
            decode_tokens=decode_tokens,
            kv_tokens=kv_tokens,
        )


def tokens(
    counts: list[int],
    *,
    first_row: int = 0,
    device_ns: int | None = None,
    host_ns: int | None = None,
    unit: int | None = None,
) -> None:
    """Tokens that a unit emitted, by default the current one (table `step_tokens`).

    `counts`: one number a row of the batch, from `first_row` on. `device_ns`: when sampling
    ended on the device; `host_ns`: when the host had the tokens. Both on CLOCK_MONOTONIC.
    """
    if _active is not None:
        _active.units.write(
            "tokens",
            unit=_active.unit_id if unit is None else unit,
            first_row=first_row,
            n=counts,
            device_ns=device_ns,
            host_ns=host_ns,
        )


def request(request_id: str, **fields: Any) -> None:
    """A finished request: batch, repeat, prompt_tokens, output_tokens, arrival_ns, start_ns,
    first_token_ns, end_ns (CLOCK_MONOTONIC), warmup."""
    if _active is not None:
        _active.units.write("request", id=request_id, **fields)


def sample(metric: str, value: float, unit: str = "", device: int | None = None) -> None:
    """A value at this moment (table `samples`)."""
    if _active is not None:
        _active.units.write(
            "sample",
            metric=metric,
            value=value,
            unit=unit,
            device=device,
            mono_ns=time.monotonic_ns(),
        )


def attrs(**fields: Any) -> int:
    """Write free attributes and return their id."""
    return _active.define_attrs(fields) if _active is not None else 0


def collection(collector: str, state: str, reason: str = "", **fields: Any) -> None:
    """State how a collector that runs inside this rank fared."""
    if _active is not None:
        _active.meta.write("collection", collector=collector, state=state, reason=reason, **fields)


def clock_sample(
    peer: int, sent_ns: int, peer_received_ns: int, peer_sent_ns: int, received_ns: int
) -> None:
    """One ping-pong with `peer`: own clock, peer's clock twice, own clock (NTP's four times)."""
    if _active is not None:
        _active.meta.write(
            "clock", peer=peer, t0=sent_ns, t1=peer_received_ns, t2=peer_sent_ns, t3=received_ns
        )


def error(kind: str, message: str) -> None:
    """Record why this rank is about to end, and flush."""
    if _active is not None:
        _active.meta.write("error", kind=kind, message=message[:4000], mono_ns=time.monotonic_ns())
        _active.flush()


def anchor() -> None:
    """Pair the monotonic with the wall clock now."""
    if _active is not None:
        _active.anchor()
