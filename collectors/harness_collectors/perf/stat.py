"""Output of `perf stat` in its three forms: JSON lines (-j), separated values (-x), and for people.

With `--metric-only` each of them is another (metric_only.py).

Traps met in real files: a comma before the closing brace; values as numbers or as text; rows that
hold a metric only; commas inside event names; decimal commas; and a false zero: restricted to user
mode (`:u`, which perf adds by itself where perf_event_paranoid forbids more), events that happen in
the kernel always count 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness_collectors.perf import metric_only
from harness_schemas.log_prefix import without_prefixes

NOT_COUNTED: Final = "not_counted"
NOT_SUPPORTED: Final = "not_supported"
METRIC_UNIT: Final = "metric"
"""Unit of rows that hold a derived metric without the count it came from."""
_ABSENT: Final = {"<not counted>": NOT_COUNTED, "<not supported>": NOT_SUPPORTED}
_KERNEL_ONLY = re.compile(r"(?:context-switches|cs|cpu-migrations|migrations):[upG]*u[upG]*")
_SCOPES: Final = ("core", "die", "socket", "node", "cluster", "cache", "thread", "cgroup")
_LONGEST_LINE: Final = 8192
_LONGEST_TITLE: Final = 200

_TRAILING_COMMA = re.compile(r",\s*}\s*$")
_DECIMAL_COMMA = re.compile(r"(:\s*-?\d+),(\d+)(?=\s*[,}])")
_STARTED = re.compile(r"# started on (\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})")
_VALUE = r"(?<![\d.])\d[\d.]{0,40}|<not counted>|<not supported>"
_DELIMITER = re.compile(rf"(?:{_VALUE})([^\w\s.<>]|\t)[A-Za-z/]*\1")
_PEOPLE = re.compile(
    r"\s*(?:(?P<time>\d+[.,]\d{9})\s+)?(?:(?P<scope>CPU\d+|[SND]\d+(?:-[A-Z]+\d+)*"
    r"|[^\W\d][^#<>]{0,30}?-\d{1,8})\s+(?:\d+\s+(?=[\d<]))?)?"
    r"(?P<value>\d[\d.,'\u00a0\u202f]*|<not counted>|<not supported>)\s+"
    r"(?:(?P<unit>msec|sec|nsec|Joules|Watts|MiB|Bytes|C)\s+)?"
    r"(?P<event>[A-Za-z_][^\s#]*)(?P<rest>.*)"
)
_SHARE = re.compile(r"[(\[]\s*(\d+(?:[.,]\d+)?)%\s*[)\]]\s*$")
_MORE = re.compile(r"\s+#\s+\S.*")
"""A second metric of the count above; the share of time comes after the last."""
_CLOCK = re.compile(r"(?:task|cpu)-clock(?::[a-zA-Z]+)?")
_ELAPSED = re.compile(r"\s*(\d+[.,]\d+)\s+(?:\+-\s+\S+\s+)?seconds time elapsed")
_USER_SYS = re.compile(r"\s*\d+[.,]\d+\s+(?:\+-\s+\S+\s+)?seconds (?:user|sys)\b")
_SUMMED_UP = re.compile(r"\s*\d+[.,]\d+\s+(?:\+-\s+\S+\s+)?seconds (?:time elapsed|user|sys)\b")
_PRETTY = re.compile(r"\s*(?:\[\s*)?\{\s*\n|\s*\[\s*\{")
_OPENING = re.compile(r"[\[\s,]*\{")
_SIGNS: Final = ("Performance counter stats for", '"counter-value"')
_USUAL: Final = frozenset({"context-switches", "cpu-migrations", "page-faults", "branch-misses"})
_USUAL_ROWS: Final = 2
"""As many rows of such events are perf's, also where the lines above them are lost."""
_TITLE = re.compile(r"\s*(?:Performance counter stats for|#\s+time\b)")


@dataclass(frozen=True)
class Counter:
    """A count: the columns of `perf_counters` that perf itself knows. None: not known.

    `offset_ns` is the end of the interval since perf began; None where the count is of the whole
    run. `value` is None unless `state` is ok or estimated.
    """

    event: str
    value: float | None
    unit: str
    state: str
    running_share: float | None = None
    scope: str | None = None
    offset_ns: int | None = None
    interval_ns: int | None = None


@dataclass
class StatReading:
    """What one file says. `started` is perf's own remark, in local time of an unknown zone."""

    form: str
    counters: list[Counter] = field(default_factory=list)
    unreadable: int = 0
    started: str | None = None


