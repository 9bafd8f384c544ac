"""Convert a checkpoint of `.bin` files to safetensors, once, into the cache.

`.bin` files are pickles. They are read with `weights_only`, which allows tensors and nothing
that runs code.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness_runners.files.cache import publish_folder
from harness_runners.model.checkpoint import BIN_INDEX, BIN_SINGLE, INDEX
from harness_schemas.errors import HarnessError, UsageError

COPIED = ("*.json", "tokenizer.model", "*.txt")


def convert_bin(source: Path, final: Path) -> None:
    """Write `final`: the source's configuration and tokenizer, its weights as safetensors.

    Raises:
        UsageError: a file is absent, cut, or holds more than tensors.
        HarnessError: the cache cannot be written.
    """
    names = bin_files(source)
    with publish_folder(final) as target:
        for pattern in COPIED:
            for file in source.glob(pattern):
                if file.name not in (BIN_INDEX, INDEX):
                    shutil.copyfile(file, target / file.name)
        weight_map: dict[str, str] = {}
        total = 0
        for number, name in enumerate(names, start=1):
            file_name = f"model-{number:05d}-of-{len(names):05d}.safetensors"
            tensors = _read_bin(source / name)
            _save(tensors, target / file_name)
            weight_map.update(dict.fromkeys(tensors, file_name))
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (target / INDEX).write_text(json.dumps(index, indent=1))


def bin_files(source: Path) -> list[str]:
    """Names of the `.bin` files of a checkpoint.

    Raises:
        UsageError: the index is broken or names an absent file.
    """
    index = source / BIN_INDEX
    if not index.exists():
        return [BIN_SINGLE]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{index} is not an index: it needs an object `weight_map`") from None
    absent = [name for name in names if not (source / name).is_file()]
    if absent:
        raise UsageError(f"{index} names {absent[0]}, which is not there")
    return names


def _read_bin(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} holds more than weights and is not loaded: {reason}") from None
    except (OSError, RuntimeError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
        raise UsageError(f"{path} does not hold a dictionary of tensors")
    # Safetensors stores no views: every tensor gets bytes of its own.
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}


def _save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, str(path), metadata={"format": "pt"})
    except SafetensorError as error:
        raise HarnessError(
            f"cannot write {path}: {error}",
            "free space, or name another cache folder in HARNESS_CACHE_DIR",
        ) from None
