"""Arrow columns out of numpy arrays: texts by their codes, numbers with NULL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def coded(codes: np.ndarray, values: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """A text column out of codes; -1 is NULL."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    if not isinstance(values, pa.Array):
        values = pa.array(values, pa.string())
    return pa.DictionaryArray.from_arrays(indices, values)


def texts(values: Sequence[str | None]) -> tuple[np.ndarray, list[str]]:
    """Codes of texts (-1: None) and the distinct ones, for `coded`."""
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    place = {value: code for code, value in enumerate(distinct)}
    codes = [-1 if value is None else place[value] for value in values]
    return np.array(codes or [-1], np.int32), distinct


def known(values: np.ndarray, valid: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    """Numbers, NULL where not `valid`."""
    return pa.array(values, mask=~valid, type=kind)


def constant(value: str | None, size: int) -> pa.DictionaryArray:
    """One text in every row."""
    return coded(np.full(size, -1 if value is None else 0), [value or ""])


def ranks(rank: int | None, size: int) -> pa.Array:
    """One rank in every row."""
    return pa.repeat(pa.scalar(rank, pa.int32()), size)
