"""Slurm jobs: submit one, follow it, work inside it, and answer when it has ended."""
