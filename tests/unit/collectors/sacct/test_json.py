"""JSON of Slurm's commands: later versions, torn, absurdly nested."""

from __future__ import annotations

import json

from harness_collectors.sacct.fields import STATES
from harness_collectors.sacct.json_text import read_json

JOB_V40 = {
    "job_id": 31,
    "name": "decode",
    "array": {"job_id": 30, "task_id": {"set": True, "infinite": False, "number": 2}},
    "state": {"current": ["CANCELLED"], "reason": "None"},
    "exit_code": {
        "status": ["SIGNALED"],
        "return_code": {"set": False, "infinite": False, "number": 0},
        "signal": {"id": {"set": True, "infinite": False, "number": 9}, "name": "KILL"},
    },
    "time": {"start": 1700000000, "end": {"set": True, "infinite": False, "number": 1700000010}},
    "steps": [
        {
            "state": ["OUT_OF_MEMORY"],
            "step": {"id": "31.0", "name": "python3"},
            "time": {
                "start": {"set": True, "infinite": False, "number": 1700000001},
                "total": {"seconds": 2, "microseconds": 1_500_000},
            },
            "statistics": {"energy": {"consumed": {"set": True, "infinite": False, "number": 0}}},
            "nodes": {"range": "n[1-2]"},
        },
        {"state": "FAILED", "step": {"id": {"job_id": 31, "step_id": "batch"}, "name": "batch"}},
    ],
}


def test_json_of_later_versions():
    reading = read_json(json.dumps({"jobs": [JOB_V40], "meta": {"slurm": {}}}))
    own, first, batch = reading.steps
    assert (own.job_id, own.raw_job_id, own.state) == ("30_2", "31", "CANCELLED")
    assert (own.exit_code, own.signal, own.cpu_s) == (0, 9, 3.5)
    assert own.ended_ns == 1700000010 * 10**9
    assert (first.step_id, first.state, first.energy_j) == ("0", "OUT_OF_MEMORY", None)
    assert (batch.step_id, batch.state) == ("batch", "FAILED")


def test_torn_json_gives_its_whole_jobs():
    text = json.dumps({"jobs": [JOB_V40, JOB_V40, JOB_V40], "meta": {}})
    for cut in range(0, len(text), 7):
        reading = read_json(text[:cut])
        assert len(reading.steps) % 3 == 0
        assert all(step.state in STATES for step in reading.steps)


def test_absurd_nesting_is_bounded():
    assert read_json('{"jobs": [' + '{"a":' * 100_000).steps == []
