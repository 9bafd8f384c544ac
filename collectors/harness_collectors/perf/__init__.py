"""Performance counters (`perf stat`) and sampled stacks (`perf record`) of the ranks.

perf attaches to each rank from its own side: `perf stat -- COMMAND` would return 0 where the
command was killed by a signal (seen with perf 6.1), and a dead rank would pass for a finished one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter as Tallied
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness_collectors.options import unknown_options
from harness_collectors.perf.script import Stacks, is_script, read_script
from harness_collectors.perf.stat import Counter, StatReading, read_stat, stat_form, unprefixed
from harness_collectors.reading.text_evidence import (
    Tally,
    batch,
    by_host,
    number_in_name,
)
from harness_collectors.reading.wrapped import printed, read_printed
from harness_schemas.redact import redact
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext

NAME: Final = "perf"
EVENTS: Final = (
    "task-clock",
    "context-switches",
    "cpu-migrations",
    "page-faults",
    "cycles:u",
    "instructions:u",
    "cache-misses:u",
    "branch-misses:u",
)
"""Hardware events in user mode only: that is allowed up to perf_event_paranoid 2."""
MODES: Final = ("stat", "record")
PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")
DATA_MAGIC: Final = b"PERFILE2"
TOP_FRAMES: Final = 50
_SCRIPT_TIMEOUT_S: Final = 300.0
_EVENT = re.compile(r"[A-Za-z_][\w\-:./=,]{0,127}")
_BEGIN = re.compile(r"\.begin-([1-8]\d{18})(?!\d)")
_COMPLAINT = re.compile(r"perf_event|[Pp]ermission|not found|[Cc]ouldn't|[Uu]nable|[Ee]rror")

# In the rank's own shell, which then becomes the rank: $$ is the rank's process id. perf runs as
# an orphan (the rank must not find a child it did not start), ends when the rank has ended, and
# its failure leaves the rank alone. The shell waits, a second at most, until perf counts: what
# its command forks (a container's runtime forks at once) is counted from then on.
ATTACH: Final = """\
folder="$1/$(uname -n)" mode=$2 interval=$3 events=$4 frequency=$5; shift 5
rank=${RANK:-${SLURM_PROCID:-}}
file="$folder/$mode${rank:+.rank-$(printf %05d "$rank")}.pid-$$.begin-$(date +%s%N)"
if mkdir -p "$folder"; then
  if [ "$mode" = record ]; then
    perf=$(LC_ALL=C perf record -F "$frequency" -g -p $$ -o "$file.data" \
        </dev/null >/dev/null 2>"$file.err" & echo $!)
  else
    perf=$(LC_ALL=C perf stat -j -I "$interval" -e "$events" -p $$ -o "$file.jsonl" \
        </dev/null >/dev/null 2>"$file.err" & echo $!)
  fi
  for turn in 1 2 3 4 5 6 7 8 9 10; do
    case $(ls -l "/proc/$perf/fd" 2>&1) in *perf_event*) turn=last ;; esac
    sleep 0.1
    [ $turn != last ] && kill -0 "$perf" 2>/dev/null || break
  done
