"""Which reports a set of files holds, and how each is opened.

One report may lie there several times: as `x.nsys-rep`, `x.sqlite` and folders of its tables.
The form that is read quickest is taken. A `.nsys-rep` is exported first, by nsys itself.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness_collectors.names.rank_names import rank_in_name
from harness_collectors.nsys.command import find_nsys, offers
from harness_collectors.nsys.export.pages import MAGIC
from harness_collectors.nsys.export.tables import Export, ExportError, FolderExport, open_sqlite
from harness_collectors.reading.text_evidence import host_of
from harness_schemas.redact import redact

NAME: Final = "nsys"
REPORT_MAGIC: Final = b"NVIDIA Tegra Profiler Report"
REPORT_SUFFIXES: Final = (".nsys-rep", ".qdrep")
TABLE_SUFFIXES: Final = (".parquet", ".arrow")
ARROW_MAGIC: Final = (b"\xff\xff\xff\xff", b"ARROW1")
"""Of a stream, as nsys writes it, and of a file, as others rewrite it."""
EXPORT_SECONDS: Final = 1800
NOT_FOUND: Final = (b"nsys is not found on ", b"nsys does not start on ")
"""What a rank's wrapper leaves on a node where nsys cannot be had."""
_FORMS: Final = ("folder", "sqlite", "report", "missing")
"""Best first."""
_TABLES = re.compile(
    r"(?:StringIds|NVTX_\w+|CUPTI_\w+|CUDA_\w+|OSRT_\w+|TARGET_INFO_\w+|META_DATA_\w+|ENUM_\w+"
    r"|ANALYSIS_\w+|EXPORT_META_DATA|PROCESSES|ProcessStreams|ThreadNames|PROFILER_OVERHEAD"
    r"|DIAGNOSTIC_EVENT|SCHED_EVENTS|COMPOSITE_EVENTS|SAMPLING_\w+|GENERIC_\w+|GPU_\w+|NIC_\w+"
    r"|[A-Z0-9]+_[A-Z0-9_]+)"
)
"""Names of tables that nsys exports: those of folders of files."""
_SQL_TABLES: Final = (b"StringIds", b"ANALYSIS_DETAILS", b"TARGET_INFO_", b"NVTX_EVENTS")


@dataclass(frozen=True)
class Source:
    """One report: its form, the file or the files of its folder, and what names and place say.

    `host`: of a report in a run folder's `artifacts/nsys/<host>/`; `size`: bytes as stored.
    """

    name: str
    form: str
    files: tuple[Path, ...]
    rank: int | None
    host: str | None
    size: int


def recognise(path: Path, head: bytes) -> bool:
    """A report, an SQLite file with its tables, or a table's file in an exported folder."""
    if head.startswith((REPORT_MAGIC, *NOT_FOUND)):
        return True
    if head.startswith(MAGIC):
        return any(name in head for name in _SQL_TABLES) or _lists_tables(path)
    if head.startswith(b"PAR1"):
        return path.suffix == ".parquet" and _is_table(path)
    return path.suffix == ".arrow" and head.startswith(ARROW_MAGIC) and _is_table(path)


def _lists_tables(path: Path) -> bool:
    """Whether an SQLite file whose beginning names no table of nsys's has some: where tables were
    made as they were needed, the list of them lies anywhere."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as con:
            names = {
                str(name).encode() for (name,) in con.execute("SELECT name FROM sqlite_master")
            }
    except (sqlite3.Error, UnicodeError):
        return False
    return any(name.startswith(_SQL_TABLES) for name in names)


def _is_table(path: Path) -> bool:
    return _TABLES.fullmatch(path.stem) is not None


def find_sources(files: Sequence[Path], root: Path) -> list[Source]:
    """The reports among files, by name; each in its best form."""
    groups: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for path in sorted(set(files)):
        key, form = _identity(path)
        groups.setdefault(key, {}).setdefault(form, []).append(path)
    found = []
    for key in sorted(groups):
        form = next(form for form in _FORMS if form in groups[key])
        paths = tuple(groups[key][form])
        whole = paths[0].parent if form == "folder" else paths[0]
        inside = whole != root and whole.is_relative_to(root)
        name = str(whole.relative_to(root)) if inside else whole.name
        size = sum(path.stat().st_size for path in paths)
        found.append(Source(name, form, paths, rank_in_name(whole), host_of(paths[0], NAME), size))
    return found


def _identity(path: Path) -> tuple[tuple[Path, str], str]:
    """What names the report that a file belongs to, and the file's form."""
    if path.suffix in TABLE_SUFFIXES:
        folder = path.parent
        return (folder.parent, re.sub(r"_(?:pqtdir|arwdir)$", "", folder.name)), "folder"
    name = path.name.removesuffix(".gz")
    for suffix in (*REPORT_SUFFIXES, ".sqlite"):
        name = name.removesuffix(suffix)
    with path.open("rb") as stream:
        head = stream.read(len(REPORT_MAGIC))
    form = "report" if head == REPORT_MAGIC else "sqlite"
    return (path.parent, name), "missing" if head.startswith(NOT_FOUND) else form


@contextlib.contextmanager
def open_source(source: Source) -> Iterator[Export]:
    """The tables of a report that is exported already.

    Raises:
        ExportError: nothing in it can be read.
    """
    try:
        if source.form == "folder":
            yield FolderExport(source.files)
            return
        with open_sqlite(source.files[0]) as export:
            yield export
    except OSError as error:
        raise ExportError(error.strerror or str(error)) from None


def exported(source: Source, folder: Path) -> Source:
    """The source with a report in nsys's own format turned into SQLite in `folder`.

    Raises:
        ExportError: nsys is not here, or cannot read it.
    """
    if source.form != "report":
        return source
    path = source.files[0]
    nsys = find_nsys()
    if nsys is None:
        raise ExportError(
            "nsys is not on PATH, and only nsys reads its own reports: "
            f"run `nsys export --type sqlite {path.name}` where it is, and ingest the .sqlite"
        )
    target = folder / f"{path.stem}.sqlite"
    argv = [nsys, "export", "--type", "sqlite", "--quiet", "true", "--output", str(target)]
    argv += ["--include-blobs", "true"] if offers(nsys, "export", "--include-blobs") else []
    try:
        done = subprocess.run(
            [*argv, "--force-overwrite", "true", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=EXPORT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"nsys cannot export it: {type(error).__name__}") from None
    if done.returncode or not target.is_file():
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise ExportError(
            redact(f"nsys cannot export it: {said[-1] if said else 'no output'}"[:300])
        )
    return replace(source, form="sqlite", files=(target,))
