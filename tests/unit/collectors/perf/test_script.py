"""Stacks as `perf script` prints them."""

from __future__ import annotations

import json
from collections import Counter as Tallied

from support import needs_samples
from unit.collectors.perf.outputs import LOGS, SCRIPT, ingest, read

from harness_collectors.perf.script import is_script, read_script


@needs_samples
def test_stacks_of_real_scripts():
    stacks = read_script(read(LOGS / "perf_real" / "rec313.script.txt.gz"))
    assert (stacks.samples, stacks.unreadable, stacks.pids) == (199, 0, {3038})
    assert sum(stacks.folded.values()) == sum(stacks.top_frames.values()) == 199
    assert stacks.top_frames.most_common(1) == [("_PyObject_Free", 58)]
    classic = read_script(read(LOGS / "perf" / "perf_script_dd_stacks_flamegraph.txt"))
    assert classic.folded == Tallied(
        {
            "dd;[unknown];read;system_call;sys_read;vfs_read;fsnotify": 1,
            "dd;[unknown];read": 1,
            "dd;[unknown];[dd]": 1,
            "dd;[unknown];system_call": 1,
        }
    )


def test_stacks_are_folded():
    stacks = read_script(SCRIPT)
    assert stacks.folded == {
        "pt main thread;[unknown];[dd];_PyLong_Add": 1,
        "swapper;native_safe_halt": 1,
        "gone": 1,
    }
    assert stacks.top_frames == {"_PyLong_Add": 1, "native_safe_halt": 1, "[no stack]": 1}
    assert (stacks.samples, stacks.unreadable, stacks.pids) == (3, 0, {0, 12, 13})
    assert stacks.events == {"cpu-clock:ppp": 1, "cycles": 2}


def test_counts_of_innermost_frames_are_samples(tmp_path):
    path = tmp_path / "perf.script"
    path.write_text(SCRIPT)
    tables = ingest(path)
    assert {row["metric"]: row["value"] for row in tables["samples"]} == {
        "perf_top_frame:_PyLong_Add": 1.0,
        "perf_top_frame:native_safe_halt": 1.0,
        "perf_top_frame:[no stack]": 1.0,
    }
    [state] = tables["collection"]
    assert (state["state"], state["records"]) == ("ok", 3)
    assert json.loads(state["detail"])["files"]["perf.script"]["stacks"] == 3


def test_scripts_without_times():
    text = "serve 42 cpu-clock:\n  12f wait (libnccl.so)\n  230 main (serve)\n\n"
    assert is_script(text)
    stacks = read_script(text)
    assert (stacks.samples, stacks.folded) == (1, {"serve;main;wait": 1})
    assert not is_script("error 42 reported:\n\nerror 43 reported:\n\n")