def unprefixed(text: str) -> str:
    """A text of perf stat without what launchers put before its lines, where that hides it."""
    if not any(sign in text for sign in _SIGNS) or stat_form(text[:65536]) is not None:
        return text
    return without_prefixes(text)


def stat_form(head: str) -> str | None:
    """`json`, `csv`, `people`, or `metrics_` with one of them, by content; None: no perf stat."""
    titled, usual = False, 0
    for line in (line[:_LONGEST_LINE] for line in _a_row_a_line(head).splitlines()[:200]):
        if '"counter-value"' in line and '"event"' in line:
            return "json"
        if '"metric-value"' in line and '"metric-unit"' in line:
            return "json"
        if metric_only.is_metric_only(line):
            return f"metrics_{'json' if '{' in line else 'people' if '  ' in line else 'csv'}"
        if _TITLE.match(line) and ("Performance counter" in line or "events" in line):
            titled = True
        usual += _is_usual(line)
        delimiter = _csv_delimiter(line)
        if titled and line.strip() and not _TITLE.match(line):
            return "people"
        if delimiter and _csv_pattern(delimiter).fullmatch(line):
            return "csv"
    return "people" if titled or usual >= _USUAL_ROWS else None


def _is_usual(line: str) -> bool:
    """Whether a line is a row for people of an event that perf counts by default."""
    if not any(event in line for event in _USUAL):
        return False
    match = _PEOPLE.fullmatch(line)
    return match is not None and match["event"] in _USUAL and bool(match["time"] or "#" in line)


def _a_row_a_line(text: str) -> str:
    """JSON that another program laid out over several lines, a row a line again."""
    if _PRETTY.match(text) is None:
        return text
    decoder = json.JSONDecoder()
    place, rows = 0, []
    while start := _OPENING.search(text, place):
        try:
            row, place = decoder.raw_decode(text, start.end() - 1)
        except (ValueError, RecursionError):
            break
        rows.append(json.dumps(row))
    return "\n".join([*rows, text[place:] if text[place:].strip(" \r\n,]") else ""])


def read_stat(text: str) -> StatReading:
    """Counters of any of the forms; lines that are none are counted."""
    form = stat_form(text)
    reading = StatReading(form or "unknown")
    started = _STARTED.search(text[:4096])
    reading.started = started[1].strip() if started else None
    lines = _a_row_a_line(text.replace("\r\n", "\n")).split("\n")
    if form is not None and form.startswith("metrics"):
        _read_metrics(form, lines, reading)
    elif form == "json":
        _read_json(lines, reading)
    elif form == "csv":
        _read_csv(lines, reading)
    elif form == "people":
        _read_people(lines, reading)
    reading.counters = _with_intervals(reading.counters)
    return reading


def _read_metrics(form: str, lines: list[str], reading: StatReading) -> None:
    for row in _metric_rows(form, lines):
        if row is None:
            reading.unreadable += 1
            continue
        values, when, scope = row
        offset = _offset(when.replace(",", ".") if when else None)
        for name, text in values.items():
            value = metric_only.number_of(text)
            state = "ok" if value is not None else NOT_COUNTED
            reading.counters.append(
                Counter(name, value, METRIC_UNIT, state, scope=scope, offset_ns=offset)
            )


def _metric_rows(form: str, lines: list[str]) -> Iterator[metric_only.Row | None]:
    if form == "metrics_json":
        return metric_only.json_rows(lines)
    whole = [*lines[:-1], "?"] if lines[-1].strip() else lines  # a number without an end is cut
    if form == "metrics_csv":
        first = next(line for line in lines if metric_only.is_metric_only(line))
        return metric_only.separated_rows(whole, "," if "," in first else ";")
    named = [f" {line[1:]}" if line.startswith("#") else line for line in whole]
    below = (line for line in _below_titles(named) if not _SUMMED_UP.match(line))
    return metric_only.column_rows(below)


def _read_json(lines: list[str], reading: StatReading) -> None:
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        counter = _json_counter(_json_object(line))
        if counter is None:
            reading.unreadable += 1
        else:
            reading.counters.append(counter)


