"""Category and rule of the rows of a trace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from harness_collectors.traces.columns import coded, texts


class Classes:
    """Category and rule of every (kind, name) met, by their codes, asked for once."""

    def __init__(
        self, num_kinds: int, num_names: int, classify: Callable[[int, int], tuple[str, str]]
    ) -> None:
        self._pairs: dict[tuple[str, str], int] = {}
        self._table = np.full((num_kinds, num_names or 1), -1, np.int32)
        self._classify = classify

    def code(self, pair: tuple[str, str]) -> int:
        """The code of a (category, rule)."""
        return self._pairs.setdefault(pair, len(self._pairs))

    def of(self, kind: np.ndarray, name: np.ndarray) -> np.ndarray:
        """Codes of rows."""
        codes: np.ndarray = self._table[kind, name]
        new = codes < 0
        if new.any():
            pairs = np.unique(kind[new].astype(np.int64) << 32 | name[new])
            for pair in pairs.tolist():
                what, text = pair >> 32, pair & 0xFFFFFFFF
                self._table[what, text] = self.code(self._classify(what, text))
            codes = self._table[kind, name]
        return codes

    def columns(self, codes: np.ndarray) -> dict[str, pa.Array]:
        """`category` and `rule` of rows by their codes."""
        columns = {}
        for place, column in enumerate(("category", "rule")):
            of_pair, values = texts([pair[place] for pair in self._pairs])
            columns[column] = coded(of_pair[codes], values)
        return columns
