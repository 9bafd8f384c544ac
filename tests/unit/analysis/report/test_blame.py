"""Communication time against the truth: the loud ranks are not the late one."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest
from example_run import LATE, example_database
from unit.analysis.report.pages import query

from harness_analysis.answer import load_answer
from harness_analysis.report import write_picture
from harness_analysis.report.numbers.blame import load_blame
from harness_analysis.report.sections.blame import lead
from harness_analysis.store import open_database
from harness_schemas.errors import EvidenceError, HarnessError
from harness_schemas.units import format_ns


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """TP=4, rank 2 late in every layer."""
    scenario = dataclasses.replace(LATE, tp=4, pp=1, steps=20, late_rank=2)
    return example_database(tmp_path_factory.mktemp("wide"), scenario, name="<late> & co")


def test_the_loud_ranks_are_not_the_late_one(wide):
    with open_database(wide) as con:
        blame = load_blame(con)
    assert blame.culprit == 2
    rows = {row.rank: row for row in blame.ranks}
    assert min(rows, key=lambda rank: rows[rank].comm_ns) == 2
    assert max(rows, key=lambda rank: rows[rank].caused_ns) == 2
    # What the others wait, summed, is what the late one causes: nothing is lost or counted twice.
    waited = sum(row.wait_ns for row in blame.ranks)
    assert sum(row.caused_ns for row in blame.ranks) == pytest.approx(waited)
    for row in blame.ranks:
        assert row.comm_ns == pytest.approx(row.wait_ns + row.transfer_ns)
    ((shown,),) = query(wide, "SELECT sum(duration_ns) FROM collectives WHERE phase = 'decode'")
    assert sum(row.comm_ns for row in blame.ranks) * blame.steps == pytest.approx(float(shown))
    assert blame.step.predicted_ns < 0.5 * blame.step.measured_ns


def test_nobody_is_blamed_without_a_delay(tmp_path):
    even = example_database(tmp_path, dataclasses.replace(LATE, late_rank=None, steps=20))
    with open_database(even) as con:
        blame = load_blame(con)
    assert blame.culprit is None and blame.step is None
    assert "nobody is named" in lead(blame)


def test_the_picture_says_it_without_the_page(wide, database, tmp_path):
    with open_database(wide) as con, open_database(database) as baseline:
        blame, run = load_blame(con, baseline), load_answer(con).run
        write_picture(blame, run, tmp_path / "late.svg")
    tree = ElementTree.parse(tmp_path / "late.svg")
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "Rank 2 is the slow one. Its communication time does not show it." in texts
    assert "<late> & co, TP 4 x PP 1, cpu, float32" in texts
    for row in blame.ranks:
        assert format_ns(row.comm_ns) in texts and format_ns(row.caused_ns) in texts
    assert "measured without it (example)" in texts
    assert format_ns(blame.step.predicted_ns) in texts
    sides = [float(e.get("x")) + float(e.get("width")) for e in tree.iter() if e.get("width")
             and e.get("x")]  # fmt: skip
    assert max(sides) < 920
    with pytest.raises(EvidenceError):
        write_picture(None, run, tmp_path / "none.svg")
    with pytest.raises(HarnessError):
        write_picture(blame, run, tmp_path / "no" / "late.svg")
