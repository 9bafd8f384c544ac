#!/bin/bash
#SBATCH --job-name="an \"odd\" name"
#SBATCH --partition=boost_usr_prod
#SBATCH --account=IscrB_x
#SBATCH --qos=normal
#SBATCH --reservation=maint
#SBATCH --constraint="a100&nvlink"
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --mem=480G
#SBATCH --time=01:30:00
#SBATCH --array=0-3%2
#SBATCH --output=/scratch/runs/20260101-000000-example-1a2b/task-%a/logs/launcher.out
#SBATCH --error=/scratch/runs/20260101-000000-example-1a2b/task-%a/logs/launcher.err
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --exclusive
#SBATCH --comment="two words"

# Written by harness for the run in /scratch/runs/20260101-000000-example-1a2b

module load cuda/12.4
module load nccl

ulimit -c 0
export NCCL_SOCKET_IFNAME=ib0  # the fast one

export HARNESS_CACHE_DIR='/home/me/my cache'

exec python3 -P -m harness run --in-job /scratch/runs/20260101-000000-example-1a2b
