"""`perf script`: samples with their stacks, folded into counts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_HEADER = re.compile(
    r"(?P<comm>\S.{0,63}?)\s+(?P<pid>-?\d+)(?:/-?\d+)?\s+(?:\[\d+\]\s+)?(?P<time>\d+\.\d+:\s+)?"
    r"(?:\d+\s+)?(?P<event>[A-Za-z_]\S*):(?:\s+(?P<frame>[0-9a-f]+ .*))?\s*"
)
_FRAME = re.compile(
    r"\s+[0-9a-f]+ (?P<symbol>.*?)(?:\+0x[0-9a-f]+)?(?: \((?P<module>[^()]*)\))?\s*"
)
_DEEPEST: Final = 256
_LONGEST_LINE: Final = 4096


@dataclass
class Stacks:
    """Samples by folded stack (outermost frame first, `;` between) and by innermost frame."""

    samples: int = 0
    unreadable: int = 0
    pids: set[int] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    folded: Counter[str] = field(default_factory=Counter)
    top_frames: Counter[str] = field(default_factory=Counter)


def is_script(head: str) -> bool:
    """Whether a text begins as output of perf script: a sample's line, and a frame or a gap."""
    lines = head.splitlines()[:40]
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        match = _HEADER.fullmatch(line[:_LONGEST_LINE])
        if match and _FRAME.fullmatch(following[:_LONGEST_LINE]):
            return True
        if match and match["time"] and (match["frame"] or not following.strip()):
            return True  # of a line without a time (`-F comm,pid,event,ip,sym`) frames must tell
    return False


def read_script(text: str) -> Stacks:
    """Fold the samples; a line that is neither a sample's nor a frame of one is counted.

    A last line without a line break may be cut, so it is counted among those.
    """
    lines = text.split("\n")
    stacks = Stacks(unreadable=int(bool(lines[-1].strip())))
    comm: str | None = None
    frames: list[str] = []
    for line in lines[:-1]:
        if not line.strip() or line.startswith("#"):
            _close(stacks, comm, frames)
            comm = None
            continue
        line = line[:_LONGEST_LINE]
        header = _HEADER.fullmatch(line)
        frame = None if header else _FRAME.fullmatch(line)
        if header:
            _close(stacks, comm, frames)
            comm = header["comm"]
            stacks.pids.add(int(header["pid"]))
            stacks.events[header["event"]] += 1
            inline = _FRAME.fullmatch(f" {header['frame']}") if header["frame"] else None
            frames += [_label(inline)] if inline else []
        elif frame and comm is not None:
            if len(frames) < _DEEPEST:
                frames.append(_label(frame))
        else:
            stacks.unreadable += 1
    _close(stacks, comm, frames)
    return stacks


def _close(stacks: Stacks, comm: str | None, frames: list[str]) -> None:
    """Count the sample whose lines have ended, and forget them."""
    if comm is not None:
        stacks.samples += 1
        stacks.folded[";".join([comm, *reversed(frames)])] += 1
        stacks.top_frames[frames[0] if frames else "[no stack]"] += 1
    frames.clear()


def _label(frame: re.Match[str]) -> str:
    """The symbol; where perf knew none, the module in brackets."""
    symbol, module = frame["symbol"].strip(), frame["module"]
    if symbol and symbol != "[unknown]":
        return symbol.replace(";", ":")
    if module and module != "[unknown]":
        return f"[{module.rsplit('/', 1)[-1].strip('[]')}]"
    return "[unknown]"
