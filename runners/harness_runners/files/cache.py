"""The folder in which made and converted models and tokenised prompts are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness_schemas.cachedir import cache_dir
from harness_schemas.errors import HarnessError

__all__ = ["cache_dir", "content_key", "file_key", "publish_folder"]


def content_key(*parts: Any) -> str:
    """Sixteen hex digits that name content: equal parts, equal key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_key(path: Path) -> str:
    """Sixteen hex digits that name a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


@contextlib.contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `final` when the block ends well: whole or not at all.

    If another process published `final` meanwhile, its folder stays and ours goes.

    Raises:
        HarnessError: the place cannot be written.
    """
    temporary = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        with contextlib.suppress(FileExistsError):
            temporary.rename(final)
    except OSError as error:
        if not final.is_dir():
            raise HarnessError(
                f"cannot write {final}: {error.strerror or error}",
                "free space, or name another cache folder in HARNESS_CACHE_DIR",
            ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
