"""Traces torn, bent and built to harm: nothing raises, nothing is invented, memory is bounded."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import cuts, doubled, flipped, interleaved_chunks, interleaved_lines
from unit.collectors.kineto.traces import (
    BASE,
    GEMM,
    collective,
    decode_events,
    device_spans,
    groups,
    launched,
    mark,
    rows,
    span,
    text,
    units,
)

from harness_collectors.kineto import stream as kineto_stream
from harness_collectors.kineto.events import exact_nanoseconds, nanoseconds
from harness_collectors.kineto.stream import Health, mend, read_blocks
from harness_collectors.reading import gunzip
from harness_collectors.traces.table import Table

patient = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
INFO = groups((0, 1))
NASTY = [
    *decode_events(),
    span("kernel", 'quotes " and }, { and ] \\ end', 300.0, 1.0, pid=0, device=0, stream=7),
    span("cpu_op", "nested", 301.0, 1.0, frames=[{"name": "a"}, {"name": "b"}], deep=[[[{}]]]),
    *launched(21, 310.0, 320.0, 5.0, "kernel_\u00e9_\u00fc", **collective(elements=1)),
]
TRACES = {style: text(NASTY, INFO, style=style).encode() for style in ("pretty", "line", "compact")}


def content(data, name="rank0.json"):
    with tempfile.TemporaryDirectory() as folder:
        return rows(Path(folder), data, name)


def work(found):
    """What a cut may shorten and must not change: device work, in the order of the file."""
    return [
        (row["name"], row["start_ns"], row["end_ns"], row["stream"], row["correlation"])
        for row in device_spans(found)
    ]


# -- pieces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("style", TRACES)
@pytest.mark.parametrize("size", [1, 7, 64, 333, 1000])
def test_size_of_blocks_does_not_matter(style, size, monkeypatch):
    whole = content(TRACES[style])
    monkeypatch.setattr(kineto_stream, "BLOCK_BYTES", size)
    parts = content(TRACES[style])
    assert parts["collection"][0]["unreadable"] == 0
    assert parts == whole
    assert len(work(whole)) == 7


def test_gzip_members_and_padding(tmp_path):
    data = TRACES["pretty"]
    path = tmp_path / "members.json.gz"
    path.write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + b"\x00" * 512)
    health = Health()
    assert b"".join(read_blocks(path, health)) == data
    assert (health.cut, health.bytes) == ("", len(data))


@pytest.mark.parametrize(
    "body",
    [
        '{"traceEvents": []}',
        '{"traceEvents":[],"baseTimeNanoseconds":1}',
        '{"schemaVersion": 1, "deviceProperties": []}',
        "{}",
        "[]",
        "",
        "null",
        "no json",
        '"traceEvents": [',
    ],
)
def test_nothing_in_it(body):
    found = content(body)
    assert set(found) == {"collection"}
    assert found["collection"][0]["state"] == "failed"
    assert found["collection"][0]["reason"]


def test_the_words_inside_a_string_are_no_events():
    body = text(decode_events(), INFO, INFO_LOG='said "traceEvents": [ {"ph": "X"} ] once')
    assert len(work(content(body))) == 5


def test_trailing_comma_and_byte_order_mark():
    body = text(decode_events(), INFO, style="compact").replace('],"traceName"', ',],"traceName"')
    found = content(b"\xef\xbb\xbf" + body.encode())
    assert len(work(found)) == 5
    assert found["collection"][0]["state"] == "ok"


# -- damage -----------------------------------------------------------------------------------


@patient
@given(data=st.data(), style=st.sampled_from(sorted(TRACES)), zipped=st.booleans())
def test_a_cut_anywhere_yields_a_prefix(data, style, zipped):
    whole = TRACES[style]
    complete = work(content(whole))
    stored = gzip.compress(whole) if zipped else whole
    torn = data.draw(cuts(stored))
    found = content_as_is(torn)
    assert work(found) == complete[: len(work(found))]
    state = found["collection"][0]
    if len(torn) < len(stored) - 8 * zipped:
        assert state["state"] in ("degraded", "failed")
        assert not any(row["complete"] for row in units(found))
    assert state["unreadable"] == 0


def content_as_is(data):
    """Ingest bytes as they are: torn gzip must not be zipped again."""
    return content(data, "rank0.json")


@patient
@given(data=st.data(), style=st.sampled_from(sorted(TRACES)))
def test_flipped_bytes_cost_few_events(data, style):
    whole = TRACES[style]
    found = content(data.draw(flipped(whole, most=2)))
    assert len(work(found)) <= len(work(content(whole)))
    assert found["collection"]


@patient
@given(data=st.data())
def test_doubled_and_interleaved_text_raises_nothing(data):
    one, other = TRACES["pretty"], text(decode_events(), groups((2, 3), rank=1)).encode()
    ways = (doubled(one), interleaved_lines(one, other), interleaved_chunks(one, other))
    mixed = data.draw(st.one_of(*ways))
    written = mixed.count(b'"kernel"') + mixed.count(b'"gpu_memcpy"')
    assert len(work(content(mixed))) <= written


def test_one_broken_event_costs_no_other():
    body = text(decode_events(), INFO, style="compact")
    broken = body.replace('"correlation":13,', '"correlation":1,,3,', 1)
    assert broken != body
    found = content(broken)
    assert [row[4] for row in work(found)] == [11, 12, 14, 15]
    assert found["collection"][0]["unreadable"] == 1
    assert found["collection"][0]["state"] == "degraded"


def test_a_lost_quote_costs_its_own_event():
    body = text(decode_events(), INFO)
    broken = body.replace(f'"name": "{GEMM}"', f'"name": "{GEMM}', 1)
    found = content(broken)
    assert [row[4] for row in work(found)] == [12, 13, 14, 15]
    assert found["collection"][0]["unreadable"] >= 1


def test_what_writers_get_wrong_is_mended():
    events = launched(3, 1.0, 2.0, 0.0, "Memcpy", "gpu_memcpy", bytes=8, **{"memory bandwidth": 0})
    body = text([*decode_events(), *events], INFO)
    bent = body.replace('"memory bandwidth": 0', '"memory bandwidth": inf').encode()
    bent = bent.replace(b"Memcpy DtoH", b"C:\\path Memcpy DtoH \x01\xff")
    found = content(bent)
    assert len(work(found)) == 6
    assert found["collection"][0]["unreadable"] == 0
    assert any("C:\\path" in row["name"] for row in found["spans"])


def test_surprising_types_are_understood_one_by_one():
    events = decode_events()
    events[3]["args"]["correlation"] = "11"
    events[3]["args"]["device"] = 0.0
    events[3]["ts"] = "130.125"
    events[7]["name"] = 5  # a number for a name: it is taken as text
    events[11]["ts"] = None  # no time
    events.append(span("kernel", GEMM, 1.0, 1.0, pid=0, device=2**70, stream=7, correlation=-3))
    events.append("no object")
    events.append(7)
    found = content(text(events, INFO))
    spans = device_spans(found)
    assert [row["correlation"] for row in spans] == [11, 12, 14, 15, None]
    assert (spans[0]["start_ns"], spans[0]["step"]) == (BASE + 130_125, 1)
    assert spans[-1]["device"] == 0
    assert found["collection"][0]["unreadable"] == 1  # the one without a time


@given(st.binary(max_size=300))
def test_mending_leaves_sound_json_alone(junk):
    value = {"a": junk.decode("latin-1"), "b": [1.5, None, "\\n inf, nan}"]}
    assert json.loads(mend(json.dumps(value).encode())) == value
    mend(junk)


# -- harm -------------------------------------------------------------------------------------


def test_gzip_bomb_is_left_early(tmp_path, monkeypatch):
    monkeypatch.setattr(gunzip, "BOMB_FLOOR_BYTES", 1 << 20)
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(text(decode_events(), INFO, style="compact").encode()[:-30] + b",")
        for _ in range(128):
            stream.write(b"{}," * (1 << 18))
    health = Health()
    given_out = sum(len(block) for block in read_blocks(path, health))
    assert "gzip bomb" in health.cut
    assert given_out < 40 << 20


@pytest.mark.parametrize(
    "body",
    [
        b'{"traceEvents":[{"args":' + b"[" * 300_000 + b"]" * 300_000 + b"}]}",
        b'{"traceEvents":[' + b"[" * 300_000,
        b'{"x":' + b'{"x":' * 300_000 + b'"traceEvents":[]}',
        b"[" * 300_000,
        b'{"traceEvents":[{"name":"' + b"\\" * 300_001,
    ],
)
def test_absurd_nesting_ends(body):
    assert content(body)["collection"][0]["state"] in ("failed", "degraded")


def test_an_endless_event_is_given_up(monkeypatch):
    monkeypatch.setattr(kineto_stream, "MAX_EVENT_BYTES", 1 << 20)
    body = text(decode_events(), INFO)[:-40] + ', {"name": "' + "x" * (3 << 20)
    found = content(body)
    assert "longer than 1 MiB" in found["collection"][0]["reason"]
    assert len(work(found)) == 5


def test_an_endless_header_is_given_up(monkeypatch):
    monkeypatch.setattr(kineto_stream, "MAX_HEADER_BYTES", 1 << 20)
    assert (
        "no events in the first" in content('{"a": "' + "x" * (3 << 20))["collection"][0]["reason"]
    )


def test_damaged_gzip_is_used_up_to_the_damage():
    events = [e for n in range(300) for e in launched(n + 1, n * 9.0 + math.sin(n), n * 9.5, 1.0)]
    stored = bytearray(zlib.compress(text(events, INFO).encode(), wbits=31))
    stored[len(stored) // 2] ^= 0xFF
    found = content(bytes(stored))
    assert found["collection"][0]["state"] == "degraded"
    assert 100 < len(work(found)) <= 300


# -- times ------------------------------------------------------------------------------------


@given(st.integers(0, 7_889_238 * 10**9), st.integers(0, 10**12))
def test_three_decimals_are_exact_up_to_the_next_base(ts, dur):
    """Kineto's times are at most one base step (7,889,238 s) after the base."""
    written = [f"{value // 1000}.{value % 1000:03d}" for value in (ts, dur)]
    assert nanoseconds(np.array([float(text) for text in written])).tolist() == [ts, dur]
    assert [exact_nanoseconds(text.encode()) for text in written] == [ts, dur]


