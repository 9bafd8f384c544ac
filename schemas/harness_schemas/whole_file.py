"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness_schemas.errors import HarnessError

ELSEWHERE = "free space, or choose another place"


@contextlib.contextmanager
def whole_file(path: Path, hint: str = ELSEWHERE) -> Iterator[Path]:
    """A name beside `path` to write under; at the end it becomes `path`, or leaves nothing.

    Raises:
        HarnessError: it cannot be written; `hint` says what to do.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise HarnessError(f"cannot write {path}: {error.strerror or error}", hint) from None
    finally:
        # On a read-only file system even what is not there cannot be removed.
        with contextlib.suppress(OSError):
            temporary.unlink()
