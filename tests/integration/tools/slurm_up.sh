#!/usr/bin/env bash
# slurm_up.sh: a real Slurm on this one machine (Debian 12, root): munge, MariaDB, slurmdbd,
# slurmctld and two slurmd. Can be run again at any time: it starts what is not running.
#
# The two nodes are this machine twice: each slurmd lives in a UTS namespace of its own, so that
# `hostname` there says node1 or node2; both share 127.0.0.1 and differ by port (with other
# loopback addresses srun waits for ever: replies come from 127.0.0.1 whatever one dials). Each
# claims 4 CPUs, 4 GiB and 2 GPUs that are copies of /dev/null. Jobs of the partition `urgent`
# preempt those of `debug`. Where the memory hierarchy of cgroup v1 can be written, memory limits
# are the kernel's and OUT_OF_MEMORY is real.
set -euo pipefail
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- # daemons would keep a caller's lock (flock) for ever

root=${HARNESS_SLURM_ROOT:-/var/lib/harness-slurm}
mark="# written by slurm_up.sh of harness"
host=$(hostname -s)
nodes=(node1 node2)

fail() { echo "slurm_up.sh: $*" >&2; exit 1; }
until_true() { # SECONDS WHAT COMMAND...
    local left=$(($1 * 20)) what=$2
    shift 2
    until "$@" &>/dev/null; do
        ((left-- > 0)) || fail "$what does not answer; see $root/log"
        sleep 0.05
    done
}
running() { # PIDFILE COMMAND
    local pid
    pid=$(cat "$1" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]]
}
as() { # USER COMMAND...
    local user=$1
    shift
    (cd / && exec setpriv --reuid "$user" --regid "$user" --init-groups "$@")
}

install_packages() {
    local wanted=(slurmctld slurmd slurmdbd slurm-client munge mariadb-server) missing=() policy=
    for package in "${wanted[@]}"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    # The packages' own daemons are not to start.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
    rm -f ${policy:+"$policy"}
}

