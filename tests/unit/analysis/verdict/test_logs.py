"""Logs of several ranks in one: the first cause decides, not the victim that shouts."""

from __future__ import annotations

import gzip
import json

import pytest

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.launchers import first_exits
from harness_analysis.verdict.model import TextLine, VerdictEvidence
from harness_collectors.failure_log import COLLECTOR
from harness_collectors.failure_log.lines import notable_lines, speaks_of_failure
from harness_collectors.reading.text_evidence import as_utf8

WAITS = (
    "[rank{0}]:[E101 x.cpp:616] [Rank {0}] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=9, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600001 milliseconds"
)
GONE = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting"
TABLE = (
    "Root Cause (first observed failure):\n[0]:\n  time      : 2026-01-02_03:04:{0}\n"
    "  host      : {1}\n  rank      : {2} (local_rank: 1)\n  exitcode  : 1 (pid: 7)\n"
)

LOGS = {
    "an exception explains the timeouts of the others": (
        "[rank2]: KeyError: 'lm_head'\n" + WAITS.format(0) + "\n" + WAITS.format(1),
        ("rank_failed", "exception", (2,)),
    ),
    "an exception after a timeout is its consequence": (
        WAITS.format(0) + "\n" + WAITS.format(2) + "\n[rank0]: RuntimeError: aborted",
        ("nccl_timeout", "watchdog", (1,)),
    ),
    "a peer's exit is no cause beside an exception": (
        f"[rank1]: {GONE}\n[rank3]: ValueError: a shard has the wrong shape",
        ("rank_failed", "exception", (3,)),
    ),
    "labels of srun name the rank": (
        "0: loading\n1: loading\n0: still\n1: still\n1: ModuleNotFoundError: No module named 'x'\n"
        "0: torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients.",
        ("rank_failed", "missing-module", (1,)),
    ),
    "SGLang heads only the first line of a traceback": (
        "[2026-01-02 03:04:05 TP2] Scheduler hit an exception: Traceback (most recent call last):\n"
        '  File "s.py", line 1, in run\nValueError: no such layer\n'
        "[2026-01-02 03:04:05] Received sigquit from a child process.",
        ("rank_failed", "exception", (2,)),
    ),
    "what Ray thinks possible is no finding": (
        "ray.exceptions.ActorDiedError: The actor died unexpectedly.\nWorker exit detail: End of "
        "file. Some common causes include: (1) the process was killed by the OOM killer due to "
        "high memory usage, (2) it was stopped",
        ("rank_failed", "exception-of-others", ()),
    ),
    "an engine's wrapper is not the worker's exception": (
        "(Worker_TP1 pid=9) ERROR 01-02 03:04:05 [x.py:1] AttributeError: no such thing\n"
        "(EngineCore_DP0 pid=8) Exception: WorkerProc initialization failed due to an exception\n"
        "RuntimeError: Engine core initialization failed. See root cause above.",
        ("rank_failed", "exception", (1,)),
    ),
    "only wrappers are left": (
        "(EngineCore_DP0 pid=8) Exception: WorkerProc initialization failed due to an exception",
        ("rank_failed", "exception-of-others", ()),
    ),
    "the word of a shell behind a progress bar": (
        "Loading shards:  75%|###  | 3/4 [00:08<00:02,  2.83s/it]Killed",
        ("rank_failed", "killed-bare", ()),
    ),
    "MPI names the process that ended the job": (
        "h: Test NCCL failure common.cu:1 'unhandled cuda error'\nmpirun detected that one or more "
        "processes exited with non-zero status\n  Process name: [[99,1],10]\n  Exit code:    3",
        ("nccl_error", "nccl-error", (10,)),
    ),
    "MPI_Abort names a rank of the world": (
        "MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\nwith errorcode 1.",
        ("rank_failed", "child-failed", (2,)),
    ),
    "the table of the node that failed first": (
        f"[rank1]: {GONE}\n" + TABLE.format("09", "a", 1) + TABLE.format("03", "b", 9),
        ("rank_failed", "child-failed", (9,)),
    ),
    "ranks of subgroups are not compared": (
        WAITS.format(13).replace("[Rank 13]", "[Rank 1]")
        + "\n"
        + WAITS.format(15).replace("[Rank 15]", "[Rank 1]").replace("=9,", "=7,"),
        ("nccl_timeout", "watchdog", ()),
    ),
    "the newer watchdog": (
        "[rank1]:[E1 x.cpp:1] [PG ID 2 PG GUID 3 Rank 1]  failure detected by watchdog at work "
        "sequence id: 40 PG status: last enqueued work: 41, last completed work: 39",
        ("nccl_timeout", "watchdog", ()),
    ),
    "a driver that lost its GPU without a number": (
        "NVRM: The NVIDIA GPU 0000:b3:00.0\n NVRM: fallen off the bus and is not responding.",
        ("fell_off_bus", "xid-79", ()),
    ),
    "a dict printed at the beginning is no JSON": (
        "{'loss': 0.1}\n[rank7]:[E x.cpp:1] [Rank 7] CUDA error: an illegal memory access was "
        "encountered",
        ("rank_failed", "illegal-access", (7,)),
    ),
    "a task that ended for memory, and others that srun then killed": (
        "srun: error: n2: task 6: Out Of Memory\nsrun: error: n1: tasks 0-5,7: Killed",
        ("oom_host", "slurmstepd-oom", (6,)),
    ),
    "a step that ended with a task": (
        "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TASK "
        "FAILURE ***\nsrun: error: n1: tasks 0-2: Terminated",
        ("rank_failed", "task-failure", ()),
    ),
    "another rank's word of a timeout": (
        "[rank1]:[E1 x.cpp:1] [PG ID 0 PG GUID 0 Rank 1] Received a dump signal due to a "
        "collective timeout from  rank 5 and we will try our best to dump the debug info.",
        ("nccl_timeout", "watchdog", ()),
    ),
    "a GPU that nvidia-smi cannot reach": (
        "Unable to determine the device handle for GPU0000:0a:00.0: Unknown Error",
        ("fell_off_bus", "xid-79", ()),
    ),
    "what all say at once points at nobody": (
        "[rank1]: FileNotFoundError: /a/b1\n[rank0]: FileNotFoundError: /a/b0\n",
        ("rank_failed", "exception", ()),
    ),
    "nor does an echo in other words": (
        "[rank1]: ncclSystemError: a\n[rank0]: ncclSystemError: b\n",
        ("nccl_error", "nccl-error", ()),
    ),
    "called different collectives": (
        "[rank0]: RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is running "
        "collective: ALLREDUCE, but Rank 1 is running collective: ALLGATHER",
        ("rank_failed", "collective-mismatch", ()),
    ),
    "a worker that vLLM misses": (
        "ERROR 01-02 03:04:05 [m.py:1] Worker proc VllmWorker-1 died unexpectedly, shutting down",
        ("rank_failed", "child-failed", (1,)),
    ),
    "PRRTE names the first": (
        "prterun detected that one or more processes exited with non-zero status,\n"
        "   Process name: [prterun-n1-22@1,5] Exit code:    1\n",
        ("rank_failed", "child-failed", (5,)),
    ),
    "of PALS those that SIGTERM ended are no cause": (
        "x1.hsn: rank 0 died from signal 15\nx1.hsn: rank 3 exited with code 1\n",
        ("rank_failed", "child-failed", (3,)),
    ),
    "tasks that were told to end are no cause": (
        "srun: error: n1: task 0: Exited with exit code 143\n"
        "srun: error: n1: task 2: Exited with exit code 1\n",
        ("rank_failed", "srun-task", (2,)),
    ),
    "torch's own report of who lags": (
        WAITS.format(0) + "\n - To our best knowledge, the lagging/dead/mismatched ranks are:\n"
        "   - [0, 1] joined but didn't finish collective #3 (count from 1)\n"
        "     [2, 5] finished collective #2, but didn't join collective #3 (count from 1)\n",
        ("nccl_timeout", "watchdog", (2, 5)),
    ),
    "ranks that never came to any collective": (
        WAITS.format(1) + "\n - To our best knowledge, ranks [4] are the lagging ranks that caused "
        "this timeout. They never joined any collectives",
        ("nccl_timeout", "watchdog", (4,)),
    ),
    "what torch's fr_trace says of dumps": (
        "Not all ranks joining collective 7 at entry 6\ncollective: nccl:all_reduce\n"
        "missing ranks: {1, 3}\nworld size: 4\n",
        ("nccl_timeout", "watchdog", (1, 3)),
    ),
    "an engine that kills itself for an exception": (
        "[2026-01-02 03:04:05 TP3] Scheduler hit an exception: Traceback (most recent call last):\n"
        "KeyError: 'rope_scaling'\n\n[2026-01-02 03:04:05] Received sigquit.\nKilled\n",
        ("rank_failed", "exception", (3,)),
    ),
    "TensorRT-LLM heads only the first line of a traceback": (
        "[01/02/2026-03:04:05] [TRT-LLM] [RANK 1] [E] Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\nTypeError: no such thing\nValueError: another\'s\n',
        ("rank_failed", "exception", (1,)),
    ),
    "hydra's words": (
        "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   EXIT CODE: 9\n",
        ("rank_failed", "killed-text", ()),
    ),
}


