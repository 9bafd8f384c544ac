"""Checks of a model directory: is everything there, whole, and what its source says it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.doctor.check import Check, missing, ok, warning
from harness_runners.files import checksums
from harness_runners.model.checkpoint import read_checkpoint
from harness_runners.model.config import read_shape
from harness_runners.plan import needs_conversion
from harness_runners.preflight import TOKENIZER_FILES
from harness_schemas.errors import UsageError
from harness_schemas.units import format_bytes

_AGAIN = "copy or download it again"


def model_checks(folder: Path, sums: bool = False) -> Iterator[Check]:
    """Shape, tokenizer, weights; with `sums` every byte of the weights is read."""
    yield _shape(folder)
    yield _tokenizer(folder)
    try:
        files = checksums.weight_files(folder)
        tensors = 0 if needs_conversion(folder) else len(read_checkpoint(folder))
    except UsageError as error:
        cost = "the ranks end while they load"
        yield missing("model weights", error.message, cost, _AGAIN)
        return
    size = format_bytes(sum(file.stat().st_size for file in files))
    whole = f"{tensors} tensors, headers and sizes agree" if tensors else "of .bin: sizes unknown"
    yield ok("model weights", f"{len(files)} files, {size}, {whole}")
    if sums:
        yield _sums(folder, files)


def _shape(folder: Path) -> Check:
    try:
        shape = read_shape(folder)
    except UsageError as error:
        return missing("model config", error.message, "no rank can build the model", _AGAIN)
    return ok("model config", f"{shape.layers} layers, {shape.heads} heads of attention")


def _tokenizer(folder: Path) -> Check:
    found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if found:
        return ok("model tokenizer", found[0])
    names = ", ".join(TOKENIZER_FILES)
    cost = "prompts cannot be turned into tokens, and a compute node has no network to fetch it"
    return missing("model tokenizer", f"none of {names}", cost, "copy it beside the weights")


def _sums(folder: Path, files: list[Path]) -> Check:
    name = "model checksums"
    try:
        done = list(checksums.sum_files(files, checksums.known_sums(folder, files)))
    except OSError as error:
        return missing(name, f"{error.filename}: {error.strerror}", "unreadable weights", _AGAIN)
    said = checksums.complaint(done)
    if said is None:
        return ok(name, f"{len(done)} of {len(done)} files agree")
    if any(one.wrong for one in done):
        return missing(name, said, "wrong tokens, or ranks that end while they load", _AGAIN)
    mend = "write them where the files are known to be good: sha256sum *.safetensors > SHA256SUMS"
    return warning(name, said, "damage that leaves sizes alone is not seen", mend)
