"""Pages whose scripts are what `harness ... --dry-run` prints: `python tests/cluster_pages.py`.

A block of code below a comment `<!-- harness ... -->` (with `| grep "TEXT"` after it if only some
lines are shown) is the command's output, this machine's paths replaced by a user's.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cli.main import invoke

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs" / "clusters.md", ROOT / "docs" / "slurm.md")
BLOCK = re.compile(r"<!-- harness (?P<command>.+?) -->\n```bash\n(?P<shown>.*?)```\n", re.DOTALL)
STAMP = re.compile(r"\d{8}-\d{6}-([\w.-]+)-[0-9a-f]{4,6}\b")


def printed(command: str, folder: Path) -> str:
    """What the command prints for a user whose home is `folder`/home, in folder `folder`.

    Raises:
        AssertionError: it fails.
    """
    words, _, wanted = command.partition(" | grep ")
    out = io.StringIO()
    (folder / "home" / "images").mkdir(parents=True, exist_ok=True)
    (folder / "home" / "images" / "harness.sif").touch()
    (folder / "examples").exists() or (folder / "examples").symlink_to(ROOT / "examples")
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), _home(folder / "home"):
        code = invoke(shlex.split(words))
    assert code == 0, command
    lines = [
        line for line in out.getvalue().splitlines() if not wanted or _unquoted(wanted) in line
    ]
    return as_a_users("\n".join(lines) + "\n", folder)


def _unquoted(quoted: str) -> str:
    """The text between the quotes."""
    return shlex.split(quoted)[0]


def as_a_users(text: str, folder: Path) -> str:
    """The text with this machine's paths replaced."""
    here = ((sys.executable, "/home/me/venv/bin/python3"), (str(folder / "home"), "/home/me"))
    for ours, theirs in (*here, (str(folder), "/scratch/me"), (str(ROOT), "/scratch/me")):
        text = text.replace(ours, theirs)
    return STAMP.sub(r"20260101-000000-\1-1a2b", text)


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    names = ("HARNESS_CACHE_DIR", "XDG_CACHE_HOME", "SLURM_JOB_ID", "HOME")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})


def rewritten(text: str, folder: Path) -> str:
    """A page with all of its blocks as they are printed now."""

    def block(match: re.Match[str]) -> str:
        command = match["command"]
        return f"<!-- harness {command} -->\n```bash\n{printed(command, folder)}```\n"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for page in PAGES:
            page.write_text(rewritten(page.read_text(), Path(place).resolve()))
