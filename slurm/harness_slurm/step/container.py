"""Ranks in an Apptainer image; the harness, samplers and Slurm's commands stay outside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness_schemas.spec_slurm import SlurmSpec

PYTHON = "python3"
"""The image's own interpreter; its packages hold the harness."""


def container_prefix(slurm: SlurmSpec, device: str, folders: Iterable[Path]) -> tuple[str, ...]:
    """Words before a rank's `python3 ...`; empty where the ranks run outside. Pure.

    `folders` appear inside under their own names, as do the specification's `binds`. `--nv`
    brings the host's NVIDIA driver in.
    """
    if slurm.container is None:
        return ()
    binds = dict.fromkeys([*(str(folder) for folder in folders), *slurm.binds])
    image = str(Path(slurm.container).expanduser())
    nvidia = ("--nv",) if device == "cuda" else ()
    return ("apptainer", "exec", *nvidia, "--bind", ",".join(binds), image)