make_folders() {
    for name in slurm.conf slurmdbd.conf gres.conf cgroup.conf; do
        [[ ! -e /etc/slurm/$name ]] || grep -qF "$mark" "/etc/slurm/$name" ||
            fail "/etc/slurm/$name is somebody else's: this machine has a Slurm already"
    done
    mkdir -p "$root"/{run,log,state,dev,mysql,spool/node1,spool/node2} /etc/slurm
    chown slurm: "$root/log" "$root/state"
    chown mysql: "$root/mysql"
    chmod 1777 "$root/run"
    for gpu in 0 1; do
        [[ -e $root/dev/gpu$gpu ]] || mknod -m 666 "$root/dev/gpu$gpu" c 1 3
    done
    for name in "$host" "${nodes[@]}"; do
        [[ $(getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }') == 127.* ]] ||
            echo "127.0.0.1 $name $mark" >>/etc/hosts
    done
}

start_munge() {
    munge -n </dev/null 2>/dev/null | unmunge &>/dev/null && return
    install -d -o munge -g munge -m 0755 /run/munge
    install -d -o munge -g munge -m 0700 /etc/munge /var/log/munge /var/lib/munge
    if [[ ! -s /etc/munge/munge.key ]]; then
        head -c 1024 /dev/urandom >/etc/munge/munge.key
        chown munge: /etc/munge/munge.key
        chmod 400 /etc/munge/munge.key
    fi
    as munge munged --force &>>"$root/log/munged.log"
    until_true 10 munged sh -c 'munge -n </dev/null | unmunge'
}

start_database() {
    local options=(--no-defaults --user=mysql --datadir="$root/mysql")
    socket=$root/run/mysqld.sock
    if ! running "$root/run/mysqld.pid" mariadbd; then
        [[ -d $root/mysql/mysql ]] ||
            mariadb-install-db "${options[@]}" --skip-test-db \
                --auth-root-authentication-method=socket &>"$root/log/mysql_install.log"
        setsid mariadbd "${options[@]}" --socket="$socket" --skip-networking \
            --pid-file="$root/run/mysqld.pid" --log-error="$root/log/mysqld.log" \
            --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
            --innodb-lock-wait-timeout=900 </dev/null &>>"$root/log/mysqld.log" &
        until_true 40 mariadbd mariadb --no-defaults -uroot -S "$socket" -e 'select 1'
    fi
    # Nobody but the user slurm of this machine can log in: the socket knows who asks.
    mariadb --no-defaults -uroot -S "$socket" -e "
        create database if not exists slurm_acct_db;
        create user if not exists slurm@localhost identified via unix_socket;
        grant all on slurm_acct_db.* to slurm@localhost"
}

memory_groups_writable() {
    [[ -d /sys/fs/cgroup/memory && -d /sys/fs/cgroup/freezer ]] || return 1
    mkdir /sys/fs/cgroup/memory/harness_probe 2>/dev/null && rmdir /sys/fs/cgroup/memory/harness_probe
}

write_configuration() {
    local limits="ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherParams=OverMemoryKill"
    rm -f /etc/slurm/cgroup.conf
    if memory_groups_writable; then
        limits="ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup"
        printf '%s\n' "$mark" CgroupPlugin=cgroup/v1 ConstrainRAMSpace=yes ConstrainCores=no \
            ConstrainDevices=no >/etc/slurm/cgroup.conf
    fi
    printf '%s\n' "$mark" AutoDetect=off "Name=gpu Type=fake File=$root/dev/gpu[0-1]" \
        >/etc/slurm/gres.conf
    install -m 600 -o slurm -g slurm /dev/stdin /etc/slurm/slurmdbd.conf <<END
$mark
AuthType=auth/munge
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=16919
CommunicationParameters=NoInAddrAny
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
LogFile=$root/log/slurmdbd.log
PidFile=$root/run/slurmdbd.pid
END
    cat >/etc/slurm/slurm.conf <<END
$mark
ClusterName=harness
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16917
SlurmUser=slurm
AuthType=auth/munge
MpiDefault=none
MailProg=/bin/true
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool/%n
SlurmctldPidFile=$root/run/slurmctld.pid
SlurmdPidFile=$root/run/slurmd.%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd.%n.log
SlurmdParameters=config_overrides
$limits
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=512
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
MinJobAge=300
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16919
AccountingStorageTRES=gres/gpu
GresTypes=gpu
NodeName=node1 NodeHostname=node1 NodeAddr=127.0.0.1 Port=16921 CPUs=4 CoresPerSocket=4 RealMemory=4096 Gres=gpu:fake:2
NodeName=node2 NodeHostname=node2 NodeAddr=127.0.0.1 Port=16922 CPUs=4 CoresPerSocket=4 RealMemory=4096 Gres=gpu:fake:2
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 DefaultTime=5 State=UP OverSubscribe=NO
PartitionName=urgent Nodes=ALL MaxTime=60 DefaultTime=5 State=UP OverSubscribe=NO PriorityTier=10
END
}

start_slurm() {
    if ! running "$root/run/slurmdbd.pid" slurmdbd; then
        (cd / && MYSQL_UNIX_PORT=$socket slurmdbd)
        until_true 30 slurmdbd sacctmgr -n show cluster
    fi
    if [[ -z $(sacctmgr -nP show cluster harness format=cluster) ]]; then
        sacctmgr -iQ add cluster harness
        sacctmgr -iQ add account inference Description=inference Organization=harness
        sacctmgr -iQ add user root Account=inference
    fi >/dev/null
    if ! running "$root/run/slurmctld.pid" slurmctld; then
        (cd / && slurmctld)
        until_true 30 slurmctld scontrol ping
    fi
    for node in "${nodes[@]}"; do
        running "$root/run/slurmd.$node.pid" slurmd ||
            (cd / && unshare --uts sh -c 'hostname "$0" && exec slurmd -N "$0"' "$node")
    done
    until_true 30 "a node" all_nodes_up
}
all_nodes_up() {
    [[ $(sinfo -hN -p debug -o %T | grep -cxE 'idle|mixed|allocated') == "${#nodes[@]}" ]]
}

((EUID == 0)) || fail "needs root"
install_packages
make_folders
start_munge
start_database
running "$root/run/slurmctld.pid" slurmctld || write_configuration
start_slurm
