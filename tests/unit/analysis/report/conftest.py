"""One example and its page, for all tests of the report."""

from __future__ import annotations

import pytest
from example_run import example_database
from unit.analysis.report.pages import Page

from harness_analysis.report import write_report
from harness_analysis.store import open_database


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    return example_database(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def text(database, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    with open_database(database) as con:
        write_report(con, path)
    return path.read_text()


@pytest.fixture(scope="session")
def page(text):
    return Page(text)
