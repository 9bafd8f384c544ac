"""Record torch.distributed and deepspeed.comm calls, each once, at the outermost layer.

Message sizes follow the convention of nccl-tests: the tensor for all_reduce, broadcast, reduce
and point-to-point; the gathered output for all_gather; the scattered input for reduce_scatter;
the whole input for all_to_all.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from harness_probe import api
from harness_probe.recorder import Recorder
from harness_probe.spans import Counted, communication, next_ordinal

# op name -> (canonical op, how to find the message's tensors in the call's arguments)
_TENSOR = ("tensor", 0)
_COLLECTIVES: dict[str, tuple[str, tuple[str, int]]] = {
    "all_reduce": ("all_reduce", _TENSOR),
    "inference_all_reduce": ("all_reduce", _TENSOR),
    "all_gather": ("all_gather", ("tensor_list", 0)),
    "all_gather_into_tensor": ("all_gather", ("output_tensor", 0)),
    "reduce_scatter": ("reduce_scatter", ("input_list", 1)),
    "reduce_scatter_tensor": ("reduce_scatter", ("input", 1)),
    "all_to_all": ("all_to_all", ("input_tensor_list", 1)),
    "all_to_all_single": ("all_to_all", ("input", 1)),
    "broadcast": ("broadcast", _TENSOR),
    "reduce": ("reduce", _TENSOR),
    "gather": ("gather", _TENSOR),
    "scatter": ("scatter", _TENSOR),
    "barrier": ("barrier", ("", -1)),
}
_POINT_TO_POINT: dict[str, tuple[str, str]] = {
    "send": ("send", "dst"),
    "isend": ("send", "dst"),
    "recv": ("recv", "src"),
    "irecv": ("recv", "src"),
}
# Position of `group` where a caller passes it positionally.
_GROUP_POSITION = {
    "all_reduce": 2,
    "inference_all_reduce": 2,
    "all_gather": 2,
    "all_gather_into_tensor": 2,
    "reduce_scatter": 3,
    "reduce_scatter_tensor": 3,
    "all_to_all": 2,
    "all_to_all_single": 4,
    "broadcast": 2,
    "reduce": 3,
    "gather": 3,
    "scatter": 3,
    "barrier": 0,
    "send": 2,
    "isend": 2,
    "recv": 2,
    "irecv": 2,
}
_MODULES = (
    "torch.distributed",
    "torch.distributed.distributed_c10d",
    "deepspeed.comm",
    "deepspeed.comm.comm",
)
_originals: list[tuple[Any, str, Any]] = []
_wrappers: dict[int, Any] = {}
"""By the original's id: torch compares functions (P2POp's `op`), so each has one wrapper."""


def trace_distributed() -> None:
    """Wrap the collectives and point-to-point calls of the modules imported so far. Idempotent.

    Call it again after importing deepspeed. Wrapped functions cost one global look-up while no
    recorder runs.
    """
    for module_name in _MODULES:
        module = sys.modules.get(module_name)
        if module is None:
            continue
        for name in (*_COLLECTIVES, *_POINT_TO_POINT):
            function = getattr(module, name, None)
            if function is None or hasattr(function, "__harness_wrapped__"):
                continue
            _originals.append((module, name, function))
            wrapper = _wrappers.get(id(function))
            if wrapper is None:
                wrapper = _wrappers[id(function)] = _wrap(name, function)
            setattr(module, name, wrapper)


def untrace_distributed() -> None:
    """Put the original functions back."""
    while _originals:
        module, name, function = _originals.pop()
        setattr(module, name, function)
    _wrappers.clear()


def _wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    collective = _COLLECTIVES.get(name)
    if collective is not None:
        op, (keyword, position) = collective

        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            rec = api.recorder()
            if rec is None or get_ident() in rec.communicating:
                return function(*args, **kwargs)
            group = _group_id(rec, _argument(args, kwargs, "group", _GROUP_POSITION[name]))
            if group is None:
                return function(*args, **kwargs)
            if rec.paused:
                with Counted(rec, op, group, -1):
                    return function(*args, **kwargs)
            message = _argument(args, kwargs, keyword, position)
            root = _root(name, args, kwargs)
            call = Call(rec, function, args, kwargs, op, group, root, *_message(message))
            if _argument(args, kwargs, "async_op", _GROUP_POSITION[name] + 1):
                return call.post(_timeline(rec, message))
            return call.run(_timeline(rec, message))

    else:
        op, peer_name = _POINT_TO_POINT[name]

        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            rec = api.recorder()
            if rec is None or get_ident() in rec.communicating:
                return function(*args, **kwargs)
            process_group = _argument(args, kwargs, "group", _GROUP_POSITION[name])
            group = _group_id(rec, process_group)
            if group is None:
                return function(*args, **kwargs)
            peer = _global_peer(args, kwargs, peer_name, process_group)
            if rec.paused:
                with Counted(rec, op, group, peer):
                    return function(*args, **kwargs)
            message = _argument(args, kwargs, "tensor", 0)
            call = Call(rec, function, args, kwargs, op, group, peer, *_message(message))
            if name in ("isend", "irecv"):
                return call.post(_timeline(rec, message))
            return call.run(_timeline(rec, message))

    traced.__harness_wrapped__ = True  # type: ignore[attr-defined]
    return traced


@dataclass(slots=True)  # not frozen: that would cost 2 us a call
class Call:
    """One outermost communication call: what it is, and how to make it.

    `peer`: the other side of a point-to-point call, the root of a rooted one, else -1.
    """

    rec: Recorder
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: dict[str, Any]
    op: str
    group: int
    peer: int
    num_bytes: int
    dtype: str

    def run(self, timeline: Any) -> Any:
        """Make a call that blocks the host (`timeline` None) or the current stream."""
        if timeline is not None:
            return self._on_device(timeline, lambda: self.function(*self.args, **self.kwargs))
        with self._communication():
            return self.function(*self.args, **self.kwargs)

    def post(self, timeline: Any) -> Any:
        """A posted call is no interval: its `wait` is. Its ordinal is fixed where it is issued."""
        enqueued = time.monotonic_ns()
        ordinal = next_ordinal(self.rec, self.op, self.group, self.peer)
        with self._silent():
            work = self.function(*self.args, **self.kwargs)
        if work is None:  # this rank is not in the group
            return None
        if timeline is not None:
            posted = (ordinal, enqueued, self.rec.unit_id)
            return _TracedWork(work, lambda wait: self._on_device(timeline, wait, posted))

        def recorded(wait: Callable[[], Any]) -> Any:
            if self.rec.paused:
                return wait()
            with self._communication(enqueued, ordinal):
                return wait()

        return _TracedWork(work, recorded)

    def _communication(self, enqueued_ns: int = 0, ordinal: int = -1) -> Any:
        what = (self.op, self.group, self.peer, self.num_bytes, self.dtype)
        return communication(self.rec, *what, enqueued_ns, ordinal)

    def _on_device(
        self,
        timeline: Any,
        make: Callable[[], Any],
        posted: tuple[int, int, int] | None = None,
    ) -> Any:
        from harness_probe.device_calls import record_call

        rec = self.rec
        thread = get_ident()
        rec.communicating.add(thread)
        try:
            if rec.paused:
                return make()
            what = (self.op, self.group, self.peer, self.num_bytes, self.dtype)
            return record_call(rec, timeline, *what, make, posted)
        finally:
            rec.communicating.discard(thread)

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        """Layers below this call are not recorded again."""
        self.rec.communicating.add(get_ident())
        try:
            yield
        finally:
            self.rec.communicating.discard(get_ident())


def _timeline(rec: Recorder, message: Any) -> Any:
    """The device timeline if the message lies on a GPU, else None: the call blocks the host."""
    tensor = message[0] if isinstance(message, (list, tuple)) and message else message
    if not getattr(tensor, "is_cuda", False) or get_ident() != rec.owner:
        return None
    if rec.device is None and not sys.modules["torch"].cuda.is_current_stream_capturing():
        api.use_device()
    return rec.device


_ROOTS = {
    "broadcast": ("src", 1),
    "reduce": ("dst", 1),
    "gather": ("dst", 2),
    "scatter": ("src", 2),
}


def _root(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    keyword, position = _ROOTS.get(name, ("", -1))
    root = _argument(args, kwargs, keyword, position) if keyword else None
    if keyword and root is None:
        root = 0 if f"group_{keyword}" not in kwargs else None
    return root if isinstance(root, int) else -1


class _TracedWork:
    """A `Work` handle whose first `wait` is recorded; everything else is the handle's own."""

    def __init__(self, work: Any, record: Callable[[Callable[[], Any]], Any]) -> None:
        self._work = work
        self._record: Callable[[Callable[[], Any]], Any] | None = record

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        record, self._record = self._record, None
        if record is None:
            return self._work.wait(*args, **kwargs)
        return record(lambda: self._work.wait(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def _argument(args: Sequence[Any], kwargs: dict[str, Any], keyword: str, position: int) -> Any:
    if keyword in kwargs:
        return kwargs[keyword]
    return args[position] if 0 <= position < len(args) else None


def _message(value: Any) -> tuple[int, str]:
    """(bytes, dtype) of a tensor or a list of tensors; (-1, "") where there is none."""
    try:
        if isinstance(value, (list, tuple)):
            return sum(tensor.nbytes for tensor in value), _dtype(value[0].dtype)
        return value.nbytes, _dtype(value.dtype)
    except (AttributeError, IndexError):
        return -1, ""


@functools.cache
def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _group_id(rec: Recorder, process_group: Any) -> int | None:
    """Id of torch's group; None where this rank is not in it, and nothing will happen."""
    found = rec.group_ids.get(process_group)
    if found is None:
        dist = sys.modules["torch.distributed"]
        actual = process_group if process_group is not None else dist.group.WORLD
        try:
            ranks = tuple(dist.get_process_group_ranks(actual))
            member = dist.get_rank() in ranks
        except (KeyError, ValueError, RuntimeError, TypeError):
            return None
        if not member:
            return None
        name = str(getattr(actual, "group_desc", "") or "")
        found = rec.define_group(ranks, id(actual), name)
        rec.group_ids[process_group] = found
    return found


def _global_peer(args: Sequence[Any], kwargs: dict[str, Any], name: str, process_group: Any) -> int:
    peer = _argument(args, kwargs, name, 1)
    if peer is None:
        local = kwargs.get(f"group_{name}")
        if local is None:
            return -1
        dist = sys.modules["torch.distributed"]
        return int(dist.get_global_rank(process_group or dist.group.WORLD, local))
    return int(peer)
