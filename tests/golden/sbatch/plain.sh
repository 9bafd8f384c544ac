#!/bin/bash
#SBATCH --job-name=example
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --output=/scratch/runs/20260101-000000-example-1a2b/logs/launcher.out
#SBATCH --error=/scratch/runs/20260101-000000-example-1a2b/logs/launcher.err
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@60
#SBATCH --no-requeue

# Written by harness for the run in /scratch/runs/20260101-000000-example-1a2b

export HARNESS_CACHE_DIR='/home/me/my cache'

exec python3 -P -m harness run --in-job /scratch/runs/20260101-000000-example-1a2b
