"""The documentation hangs together: the index has every page, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page):
    """(target, anchor) of the links to files of ours, code left out."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page):
    """The names that headings are linked by."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = [
        f"{target}#{anchor}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def named_files(page):
    """Files of ours that a page names in backticks, from the root or from a package."""
    packages = {path.name: path for path in ROOT.glob("*/harness_*")}
    for name in re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|sql|sh|toml))`", page.read_text()):
        top = name.partition("/")[0]
        if top in packages or (ROOT / top).is_dir():
            yield packages.get(top, ROOT / top).parent / name


def test_files_that_pages_name_are_there():
    named = {file: page.name for page in PAGES for file in named_files(page)}
    assert len(named) > 40
    assert {file: page for file, page in named.items() if not file.exists()} == {}


def test_every_page_is_in_the_index():
    listed = {target for target, _ in links(DOCS / "README.md")}
    pages = {*DOCS.glob("*.md"), *(DOCS / "decisions").glob("*.md")} - {DOCS / "README.md"}
    assert len(pages) > 30
    assert pages - listed == set()
