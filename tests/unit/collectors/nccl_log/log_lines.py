"""Lines that NCCL logs, as tests put them together."""

from __future__ import annotations

P = "node:70:71 [0] NCCL INFO "
INIT = "comm 0xa1 rank 1 nranks 4 cudaDev 1"
CALL = (
    "AllReduce: opCount 0 sendbuff 0x1 recvbuff 0x2 count {count} datatype 7 op 0 root 0 "
    "comm {comm} [nranks={nranks}] stream 0x3"
)