fi
exec "$@"
"""


class Perf:
    """Linux performance counters of every rank, and stacks on request."""

    name = NAME
    title = "Linux performance counters (perf stat) and sampled stacks (perf record)"
    sources = (NAME,)

    def check(self, device: str) -> Availability:
        """Whether perf counts here: it is asked to count one `true`."""
        if shutil.which("perf") is None:
            hint = "install linux-perf (Debian) or perf (RHEL), or bind it into the container"
            return Availability(False, "perf is not on PATH", hint)
        facts: dict[str, Any] = {"perf_event_paranoid": _paranoid()}
        try:
            done = subprocess.run(
                ["perf", "stat", "-j", "-e", ",".join(EVENTS), "--", "true"],
                capture_output=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Availability(False, f"perf cannot be run: {error}", "", facts)
        said = done.stderr.decode("utf-8", "replace")
        reading = read_stat(said)
        facts["supported"] = [c.event for c in reading.counters if c.value is not None]
        facts["unsupported"] = {c.event: c.state for c in reading.counters if c.value is None}
        if facts["supported"]:
            return Availability(True, facts=facts)
        return Availability(False, _refusal(said, done.returncode), _hint(facts), facts)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`mode` (stat or record), `events`, `interval_ms` (10 to 60000), `frequency` (Hz)."""
        known: dict[str, Any] = {
            "mode": "stat",
            "events": list(EVENTS),
            "interval_ms": 1000,
            "frequency": 99,
        }
        wrong = unknown_options(NAME, given, known)
        known |= {name: value for name, value in given.items() if name in known}
        if known["mode"] not in MODES:
            wrong.append(f"mode is {known['mode']!r}, but must be stat or record")
        events = known["events"]
        if isinstance(events, str) or not isinstance(events, Sequence) or not events:
            wrong.append("events must be a list of names as `perf list` prints them")
        else:
            wrong += [f"{event!r} is no event" for event in events if not _is_event(event)]
        wrong += _out_of_range(known, "interval_ms", 10, 60000)
        wrong += _out_of_range(known, "frequency", 1, 10000)
        if wrong:
            raise ValueError("\n".join(wrong))
        return known

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """A shell before each rank's command, which attaches perf to it."""
        options = self.options(request.options)
        folder = request.run_dir / "artifacts" / NAME
        prefix = ("sh", "-c", ATTACH, "perf-attach", str(folder), str(options["mode"]))
        numbers = (str(options["interval_ms"]), ",".join(options["events"]))
        return CapturePlan(argv_prefix=(*prefix, *numbers, str(options["frequency"])))

    def recognise(self, path: Path, head: bytes) -> bool:
        """Output of perf stat or perf script, perf.data, or the complaints of our own perf."""
        if head.startswith(DATA_MAGIC):
            return True
        text = printed(head).decode("utf-8", "replace")
        if path.suffix == ".err" and path.parent.parent.name == NAME:
            return _COMPLAINT.search(text) is not None
        return stat_form(unprefixed(text)) is not None or is_script(text)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of `perf_counters`, counts of innermost frames in `samples`, and the collection."""
        for host, paths in by_host(files, NAME):
            yield from _ingest_host(host, paths, context.root)


def _is_event(event: Any) -> bool:
    return isinstance(event, str) and _EVENT.fullmatch(event) is not None


def _out_of_range(options: Mapping[str, Any], name: str, least: int, most: int) -> list[str]:
    value = options[name]
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return []
    return [f"{name} is {value!r}, but must be a number from {least} to {most}"]


def _paranoid() -> int | None:
    try:
        return int(PARANOID.read_text())
    except (OSError, ValueError):
        return None


def _refusal(said: str, code: int) -> str:
    """Why perf counted nothing: its first line of substance."""
    lines = [line.strip() for line in said.splitlines()]
    told = [line for line in lines if line and line != "Error:" and not line.startswith(("#", "{"))]
    cause = redact(told[0][:200]) if told else f"it ended with {code}"
    return f"perf counts nothing here: {cause}"


def _hint(facts: Mapping[str, Any]) -> str:
    level = facts["perf_event_paranoid"]
    if level is not None and level > 2:
        return (
            f"kernel.perf_event_paranoid is {level}; an administrator can set it to 2 "
            "(sysctl kernel.perf_event_paranoid=2)"
        )
    return "containers often forbid perf_event_open: run outside, or with its seccomp rule lifted"


@dataclass
class _Found:
    """What the files of one host gave."""

    counters: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    states: dict[str, set[str]]
    detail: dict[str, Any]
    problems: list[str]


def _ingest_host(host: str | None, paths: Sequence[Path], root: Path) -> Iterator[Batch]:
    tally = Tally(NAME, host)
    found = _Found([], [], {}, {}, [])
    for path in paths:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
        try:
            about = _ingest_file(path, host, tally, found)
        except OSError as error:
            about = {"problem": error.strerror or str(error)}
            tally.unreadable += 1
        if about:
            found.detail[name] = about
    _judge(tally, found)
    if found.counters:
        yield batch("perf_counters", found.counters)
    if found.samples:
        yield batch("samples", found.samples)
    events = {event: "+".join(sorted(states)) for event, states in sorted(found.states.items())}
    yield batch("collection", [tally.row({"files": found.detail, "events": events})])


def _ingest_file(path: Path, host: str | None, tally: Tally, found: _Found) -> dict[str, Any]:
    with path.open("rb") as stream:
        is_data = stream.read(len(DATA_MAGIC)) == DATA_MAGIC
    if is_data:
        tally.bytes += path.stat().st_size
        return _ingest_data(path, host, tally, found)
    read = read_printed(path)
    tally.bytes += read.size
    if stat_form(unprefixed(read.text[:65536])) is not None:
        return _add_counters(read_stat(unprefixed(read.text)), path, host, tally, found)
    if is_script(read.text[:65536]):
        return _add_stacks(read_script(read.text), path, host, tally, found)
    if path.suffix == ".err" and _COMPLAINT.search(read.text):
        found.problems.append(_refusal(read.text, 1))
    return {}


def _ingest_data(path: Path, host: str | None, tally: Tally, found: _Found) -> dict[str, Any]:
    """perf.data is read by perf itself, which knows its own version's format."""
    argv = ["perf", "script", "-i", str(path), "-F", "comm,pid,tid,time,event,ip,sym,symoff,dso"]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=_SCRIPT_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        found.problems.append(f"{path.name} needs perf, which is not on PATH")
        return {"problem": "perf is not on PATH"}
    except subprocess.TimeoutExpired:
        found.problems.append(f"perf script took more than {_SCRIPT_TIMEOUT_S:.0f} s")
        return {"problem": "perf script took too long"}
    if done.returncode and not done.stdout:
        found.problems.append(f"perf script cannot read {path.name}")
        return {"problem": done.stderr.decode("utf-8", "replace").strip()[:300]}
    stacks = read_script(done.stdout.decode("utf-8", "replace"))
    return _add_stacks(stacks, path, host, tally, found)


