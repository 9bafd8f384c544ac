"""Safetensors checkpoints without torch: which file holds which tensor, and are the files whole.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
then the tensors' bytes (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_schemas.errors import UsageError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BIN_INDEX = "pytorch_model.bin.index.json"
BIN_SINGLE = "pytorch_model.bin"

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2,
    "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies. `dtype` is the format's name, as in BF16."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def element_bytes(self) -> int:
        """Bytes of one element; 0 for a dtype this module does not know."""
        return _DTYPE_BYTES.get(self.dtype, 0)


def read_checkpoint(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of a model directory, by name, from the headers of all files.

    Raises:
        UsageError: no safetensors, an absent or cut file, or a tensor the index promises in vain.
    """
    files = tensor_files(folder)
    entries: dict[str, TensorEntry] = {}
    for file in sorted(set(files.values())):
        entries.update(read_header(file))
    missing = sorted(name for name in files if name not in entries)
    if missing:
        raise UsageError(f"{folder / INDEX} names {missing[0]}, which none of its files holds")
    astray = sorted(name for name, file in files.items() if entries[name].file != file)
    if astray:
        raise UsageError(f"{folder / INDEX} has {astray[0]} in another file than it lies in")
    return entries


def tensor_files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor: by the index, else by the header of the only file.

    Raises:
        UsageError: no safetensors, a broken index, or an absent file.
    """
    index, single = folder / INDEX, folder / SINGLE
    if not index.exists():
        if single.exists():
            return dict.fromkeys(read_header(single), single)
        raise UsageError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    try:
        weight_map = dict(json.loads(index.read_text())["weight_map"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{index} is not an index: it needs an object `weight_map`") from None
    absent = sorted({name for name in weight_map.values() if not (folder / name).is_file()})
    if absent:
        raise UsageError(f"{index} names {absent[0]}, which is not there")
    return {tensor: folder / name for tensor, name in weight_map.items()}


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one file.

    Raises:
        UsageError: the file is no safetensors file, is cut, or does not hold what it describes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            if not 0 < length <= min(_MAX_HEADER_BYTES, size - 8):
                raise UsageError(f"{path} is cut or no safetensors file: its header is not whole")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise UsageError(f"{path} is no safetensors file: its header is not JSON") from None
    try:
        header.pop("__metadata__", None)
        needed = 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0)
        entries = {
            name: TensorEntry(path, item["dtype"], tuple(item["shape"]))
            for name, item in header.items()
        }
        odd = [name for name, item in header.items() if not _fits(entries[name], item)]
    except (AttributeError, KeyError, TypeError, IndexError):
        raise UsageError(f"{path} is no safetensors file: its header is not one") from None
    if size < needed:
        raise UsageError(f"{path} is truncated: {size} bytes, its header describes {needed}")
    if size > needed:
        raise UsageError(f"{path} is too long: {size} bytes, its header describes {needed}")
    if odd:
        raise UsageError(f"{path} is damaged: the bytes of {odd[0]} are not what its shape needs")
    return entries


def _fits(entry: TensorEntry, item: Mapping[str, Any]) -> bool:
    begin, end = item["data_offsets"]
    needed = math.prod(entry.shape) * entry.element_bytes
    return bool(end - begin == needed if entry.element_bytes else begin <= end)
