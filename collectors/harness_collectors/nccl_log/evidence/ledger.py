"""What pages say, written into the evidence in their order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness_collectors.nccl_log.beforehand import relative_name
from harness_collectors.nccl_log.evidence.reading import Reader
from harness_collectors.nccl_log.evidence.state import Evidence, LogFile
from harness_collectors.nccl_log.grammar.texts import Texts
from harness_collectors.nccl_log.pages.page import Page
from harness_collectors.nccl_log.pages.pieces import Leaf
from harness_collectors.nccl_log.pages.stream import Intake


class Ledger:
    """Takes pages, each file's behind those of the files before it."""

    def __init__(self, root: Path, texts: Texts) -> None:
        self.evidence = Evidence()
        self._root = root
        self._texts = texts
        self._readers: dict[Path, Reader] = {}
        """Of the files at hand."""
        self._files: dict[Path, LogFile] = {}

    def filled(self, leaves: Iterable[Leaf]) -> Evidence:
        """The evidence with all of these in it."""
        for leaf in leaves:
            if isinstance(leaf, Intake):
                self._file(leaf.path).intake.add(leaf)
            else:
                self._add(leaf)
        return self.evidence

    def _add(self, page: Page) -> None:
        self._readers = {path: self._reader(path) for path, _ in page.sizes}
        for path, size in page.sizes:
            self._readers[path].turn(page, size)
        for stretch in page.stretches:
            reader, file = self._readers[stretch.path], self._file(stretch.path)
            before = file.unreadable
            reader.read(stretch)
            if page.cut:
                file.ends_cut += file.unreadable - before
        self.evidence.calls.relieve()

    def _reader(self, path: Path) -> Reader:
        found = self._readers.get(path)
        return found or Reader(self.evidence, self._file(path), self._texts)

    def _file(self, path: Path) -> LogFile:
        found = self._files.get(path)
        if found is None:
            name = relative_name(path, self._root)
            found = self._files[path] = LogFile(name, str(path.parent), Intake(path))
            self.evidence.files.append(found)
        return found
