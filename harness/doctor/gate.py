"""Before a rank's program starts: can it reach the GPU? `python -P -m harness.doctor.gate -- CMD`.

Without torch, so that what is missing is one line and an exit code, not a traceback of CUDA's a
minute later. Where all is well it becomes CMD.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys

from harness.doctor.facts import Facts
from harness.doctor.gather import gather_gpus
from harness.doctor.gpu_checks import gpu_checks
from harness_schemas.errors import ExitCode

BLOCKING = frozenset({"nvidia driver", "driver binding", "torch and CUDA"})
"""Checks without which no rank computes on a GPU."""
UNBOUND = (
    "--nv was given and brought no libcuda.so.1: this host's `ldconfig -p` does not list it; have "
    "the driver's libraries installed there, or bind them by hand (slurm.binds)"
)


def refusal(facts: Facts, host: str, bound: bool = False) -> tuple[str, str] | None:
    """What keeps a rank from its GPU, and what to do; None: nothing does. Pure.

    `bound`: the container was started with --nv, so the advice is not to do that.
    """
    seen = dataclasses.replace(facts, container=None) if bound else facts
    checks = (check for check in gpu_checks(seen) if check.name in BLOCKING)
    wrong = next((check for check in checks if check.state != "ok"), None)
    if wrong is None:
        return None
    unbound = bound and wrong.name == "driver binding" and facts.libcuda is False
    mend = UNBOUND if unbound else wrong.mend
    where = f" (inside {facts.container})" if facts.container else ""
    return f"no GPU for the ranks on {host}{where}: {wrong.found}", mend


def main(argv: list[str]) -> int:
    """Refuse with one line and exit code 123, or become the command after `--`."""
    place = argv.index("--")
    options, command = argv[:place], argv[place + 1 :]
    said = refusal(gather_gpus(), socket.gethostname(), "--nv" in options)
    if said is None:
        os.execvp(command[0], command)
    sys.stderr.write(f"harness: {said[0]}; {said[1]}\n")
    return ExitCode.NOT_READY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
