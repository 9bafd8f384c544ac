"""What counts as a difference between two runs."""

from __future__ import annotations

from types import SimpleNamespace

from harness_analysis.compare.changes import ABSENT, run_facts, what_changed
from harness_analysis.compare.effects import Side


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


def side(name, **changes):
    nothing = {"row": {}, "spec": None, "provenance": None, "ranks": (), "phases": {}, "seen": {}}
    return Side(name, (SimpleNamespace(**(nothing | changes)),))


def test_what_nobody_recorded_is_unknown_once_and_no_difference():
    known = side("B", spec={"parallel": {"tp": 2}}, provenance={"python": "3.11", "env": {}})
    for other in (side("A"), side("A", provenance={"python": "3.11", "env": {}})):
        for pair in ((other, known), (known, other)):
            found = what_changed(*pair)
            assert not found.changes and "no specification" in found.verdict()
            assert "known to differ" not in found.verdict()
    drifted = what_changed(side("A", provenance={"python": "3.12", "env": {"OMP": "1"}}), known)
    assert [(c.path, c.a, c.b) for c in drifted.changes] == [
        ("python", "3.12", "3.11"),
        ("env.OMP", "1", ABSENT),
    ]


def test_wrapped_commands_differ_by_their_words():
    sides = [
        side(name, provenance={"command": f"torchrun --nproc-per-node 4 x.py {more}"})
        for name, more in (("A", "--batch 4 --fast"), ("B", "--batch=8 'a b"))
    ]
    found = {c.path: (c.a, c.b) for c in what_changed(sides[0], sides[0]).changes}
    assert not found
    whole = what_changed(*sides).changes  # a quote left open: the line as a whole
    assert {c.path for c in whole} >= {"command"}
    fixed = side("B", provenance={"command": "torchrun --nproc-per-node 4 x.py --batch=8"})
    found = {c.path: (c.a, c.b) for c in what_changed(sides[0], fixed).changes}
    assert found == {"command.--batch": ("4", "8"), "command.--fast": ("given", ABSENT)}


def test_what_the_evidence_shows_is_told_where_the_specification_is_unknown():
    a = side("A", seen={"ranks": "4", "groups": "[0,1]", "decode.all_reduce[2]": "26 a unit"})
    b = side("B", seen={"ranks": "4", "nccl": "2.28"})
    found = what_changed(a, b)
    assert [(c.path, c.b) for c in found.changes] == [("decode.all_reduce[2]", "none")]
    assert not found.causes()  # consequences are no causes
    spec = {"spec": {"parallel": {"tp": 2}}, "provenance": {"python": "3"}}
    assert not what_changed(side("A", seen=a.runs[0].seen, **spec), side("B", **spec)).changes
