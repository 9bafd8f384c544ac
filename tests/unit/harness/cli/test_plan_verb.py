"""`harness plan`: what is printed for a model, a specification and a run."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from example_run import batch, example_database
from support import ROOT
from truth.simulate import Scenario

from harness.cli import plan_verb
from harness.setup.specfile import load_spec
from harness_schemas.errors import UsageError

QUICKSTART = ROOT / "examples" / "quickstart.toml"
WEIGHTS = 10_493_952
"""What rank 0 of the quickstart's run was seen to hold."""


def plan(*words):
    """The tables as JSON."""
    shown = CliRunner().invoke(plan_verb.command, [*words, "--json"], catch_exceptions=False)
    assert shown.exit_code == 0
    return json.loads(shown.output)


def rows(table, key):
    return {row[key]: row for row in table["rows"]}


def test_a_model_s_plan_says_320_kib_and_why():
    found = plan("--model-config", "llama-3.3-70b", "--gpu", "h100-80g", "--tp", "8", "--pp", "2")
    kv = rows(found["model"], "quantity")["KV cache a token"]
    assert (kv["value"], kv["formula"]) == (
        "320.0 KiB",
        "2 x 80 layers x 8 KV heads x 128 x 2 B",
    )
    assert "2.5 MiB a token, 8 times too much" in found["model"]["notes"][0]
    memory = rows(found["memory"], "part")
    assert (
        sum(row["bytes"] for name, row in memory.items() if name != "sum")
        == (memory["sum"]["bytes"])
    )
    assert found["memory"]["notes"][0].startswith("fits H100-SXM5-80GB")
    assert len(found["ranks"]["rows"]) == 16
    assert "suggested: tp 2 x pp 1" in found["splits"]["notes"][0]
    bases = {row["basis"] for row in found["step"]["rows"]}
    assert bases == {"datasheet", "assumed", ""}


def test_measured_floors_replace_assumed_ones(tmp_path):
    file = tmp_path / "floors.json"
    row = {"op": "all_reduce", "implementation": "nccl", "group_size": 8, "p50_us": 60.0}
    floors = [{**row, "bytes": 1024}, {**row, "bytes": 1 << 22}]
    file.write_text(json.dumps({"format": "harness.floors", "version": 1, "rows": floors}))
    words = ("--model-config", "llama-3.3-70b", "--tp", "8")
    step = rows(plan(*words, "--measured", str(file))["step"], "part")
    reduces = step["stage 0 all-reduces"]
    assert (reduces["basis"], reduces["ms"]) == ("measured", 161 * 0.06)


def test_a_specification_is_planned_as_the_runner_cuts_it():
    found = plan(str(QUICKSTART), "--prompt", "44")
    assert rows(found["memory"], "part")["weights"]["bytes"] == WEIGHTS
    assert rows(found["memory"], "part")["KV cache"]["bytes"] == 2 * 4 * 60 * 2 * 2 * 32 * 4
    assert [row["layers"] for row in found["ranks"]["rows"]] == ["0-3", "0-3", "4-7", "4-7"]
    assert "splits" not in found  # a CPU has no card to fit


def test_a_sweep_is_planned_cell_by_cell(tmp_path):
    """Llama-3.3-70B on 40 GB cards: TP 2 alone needs 70 GiB, TP 4 x PP 2 about 20."""
    spec = tmp_path / "s.toml"
    base = 'model = { synthetic = "llama-70b", weights = "random" }\ndevice = "cuda"\n'
    spec.write_text(base + "[sweep.grid]\n'parallel.tp' = [2, 4]\n'parallel.pp' = [1, 2]\n")
    found = plan(str(spec), "--gpu", "a100-40g")
    cells = rows(found["cells"], "cell")
    assert not cells["tp=2 pp=1"]["fits"] and cells["tp=4 pp=2"]["fits"] and len(cells) == 4
    assert rows(found["memory"], "part")["sum"]["bytes"] / 2**30 == pytest.approx(
        cells["tp=2 pp=1"]["needs_gib"], abs=1e-3
    )
    spec.write_text(base + "[sweep]\npreset = 'nonsense'\n")
    shown = CliRunner().invoke(plan_verb.command, [str(spec)])
    assert isinstance(shown.exception, UsageError) and "sweep.preset" in shown.exception.message


def test_a_run_shows_predicted_against_measured(tmp_path):
    spec = load_spec(QUICKSTART).model_dump_json()
    peaks = {"peak_bytes_per_s": 2e10, "peak_flops_per_s": 8e10, "peak_source": "measured"}
    facts = batch("ranks", [{"rank": rank, "weights_bytes": WEIGHTS, **peaks} for rank in range(4)])
    rss = {"host": "node0", "rank": 0, "metric": "rss", "unit": "bytes", "value": 5e8}
    more = (facts, batch("samples", [{**rss, "ts_ns": 0, "source": "psutil"}]))
    database = example_database(tmp_path, Scenario(steps=3), more, bare=True, spec=spec)
    measured = rows(plan(str(database), "--prompt", "44")["measured"], "quantity")
    assert measured["weights, largest rank"]["ratio"] == 1.0
    assert measured["process memory, largest"]["measured"] == 5e8
    step = measured["decode step, median"]
    assert 0 < step["predicted"] < 10 and step["measured"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to plan"),
        ((str(QUICKSTART), "--model-config", "x"), "is one model"),
        (("--model-config", "llama-3.3-70b", "--gpu", "abacus"), "no card 'abacus'"),
        (("--model-config", "llama-3.3-70b", "--pp", "99"), "99 stages"),
        (("--model-config", "llama-3.3-70b", "--layers", "40,x"), "not a list of layers"),
        (("--model-config", "llama-3.3-70b", "--layers", "40,41"), "are not 80"),
        (("--model-config", "llama-3.3-70b", "--only", "nothing"), "no table 'nothing'"),
        (("--model-config", "llama-3.3-70b", "--context", "9", "--prompt", "10"), "exceed"),
    ],
)
def test_mistakes_are_said(words, message):
    shown = CliRunner().invoke(plan_verb.command, list(words))
    assert isinstance(shown.exception, UsageError)
    assert message in shown.exception.message


def test_what_a_context_beyond_the_model_s_is_told():
    found = plan("--model-config", "openllama-3b-v2", "--gpu", "t4", "--context", "4096")
    assert "the context of 4,096 exceeds the model's 2,048 positions" in found["model"]["notes"]