def _add_counters(
    reading: StatReading, path: Path, host: str | None, tally: Tally, found: _Found
) -> dict[str, Any]:
    # Taken just before perf starts; it begins to count some 10 ms later.
    begin = _BEGIN.search(path.name)
    began_ns = int(begin[1]) if begin else None
    who = {
        "rank": number_in_name(path, "rank"),
        "pid": number_in_name(path, "pid"),
        "host": host,
    }
    for counter in reading.counters:
        found.states.setdefault(counter.event, set()).add(counter.state)
        found.counters.append(who | _row(counter, began_ns))
    tally.records += len(reading.counters)
    tally.unreadable += reading.unreadable
    about: dict[str, Any] = {"form": reading.form, "rows": len(reading.counters)}
    extra = {"unreadable": reading.unreadable, "started_local_time": reading.started}
    return about | {name: value for name, value in extra.items() if value}


def _row(counter: Counter, began_ns: int | None) -> dict[str, Any]:
    offset = counter.offset_ns
    return {
        "event": counter.event,
        "scope": counter.scope,
        "ts_ns": None if offset is None or began_ns is None else began_ns + offset,
        "offset_ns": offset,
        "interval_ns": counter.interval_ns,
        "value": counter.value,
        "unit": counter.unit,
        "running_share": counter.running_share,
        "state": counter.state,
    }


def _add_stacks(
    stacks: Stacks, path: Path, host: str | None, tally: Tally, found: _Found
) -> dict[str, Any]:
    tally.records += stacks.samples
    tally.unreadable += stacks.unreadable
    rank = number_in_name(path, "rank")
    for frame, count in _most(stacks.top_frames):
        found.samples.append(
            {
                "host": host,
                "rank": rank,
                "metric": f"perf_top_frame:{frame}",
                "unit": "samples",
                "value": float(count),
                "source": NAME,
            }
        )
    return {
        "form": "script",
        "samples": stacks.samples,
        "events": dict(sorted(stacks.events.items())),
        "frames": len(stacks.top_frames),
        "stacks": len(stacks.folded),
        "folded": [[stack, count] for stack, count in _most(stacks.folded)],
    }


def _most(counts: Tallied[str]) -> Iterable[tuple[str, int]]:
    """The most frequent, in an order that does not depend on the file's."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_FRAMES]


def _judge(tally: Tally, found: _Found) -> None:
    """Set the state where it is not simply what the counts say."""
    never = sorted(event for event, states in found.states.items() if states <= {"not_supported"})
    if found.problems:
        tally.state = "degraded" if tally.records else "failed"
        tally.reason = "; ".join(dict.fromkeys(found.problems))
    elif never and len(never) == len(found.states):
        tally.state, tally.reason = "failed", "none of the events is supported on this machine"
    elif never and not tally.unreadable:
        tally.state, tally.reason = "degraded", f"not supported here: {', '.join(never)}"


COLLECTOR = Perf()
