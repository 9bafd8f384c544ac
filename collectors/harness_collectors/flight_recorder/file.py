"""Reading a Flight Recorder dump, pickled or JSON, without executing anything in it."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zlib
from pathlib import Path
from typing import Any, Final

from harness_collectors.reading.text_evidence import GZIP_MAGIC

MAX_BYTES: Final = 256 << 20
"""A dump of 2,000 entries with stacks is some 5 MB."""
_MAX_ENTRIES: Final = 1_000_000
PICKLE_PROTO: Final = b"\x80"

_ALLOWED: Final = (
    pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK + pickle.POP + pickle.POP_MARK,
    pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE,
    pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1 + pickle.BINFLOAT,
    pickle.BINUNICODE + pickle.SHORT_BINUNICODE + pickle.BINSTRING + pickle.SHORT_BINSTRING,
    pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS + pickle.DICT,
    pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS + pickle.LIST,
    pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3,
    pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE + pickle.BINGET + pickle.LONG_BINGET,
)
"""Opcodes that make numbers, text, and containers of them; no other is even looked at: none that
names a class, calls a function, or takes a size on trust."""


class _ContainerUnpickler(pickle._Unpickler):
    """A pickle machine that knows containers only."""

    dispatch = {
        code: handler
        for code, handler in pickle._Unpickler.dispatch.items()
        if bytes([code]) in b"".join(_ALLOWED)
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Never reached: the opcodes that ask for it are not there."""
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is refused")


class Unreadable(ValueError):
    """A dump that holds nothing usable, with the reason."""


def read_dump(path: Path) -> tuple[dict[str, Any], int]:
    """(the dump, bytes of the file).

    Raises:
        Unreadable: it is damaged, of another format, or holds what is refused.
    """
    try:
        data, size = _read_bytes(path)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from None
    dump = _unpickle(data) if data.startswith(PICKLE_PROTO) else _parse_json(data)
    if isinstance(dump, list):  # the first version: nothing but entries
        dump = {"entries": dump}
    if not isinstance(dump, dict) or not isinstance(dump.get("entries"), list):
        raise Unreadable("it holds no entries of a Flight Recorder")
    if len(dump["entries"]) > _MAX_ENTRIES:
        raise Unreadable(f"it holds more than {_MAX_ENTRIES} entries")
    return dump, size


def _read_bytes(path: Path) -> tuple[bytes, int]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if data.startswith(GZIP_MAGIC):
        try:
            with gzip.open(path) as packed:
                data = packed.read(MAX_BYTES + 1)
        except (EOFError, OSError, zlib.error):
            raise Unreadable("its gzip stream is damaged") from None
    if len(data) > MAX_BYTES:
        raise Unreadable(f"it is larger than {MAX_BYTES >> 20} MiB")
    return data, size


def _unpickle(data: bytes) -> Any:
    try:
        return _ContainerUnpickler(io.BytesIO(data)).load()
    except KeyError as refused:
        raise Unreadable(f"its pickle holds more than plain containers ({refused})") from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way it likes
        raise Unreadable(f"its pickle is damaged: {type(error).__name__}") from None


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Unreadable("neither a pickle nor whole JSON") from None
