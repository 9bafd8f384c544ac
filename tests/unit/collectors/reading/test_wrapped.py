"""What runtimes, shippers and pages put around text that a program printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ingest import ingest_paths
from harness_analysis.store import open_database
from harness_collectors.reading.wrapped import printed

FIXTURES = Path(__file__).parents[3] / "fixtures"
WHEN = "2026-01-01T00:00:00.123456789Z"


def docker(lines):
    return [json.dumps({"log": f"{line}\n", "stream": "stdout", "time": WHEN}) for line in lines]


def fluent(lines):
    return [json.dumps({"stream": "stdout", "message": line, "time": WHEN}) for line in lines]


def kubernetes(lines):
    """As containerd cuts long lines."""
    told = []
    for line in lines:
        parts = [line[at : at + 40] for at in range(0, len(line), 40)] or [""]
        told += [f"{WHEN} stdout P {part}" for part in parts[:-1]]
        told.append(f"{WHEN} stdout F {parts[-1]}")
    return told


def before(prefix):
    return lambda lines: [prefix + line for line in lines]


AROUND = {
    "docker": docker,
    "fluent": fluent,
    "kubernetes": kubernetes,
    "kubectl": before("[pod/vllm-0/main] "),
    "compose": before("worker-1  | "),
    "quotation": before("> "),
    "fences": lambda lines: ["```text", *lines, "```"],
}


def read(folder, put):
    """What `harness ingest` makes of the fixtures of three collectors."""
    for name in ("sacct", "perf", "topology"):
        for path in sorted((FIXTURES / name).glob("*.*")):
            if path.name != "expected.json":
                lines = path.read_text().splitlines()
                (folder / path.name).write_text("\n".join(put(lines)) + "\n")
    ingest_paths([folder], folder / "d.duckdb", 1)
    with open_database(folder / "d.duckdb") as con:
        return {
            table: sorted(map(str, con.execute(f"SELECT * EXCLUDE run_id FROM {table}").fetchall()))
            for table in ("slurm_steps", "perf_counters", "topology")
        }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    found = read(tmp_path_factory.mktemp("plain"), list)
    assert all(found.values())
    return found


@pytest.mark.parametrize("way", ["docker", "kubernetes", "quotation"])
def test_the_same_is_read_whatever_stands_around_it(tmp_path, plain, way):
    assert read(tmp_path, AROUND[way]) == plain


@pytest.mark.parametrize("way", AROUND)
def test_lines_of_a_table_come_out_as_they_were_printed(way):
    lines = ["JobID|State", "70|COMPLETED", '{"counter-value": "1", "event": "cycles"}', "", "a: b"]
    text = "".join(f"{line}\n" for line in AROUND[way](lines)).encode()
    said = [line for line in printed(text).decode().splitlines() if line]
    assert said == [line for line in lines if line]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=90)))
@pytest.mark.parametrize("way", ["docker", "kubernetes"])
def test_lines_come_out_as_they_were_printed(way, lines):
    text = "".join(f"{line}\n" for line in AROUND[way](lines)).encode()
    assert printed(text) == "".join(f"{line}\n" for line in lines).encode()


@given(st.binary(max_size=300))
def test_no_bytes_end_it(data):
    assert isinstance(printed(data), bytes)


def test_what_nobody_put_anything_around_stays():
    for text in (b"70|a|COMPLETED\n", b"70 | a\n71 | b\n", b'{"interval": 1, "event": "cycles"}\n'):
        assert printed(text) is text
