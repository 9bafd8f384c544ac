#!/usr/bin/env bash
# slurm_down.sh [--purge]: end the Slurm that slurm_up.sh started, by its own pid files;
# --purge removes its state, configuration and host names as well.
set -uo pipefail

root=${HARNESS_SLURM_ROOT:-/var/lib/harness-slurm}
mark="# written by slurm_up.sh of harness"

stop() { # PIDFILE COMMAND
    local pid
    pid=$(cat "$1" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]] || return 0
    kill "$pid"
    for _ in {1..100}; do
        [[ -d /proc/$pid ]] || return 0
        sleep 0.1
    done
    kill -9 "$pid"
}

grep -qsF "$mark" /etc/slurm/slurm.conf || exit 0
if [[ -n $(timeout 5 squeue -h 2>/dev/null) ]]; then
    timeout 10 scancel --user="$(id -un)"
    for _ in {1..50}; do
        [[ -n $(timeout 5 squeue -h 2>/dev/null) ]] || break
        sleep 0.2
    done
fi
for node in node1 node2; do
    stop "$root/run/slurmd.$node.pid" slurmd
done
stop "$root/run/slurmctld.pid" slurmctld
stop "$root/run/slurmdbd.pid" slurmdbd
stop "$root/run/mysqld.pid" mariadbd
stop /run/munge/munged.pid munged

if [[ ${1:-} == --purge ]]; then
    rm -rf "$root"
    for name in slurm.conf slurmdbd.conf gres.conf cgroup.conf; do
        grep -qsF "$mark" "/etc/slurm/$name" && rm -f "/etc/slurm/$name"
    done
    hosts=$(grep -vF "$mark" /etc/hosts)
    printf '%s\n' "$hosts" >/etc/hosts # a mount in containers: not to be replaced
fi
exit 0
