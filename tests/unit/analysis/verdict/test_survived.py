"""Words of a failure are none of an end: what comes after, who says it, and in what wrapping."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.doctor.explain import explain_log
from harness_analysis.verdict.suspects import suspects_from_ras
from harness_collectors.failure_log import COLLECTOR
from harness_collectors.failure_log.lines import notable_lines

STEPS = "".join(f"step {n} tokens/s {900 + n % 7}\n" for n in range(40))
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
WAITS = "[rank{0}]:[E1 x.cpp:6] [Rank {0}] Watchdog caught collective operation timeout: WorkNCCL("
AGAIN = "[default] Worker group FAILED. 2/3 attempts left; will restart worker group\n"
CANCELLED = "slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2025-01-01T00:00:00 DUE TO {0} ***\n"
FINALIZER = "Exception ignored in: <function X.__del__>\nTraceback (most recent call last):\n"
SERVED = 'INFO: 10.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK\n'
PROBED = 'INFO: 10.0.0.1:5 - "GET /health HTTP/1.1" 200 OK\n'

MONITOR = "".join(f"[mon] t={n}s gpu0 9{n % 9}%\n" for n in range(30))

NONE = {
    "caught, and the work goes on": STEPS + OOM + "trying 32\n" + STEPS,
    "caught before the work began": OOM + "batch 64 does not fit, trying 32\n" + STEPS + "Done.\n",
    "a restarted worker group": WAITS.format(0) + "\n" + AGAIN + STEPS + "Done.\n",
    "a job that Slurm put back": CANCELLED.format("PREEMPTION") + "Resuming from step 4\n" + STEPS,
    "one request of a server": SERVED * 4 + "ValueError: max_tokens is 0\n" + SERVED * 9,
    "a finalizer": STEPS + FINALIZER + '  File "x.py"\nAttributeError: no workers\n',
    "an expected one": "test_a ... CUDA out of memory raised as expected\nok\n",
    "a program that a script does without": (
        "x.sh: line 9: nvidia-smi: command not found\nrunning on the CPU\nloaded\nall done\n"
    ),
    "a guess": "the worker may have been killed by the OOM killer\n",
    "new work whose first number stands still": OOM
    + "".join(f"INFO t.py:88 step {n}\n" for n in range(9)),
    "a count of none": "summary: CUDA out of memory: 0 times, CUDA_ERROR_OUT_OF_MEMORY = none\n",
    "a program": "+    except torch.cuda.OutOfMemoryError:\n+ grep 'DUE TO TIME LIMIT' x\n",
    "a handler": "KeyboardInterrupt handler installed\n",
    "denied": "no CUDA out of memory, 0 oom-kill: events, without OutOfMemoryError\n",
    "a condition": "[monitor] if you see CUDA out of memory, lower --batch\n",
    "a help text": "  --retry N   retry N times on 'CUDA out of memory' (default 3)\n",
    "a list of patterns": "patterns:\n  - 'CUDA out of memory'\n  - 'DUE TO TIME LIMIT'\n",
}


def explained(path, text):
    path.write_text(text)
    return explain_log(path)


@pytest.mark.parametrize("case", sorted(NONE))
def test_words_of_a_failure_that_ended_nothing(case, tmp_path):
    found = explained(tmp_path / "job.out", NONE[case])
    assert (found.name, found.rule) == ("unknown", "")


ENDED = {
    "the last of two": (
        STEPS + OOM + STEPS + "[rank1]: OSError: [Errno 28] No space left on device",
        "disk-full", (1,),
    ),
    "of the last attempt": (
        "[rank2]: " + OOM + AGAIN + STEPS + "[rank5]: ValueError: bad prompt", "exception", (5,),
    ),
    "another rank that goes on says nothing": (
        "[rank0]: step 1\n" * 4 + "[rank2]: " + OOM + "[rank0]: step 2\n" * 9, "oom-gpu", (2,),
    ),
    "a survived one where nothing else says why": (
        STEPS + OOM + STEPS + "ChildFailedError:\n", "oom-gpu", (),
    ),
    "work goes on until the kill": (
        STEPS + CANCELLED.format("TIME LIMIT") + STEPS, "time-limit", (),
    ),
    "a server that is only probed": (PROBED * 4 + OOM + PROBED * 9, "oom-gpu", ()),
    "a monitor of its own goes on": (
        MONITOR + STEPS + "RuntimeError: no such layer\n" + MONITOR, "exception", (),
    ),
    "a stack goes on too": (
        OOM + "".join(f"frame #{n}: <unknown> + 0x{n}\n" for n in range(40)), "oom-gpu", (),
    ),
    "as do the launcher's farewells": (
        "ValueError: x\n" + "".join(f"W1] Sending {n} closing signal SIGTERM\n" for n in range(9)),
        "exception", (),
    ),
    "a hint beside the exception": (
        "[rank0]: AssertionError: no\nif you see CUDA out of memory, lower it", "exception", (0,),
    ),
    "a quoted error": (
        "worker died: RuntimeError('CUDA out of memory. Tried to allocate')", "oom-gpu", (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(ENDED))
def test_what_did_end_it(case, tmp_path):
    text, rule, suspects = ENDED[case]
    found = explained(tmp_path / "job.out", text)
    assert (found.rule, found.suspects) == (rule, suspects)


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 30), after=st.integers(0, 30))
def test_survival_needs_work_after_the_failure(tmp_path_factory, at, after):
    steps = STEPS.splitlines(keepends=True)
    text = "".join([*steps[:at], OOM, *steps[at : at + after]])
    found = explained(tmp_path_factory.mktemp("s") / "job.out", text)
    survived = after >= 5 or (at > 0 and after >= 3)
    assert found.name == ("unknown" if survived else "oom_gpu")


LINES = ("step 1", "[rank3]: " + OOM.strip())
STAMPS = ("2025-01-01T00:00:01Z", "2025-01-01T00:00:02Z")


def records(**names):
    made = []
    for stamp, line in zip(STAMPS, LINES, strict=True):
        values = {"STAMP": stamp, "LINE": line, "BYTES": list(line.encode())}
        made.append({key: values.get(value, value) for key, value in names.items()})
    return made


def lines_of(made):
    return "".join(json.dumps(record) + "\n" for record in made)


WRAPPED = {
    "fluentd.jsonl": lines_of(records(log="LINE", stream="stderr")),
    "loki.jsonl": lines_of(records(line="LINE", timestamp="STAMP")[::-1]),
    "elastic.json": lines_of(records(**{"@timestamp": "STAMP", "message": "LINE"})),
    "journal.json": lines_of(records(__REALTIME_TIMESTAMP="STAMP", MESSAGE="BYTES")),
    "cloud.ndjson": lines_of(records(timestamp="STAMP", textPayload="LINE")),
    "cloud-2.json": lines_of([{"jsonPayload": {"message": line}} for line in LINES]),
    "answer.json": json.dumps(
        {"data": {"resultType": "streams", "result": [{"values": [["2", LINES[1]], ["1", "a"]]}]}}
    ),
    "error.json": json.dumps(
        {"message": {"message": LINES[1], "extraInfo": {"py_callstack": "Traceback"}}}
    ),
    "listed.json": json.dumps(
        [{"textPayload": line, "timestamp": "1"} for line in LINES], indent=1
    ),
    "events.json": json.dumps(
        {"kind": "List", "items": [{"message": line, "lastTimestamp": "1"} for line in LINES]}
    ),
    "vector.json": lines_of(
        [{"message": json.dumps({"log": LINES[1] + "\n", "stream": "stderr"}), "timestamp": "1"}]
    ),
    "beside.jsonl": lines_of(
        [
            {
                "time": 1,
                "msg": "crash",
                "rank": 3,
                "error": {"type": "OutOfMemoryError", "message": "x"},
            }
        ]
    ),
    "named.jsonl": lines_of([{"time": 1, "msg": OOM, "rank": 3}]),
}


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_text_is_read_out_of_the_records_of_log_shippers(name, tmp_path):
    path = tmp_path / name
    found = explained(path, WRAPPED[name])
    assert COLLECTOR.recognise(path, WRAPPED[name].encode())
    assert (found.name, found.suspects) == ("oom_gpu", (3,))


@pytest.mark.parametrize(
    "text",
    ['{"message": "an error"}', '{"loss": 1, "error": 2}', '[{"log": "error"}]', '{"log": 3}'],
)
def test_other_json_is_no_log(text, tmp_path):
    assert not COLLECTOR.recognise(tmp_path / "x.json", text.encode())


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(WRAPPED)), cut=st.integers(0, 400))
def test_torn_records_give_no_more_than_whole_ones(tmp_path_factory, name, cut):
    path = tmp_path_factory.mktemp("torn") / name
    path.write_text(WRAPPED[name][:-cut] if cut else WRAPPED[name])
    assert {line.rank for line in notable_lines(path)} <= {None, 3}


RAS = (
    "Group     Comms     Nodes     Ranks     Ranks     Ranks    Status  Errors\n"
    "    0         1         4         8        32        32   RUNNING  MISMATCH\n"
    "    1         {1}         1         2         2         8   RUNNING  MISMATCH\n"
    "#{0}-0 (fa93daea854b060b) MISMATCH\n  30 ranks have launched up to operation 641\n"
    "  2 ranks have launched up to operation {2}\n  Rank 12 -- GPU 4 managed by process 3\n"
    "  Rank 13 -- GPU 5 managed by process 4\n"
)


@pytest.mark.parametrize(
    ("group", "comms", "behind", "suspects"),
    [(0, 4, 640, (12, 13)), (0, 4, 642, ()), (1, 4, 640, ()), (1, 1, 640, ())],
)
def test_ras_names_those_behind_and_no_ranks_of_subgroups(group, comms, behind, suspects, tmp_path):
    text = RAS.format(group, comms, behind)
    assert suspects_from_ras(text.splitlines()).ranks == suspects
    found = explained(tmp_path / "ras.txt", text)
    assert (found.name, found.rule, found.suspects) == ("hang", "nccl-ras", suspects)


def test_ras_names_who_did_not_answer():
    text = RAS.format(0, 4, 1).split("  30 ranks")[0]
    text += "  Missing communicator data from 1 rank\n  Rank 5 -- GPU 5 managed by process 6\n"
    assert suspects_from_ras(text.splitlines()).ranks == (5,)