@given(st.integers(-(2**62), 2**62), st.integers(0, 9))
def test_exact_times_of_any_spelling(value, decimals):
    from decimal import Decimal

    written = f"{Decimal(value) / 1000:.{decimals}f}"
    expected = int((Decimal(written) * 1000).to_integral_value())
    assert exact_nanoseconds(written.encode()) == expected
    assert exact_nanoseconds(f'"{written}"'.encode()) == expected


@pytest.mark.parametrize("junk", [b"", b"null", b"1.2.3", b"nan", b"1e30", b"x", b'{"a":1}'])
def test_what_is_no_time(junk):
    assert exact_nanoseconds(junk) is None


def test_times_that_are_none_are_dropped_and_counted():
    events = [
        *decode_events(),
        mark("decode_step_9", 1e300, 1.0),
        mark("decode_step_8", 1.0, 1e300),
    ]
    found = content(text(events, INFO))
    assert found["collection"][0]["unreadable"] == 1
    assert {row["step"]: row["end_ns"] for row in units(found)}[8] is None


def test_a_lost_base_is_said():
    found = content(text(decode_events(), INFO, at_end=("baseTimeNanoseconds",))[:-90])
    assert "no base time" in found["collection"][0]["reason"]
    assert device_spans(found)[0]["start_ns"] == 130_125
    assert "clock_anchors" not in found


@given(chunks=st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), max_size=6))
def test_a_column_is_as_wide_as_its_values(chunks):
    table = Table(start="i8", length="i8")
    for chunk in chunks:
        table.append(start=chunk, length=chunk)
    values = [value for chunk in chunks for value in chunk]
    assert table["length"].tolist() == table.at("start", slice(None)).tolist() == values
    assert table.at("length", slice(None)).dtype == np.int64
    width = max(((v if v >= 0 else ~v).bit_length() // 8 + 1 for v in values), default=1)
    assert table["length"].itemsize == min(size for size in (1, 2, 4, 8) if size >= width)
