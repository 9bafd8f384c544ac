"""How one Kineto file fared: its row of `collection`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from harness_collectors.kineto.columns import TraceColumns
from harness_collectors.kineto.origin import DIVIDED, NAMED, NUMBERED, Origin, info_of
from harness_collectors.kineto.stream import Health
from harness_collectors.kineto.trace import TraceFile
from harness_collectors.names.classify import UNKNOWN_KERNEL
from harness_collectors.reading.text_evidence import batch
from harness_schemas.spi import Batch

_NAME: Final = "kineto"
_FACTS: Final = (
    "schemaVersion", "cuda_driver_version", "cuda_runtime_version", "cupti_version",
    "hip_runtime_version", "roctracer_version", "record_shapes", "with_stack", "profile_memory",
)  # fmt: skip
"""Header keys that are kept: the rest may hold anything from the environment."""
_NAMED_CATS: Final = 4


def collection_row(
    origin: Origin,
    trace: TraceFile,
    metadata: Mapping[str, Any],
    health: Health,
    size: int | None,
    doubted: bool = False,
) -> Batch:
    """The row of a file that was read. `doubted`: its head's rank was not believed."""
    columns = trace.columns
    unreadable = health.unreadable + columns.dropped_times
    useless = _useless(columns, health)
    problems = [useless] if useless else _problems(origin, trace, health, unreadable)
    notes = [] if useless else _notes(origin, trace, doubted)
    row = {
        "collector": _NAME,
        "host": origin.host,
        "rank": origin.rank,
        "state": "failed" if useless else "degraded" if problems else "ok",
        "reason": "; ".join(problems + notes) or None,
        "bytes": size,
        "records": columns.events,
        "unreadable": unreadable,
        "detail": json.dumps(_detail(origin, trace, metadata), sort_keys=True),
    }
    return batch("collection", [row])


def failed(name: str, reason: str) -> Batch:
    """The row of a file that was not used."""
    row = {
        "collector": _NAME,
        "state": "failed",
        "reason": reason,
        "detail": json.dumps({"file": name}),
    }
    return batch("collection", [row])


def _useless(columns: TraceColumns, health: Health) -> str:
    """Why nothing of the file is used; "": something is."""
    if not columns.events:
        return health.cut or "it holds no events"
    if len(columns.device) or len(columns.host) or columns.dropped_times:
        return ""
    cats = [cat for cat, _ in columns.cats.most_common() if cat][:_NAMED_CATS]
    kinds = f"they are of {', '.join(cats)}" if cats else "no complete one has a category"
    return (
        f"none of its {columns.events} events is work that torch.profiler recorded ({kinds}): "
        "of the traces of other tools only those of nsys are read"
    )


def _problems(origin: Origin, trace: TraceFile, health: Health, unreadable: int) -> list[str]:
    problems = []
    if health.cut:
        problems.append(f"{health.cut}; what stands before it is used")
    if unreadable:
        problems.append(f"{unreadable} events could not be read")
    if not origin.wall_clock:
        problems.append("no base time: its times fit no other file's")
    if hidden := len(trace.hidden_graphs[0]):
        what = "of CUDA graphs show no device work" if trace.has_kernels else "show no kernel"
        problems.append(
            f"{hidden} launches {what}: what the device did until the next work is unresolved"
        )
    return problems


def _notes(origin: Origin, trace: TraceFile, doubted: bool) -> list[str]:
    """What one should know of numbers that are right as far as they go."""
    rules = ((DIVIDED, origin.divided), (NUMBERED, origin.numbered), (NAMED, doubted))
    notes = [note for note, applies in rules if applies][:1]
    devices = trace.device_count
    if devices > 1:
        notes.append(f"one process drives {devices} devices, which are taken together as one rank")
    return notes


def _detail(origin: Origin, trace: TraceFile, metadata: Mapping[str, Any]) -> dict[str, Any]:
    columns = trace.columns
    nccl = info_of(metadata).get("nccl_version")
    facts = {key: metadata[key] for key in _FACTS if isinstance(metadata.get(key), (int, float))}
    return {
        "file": origin.name,
        "complete": not trace.cut,
        "complete_events": columns.events - columns.cats[""],
        "activities": {cat: n for cat, n in sorted(columns.cats.most_common(33)) if cat},
        "units": len(trace.units),
        "device_rows": len(columns.device),
        "device_rows_launched": int((trace.launch >= 0).sum()),
        "device_rows_in_units": trace.device_rows_in_units,
        "unclassified_share": trace.kernel_share(UNKNOWN_KERNEL),
        "nccl_version": nccl if isinstance(nccl, str) else None,
        "world_size": trace.groups.world_size,
        **facts,
    }
