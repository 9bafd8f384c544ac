"""A process that reads parts of evidence for another: `python -m harness.ingest.worker`.

The first line of stdin says what ingest knows, every further one names a part and the file to
write; each is answered by one line on stdout. It ends when stdin does.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import IO

from harness.ingest.exchange import decode_context, decode_task, encode_answer, write_batches
from harness.ingest.parts import read_task


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer every request until there are no more."""
    context = decode_context(requests.readline() or "{}")
    for line in requests:
        task, into = decode_task(line)
        answers.write(encode_answer(write_batches(into, read_task(task, context))))
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout; what a library prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests, relay = os.pipe()
    threading.Thread(target=_relay, args=(relay,), daemon=True).start()
    with os.fdopen(requests) as stream:
        serve(stream, answers)


def _relay(target: int) -> None:
    """Hand stdin on, and end the process with it: the other side may be gone in the middle of a
    part."""
    with os.fdopen(target, "wb", buffering=0) as stream:
        for line in sys.stdin.buffer:
            stream.write(line)
    os._exit(0)


if __name__ == "__main__":
    main()
