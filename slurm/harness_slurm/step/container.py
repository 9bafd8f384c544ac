"""Ranks in an Apptainer image; the harness, samplers and Slurm's commands stay outside."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from harness_schemas.spec.slurm import SlurmSpec

PYTHON = ("python3", "-P")
"""The image's own interpreter; its packages, not the folder it is started in, hold the harness."""
RUNTIMES = ("apptainer", "singularity")


def runtime() -> str | None:
    """The program that runs images here; None: there is none on PATH."""
    return next((name for name in RUNTIMES if shutil.which(name)), None)


def container_prefix(
    slurm: SlurmSpec, device: str, folders: Iterable[Path], program: str = RUNTIMES[0]
) -> tuple[str, ...]:
    """Words before a rank's `python3 ...`; empty where the ranks run outside. Pure.

    `folders` appear inside under their own names, as do the specification's `binds`. `--nv`
    brings the host's NVIDIA driver in.
    """
    if slurm.container is None:
        return ()
    binds = dict.fromkeys([*(str(folder) for folder in outermost(folders)), *slurm.binds])
    image = str(Path(slurm.container).expanduser())
    nvidia = ("--nv",) if device == "cuda" else ()
    return (program, "exec", *nvidia, "--bind", ",".join(binds), image)


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Those that do not lie in another of them, each once. Pure."""
    given = list(dict.fromkeys(folders))
    return [one for one in given if not any(other in one.parents for other in given)]


def model_folders(folder: Path) -> list[Path]:
    """A model's folder and those into which its files are links, as in a Hugging Face cache."""
    try:
        targets = [path.resolve().parent for path in folder.iterdir() if path.is_symlink()]
    except OSError:
        targets = []
    return list(dict.fromkeys([folder, *targets]))
