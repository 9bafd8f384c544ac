"""Processes that must not outlive the run: death with the parent, and the final sweep.

Standard library only: the agent and every rank load this before anything else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path

from harness_schemas.errors import LaunchError

LAUNCH_ID = "HARNESS_LAUNCH_ID"
"""Variable that marks every process of one launch; children inherit it."""

DOUBTFUL_LOOKS = 5
"""Whoever has shown no environment so often has none, and is nobody's rank."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int, signum: int) -> None:
    """Have the kernel send `signum` to this process when `parent` (a pid) ends.

    Survives exec. Exits at once if the parent ended before the request was made. Elsewhere
    than on Linux nothing happens: there the sweep alone keeps the promise.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signum)


def look(launch_id: str) -> tuple[list[int], list[int]]:
    """Pids of this user's living processes that carry `launch_id`, and of those that may: in exec
    a process shows no environment, and whoever reads it just then is made to wait for exactly
    that moment. This process is left out.
    """
    mark = f"{LAUNCH_ID}={launch_id}".encode()
    found, doubtful = [], []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        with contextlib.suppress(OSError):
            if pid == os.getpid() or entry.stat().st_uid != os.getuid():
                continue
            environment = (entry / "environ").read_bytes()
            if mark in environment.split(b"\0"):
                found.append(pid)
            elif not environment and (entry / "exe").readlink():  # no zombie, not the kernel's
                doubtful.append(pid)
    return found, doubtful


def sweep(launch_id: str, patience_s: float = 3.0) -> int:
    """SIGKILL everything that still carries `launch_id`; returns how many were killed.

    Repeats, because a process may fork or exec while it is looked for. Gives up after
    `patience_s` seconds: a process in uninterruptible sleep cannot be killed by anyone.
    """
    deadline = time.monotonic() + patience_s
    killed: set[int] = set()
    doubts: Counter[int] = Counter()
    while time.monotonic() < deadline:
        pids, doubtful = look(launch_id)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(pids)
        doubts.update(doubtful)
        if not pids and all(doubts[pid] >= DOUBTFUL_LOOKS for pid in doubtful):
            break
        time.sleep(0.02)
    return len(killed)


def check_port(port: int) -> None:
    """Raise unless a server could listen on `port` of this host now.

    Raises:
        LaunchError: the port is taken or may not be used.
    """
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the rendezvous store does: a connection in TIME_WAIT does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError as error:
            raise LaunchError(
                f"port {port} cannot be used for the rendezvous: {error.strerror}",
                "name another with launcher.port, or leave it out to get a free one",
            ) from None
