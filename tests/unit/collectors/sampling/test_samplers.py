"""Samplers: what they write, when they stop, and that torn files are read as far as they go."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_collectors import sampling
from harness_collectors.sampling import PeriodicSampler, Reading, Unavailable
from harness_collectors.sampling.rows import ingest_samples


class Counter:
    """A source that counts its readings."""

    def __init__(self, fail_at=(), block=None):
        self.taken = 0
        self.finished = self.closed = False
        self._fail_at = fail_at
        self._block = block

    def describe(self):
        return {"taken": self.taken}

    def problems(self):
        return []

    def read(self):
        self.taken += 1
        if self._block:
            self._block.wait()
        if self.taken in self._fail_at:
            raise OSError("gone")
        yield Reading("count", "1", self.taken, rank=3)
        yield Reading("twice", "1", 2 * self.taken, device=1)

    def finish(self):
        self.finished = True

    def close(self):
        self.closed = True


def run_sampler(tmp_path, source, seconds=0.35):
    sampler = PeriodicSampler("thing", tmp_path, "node1", "100ms", lambda: source)
    sampler.start()
    time.sleep(seconds)
    sampler.stop()
    sampler.stop()
    return tmp_path / "artifacts" / "thing" / "node1"


def rows(folder):
    tables = {"samples": [], "collection": [], "clock_anchors": []}
    for batch in ingest_samples("thing", sorted(folder.iterdir())):
        tables[batch.table] += batch.data.to_pylist()
    return tables


def test_what_was_sampled_comes_back(tmp_path):
    source = Counter()
    before = time.monotonic_ns()
    tables = rows(run_sampler(tmp_path, source))
    counts = [row for row in tables["samples"] if row["metric"] == "count"]
    assert [row["value"] for row in counts] == list(range(1, source.taken + 1))
    assert {(row["rank"], row["device"], row["host"], row["source"]) for row in counts} == {
        (3, None, "node1", "thing")
    }
    times = [row["ts_ns"] for row in counts]
    assert before < times[0] < times[-1] < time.monotonic_ns()
    gaps = [b - a for a, b in itertools.pairwise(times[:-1])]
    assert all(50e6 < gap < 1e9 for gap in gaps)
    (state,) = tables["collection"]
    assert (state["state"], state["records"], state["unreadable"]) == ("ok", 2 * source.taken, 0)
    assert len(tables["clock_anchors"]) == 2
    assert source.finished and source.closed


def test_stopping_takes_a_last_sample_at_once(tmp_path):
    source = Counter()
    sampler = PeriodicSampler("thing", tmp_path, "node1", "1h", lambda: source)
    sampler.start()
    while source.taken < 1:
        time.sleep(0.01)
    sampler.stop()
    assert source.taken == 2


def test_lost_samples_degrade(tmp_path):
    tables = rows(run_sampler(tmp_path, Counter(fail_at=(1, 2))))
    (state,) = tables["collection"]
    assert state["state"] == "degraded"
    assert state["reason"] == "2 samples could not be taken"
    assert tables["samples"][0]["value"] == 3


def test_unavailable_is_skipped_with_its_reason(tmp_path):
    def refuse():
        raise Unavailable("no GPU", "get one")

    sampler = PeriodicSampler("thing", tmp_path, "node1", "1s", refuse)
    sampler.start()
    sampler.stop()
    (state,) = rows(sampler.folder)["collection"]
    assert (state["state"], state["reason"]) == ("skipped", "no GPU; get one")


def test_broken_source_fails_without_raising(tmp_path):
    def broken():
        raise RuntimeError("surprise")

    sampler = PeriodicSampler("thing", tmp_path, "node1", "1s", broken)
    sampler.start()
    sampler.stop()
    (state,) = rows(sampler.folder)["collection"]
    assert (state["state"], state["reason"]) == ("failed", "RuntimeError: surprise")


def test_a_source_that_hangs_does_not_hold_up_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "STOP_SECONDS", 0.2)
    release = threading.Event()
    sampler = PeriodicSampler("thing", tmp_path, "node1", "1s", lambda: Counter(block=release))
    sampler.start()
    before = time.monotonic()
    sampler.stop()
    assert time.monotonic() - before < 2
    release.set()


def test_full_disk_is_counted(tmp_path):
    file = sampling.SampleFile(tmp_path, {})
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._fd)
    os.close(full)
    file.write([Reading("a", "1", 1)])
    file.flush()
    assert file.dropped == 2  # the series and the sample


def test_killed_sampler_is_degraded(tmp_path):
    folder = run_sampler(tmp_path, Counter())
    (folder / "state.json").unlink()
    (state,) = rows(folder)["collection"]
    assert state["state"] == "degraded"
    assert "did not end properly" in state["reason"]


@pytest.mark.parametrize("interval", ["99ms", "0s", "-1s", "soon", 0.05])
def test_intervals_below_the_floor_are_refused(interval):
    with pytest.raises(ValueError, match="interval"):
        sampling.interval_option({"interval": interval})


def test_all_mistakes_at_once():
    with pytest.raises(ValueError) as caught:
        sampling.interval_option({"interval": "1ms", "intervall": 1})
    assert str(caught.value).splitlines() == [
        "no option 'intervall'",
        "interval 1ms is shorter than 100ms",
    ]


def lines():
    header = {
        "format": "harness-samples", "version": 1, "collector": "thing", "host": "n", "boot_id": "b"
    }  # fmt: skip
    rows = [header, {"anchor": [10, 20, 1]}, {"series": [0, "count", "1", 3, None]}]
    rows += [{"m": 100 + i, "w": 200 + i, "v": [[0, i]]} for i in range(5)]
    return [json.dumps(row).encode() + b"\n" for row in rows]


@settings(max_examples=60)
@given(st.integers(0, len(b"".join(lines()))))
def test_cut_at_any_byte(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("n")
    (folder / "samples.jsonl").write_bytes(b"".join(lines())[:cut])
    tables = rows(folder)
    values = [row["value"] for row in tables["samples"]]
    assert values == list(range(len(values)))
    whole = b"".join(lines())[:cut].count(b"\n")
    # A cut exactly before a line's end leaves a whole object: it counts, as it should.
    assert max(0, whole - 3) <= len(values) <= max(0, whole - 2)
    assert tables["collection"][0]["unreadable"] <= 1


mangled = st.lists(
    st.one_of(
        st.sampled_from(lines()),
        st.binary(max_size=80).map(lambda raw: raw + b"\n"),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["m", "w", "v", "series", "anchor", "format", "host", "boot_id"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
        ).map(lambda value: json.dumps(value).encode() + b"\n"),
    ),
    max_size=12,
)


@settings(max_examples=150)
@given(mangled, mangled)
def test_no_bytes_make_ingest_raise(tmp_path_factory, samples, state):
    folder = tmp_path_factory.mktemp("n")
    (folder / "samples.jsonl").write_bytes(b"".join(samples))
    (folder / "state.json").write_bytes(b"".join(state[:1]))
    tables = rows(folder)
    assert len(tables["collection"]) == 1
    assert tables["collection"][0]["records"] == len(tables["samples"])


def test_recognised_by_content(tmp_path):
    head = lines()[0]
    assert sampling.recognise("thing", head)
    assert not sampling.recognise("other", head)
    folder = run_sampler(tmp_path, Counter(), seconds=0.05)
    for name in ("samples.jsonl", "state.json"):
        assert sampling.recognise("thing", (folder / name).read_bytes())
