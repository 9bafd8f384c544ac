"""What counts as a difference between two runs."""

from __future__ import annotations

from types import SimpleNamespace

from harness_analysis.compare.changes import run_facts


def test_keys_that_an_older_version_did_not_know_had_their_defaults():
    old = {"parallel": {"tp": 2}, "generation": {"batch_size": 4}}
    new = {**old, "generation": {**old["generation"], "peaks": False}, "stage": {"keep": False}}
    sides = [
        SimpleNamespace(spec=spec, row={}, provenance=None, ranks=[], phases={})
        for spec in (old, new)
    ]
    first, second = map(run_facts, sides)
    assert first == second and first["configuration", "parallel.tp"] == "2"
    changed = run_facts(
        SimpleNamespace(**{**vars(sides[1]), "spec": {**new, "stage": {"keep": True}}})
    )
    assert [key for key in first if first[key] != changed[key]] == [("configuration", "stage.keep")]
