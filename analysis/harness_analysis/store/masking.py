"""The last gate before the database: no text that looks like a secret is stored.

Collectors keep only what is needed of environments and command lines; this catches what slips
into a name, a warning or an attribute. Distinct texts are looked at once, by one expression of
RE2; only those that it matches are read by the rules. What is stored as JSON is JSON.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from harness_schemas.redact import HINT, redact, redact_tree

if TYPE_CHECKING:
    import pyarrow

_FEW: Final = 4096
_NO_JSON: Final = r"\b(?:NaN|Infinity)\b"
"""Numbers that Python takes from JSON, and writes there, and that no database reads."""
_LOOK: Final = rf"{HINT}|{_NO_JSON}"


def masked(data: pyarrow.Table) -> pyarrow.Table:
    """The rows with secrets replaced in every column of text, dictionaries included."""
    import pyarrow as pa

    if data.num_rows < _FEW and not _any_hint(data):
        return data
    for index, field in enumerate(data.schema):
        kind = field.type
        coded = pa.types.is_dictionary(kind)
        text = kind.value_type if coded else kind
        if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            continue
        chunks = data.column(index).chunks
        clean = [_masked_codes(chunk) if coded else _masked_texts(chunk) for chunk in chunks]
        if any(new is not old for new, old in zip(clean, chunks, strict=True)):
            data = data.set_column(index, field, pa.chunked_array(clean, type=kind))
    return data


def _any_hint(data: pyarrow.Table) -> bool:
    """Whether any text needs a closer look: one question for all columns, since to make the
    expression ready takes as long as thousands of texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = []
    for column in data.columns:
        coded = pa.types.is_dictionary(column.type)
        kind = column.type.value_type if coded else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            chunks = [chunk.dictionary if coded else chunk for chunk in column.chunks]
            texts += [chunk.cast(pa.large_string()) for chunk in chunks]
    found = pa.chunked_array(texts, pa.large_string()).combine_chunks()
    return pc.any(pc.match_substring_regex(found, _LOOK)).as_py() is True


def _masked_codes(chunk: Any) -> Any:
    import pyarrow as pa

    values = _masked_values(chunk.dictionary)
    if values is chunk.dictionary:
        return chunk
    return pa.DictionaryArray.from_arrays(chunk.indices, values)


def _masked_texts(chunk: Any) -> Any:
    """Texts that repeat are looked at once, the others where they stand."""
    if len(chunk) < _FEW:
        return _masked_values(chunk)
    if len(chunk.slice(0, _FEW).unique()) > _FEW // 2:
        return _masked_values(chunk)
    coded = chunk.dictionary_encode()
    clean = _masked_codes(coded)
    return chunk if clean is coded else clean.cast(chunk.type)


def _masked_values(texts: Any) -> Any:
    """The array with secrets replaced; the same one where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    hits = pc.match_substring_regex(texts, _LOOK)
    if not pc.any(hits).as_py():
        return texts
    found = texts.filter(hits).to_pylist()
    clean = [_masked_text(text) for text in found]
    if clean == found:
        return texts
    return pc.replace_with_mask(texts, pc.fill_null(hits, False), pa.array(clean, texts.type))


def _masked_text(text: str) -> str:
    """The text without secrets. What was JSON stays JSON: one row that is none would end every
    query that looks into its column."""
    if text.startswith(("{", "[")):
        text = _storable(text)
    clean = redact(text)
    if clean == text or not text.startswith(("{", "[")) or _is_json(clean) or not _is_json(text):
        return clean
    told = json.dumps(redact_tree(json.loads(text)))
    # What only the text as a whole gives away, such as an option and its value in a list.
    return told if redact(told) == told else json.dumps({"masked": clean})


def _storable(text: str) -> str:
    """JSON whose numbers are numbers: what is none is unknown."""
    if re.search(_NO_JSON, text):
        with contextlib.suppress(ValueError, RecursionError):
            return json.dumps(json.loads(text, parse_constant=lambda _: None))
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
