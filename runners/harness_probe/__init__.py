"""A span recorder for ranks: standard library only, at most a microsecond a span.

Usable in any script, with or without the rest of the harness:

    from harness import probe

    probe.start()                      # no-op unless HARNESS_SPOOL_DIR is set or a folder is given
    probe.trace_distributed()          # torch.distributed and deepspeed.comm calls become spans
    for step in range(1, n):
        with probe.unit("decode", step=step, batch=0):
            with probe.span("sample"):
                ...

Outside `start` ... `stop` every call is a no-op of about 0.1 us. Nothing here raises into the
workload: what cannot be recorded is counted as dropped.
"""

from __future__ import annotations

from harness_probe.api import (
    anchor,
    attrs,
    batch,
    clock_sample,
    collection,
    collective,
    device_span,
    enabled,
    error,
    fact,
    flush,
    graph_marks,
    group,
    io,
    is_quiet,
    p2p,
    quiet,
    recorder,
    request,
    resolve_device,
    sample,
    span,
    start,
    step_info,
    stop,
    tokens,
    unit,
    use_device,
)
from harness_probe.distributed import trace_distributed, untrace_distributed

__all__ = [
    "anchor",
    "attrs",
    "batch",
    "clock_sample",
    "collection",
    "collective",
    "device_span",
    "enabled",
    "error",
    "fact",
    "flush",
    "graph_marks",
    "group",
    "io",
    "is_quiet",
    "p2p",
    "quiet",
    "recorder",
    "request",
    "resolve_device",
    "sample",
    "span",
    "start",
    "step_info",
    "stop",
    "tokens",
    "trace_distributed",
    "unit",
    "untrace_distributed",
    "use_device",
]