def _json_object(line: str) -> Mapping[str, Any]:
    """The object in a line, which application output may precede; empty if there is none."""
    start = line.find('{"')
    if start < 0 or len(line) > _LONGEST_LINE:
        return {}
    text = _TRAILING_COMMA.sub("}", line[start:])
    for attempt in (text, _DECIMAL_COMMA.sub(r"\1.\2", text)):
        try:
            found = json.loads(attempt)
        except (ValueError, RecursionError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _json_counter(row: Mapping[str, Any]) -> Counter | None:
    event, metric = row.get("event"), row.get("metric-unit")
    offset = row.get("interval")
    place: dict[str, Any] = {"scope": _json_scope(row), "offset_ns": _offset(offset)}
    if offset is not None and place["offset_ns"] is None:
        return None
    if isinstance(event, str) and event and "counter-value" in row:
        runtime, share = _number(row.get("event-runtime")), _number(row.get("pcnt-running"))
        return _counter(event, str(row["counter-value"]), row.get("unit"), runtime, share, place)
    value = _number(row.get("metric-value"))
    if "counter-value" in row or "event" in row or not isinstance(metric, str) or value is None:
        return None
    return Counter(metric, value, METRIC_UNIT, "ok", **place)


def _json_scope(row: Mapping[str, Any]) -> str | None:
    if row.get("cpu") is not None:
        return f"CPU{row['cpu']}"
    return next((str(row[name]) for name in _SCOPES if row.get(name) is not None), None)


def _csv_delimiter(line: str) -> str | None:
    match = _DELIMITER.search(line[:_LONGEST_LINE])
    return match[1] if match else None


def _csv_pattern(delimiter: str) -> re.Pattern[str]:
    """A line of `-x`, whose event may hold the delimiter: what follows it has a fixed shape."""
    d = re.escape(delimiter)
    point = r"\." if delimiter == "," else "[.,]"  # decimal commas need another delimiter
    value = _VALUE if delimiter == "," else _VALUE.replace(r"[\d.]", r"[\d.,]")
    return re.compile(
        rf"\s*(?:(?P<time>\d+\.\d{{9}}){d})?"
        rf"(?:(?P<scope>CPU\d+|[SND]\d+(?:-[A-Z]+\d+)*(?={d}\d+{d})|[^{d}]+-\d+(?={d}[\d<])){d}"
        rf"(?:\d+{d}(?=[\d<]))?)?"
        rf"(?:(?P<value>{value}){d}(?P<unit>[A-Za-z%/ ]*){d}(?P<event>[A-Za-z_].*?){d}"
        rf"(?:\d+{point}\d+%{d})?(?P<runtime>\d+){d}(?P<share>\d+{point}\d\d)"
        rf"(?:{d}[^{d}]*){{0,2}}|{d}{{3,}}(?P<metric>[\d.]+){d}(?P<name>[^{d}]+))"
    )


def _read_csv(lines: list[str], reading: StatReading) -> None:
    delimiter = next(filter(None, map(_csv_delimiter, lines)), ",")
    pattern = _csv_pattern(delimiter)
    for place, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = pattern.fullmatch(line) if len(line) <= _LONGEST_LINE else None
        torn = place == len(lines)  # no line break: a name at the end may be cut
        counter = _csv_counter(match) if match and not (torn and match["name"]) else None
        if counter is None:
            reading.unreadable += 1
        else:
            reading.counters.append(counter)


def _csv_counter(match: re.Match[str]) -> Counter | None:
    place: dict[str, Any] = {"scope": match["scope"], "offset_ns": _offset(match["time"])}
    if match["name"]:
        value = _number(match["metric"])
        return None if value is None else Counter(match["name"], value, METRIC_UNIT, "ok", **place)
    runtime, share = _number(match["runtime"]), _number(match["share"])
    event, group = _event_and_group(match["event"])
    place["scope"] = place["scope"] or group
    return _counter(event, match["value"], match["unit"], runtime, share, place)


def _event_and_group(named: str) -> tuple[str, str | None]:
    """An event, and the control group that `--for-each-cgroup` puts behind it.

    The commas of an event itself stand between the two slashes of its unit's name.
    """
    for place, sign in enumerate(named):
        if sign in ",;" and named[:place].count("/") in (0, 2):
            return named[:place], named[place + 1 :] or None
    return named, None


def _read_people(lines: list[str], reading: StatReading) -> None:
    """The form for people; its last line counts only if it is whole."""
    torn = lines[-1]
    reading.unreadable += bool(torn.strip())
    elapsed: int | None = None
    for line in _below_titles(lines[:-1]):
        found = _ELAPSED.match(line)
        if found:
            elapsed = _offset(found[1].replace(",", "."))
        if not line.strip() or line.startswith("#") or found or _USER_SYS.match(line):
            continue
        if len(line) <= _LONGEST_LINE and _MORE.fullmatch(line):
            if reading.counters and (share := _share_of(line)) is not None:
                reading.counters[-1] = _ran_for(reading.counters[-1], share)
            continue
        match = _PEOPLE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
        counter = _people_counter(match) if match else None
        if counter is None:
            reading.unreadable += 1
        else:
            reading.counters.append(counter)
    reading.counters = [_whole_run(counter, elapsed) for counter in reading.counters]


def _below_titles(lines: list[str]) -> Iterator[str]:
    """Lines without the titles, which go on as long as the command that they quote does."""
    title_ends = -1
    for place, line in enumerate(lines):
        if _TITLE.match(line) and place > title_ends:
            title_ends = _end_of_title(lines, place)
        if place > title_ends:
            yield line


def _end_of_title(lines: list[str], start: int) -> int:
    last = min(start + _LONGEST_TITLE, len(lines)) - 1
    if lines[start].count("'") % 2 == 0:
        return start
    ahead = range(start, last + 1)
    return next((n for n in ahead if lines[n].rstrip().endswith(("':", "runs):"))), last)


def _people_counter(match: re.Match[str]) -> Counter | None:
    share = _share_of(match["rest"])
    time, unit = match["time"], match["unit"] or _unit_of(match["event"])
    place = {
        "scope": match["scope"],
        "offset_ns": _offset(time.replace(",", ".") if time else None),
    }
    value = match["value"]
    if value not in _ABSENT:
        value = _plain_number(value, whole=unit == "count")
    running = 100.0 if share is None else share
    return _counter(match["event"], value, unit, None, running, place)


def _unit_of(event: str) -> str:
    """The unit where perf names none: before 4.19 its clocks went without."""
    return "msec" if _CLOCK.fullmatch(event) else "count"


def _share_of(text: str) -> float | None:
    found = _SHARE.search(text)
    return _number(found[1].replace(",", ".")) if found else None


def _ran_for(counter: Counter, percent: float) -> Counter:
    """A counter that ran for a share of the time only."""
    if counter.state != "ok" or not 0 < percent < 100:
        return counter
    return replace(counter, running_share=percent / 100, state="estimated")


def _plain_number(text: str, whole: bool) -> str:
    """A number without thousands separators; counts are whole, whatever separates their digits."""
    digits = re.sub(r"['\u00a0\u202f]", "", text)
    if whole:
        return re.sub(r"[.,]", "", digits)
    head, _, tail = digits.replace(",", ".").rpartition(".")
    return f"{head.replace('.', '')}.{tail}" if head else tail


def _whole_run(counter: Counter, elapsed_ns: int | None) -> Counter:
    if counter.offset_ns is not None or elapsed_ns is None:
        return counter
    return replace(counter, interval_ns=elapsed_ns)


def _counter(
    event: str,
    text: str,
    unit: Any,
    runtime: float | None,
    percent: float | None,
    place: Mapping[str, Any],
) -> Counter | None:
    """A counter with its state; None if the text is neither a number nor a known absence."""
    named = unit if isinstance(unit, str) and unit else _unit_of(event)
    state = _ABSENT.get(text)
    if state is not None:
        return Counter(event, None, named, state, **place)
    value = _number(text)
    if value is None or value < 0:
        return None
    share = None if percent is None or not 0 <= percent <= 100 else percent / 100
    never_ran = share == 0 or (runtime == 0 and value == 0)
    if never_ran or (value == 0 and _KERNEL_ONLY.fullmatch(event)):
        return Counter(event, None, named, NOT_COUNTED, **place)
    state = "estimated" if share is not None and share < 1 else "ok"
    return Counter(event, value, named, state, share, **place)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and "," in value and "." not in value:
        value = value.replace(",", ".", 1)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _offset(value: Any) -> int | None:
    """Seconds to nanoseconds, without float's error where the digits are at hand."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}\.\d{9}", value.strip()):
        return int(value.strip().replace(".", ""))
    seconds = _number(value)
    return round(seconds * 1e9) if seconds is not None and 0 <= seconds < 1e9 else None


def _with_intervals(counters: list[Counter]) -> list[Counter]:
    """Give each count the length of its interval: from the end of the one before it."""
    ends = sorted({counter.offset_ns for counter in counters if counter.offset_ns is not None})
    before = dict(zip(ends, [0, *ends], strict=False))
    return [
        counter
        if counter.offset_ns is None
        else replace(counter, interval_ns=counter.offset_ns - before[counter.offset_ns])
        for counter in counters
    ]
