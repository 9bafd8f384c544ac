"""Runs by name: a folder, a database, an id, a Slurm job id, or `latest`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.runs.folders import CATALOGUE, SPLIT_JSON, SWEEP_JSON, list_runs, runs_root
from harness_schemas.errors import UsageError
from harness_schemas.rundir import RunDir
from harness_slurm.job.marks import JobRecord


def find_databases(names: Sequence[str]) -> list[Path]:
    """The database of every named run; names may hold wildcards, a sweep stands for its runs.

    Raises:
        UsageError: a name that matches nothing, or a run that has no database yet.
    """
    found: list[Path] = []
    for name in names:
        if name == "catalogue" and not Path(name).exists():
            found.append(_catalogue())
            continue
        matches = _expand(name) if _wild(name) else []
        if _wild(name) and not matches:
            raise UsageError(f"nothing matches {name!r}")
        for path in matches or [find_run(name)]:
            databases = _databases(path)
            found += databases
            if not databases and not matches:
                raise _no_database(path)
    # A wildcard may meet a run twice, through the link `latest` to its sweep.
    distinct: dict[Path, Path] = {}
    for path in found:
        distinct.setdefault(path.resolve(), path)
    return list(distinct.values())


def _no_database(path: Path) -> UsageError:
    if RunDir(path).run_json.is_file():
        record = JobRecord.read(RunDir(path))
        make = f"make it with `harness ingest {path}`"
        if record is not None:
            job = record.job_id
            make = f"`harness status {job}` says what it does, `harness run --attach {job}` waits"
        return UsageError(f"{path} has no database yet", make)
    held = [run.path for run, _ in list_runs(path)]
    if held:
        every = held[0].with_name("*")
        return UsageError(f"{path} is a folder of runs, not a run", f"name one, or all: '{every}'")
    return UsageError(
        f"{path} is no run's folder", f"if it holds evidence: `harness ingest {path} -o job.duckdb`"
    )


def _catalogue() -> Path:
    from harness.progress import Narrator
    from harness.runs.catalogue import open_catalogue

    return open_catalogue(runs_root(), Narrator())


def _wild(name: str) -> bool:
    return any(character in name for character in "*?[")


def _expand(name: str) -> list[Path]:
    """Folders and databases that match; not the links, which name a run a second time."""
    pattern = Path(name)
    found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    real = (path for path in found if not path.is_symlink())
    kept = (path for path in real if path.is_dir() or path.suffix == ".duckdb")
    return sorted(path for path in kept if path.name != CATALOGUE)


def _databases(path: Path) -> list[Path]:
    """Of a file itself, of a run its own, of a sweep those of its runs."""
    if path.is_file():
        return [path]
    if (path / SWEEP_JSON).is_file() or (path / SPLIT_JSON).is_file():
        return [run.database for run, _ in list_runs(path, deep=False) if run.database.is_file()]
    record = JobRecord.read(RunDir(path))
    if record is not None and record.tasks:
        found = (run.database for run in record.runs(RunDir(path)).values())
        return [database for database in found if database.is_file()]
    database = RunDir(path).database
    return [database] if database.is_file() else []


def find_sweep(name: str) -> Path | None:
    """The folder of the sweep that a name means; None where it means something else."""
    return _folder_with(SWEEP_JSON, name)


def find_split(name: str) -> Path | None:
    """The folder of the split specification that a name means; None where it means something
    else."""
    return _folder_with(SPLIT_JSON, name)


def _folder_with(file: str, name: str) -> Path | None:
    if _wild(name):
        return None
    try:
        path = find_run(name)
    except UsageError:
        return None
    return path if (path / file).is_file() else None


def find_run(name: str, root: Path | None = None) -> Path:
    """A run's or a sweep's folder, or a database file; `root`: where ids are looked for.

    Raises:
        UsageError: no such run, or the name is ambiguous.
    """
    path = Path(name)
    if path.exists():
        return path.resolve() if path.is_symlink() else path
    root = root or runs_root()
    direct = root / name
    if direct.exists():
        return direct.resolve()
    listed = list(list_runs(root))
    jobs = [run for run, data in listed if str(data.get("job_id") or "") == name]
    if len(jobs) == 1:
        return jobs[0].path
    matches = jobs or [run for run, _ in listed if run.run_id.endswith(name)]
    for group in (SWEEP_JSON, SPLIT_JSON):
        matches += [RunDir(path.parent) for path in root.glob(f"*{name}/{group}")]
    if len(matches) == 1:
        return matches[0].path
    if matches:
        names = ", ".join(run.run_id for run in matches[:5])
        raise UsageError(f"{name!r} names {len(matches)} runs: {names}", "give more of the id")
    if not listed:
        raise UsageError(
            f"no run {name!r}: there is no such path, and no run in {root} yet",
            "start one with `harness run`, or name a folder or a database",
        )
    raise UsageError(
        f"no run {name!r}: neither a path nor a run in {root}", "`harness list` shows the runs"
    )
