"""The page: self-contained, escaped, bounded, and its charts hold the database's numbers."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import duckdb
import numpy as np
import pytest
from example_run import LATE, batch, example_database
from truth.simulate import EPOCH_NS, Scenario

from harness_analysis.answer import Parts, load_answer
from harness_analysis.report import write_picture, write_report
from harness_analysis.report.numbers.blame import load_blame
from harness_analysis.report.numbers.samples import MOST_LINES
from harness_analysis.report.numbers.steps import CELLS as STEP_CELLS
from harness_analysis.report.numbers.steps import StepSeries, load_steps
from harness_analysis.report.numbers.timeline import (
    MOST_SEGMENTS,
    StepTimeline,
    Timelines,
    load_timelines,
    merged,
)
from harness_analysis.report.numbers.units import FEWEST_BINS, Bins
from harness_analysis.report.numbers.waiting import CELLS as LATENESS_CELLS
from harness_analysis.report.numbers.waiting import Pair, Waiting, load_waiting
from harness_analysis.report.page import gather, render_page
from harness_analysis.report.sections.blame import lead
from harness_analysis.report.sections.lateness import lateness_figure
from harness_analysis.report.sections.waits import matrix_figure, short_group
from harness_analysis.store import open_database
from harness_schemas.errors import EvidenceError, HarnessError
from harness_schemas.units import format_ns
from harness_schemas.vocabulary import PART_LABELS, PARTS

HOSTILE = "</script><script>stolen=1</script><img src=x onerror=stolen=1>\"'`&<!--"
VOID = {"meta", "input", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Elements of a page with their attributes, text and the elements they are in."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict] = []
        self._open: list[dict] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "within": list(self._open)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        while self._open and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, **attrs):
        return [
            e
            for e in self.elements
            if e["tag"] == tag and all(e["attrs"].get(k) == v for k, v in attrs.items())
        ]

    def inside(self, tag, outer):
        return [
            e for e in self.elements if e["tag"] == tag and any(o is outer for o in e["within"])
        ]

    def figures(self):
        """Figure data by id."""
        found = {}
        for figure in self.all("figure"):
            (script,) = self.inside("script", figure)
            data = json.loads(script["text"])
            data["traces"] = [{**data["common"], **trace} for trace in data["traces"]]
            found[figure["attrs"]["data-figure"]] = data
        return found


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return example_database(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(database, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    with open_database(database) as con:
        write_report(con, path)
    return path.read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def query(database, sql):
    with open_database(database) as con:
        return con.execute(sql).fetchall()


# -- structure -----------------------------------------------------------------------------------


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


# -- self-contained --------------------------------------------------------------------------------


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


# -- hostile text ------------------------------------------------------------------------------


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


# -- the database's numbers ------------------------------------------------------------------------


def in_ns(value, unit):
    return round(value * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit])


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_bars_hold_the_breakdown_of_every_rank(page, database, phase):
    figure = page.figures()[f"parts-{phase}"]
    unit = figure["layout"]["xaxis"]["title"]["text"]
    labels = {PART_LABELS[part]: part for part in PARTS}
    rows = query(
        database,
        f"SELECT window_ns, {','.join(PARTS)} FROM rank_breakdown "
        f"WHERE phase = '{phase}' ORDER BY rank",
    )
    found = {labels[t["name"]]: [in_ns(x, unit) for x in t["x"]] for t in figure["traces"]}
    for rank, (window, *parts) in enumerate(rows):
        assert sum(values[rank] for values in found.values()) == window
        for part, ns in zip(PARTS, parts, strict=True):
            assert found.get(part, [0] * len(rows))[rank] == (ns or 0)


def test_steps_of_a_rank_are_the_views_rows(page, database):
    figure = page.figures()["steps"]
    unit = figure["layout"]["yaxis"]["title"]["text"].split()[0]
    labels = {
        part: k
        for k, t in enumerate(figure["traces"])
        for part in PARTS
        if PART_LABELS[part] == t["name"]
    }
    # all ranks, two stages, then the ranks
    assert len(figure["choices"]) == 1 + 2 + 4
    for rank in range(4):
        rows = query(
            database,
            f"SELECT {','.join(PARTS)} FROM step_breakdown "
            f"WHERE phase = 'decode' AND rank = {rank} ORDER BY start_ns",
        )
        assert len(rows) == LATE.steps
        for part, trace in labels.items():
            drawn = figure["choices"][3 + rank][trace]["y"]
            assert [in_ns(y, unit) for y in drawn] == [row[PARTS.index(part)] for row in rows]


def test_the_mean_over_ranks_is_a_mean(page):
    figure = page.figures()["steps"]
    for trace in range(len(figure["traces"])):
        ranks = np.array([choice[trace]["y"] for choice in figure["choices"][3:]], dtype=float)
        mean = np.array(figure["choices"][0][trace]["y"], dtype=float)
        assert np.allclose(mean, ranks.mean(axis=0), rtol=1e-3)


def test_the_matrix_holds_all_waiting(page, database):
    figure = page.figures()["wait-matrix"]
    trace = {**figure["traces"][0], **figure["choices"][0][0]}
    unit = trace["colorbar"]["title"]["text"]
    rows = query(
        database,
        "SELECT rank, waited_for, sum(wait_ns) FROM waits WHERE phase = 'decode' GROUP BY ALL",
    )
    wanted = {(str(r), "undecided" if w is None else str(w)): ns for r, w, ns in rows if ns}
    found = {
        (y, x): in_ns(value, unit)
        for y, row in zip(trace["y"], trace["z"], strict=True)
        for x, value in zip(trace["x"], row, strict=True)
        if value is not None
    }
    assert set(found) == set(wanted)
    for key, ns in wanted.items():
        assert found[key] == pytest.approx(ns, rel=1e-4)


def test_the_map_of_lateness_shows_who_is_late(page, database):
    figure = page.figures()["lateness"]
    z = np.array(figure["choices"][0][0]["z"])
    assert z.shape == (4, LATE.steps)
    assert (z.argmax(axis=0) == 3).all()
    ((caused,),) = query(
        database,
        "SELECT sum(sum_wait_ns) / 1e6 FROM collective_waits "
        "WHERE phase = 'decode' AND last_arriver = 3",
    )
    assert z[3].sum() == pytest.approx(caused, rel=5e-2)
    # The others cost less than a thousandth of the largest, or what they are drawn with.
    assert (z[:3] <= z[3]).all()


def test_pipeline_shares_and_their_floor(page, database):
    rows = query(
        database,
        "SELECT wait_share, floor_share FROM pipeline_bubbles WHERE phase = 'decode' ORDER BY rank",
    )
    waits, floor = page.figures()["pipeline-decode"]["traces"]
    assert waits["x"] == pytest.approx([100 * row[0] for row in rows], abs=1e-2)
    assert floor["x"] == [50.0] * 4


def test_cumulative_counters_are_drawn_as_rates(page):
    figure = page.figures()["samples-cpu-seconds"]
    means = [float(np.mean(trace["y"])) for trace in figure["traces"]]
    assert means == pytest.approx([0.9, 0.85, 0.8, 0.75], rel=1e-3)


# -- what is missing -------------------------------------------------------------------------------


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


# -- size ------------------------------------------------------------------------------------------


def large_bins(units, cells, ranks):
    bins = max(FEWEST_BINS, min(400, cells // ranks))
    sizes = tuple(np.bincount(np.arange(units) * bins // units).tolist())
    return Bins(units, bins, tuple(f"step {k}" for k in range(bins)), sizes)


def large_run(small, ranks):
    """Numbers of a run on many ranks in which every part of every cell has a value."""
    random = np.random.default_rng(0)
    ids = tuple(range(ranks))
    bins = large_bins(1000, STEP_CELLS, ranks)
    values = random.integers(1, 10**9, (ranks, bins.bins, 10)).astype(float)
    wide = large_bins(1000, LATENESS_CELLS, ranks)
    pairs = tuple(
        Pair(rank, 8 * (rank // 8) + k, kind, 10, int(random.integers(1, 10**9)))
        for rank in ids
        for k in range(8)
        for kind in ("collective", "p2p")
    )
    kinds = ("collective", "p2p")
    caused = {kind: random.integers(0, 10**9, (ranks, wide.bins)).astype(float) for kind in kinds}
    hosts = tuple(f"node{k // 8}" for k in ids)
    row = small.answer.of_phase("decode")[0]
    breakdown = tuple(
        dataclasses.replace(row, rank=rank, stage=rank // 8, phase=phase, parts=parts)
        for phase in ("prefill", "decode")
        for rank in ids
        for parts in [random_parts(random)]
    )
    return dataclasses.replace(
        small,
        answer=dataclasses.replace(small.answer, breakdown=breakdown),
        steps=StepSeries(bins, ids, tuple(k // 8 for k in ids), values),
        waiting=Waiting("app_timers", True, ids, hosts, pairs, wide, caused, caused, 0, ()),
        timelines=long_timelines(ids),
        bubbles=[
            dataclasses.replace(small.bubbles[0], rank=rank, phase=phase)
            for phase in ("prefill", "decode")
            for rank in ids
        ],
    )


def long_timelines(ids):
    """Three steps with as many intervals as a page takes."""
    each = MOST_SEGMENTS // len(ids)
    found = {"comm_wait_ns": [], "comm_transfer_ns": []}
    for rank in ids:
        for k in range(each):
            part = "comm_wait_ns" if k % 2 else "comm_transfer_ns"
            name = f"all_reduce, {k % 7} KiB"
            found[part].append((rank, 59_123 * k, 59_123 * k + 41_007, name))
    windows = tuple((rank, 0, 10**7, "the step") for rank in ids)
    step = StepTimeline("a step", 10**7, windows, {k: tuple(v) for k, v in found.items()}, 0)
    return Timelines("nsys", "device", False, ids, tuple(None for _ in ids), (step,) * 3)


def random_parts(random):
    ns = {part: int(random.integers(1, 10**9)) for part in PARTS}
    return Parts(sum(ns.values()), ns)


@pytest.mark.parametrize("ranks", [64, 512, 2048])
def test_large_runs_give_pages_of_at_most_eight_megabytes(database, ranks):
    with open_database(database) as con:
        numbers = large_run(gather(con), ranks)
    text = render_page(numbers)
    page = Page(text)
    sizes = {e["attrs"]["data-figure"]: len(e["text"]) for e in page.all("figure")}
    assert len(text) <= 8_000_000, sizes
    assert len(page.figures()["parts-decode"]["traces"][0]["y"]) == min(ranks, 512)
    if ranks > 512:
        assert f"512 of {ranks} ranks" in text and f"{ranks - 512} ranks that wait least" in text


def test_the_matrix_of_many_ranks_gathers_neighbours(database):
    with open_database(database) as con:
        waiting = load_waiting(con)
    pairs = tuple(Pair(k, (k + 1) % 300, "collective", 1, 1_000_000) for k in range(300))
    large = Waiting(
        "app_timers", True, tuple(range(300)), (None,) * 300, pairs, waiting.bins, {}, {}, 0, ()
    )
    (trace,) = matrix_figure(large).traces
    assert len(trace["y"]) == 100 and trace["y"][0] == "0-2"
    assert sum(value for row in trace["z"] for value in row if value) == pytest.approx(300)


def test_more_series_than_lines_become_a_band(tmp_path):
    rows = [
        {
            "host": "node0",
            "rank": rank,
            "metric": "rss",
            "unit": "bytes",
            "source": "psutil",
            "ts_ns": EPOCH_NS + second * 10**9,
            "value": float((1 + rank) << 30),
        }
        for rank in range(MOST_LINES + 4)
        for second in range(3)
    ]
    path = example_database(tmp_path, Scenario(steps=2), more=(batch("samples", rows),), bare=True)
    with open_database(path) as con:
        write_report(con, tmp_path / "report.html")
    figure = Page((tmp_path / "report.html").read_text()).figures()["samples-rss"]
    assert [trace["name"] for trace in figure["traces"]] == ["largest", "mean", "smallest"]
    assert [trace["y"][0] for trace in figure["traces"]] == [20.0, 10.5, 1.0]


def test_many_steps_are_gathered_and_said_to_be(tmp_path):
    path = example_database(tmp_path, Scenario(tp=1, pp=2, steps=900, layers_per_stage=1))
    with open_database(path) as con:
        series = load_steps(con)
        write_report(con, tmp_path / "report.html")
        ((window,),) = con.execute(
            "SELECT sum(window_ns) FROM step_breakdown WHERE phase = 'decode' AND rank = 1"
        ).fetchall()
    assert (series.bins.units, series.bins.bins) == (900, 400) and not series.bins.whole
    assert sum(series.bins.sizes) == 900
    assert (series.values[1, :, 0] * np.array(series.bins.sizes)).sum() == pytest.approx(window)
    assert "gathered into 400 bins" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("[0,1,2,3]#0", "[0-3]#0"),
        ("[0,1]#2", "[0,1]#2"),
        ("[0,2,4,5,6]#1", "[0,2,4-6]#1"),
        ("world", "world"),
        ("[a,b]", "[a,b]"),
    ],
)
def test_groups_are_named_by_ranges(name, short):
    assert short_group(name) == short


def test_part_labels_of_the_glossary(page):
    (glossary,) = page.all("section", id="glossary")
    assert [re.sub(r"\s+", " ", e["text"]).strip() for e in page.inside("dt", glossary)] == [
        PART_LABELS[part] for part in PARTS
    ]


# -- communication time against the truth ---------------------------------------------------------


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


# -- timeline --------------------------------------------------------------------------------------


def test_a_timeline_holds_the_calls_of_its_step(database):
    with open_database(database) as con:
        found = load_timelines(con)
    assert [step.title.partition(":")[0] for step in found.steps] == [
        "slowest",
        "median",
        "fastest",
    ]
    lengths = [step.length_ns for step in found.steps]
    assert lengths == sorted(lengths, reverse=True)
    for step in found.steps:
        number = int(step.title.rpartition("step ")[2].split()[0])
        for part, column in (("comm_wait_ns", "wait_ns"), ("comm_transfer_ns", "transfer_ns")):
            drawn = sum(end - start for _, start, end, _ in step.pieces[part])
            ((wanted,),) = query(
                database,
                f"SELECT sum({column})::BIGINT FROM collectives "
                f"WHERE phase = 'decode' AND step = {number}",
            )
            assert drawn == wanted
        assert {rank for rank, *_ in step.windows} == {0, 1, 2, 3}


def test_neighbours_become_one_and_cover_what_they_did():
    rows = [(0, 0, 10, "a"), (0, 12, 20, "a"), (0, 40, 50, "b"), (1, 51, 60, "b"), (1, 55, 57, "c")]
    assert list(merged(rows, 2)) == [
        (0, 0, 20, "a"),
        (0, 40, 50, "b"),
        (1, 51, 60, "2 intervals"),
    ]
    assert list(merged([], 2)) == []


def test_lateness_of_gathered_steps_keeps_the_worst(tmp_path):
    scenario = dataclasses.replace(LATE, steps=30)
    path = example_database(tmp_path, scenario, bare=True)
    with open_database(path) as con, pytest.MonkeyPatch.context() as patch:
        whole = load_waiting(con)
        patch.setattr("harness_analysis.report.numbers.units.MOST_BINS", 7)
        patch.setattr("harness_analysis.report.numbers.units.FEWEST_BINS", 7)
        few = load_waiting(con)
    assert np.array_equal(whole.worst["collective"], whole.caused["collective"])
    place = np.arange(30) * 7 // 30
    for row in range(4):
        values = whole.caused["collective"][row]
        worst = [values[place == k].max() for k in range(7)]
        assert few.worst["collective"][row].tolist() == worst
        mean = [values[place == k].mean() for k in range(7)]
        assert few.caused["collective"][row] == pytest.approx(mean)
    titles = [choice.label for choice in lateness_figure(few).choices]
    assert "in collectives, worst unit" in titles and "in collectives, mean of the units" in titles


def test_the_late_rank_is_named_beside_rows_too_thin_to_read(tmp_path):
    with open_database(example_database(tmp_path, LATE, bare=True)) as con:
        waiting = load_waiting(con)
    assert not lateness_figure(waiting).layout["annotations"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness_analysis.report.sections.lateness.MOST_TICKS", 2)
        marks = lateness_figure(waiting).layout["annotations"]
    assert f"\u25c2 {LATE.late_rank}" in [mark["text"] for mark in marks]
    caused = [sum(kind[mark["y"]].sum() for kind in waiting.caused.values()) for mark in marks]
    assert caused == sorted(caused, reverse=True)
