"""The scripts in the documentation are those that are submitted."""

from __future__ import annotations

import subprocess

import cluster_pages as pages
import pytest


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_is_printed_today(page, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = page.read_text()
    assert pages.BLOCK.search(text)
    assert pages.rewritten(text, tmp_path) == text, "run `python tests/cluster_pages.py`"
    for block in pages.BLOCK.finditer(text):
        assert subprocess.run(["bash", "-n"], input=block["shown"], text=True).returncode == 0
