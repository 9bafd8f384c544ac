"""The report's HTML and its database, as a test reads them."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from harness_analysis.store import open_database

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


def query(database, sql):
    with open_database(database) as con:
        return con.execute(sql).fetchall()
