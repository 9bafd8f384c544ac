"""Stacks of many ranks in a few lines: ranks that stand at the same place are one.

Reads what faulthandler writes (CPython 3.11, Python/traceback.c: `File "a.py", line 3 in f`, most
recent call first) and what `py-spy dump` prints (py-spy 0.4: `f (a.py:3)`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

SHOWN_FRAMES = 5
LEFT_OUT = ("harness_probe/", "c10d_logger.py", "torch/utils/_contextlib.py")
WRAPPERS = frozenset({"log_wrapper", "_wrapped_call_impl", "_call_impl"})
"""Wrappers of the recorder, torch and deepspeed: in every stack, and they say nothing."""

_FAULT_HEAD = re.compile(r"^(Current thread|Thread) 0x[0-9a-fA-F]+.*:\s*$")
_FAULT_FRAME = re.compile(r'^\s+File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)$')
_SPY_HEAD = re.compile(r'^Thread (?:0x)?[0-9a-fA-F]+ \([^)]*\)(?:: "(?P<name>[^"]*)")?\s*$')
_SPY_FRAME = re.compile(r"^\s+(?P<name>\S.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)\s*$")


@dataclass(frozen=True)
class Frame:
    """One call: function, file and line (None: not known)."""

    name: str
    file: str
    line: int | None

    def short(self) -> str:
        """`take (wire.py:56)`."""
        where = PurePosixPath(self.file).name  # the folder says little, and takes a line
        return f"{self.name} ({where}{'' if self.line is None else f':{self.line}'})"

    def is_wrapper(self) -> bool:
        """Whether it only calls on."""
        return self.name.rpartition(".")[2] in WRAPPERS or any(
            part in self.file for part in LEFT_OUT
        )


@dataclass(frozen=True)
class StackGroup:
    """Ranks whose main threads stand at the same place; `frames` the innermost first, `state` how
    the kernel sees them. Without frames `why` says why there are none."""

    ranks: tuple[int, ...]
    frames: tuple[Frame, ...]
    state: str = ""
    why: str = ""

    def line(self) -> str:
        """The innermost calls, joined by arrows to their callers."""
        kept = [frame for frame in self.frames if not frame.is_wrapper()]
        shown = " < ".join(frame.short() for frame in (kept or self.frames)[:SHOWN_FRAMES])
        more = " < ..." if len(kept) > SHOWN_FRAMES else ""
        return shown + more if self.frames else self.why or "no stack"


def main_stack(text: str) -> tuple[Frame, ...]:
    """The main thread's frames of the last dump in a text, the innermost first; empty: none.

    faulthandler writes in the thread that takes the signal, which is the main one unless that
    blocks it; where it does not say, the thread that it lists last is the oldest.
    """
    threads = list(_threads(text.splitlines()))
    named = [frames for kind, frames in threads if kind == "main" and frames]
    others = [frames for _, frames in threads if frames]
    return tuple((named or others or [[]])[-1])


def _threads(lines: Iterable[str]) -> Iterable[tuple[str, list[Frame]]]:
    frames: list[Frame] | None = None
    for line in lines:
        fault, spy = _FAULT_HEAD.match(line), _SPY_HEAD.match(line)
        if fault or spy:
            frames = []
            main = fault[1] == "Current thread" if fault else spy and spy["name"] == "MainThread"
            yield ("main" if main else "other", frames)
            continue
        found = (_FAULT_FRAME.match(line) or _SPY_FRAME.match(line)) if frames is not None else None
        if found and frames is not None:
            number = found["line"]
            at = int(number) if number and number.isdigit() else None
            frames.append(Frame(found["name"], found["file"], at))
        elif line.strip():
            frames = None  # something else was printed in between


def group_stacks(
    texts: Mapping[int, str], states: Mapping[int, str], why: Mapping[int, str]
) -> list[StackGroup]:
    """Ranks by their main stack, the rarest first: who stands alone is who to look at.

    `states`: how the kernel sees each rank's process; `why`: why a rank has no stack.
    """
    together: dict[tuple[tuple[Frame, ...], str, str], list[int]] = {}
    for rank in sorted({*texts, *states, *why}):
        frames = main_stack(texts.get(rank, ""))
        state = states.get(rank, "")
        key = (frames, state if not frames or state.startswith(("T", "t")) else "", "")
        if not frames:
            key = (frames, state, why.get(rank, ""))
        together.setdefault(key, []).append(rank)
    groups = [
        StackGroup(tuple(ranks), frames, state, reason)
        for (frames, state, reason), ranks in together.items()
    ]
    return sorted(groups, key=lambda group: (len(group.ranks), group.ranks))


def folded(groups: Sequence[StackGroup]) -> list[str]:
    """Lines of a flame graph's input: callers first, joined by semicolons, and how many ranks."""
    return [
        ";".join(frame.short().replace(";", ",") for frame in reversed(group.frames))
        + f" {len(group.ranks)}"
        for group in groups
        if group.frames
    ]
