"""Other people's sbatch and srun lines: where their options end, and what some of them say.

Options as in the manual pages of Slurm 20.11 to 24.05. Abbreviated long options that take a value
must have it attached (`--part=debug`).
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SHORT_FLAGS = frozenset("HhklOQsvVWEKuXZ")
_WORDS = (
    "contiguous disable-status exact exclusive get-user-env help hold ignore-pbs interactive "
    "label multi-prog nice no-allocate no-kill no-requeue no-shell overcommit overlap "
    "oversubscribe parsable preserve-env propagate pty quiet quit-on-interrupt reboot requeue "
    "spread-job stepmgr test-only unbuffered usage use-min-nodes verbose version wait-for-all "
    "whole"
)
LONG_FLAGS = frozenset(_WORDS.split())
"""Options without a value, or with one that is attached (`--exclusive=user`) where there is one."""
SBATCH_FLAGS = LONG_FLAGS | {"wait"}
SRUN_FLAGS = LONG_FLAGS | {"kill-on-bad-exit"}
SRUN_SHORT_FLAGS = (SHORT_FLAGS - {"W"}) | {"q"}


@dataclass(frozen=True)
class Line:
    """A command line cut in two: options as (name, value or None), and what they apply to.

    Short options keep their letter as name. `words` are the options as they were written.
    """

    options: tuple[tuple[str, str | None], ...]
    words: tuple[tuple[str, ...], ...]
    rest: tuple[str, ...]

    def value(self, *names: str) -> str | None:
        """The last value given under one of these names; "" for a bare flag."""
        found = [value or "" for name, value in self.options if name in names]
        return found[-1] if found else None

    def without(self, *names: str) -> tuple[str, ...]:
        """The options' words, less those of these names."""
        pairs = zip(self.options, self.words, strict=True)
        return tuple(word for (name, _), words in pairs if name not in names for word in words)


def split_line(argv: Sequence[str], program: str) -> Line:
    """Cut the arguments of `sbatch` or `srun` after its options."""
    flags = SBATCH_FLAGS if program == "sbatch" else SRUN_FLAGS
    short = SHORT_FLAGS if program == "sbatch" else SRUN_SHORT_FLAGS
    options: list[tuple[str, str | None]] = []
    words: list[tuple[str, ...]] = []
    place = 0
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "-":
        word = argv[place]
        if word == "--":
            place += 1
            break
        more = list(_options_of(word, short))
        takes_next = more[-1][1] is None and _needs_value(more[-1][0], flags, short)
        if takes_next and place + 1 < len(argv):
            more[-1] = (more[-1][0], argv[place + 1])
        options += more
        # A cluster of letters is taken apart, so that one of them can be left out.
        last = f"-{word[len(more) :]}" if len(more) > 1 else word
        words += [(f"-{letter}",) for letter, _ in more[:-1]]
        words += [(last, *argv[place + 1 : place + 1 + takes_next])]
        place += 1 + takes_next
    return Line(tuple(options), tuple(words), tuple(argv[place:]))


def _options_of(word: str, short: frozenset[str]) -> Iterator[tuple[str, str | None]]:
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        yield name, value if equals else None
        return
    for place, letter in enumerate(word[1:], 1):
        if letter not in short:
            yield letter, word[place + 1 :] or None
            return
        yield letter, None


def _needs_value(name: str, flags: frozenset[str], short: frozenset[str]) -> bool:
    return name not in short if len(name) == 1 else name not in flags


def directives(script: str) -> list[str]:
    """The lines that sbatch would read: `#SBATCH`, `#PBS`, `#BSUB` before the first command."""
    found = []
    for line in script.splitlines():
        if line.startswith(("#SBATCH", "#PBS", "#BSUB")):
            found.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return found


def directive_line(lines: Sequence[str]) -> Line:
    """The options of `#SBATCH` lines as one line; of `#PBS` and `#BSUB`, name and array."""
    words: list[str] = []
    for line in lines:
        kind, given = line.partition(" ")[::2]
        try:
            found = shlex.split(given, comments=True)
        except ValueError:
            found = given.split()
        words += found if kind == "#SBATCH" else _of_others(kind, found)
    return split_line(words, "sbatch")


def _of_others(kind: str, words: Sequence[str]) -> list[str]:
    """What sbatch takes from another batch system's options, in its own words."""
    known = {"#PBS": {"-N": "-J", "-t": "-a", "-J": "-a"}, "#BSUB": {"-J": "-J"}}.get(kind, {})
    pairs = itertools.pairwise(words)
    return [word for name, value in pairs if name in known for word in (known[name], value)]


def kept_directives(lines: Sequence[str], *without: str) -> list[str]:
    """The lines, less options of these names; a line that has none of them stays as it is."""
    kept = []
    for line in lines:
        options = directive_line([line])
        if not line.startswith("#SBATCH") or options.value(*without) is None:
            kept.append(line)
        elif left := options.without(*without):
            kept.append(f"#SBATCH {shlex.join(left)}")
    return kept


def asked(
    line: Line, script: Line, env: Mapping[str, str], *names: str, variable: str
) -> str | None:
    """What is asked for, in sbatch's own order: its line, the environment, the script."""
    for value in (line.value(*names), env.get(variable) or None, script.value(*names)):
        if value is not None:
            return value
    return None
