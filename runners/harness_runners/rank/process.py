"""What a rank's process does before anything else: its logs, its signals, its way to end."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any, NoReturn

import harness_probe as probe
from harness_schemas.errors import HarnessError, UsageError
from harness_schemas.rundir import RunDir

HANDLED = (signal.SIGTERM, signal.SIGUSR2)


@dataclass(frozen=True)
class RankEnv:
    """What the launcher says in the environment (torch's elastic agent or srun)."""

    rank: int
    local_rank: int
    world_size: int

    @classmethod
    def read(cls) -> RankEnv:
        """Read RANK, LOCAL_RANK and WORLD_SIZE, else Slurm's names; alone: rank 0 of 1.

        Raises:
            UsageError: a value is no number.
        """
        names = (("RANK", "SLURM_PROCID"), ("LOCAL_RANK", "SLURM_LOCALID"))
        try:
            rank, local = (int(_first(pair, "0")) for pair in names)
            return cls(rank, local, int(_first(("WORLD_SIZE", "SLURM_NTASKS"), "1")))
        except ValueError as error:
            raise UsageError(f"the launcher's environment is broken: {error}") from None


def _first(names: tuple[str, ...], default: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), default)


def redirect_output(run: RunDir, rank: int) -> None:
    """Send stdout and stderr of this process and its libraries to the rank's own files."""
    for number, stream in ((1, "out"), (2, "err")):
        path = run.rank_log(rank, stream)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    faulthandler.enable(file=sys.stderr)


def watch_signals() -> None:
    """Flush on SIGUSR2 and SIGTERM, and end on SIGTERM, even while the main thread is in C.

    The signals are blocked in every thread, so that only the waiting thread takes them; Python's
    own handlers run in the main thread, which may sit in a collective for ever. Call it before
    any thread is started: threads inherit the mask.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    # A launcher may have had them ignored until now; some kernels drop ignored signals even
    # while they are blocked.
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_wait_for_signals, name="harness-signals", daemon=True).start()


def _wait_for_signals() -> NoReturn:
    while True:
        number = signal.sigwait(HANDLED)
        probe.flush()
        if number == signal.SIGUSR2:
            faulthandler.dump_traceback(file=sys.stderr)
            continue
        probe.error("signal", "ended by SIGTERM")
        # Die of the signal itself, so that the launcher sees who was ended and who failed.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)


def report_failure(rank: int, error: BaseException) -> int:
    """Say in one line why this rank ends, then the traceback; returns its exit code."""
    import traceback

    known = isinstance(error, HarnessError)
    message = (
        error.message if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    )
    probe.error(type(error).__name__, message)
    lines = [f"harness: rank {rank}: {message}"]
    if isinstance(error, HarnessError):
        lines += [f"hint: {error.hint}"] if error.hint else []
    else:
        lines += traceback.format_exception(error)
    sys.stderr.write("\n".join(line.rstrip("\n") for line in lines) + "\n")
    _write_error_file(message)
    return 2 if known and isinstance(error, UsageError) else 1


def _write_error_file(message: str) -> None:
    """Tell torch's elastic agent why (the file it names in TORCHELASTIC_ERROR_FILE)."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    import contextlib
    import time
    from pathlib import Path

    extra: dict[str, Any] = {"timestamp": str(int(time.time()))}
    whole = Path(path + ".whole")
    with contextlib.suppress(OSError):
        # The agent may read at any moment, and half a file would end it.
        whole.write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
        whole.replace(path)


def leave(code: int) -> NoReturn:
    """End without waiting for libraries' threads, whose peers may be gone."""
    probe.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