@pytest.mark.parametrize("case", sorted(LOGS))
def test_the_first_cause_decides(case, tmp_path):
    text, wanted = LOGS[case]
    path = tmp_path / "job.log"
    path.write_text(text)
    assert speaks_of_failure(path, b"")
    lines = tuple(TextLine(line.kind, line.text, line.rank) for line in notable_lines(path))
    found = judge(VerdictEvidence(lines=lines))
    assert (found.name, found.rule, found.suspects) == wanted


def wrapped(name, text):
    """The text as containers, Windows and archives keep it."""
    lines = text.split("\n")
    if name.endswith(".gz"):
        return gzip.compress(text.encode())
    if name.startswith("utf16"):
        return text.encode("utf-16")
    if name.startswith("docker"):
        listed = [json.dumps({"log": line + "\n", "stream": "stderr"}) for line in lines]
        return "\n".join(listed).encode()
    if name.startswith("bar"):
        return ("\r".join(f"{n}%|#" for n in range(300)) + "\r" + text).encode()
    return "".join(f"\x1b[31m{line}\x1b[0m\n" for line in lines).encode()


@pytest.mark.parametrize(
    "name", ["job.log.gz", "utf16.log", "docker-json.log", "bar.out", "colour.err"]
)
def test_logs_are_read_in_whatever_they_are_wrapped(name, tmp_path):
    path = tmp_path / name
    data = wrapped(name, "[rank1]: ValueError: no such layer\n[rank0]: Connection reset by peer")
    path.write_bytes(data)
    assert COLLECTOR.recognise(
        path, gzip.decompress(data) if name.endswith(".gz") else as_utf8(data)
    )
    lines = tuple(TextLine(line.kind, line.text, line.rank) for line in notable_lines(path))
    found = judge(VerdictEvidence(lines=lines))
    assert (found.name, found.rule, found.suspects) == ("rank_failed", "exception", (1,))


def test_of_the_summaries_of_several_agents_the_earliest_is_the_cause(tmp_path):
    one = "Root Cause (first observed failure):\n[0]:\n  time      : 2026-01-02_03:04:{s}\n"
    one += "  host      : n1\n  rank      : {r} (local_rank: 0)\n  exitcode  : 1 (pid: 9)\n"
    path = tmp_path / "job.log"
    path.write_text(one.format(s=52, r=0) + "-----\n" * 30 + one.format(s="01", r=4))
    assert [end.rank for end in first_exits(x.text for x in notable_lines(path))] == [4, 0]


def test_a_local_rank_and_another_communicator_name_nobody():
    assert first_exits(["failed (exitcode: 1) local_rank: 3 (pid: 1) of binary: python"]) == []
    assert first_exits(["MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_SELF"]) == []
