"""Tables that others recorded with nvidia-smi, and output of tools that nobody reads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped, interleaved_lines

from harness_collectors.nvml import COLLECTOR
from harness_collectors.nvml.smi_text import NO_INDEX, read_listing
from harness_collectors.reading.foreign import known_format
from harness_schemas.spi import IngestContext

QUERY = (
    "timestamp, index, name, utilization.gpu [%], memory.used [MiB], power.draw [W]\n"
    "2025/03/01 10:00:00.123, 0, NVIDIA H100, 98 %, 70123 MiB, 512.11 W\n"
    "2025/03/01 10:00:00.125, 1, NVIDIA H100, 0 %, [N/A], [Unknown Error]\n"
)
DMON = (
    "# gpu    pwr  gtemp  mtemp     sm    mem   mclk   pclk\n"
    "# Idx      W      C      C      %      %    MHz    MHz\n"
    "    0    102     45      -     88     12   2619   1980\n"
    "# gpu    pwr  gtemp  mtemp     sm    mem   mclk   pclk\n"
    "# Idx      W      C      C      %      %    MHz    MHz\n"
    "    1    101     44      -     87     11   2619   1980\n"
)
DATED = (
    "#Date       Time        gpu     sm     fb\n#YYYYMMDD   HH:MM:SS    Idx      %     MB\n"
    " 20250301   10:00:00      0      5   1024\n"
)
AT = 1740823200_123000000


def said(text):
    return [(r["device"], r["metric"], r["ts_ns"], r["value"]) for r in read_listing(text).rows]


def test_what_was_asked_of_nvidia_smi():
    assert said(QUERY) == [
        (0, "busy", AT, 0.98),
        (0, "memory_used", AT, 70123 * 1048576.0),
        (0, "power_usage", AT, 512.11),
        (1, "busy", AT + 2_000_000, 0.0),
    ]
    assert read_listing(QUERY).left_out == ["name"]
    assert read_listing(QUERY).unreadable == 0


def test_what_dmon_printed():
    rows = said(DMON)
    assert {row[2] for row in rows} == {None}
    assert {(row[0], row[1]): row[3] for row in rows} == {
        (0, "power_usage"): 102, (0, "temperature_gpu"): 45, (0, "busy"): 0.88,
        (0, "clock_memory"): 2619, (0, "clock_sm"): 1980,
        (1, "power_usage"): 101, (1, "temperature_gpu"): 44, (1, "busy"): 0.87,
        (1, "clock_memory"): 2619, (1, "clock_sm"): 1980,
    }  # fmt: skip
    when = AT - 123_000_000
    assert said(DATED) == [(0, "busy", when, 0.05), (0, "memory_used", when, 1073741824.0)]


def test_values_of_an_unknown_gpu_or_in_another_unit_are_not_taken(tmp_path):
    bare = "utilization.gpu [%], memory.used [MiB]\n98 %, 70123 MiB\n"
    assert (said(bare), read_listing(bare).problem) == ([], NO_INDEX)
    other = "index, memory.used [GiB], utilization.gpu [%]\n0, 3 GiB, 5 %\n"
    assert said(other) == [(0, "busy", None, 0.05)]
    path = tmp_path / "q.csv"
    path.write_text(bare)
    assert COLLECTOR.recognise(path, bare.encode())
    [state] = [b.data.to_pylist()[0] for b in COLLECTOR.ingest([path], IngestContext(tmp_path))]
    assert (state["state"], state["reason"]) == ("failed", NO_INDEX)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([QUERY, DMON, DATED]).flatmap(lambda t: st.tuples(st.just(t), cuts(t.encode())))
)
def test_a_cut_file_gives_no_value_that_the_whole_one_has_not(case):
    text, data = case
    assert set(said(data.decode())) <= set(said(text))


@settings(max_examples=100, deadline=None)
@given(st.one_of(flipped(QUERY.encode()), interleaved_lines(DMON.encode(), DATED.encode())))
def test_damage_raises_nothing(data):
    read_listing(data.decode("utf-8", "replace"))


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ("=== ROCm System Management Interface ===\n", "rocm-smi"),
        ('{"card0": {"GPU use (%)": "99"}}\n', "rocm-smi"),
        ("#Entity   GRACT        SMACT\nID\nGPU 0     0.981        0.872\n", "dcgmi"),
        ("\n==============NVSMI LOG==============\n", "nvidia-smi"),
        ("GPU 0: NVIDIA A100 (UUID: GPU-5d5b)\n  MIG 1g.5gb Device 0:\n", "nvidia-smi"),
        ("# gpu         pid   type     sm\n", "nvidia-smi"),
        ("# Samples: 4K of event 'cycles'\n# Overhead  Command  Symbol\n", "perf script"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_what_is_not_read_is_named(head, word, tmp_path):
    assert word in (known_format(head.encode()) or "")
    assert not COLLECTOR.recognise(tmp_path / "x", head.encode())


@pytest.mark.parametrize("head", ["", "step 1\n", '{"a": 1}', "index,loss\n1,2\n", "# gpu notes\n"])
def test_what_is_nobodys_is_not_named(head, tmp_path):
    assert known_format(head.encode()) is None
    assert not COLLECTOR.recognise(tmp_path / "x", head.encode())
