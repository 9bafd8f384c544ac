"""Columns that grow in place, and codes for values that repeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import numpy as np

K = TypeVar("K")


class Codes(dict[K, int]):
    """Values to codes, which count up in the order of first appearance."""

    def __missing__(self, value: K) -> int:
        code = self[value] = len(self)
        return code


_FEW: Final = 8


def places_of(codes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Every code, and where it stands (ascending): linear for few codes, n log n for any number."""
    distinct = set(codes.tolist())
    if len(distinct) <= _FEW:
        for code in sorted(distinct):
            yield (
                code,
                np.flatnonzero(codes == code) if len(distinct) > 1 else np.arange(len(codes)),
            )
        return
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    for places in np.split(order, edges):
        yield int(codes[places[0]]), places


_LIMITS: Final = tuple((np.dtype(f"i{width}"), 1 << (8 * width - 1)) for width in (1, 2, 4, 8))
"""Integers by their width, and what is one too much for them."""


class Table:
    """Columns that grow in place: chunks are appended to plain bytes and viewed as arrays.

    A column of integers is as narrow as its values allow: a file may hold twenty million rows.
    Those of `WIDE` are not, so that sums with them fit.
    """

    WIDE: Final = frozenset({"start"})

    def __init__(self, **dtypes: str) -> None:
        self._dtypes = {name: np.dtype(code) for name, code in dtypes.items()}
        self._stored = {
            name: dtype if name in self.WIDE else np.dtype(np.int8)
            for name, dtype in self._dtypes.items()
        }
        self._data = {name: bytearray() for name in dtypes}

    def append(self, **columns: Iterable[Any]) -> None:
        """Add rows: one array or list a column, all of one length."""
        for name, values in columns.items():
            array = np.ascontiguousarray(values, self._dtypes[name])
            if array.size:
                self._widen(name, array)
                self._data[name] += array.astype(self._stored[name]).tobytes()

    def replace(self, name: str, values: np.ndarray) -> None:
        """Other values for a whole column."""
        self._stored[name] = self._dtypes[name]
        self._data[name] = bytearray(values.astype(self._dtypes[name]).tobytes())

    def _widen(self, name: str, array: np.ndarray) -> None:
        """Make room for values of a column."""
        if name in self.WIDE:
            return
        stored, low, high = self._stored[name], int(array.min()), int(array.max())
        wanted = next(dtype for dtype, limit in _LIMITS if -limit <= low and high < limit)
        if wanted.itemsize > stored.itemsize:
            self._stored[name] = wanted
            self._data[name] = bytearray(np.frombuffer(self._data[name], stored).astype(wanted))

    def clear(self) -> None:
        """Let go of all rows."""
        self._data = {name: bytearray() for name in self._data}

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole column as it is stored: sums of two such may not fit, see `at`."""
        return np.frombuffer(self._data[name], self._stored[name])

    def at(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Some rows of a column, as wide as declared."""
        return self[name][rows].astype(self._dtypes[name])

    def __len__(self) -> int:
        name, dtype = next(iter(self._stored.items()))
        return len(self._data[name]) // dtype.itemsize
