"""Checks of what NCCL will use: interfaces, InfiniBand, locked memory, shared memory."""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.check import Check, missing, ok, warning
from harness.doctor.facts import Facts, Interface
from harness_schemas.units import format_bytes

MIN_SHM_BYTES = 1 << 30
MIN_LOCKED_BYTES = 1 << 30
_VIRTUAL = ("docker", "virbr", "veth", "br-", "cni", "flannel", "tun", "podman")


def network_checks(facts: Facts) -> Iterator[Check]:
    """Interfaces, InfiniBand, locked and shared memory."""
    yield _interfaces(facts)
    yield _infiniband(facts)
    yield _locked_memory(facts)
    yield _shared_memory(facts)


def _interfaces(facts: Facts) -> Check:
    name = "nccl interfaces"
    usable = [i.name for i in facts.interfaces if i.up and i.kind != "loopback"]
    real = [each for each in usable if not each.startswith(_VIRTUAL)]
    wanted = facts.env.get("NCCL_SOCKET_IFNAME")
    if wanted and facts.interfaces and not any(_chosen(wanted, i) for i in facts.interfaces):
        cost = "'Bootstrap : no socket interface found': NCCL does not start"
        there = ", ".join(usable) or "none but loopback"
        found = f"NCCL_SOCKET_IFNAME={wanted} names none of {there}"
        return warning(name, found, cost, "name one of them, or unset it")
    if not usable:
        cost = "ranks of several hosts cannot meet; on one host loopback serves"
        return warning(name, "loopback only", cost, "bring an interface up, or stay on one host")
    if not wanted and len(real) != len(usable):
        odd = ", ".join(each for each in usable if each not in real)
        cost = "over several hosts NCCL or gloo may choose one that leads nowhere, and hang"
        mend = f"NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME={real[0] if real else '<interface>'}"
        return warning(name, f"{', '.join(usable)} ({odd} is virtual)", cost, f"set {mend}")
    return ok(name, ", ".join(usable))


def _chosen(wanted: str, interface: Interface) -> bool:
    """NCCL's syntax: prefixes, `=` for whole names, `^` for all but these (NCCL's user guide)."""
    refused = wanted.startswith("^")
    rest = wanted.removeprefix("^")
    exact = rest.startswith("=")
    names = [each for each in rest.removeprefix("=").split(",") if each]
    hit = any(
        interface.name == each if exact else interface.name.startswith(each) for each in names
    )
    if refused:
        return interface.up and not hit and interface.kind != "loopback"
    return interface.up and hit


def _infiniband(facts: Facts) -> Check:
    name = "infiniband"
    active = [p for p in facts.hca_ports if p.state == "ACTIVE"]
    listed = ", ".join(f"{p.device}:{p.port} {p.state} ({p.link})" for p in facts.hca_ports)
    cost = "NCCL falls back to sockets: transfers between hosts take several times as long"
    if not facts.hca_ports:
        return ok(name, "no adapter: NCCL uses sockets between hosts")
    if not active:
        return warning(name, listed, cost, "the ports are down: `ibstat`, then the administrators")
    off = _switched_off(facts)
    if off:
        return warning(name, f"{listed}, but {off}", cost, "unset it")
    if facts.verbs_usable is False:
        mend = "bind /dev/infiniband into the container, and check its permissions"
        return warning(name, f"{listed}, /dev/infiniband cannot be opened", cost, mend)
    if facts.libibverbs is False:
        mend = "install libibverbs1 and ibverbs-providers (rdma-core) in the image"
        return warning(name, f"{listed}, libibverbs.so.1 is not to be found", cost, mend)
    return ok(name, listed)


def _switched_off(facts: Facts) -> str:
    if facts.env.get("NCCL_IB_DISABLE", "0") not in ("", "0"):
        return f"NCCL_IB_DISABLE={facts.env['NCCL_IB_DISABLE']}"
    if facts.env.get("NCCL_NET", "").lower() == "socket":
        return "NCCL_NET=Socket"
    return ""


def _locked_memory(facts: Facts) -> Check:
    name, size = "locked memory", facts.locked_bytes
    if size is None:
        return warning(name, "unknown", "not known whether InfiniBand can register memory", "")
    if size < 0 or size >= MIN_LOCKED_BYTES:
        return ok(name, "unlimited" if size < 0 else format_bytes(size))
    found = format_bytes(size)
    if not facts.hca_ports:
        return ok(name, f"{found}; enough without InfiniBand")
    cost = "InfiniBand cannot register memory: NCCL fails or falls back to sockets"
    mend = (
        "`ulimit -l unlimited` before the ranks start; in Slurm PropagateResourceLimitsExcept="
        "MEMLOCK and LimitMEMLOCK=infinity of slurmd; docker --ulimit memlock=-1"
    )
    return warning(name, found, cost, mend)


def _shared_memory(facts: Facts) -> Check:
    name, size = "/dev/shm", facts.shm_bytes
    if size is None:
        return missing(name, "none", "NCCL cannot use shared memory", "mount a tmpfs there")
    if size >= MIN_SHM_BYTES:
        return ok(name, format_bytes(size))
    cost = "NCCL or torch's loaders may fail with 'unhandled system error' or 'Bus error'"
    mend = (
        "docker run --shm-size=8g, or --ipc=host"
        if facts.container in ("docker", "podman")
        else "remount it larger, or bind a larger tmpfs there"
    )
    return warning(name, format_bytes(size), cost, mend)
