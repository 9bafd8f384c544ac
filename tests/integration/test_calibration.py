"""A run that calibrates states what observing cost, and leaves those units out of its figures."""

from __future__ import annotations

import collections

import pytest

from harness.progress import Narrator
from harness.session import run_spec
from harness_analysis.answer import load_answer
from harness_analysis.store import open_database
from harness_schemas.spec import RunSpec

pytestmark = [pytest.mark.integration, pytest.mark.alone]

TOKENS = 6
PAIRS = 3


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    spec = RunSpec.model_validate(
        {
            "name": "calibrate",
            "device": "cpu",
            "model": {"synthetic": "tiny-llama"},
            "prompts": {"limit": 2},
            "parallel": {"tp": 2},
            "generation": {
                "batch_size": 1,
                "new_tokens": TOKENS,
                "stop_at_eos": False,
                "calibrate": PAIRS,
            },
            "launcher": {"threads": 1, "timeout": "5min"},
            "check": {"reference": False},
            "collectors": {"psutil": False},
            "output": {"dir": str(tmp_path_factory.mktemp("runs"))},
        }
    )
    result = run_spec(spec, Narrator(quiet=True))
    assert result.exit_code == 0, result.outcome
    with open_database(result.run.database) as con:
        yield con


def test_every_phase_has_its_row(database):
    rows = database.execute(
        "SELECT collector, phase, pairs, off_ns > 0, low_ns, resolved FROM overhead ORDER BY phase"
    ).fetchall()
    # Three pairs show an effect, and are too few for an interval.
    assert rows == [
        ("recorder", phase, PAIRS, True, None, None) for phase in ("all", "decode", "prefill")
    ]
    assert [cost.phase for cost in load_answer(database).overhead] == ["prefill", "decode", "all"]


def test_headline_figures_leave_the_pairs_out(database):
    speed = load_answer(database).throughput
    assert (speed.requests, speed.output_tokens) == (2, 2 * TOKENS)
    (rows,) = set(
        database.execute(
            "SELECT units, left_out FROM rank_breakdown WHERE phase = 'decode'"
        ).fetchall()
    )
    batches = 2 + 1 + 2 * PAIRS  # measured, warm-up, calibrated
    assert rows == (2 * (TOKENS - 1), (batches - 2) * (TOKENS - 1))
    (counts,) = database.execute("SELECT count FROM latency WHERE metric = 'e2e'").fetchone()
    assert counts == 2


def test_with_the_recorder_off_only_units_are_on_record(database):
    found = database.execute(
        """
        SELECT perturbed_by, category, count(*) FROM spans
        WHERE perturbed_by LIKE 'calibrate:%' AND phase IN ('prefill', 'decode') GROUP BY ALL
        """
    ).fetchall()
    kinds = collections.defaultdict(dict)
    for state, category, count in found:
        kinds[state][category] = count
    units = 2 * PAIRS * TOKENS
    assert kinds["calibrate:off"] == {"unit": units}
    assert kinds["calibrate:on"]["unit"] == units
    assert kinds["calibrate:on"]["comm"] > units and kinds["calibrate:on"]["layer"] > units


def test_communication_still_matches_across_ranks_after_a_silence(database):
    found = database.execute(
        """
        SELECT count(*), count(*) FILTER (unsplit_reason IS NOT NULL)
        FROM collectives WHERE perturbed_by = 'calibrate:on' AND phase = 'decode'
        """
    ).fetchone()
    assert found[0] > 0 and found[1] == 0
