"""Become a rank: die with the agent, send the output to this rank's files, then exec.

Run as a file with `python -I -S`, so that neither site-packages nor the user's PYTHONPATH is
read twice: `rank_exec.py AGENT_PID LOG_FOLDER COMMAND...`. Costs about 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; `harness_slurm.processes` is out of reach under -I -S


def main(argv: list[str]) -> None:
    """Replace this process by `COMMAND...`; returns only by exiting."""
    agent, folder, command = int(argv[0]), argv[1], argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != agent:
            os._exit(128 + signal.SIGKILL)
    for number, stream in ((1, "out"), (2, "err")):
        name = f"rank-{int(os.environ['RANK']):05d}.{stream}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.open(os.path.join(folder, name), flags, 0o644)  # noqa: PTH118 (pathlib: 10 ms)
        os.dup2(file, number)
        os.close(file)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(sys.argv[1:])
