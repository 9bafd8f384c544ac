"""Tables of results in the formats and with the headings that people use."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.audit import read_claims
from harness_analysis.audit.claim_rules import agree
from harness_analysis.audit.claims import Value, field_of, parse_value
from harness_analysis.audit.digit_rules import binomial_tail
from harness_schemas.errors import EvidenceError


def test_the_same_table_in_three_formats_is_the_same(tmp_path):
    head = ["GPUs", "wall clock (ms)", "tokens/s", "parallel efficiency"]
    rows = [["1", "1,203.1", "14.94", "100 %"], ["2", "688.7", "26.10", "87.3 %"]]
    (tmp_path / "t.csv").write_text(
        "\n".join(",".join(f'"{c}"' for c in row) for row in [head, *rows])
    )
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * 4, *rows]]
    (tmp_path / "t.md").write_text("# t\n\nText.\n\n" + "\n".join(lines) + "\n\nMore.\n")
    (tmp_path / "t.json").write_text(
        json.dumps([dict(zip(head, row, strict=True)) for row in rows])
    )
    found = [read_claims(tmp_path / f"t.{ending}") for ending in ("csv", "md", "json")]
    assert found[0] == found[1] == found[2]
    assert found[0][0].rows[0].get("time") == pytest.approx(1.2031)


PAGE = """
# Results
Both nodes hold a half of the layers: a {word}.
## Strong scaling
### Base
- **Nodes:** 1
- Batch size: 1

| Metric | Value |
|---|---|
| Wall clock (s) | 16.34 |
| Throughput (tokens/s) | 15.42 |
| Speed-up | 1.0 (base) |

### Two
- **Nodes:** 2
- Batch size: 1

| Metric | Value |
|---|---|
| Wall clock (s) | 12.22 |
| Throughput (tokens/s) | 20.62 |
| Speed-up | 1.34x |
"""


@pytest.mark.parametrize(("word", "stages"), [("pipeline", 2), ("tensor-parallel pair", None)])
def test_a_small_table_for_each_configuration_is_a_row(tmp_path, word, stages):
    (tmp_path / "r.md").write_text(PAGE.format(word=word))
    (found,) = read_claims(tmp_path / "r.md")
    assert (found.name, found.kind, len(found.rows)) == ("Strong scaling", "strong", 2)
    row = found.rows[1]
    assert row.label == "Nodes 2, Batch size 1"
    known = ("gpus", "batch", "time", "throughput", "speedup", "pp")
    assert [row.get(field) for field in known] == [2, 1, 12.22, 20.62, 1.34, stages]


@pytest.mark.parametrize("text", ["", "no table here", "| a | b |\n|---|---|\n| x | y |\n"])
def test_a_file_without_results_is_refused(tmp_path, text):
    path = tmp_path / "empty.md"
    path.write_text(text)
    with pytest.raises(EvidenceError, match="no table of results"):
        read_claims(path)


@pytest.mark.parametrize(
    ("heading", "field"),
    [
        ("Speed-up", "speedup"), ("Wall clock (s)", "time"), ("tok/s", "throughput"),
        ("Parallel efficiency [%]", "efficiency"), ("Communication time", "comm"),
        ("I/O time (s)", "io"), ("Preprocessing cost (s)", "preprocess"), ("#GPUs", "gpus"),
        ("Resource use", "resource_use"), ("comment", "comm"), ("Model", None),
    ],
)  # fmt: skip
def test_headings_are_understood(heading, field):
    assert field_of(heading) == field


@given(st.floats(0.01, 1e6), st.integers(0, 4))
def test_a_printed_number_is_read_with_its_precision(number, digits):
    text = f"{number:,.{digits}f}"
    value = parse_value(text, "wall clock (s)", "time")
    assert value is not None
    assert abs(value.number - number) <= value.half * 1.001
    assert agree(value.number, number, value)


def test_chance_of_round_digits():
    assert binomial_tail(10, 10, 0.2) == pytest.approx(0.2**10)
    assert binomial_tail(10, 0, 0.2) == pytest.approx(1.0)
    assert not agree(1.0, 1.1, Value(1.0))
