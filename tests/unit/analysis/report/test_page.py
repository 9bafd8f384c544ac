"""The page: its sections, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import duckdb
import pytest
from example_run import batch, example_database
from truth.simulate import EPOCH_NS, Scenario
from unit.analysis.report.pages import Page

from harness_analysis.report import write_report
from harness_analysis.store import open_database
from harness_schemas.errors import EvidenceError, HarnessError
from harness_schemas.vocabulary import PART_LABELS, PARTS

HOSTILE = "</script><script>stolen=1</script><img src=x onerror=stolen=1>\"'`&<!--"


def test_sections_are_reachable(page):
    names = [e["attrs"]["id"] for e in page.all("section")]
    assert names == [
        *("answer", "truth", "breakdown", "steps", "timeline", "waits", "sizes", "pipeline"),
        *("latency", "correctness", "samples", "evidence", "specification", "glossary"),
    ]
    ids = [e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    links = [e["attrs"]["href"] for e in page.all("a")]
    assert {link for link in links if link != "#answer"} <= {f"#{name}" for name in ids}
    assert {f"#{name}" for name in names} <= set(links)


def test_no_chart_without_a_text_equivalent(page):
    figures = page.all("figure")
    assert len(figures) >= 8
    for figure in figures:
        (table,) = page.inside("table", figure)
        assert any(e["tag"] == "details" for e in table["within"])
        assert len(page.inside("tr", figure)) >= 2
        (plot,) = [e for e in page.inside("div", figure) if e["attrs"].get("class") == "plot"]
        assert plot["attrs"]["role"] == "img" and len(plot["attrs"]["aria-label"]) > 30


def test_verdict_headlines_and_findings(page):
    (heading,) = page.all("h1")
    assert heading["text"] == "example"
    tiles = " ".join(e["text"] for e in page.all("li") if e["attrs"].get("class") == "tile")
    for words in ("tokens/s", "164 tokens of 4 requests", "TTFT", "decode waiting", "163 of 164"):
        assert words in tiles
    (findings,) = page.all("ol")
    assert "rank 3 makes group [2,3]#0 wait" in findings["text"]


def test_collectors_that_did_not_work_have_their_reasons(page):
    (evidence,) = page.all("section", id="evidence")
    assert "no NVIDIA driver on this host" in evidence["text"]
    assert "buffer was full" in evidence["text"]


def test_correctness_prompt_by_prompt(page):
    (section,) = page.all("section", id="correctness")
    rows = [[cell["text"] for cell in page.inside("td", row)] for row in page.inside("tr", section)]
    assert ["prompt-1", "41", "40", "1", "yes"] in rows
    assert "163 of 164 tokens equal, one tie" in section["text"]


def test_nothing_is_fetched(page, text):
    for element in page.elements:
        for name, value in element["attrs"].items():
            if name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
                assert value.startswith("#"), (element["tag"], name, value)
        assert element["tag"] not in ("link", "iframe", "object", "embed", "base", "form", "img")
    (style,) = page.all("style")
    assert "url(" not in style["text"] and "@import" not in style["text"]


def test_the_policy_admits_only_the_pages_own_scripts(page):
    (policy,) = [
        e["attrs"]["content"]
        for e in page.all("meta")
        if e["attrs"].get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and "connect-src" not in rules
    hashes = set(rules["script-src"].split())
    code = [e for e in page.all("script") if e["attrs"].get("type") != "application/json"]
    assert hashes == {
        f"'sha256-{base64.b64encode(hashlib.sha256(e['text'].encode()).digest()).decode()}'"
        for e in code
    }
    assert len(code) == 2


def test_the_same_database_gives_the_same_bytes(database, text, tmp_path):
    with open_database(database) as con:
        write_report(con, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_a_page_that_cannot_be_written_is_one_clear_error(database, tmp_path):
    with open_database(database) as con, pytest.raises(HarnessError, match="cannot write"):
        write_report(con, tmp_path / "absent" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_version_is_refused_in_one_line(tmp_path):
    path = example_database(tmp_path, Scenario(steps=2), bare=True)
    with duckdb.connect(str(path)) as con:
        con.execute("DROP VIEW waits")
    page = tmp_path / "report.html"
    with pytest.raises(EvidenceError, match="waits") as caught, open_database(path) as con:
        write_report(con, page)
    assert caught.value.hint and not page.exists()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose every free text tries to break out."""
    folder = tmp_path_factory.mktemp("hostile")
    more = (
        batch("collection", [{"collector": HOSTILE, "state": "failed", "reason": HOSTILE}]),
        batch("ranks", [{"rank": rank, "host": HOSTILE} for rank in range(4)]),
        batch(
            "samples",
            [
                {
                    "host": HOSTILE,
                    "rank": None,
                    "metric": name,
                    "source": HOSTILE,
                    "unit": HOSTILE,
                    "ts_ns": EPOCH_NS + k,
                    "value": float(k),
                }
                for k in (1, 2)
                for name in ("rss", HOSTILE)
            ],
        ),
    )
    changes = {"name": HOSTILE, "verdict": HOSTILE, "verdict_detail": HOSTILE, "device": HOSTILE}
    texts = json.dumps({HOSTILE: HOSTILE})
    changes |= {"spec": texts, "provenance": texts, "correctness": texts, "status": "failed"}
    database = example_database(folder, Scenario(steps=12), more=more, **changes)
    with open_database(database) as con:
        write_report(con, folder / "report.html")
    return Page((folder / "report.html").read_text())


def test_hostile_text_stays_text(hostile, page):
    assert not hostile.all("img")
    assert len(hostile.all("script")) == len(hostile.all("figure")) + 2
    for element in hostile.elements:
        assert not any(name.startswith("on") for name in element["attrs"]), element["attrs"]
    (heading,) = hostile.all("h1")
    assert heading["text"] == HOSTILE
    assert (
        HOSTILE in hostile.all("pre")[0]["text"]
        or json.dumps(HOSTILE) in (hostile.all("pre")[0]["text"])
    )


def test_hostile_text_in_figures_stays_data(hostile):
    figures = hostile.figures()
    assert HOSTILE in json.dumps(figures["samples-rss"], ensure_ascii=False).replace('\\"', '"')
    scripts = [e["text"] for e in hostile.all("script", type="application/json")]
    assert scripts and not any("<" in script or ">" in script for script in scripts)


def test_a_run_that_recorded_little_has_a_page_that_says_so(tmp_path):
    detail = "rank 1 ended first: out of memory"
    changes = {"status": "failed", "verdict": "rank_failed", "verdict_detail": detail}
    path = example_database(
        tmp_path, Scenario(tp=1, pp=1, steps=1), bare=True, correctness=None, spec=None, **changes
    )
    with duckdb.connect(str(path)) as con:
        con.execute("DELETE FROM unit_breakdown")
        con.execute("UPDATE runs SET provenance = NULL")
    with open_database(path) as con:
        write_report(con, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    names = [e["attrs"]["id"] for e in page.all("section")]
    assert names == ["answer", "correctness", "evidence", "glossary"]
    (header,) = page.all("header")
    assert "failed: rank_failed" in header["text"] and detail in header["text"]
    (answer,) = page.all("section", id="answer")
    assert "no measured batch ended" in answer["text"]


def test_part_labels_of_the_glossary(page):
    (glossary,) = page.all("section", id="glossary")
    assert [re.sub(r"\s+", " ", e["text"]).strip() for e in page.inside("dt", glossary)] == [
        PART_LABELS[part] for part in PARTS
    ]
