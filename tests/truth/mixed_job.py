"""One job of two ranks, as five tools would have recorded it: files whose answers are known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from unit.collectors.kineto.traces import ALLREDUCE, BASE, collective, groups, launched, mark, text
from unit.collectors.nsys.exports import Report

GEMM = "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT"
SIZES = (6400, 6400, 65536)
CHOICES = {6400: ("RING", "LL", 1), 65536: ("TREE", "SIMPLE", 24)}
STEPS = 4
STEP_US, CALL_US = 1000.0, 200.0
TRANSFER_US = 20.0


@dataclass(frozen=True)
class Job:
    """`comm_id` and `begin_us` (after the traces' base) make one job another."""

    comm_id: int = 0xC0FFEE
    begin_us: float = 100.0
    host: str = "node-a"
    pids: tuple[int, int] = (700, 701)
    late_us: tuple[float, float] = (0.0, 30.0)
    """By how much each rank's kernel starts behind the first one's."""
    step_us: float = STEP_US

    def calls(self):
        """(ordinal, step, size, when it is issued), in order; microseconds after the base."""
        for step in range(STEPS):
            for place, size in enumerate(SIZES):
                at = self.begin_us + step * self.step_us + (place + 1) * CALL_US
                yield step * len(SIZES) + place, step, size, at

    def interval(self, rank: int, at: float) -> tuple[float, float]:
        """Start and duration of a call's kernel: both ranks end together."""
        late = self.late_us[rank]
        return at + 40 + late, max(self.late_us) + TRANSFER_US - late

    def kineto(self, folder: Path, rank: int) -> Path:
        events = []
        for step in range(STEPS):
            at = self.begin_us + step * self.step_us
            events += [mark(f"decode_step_{step + 1}", at, 800.0)]
            events += launched(1000 + step, at + 10, at + 30, 100.0, GEMM)
        for ordinal, _, size, at in self.calls():
            start, length = self.interval(rank, at)
            more = collective(elements=size // 2)
            events += launched(ordinal + 1, at, start, length, ALLREDUCE, stream=13, **more)
        for event in events:
            event["pid"] = self.pids[rank] if event["pid"] else 0
        path = folder / f"trace_rank{rank}.json"
        path.write_text(text(events, groups((0, 1), rank=rank)))
        return path

    def nccl_log(self, folder: Path, rank: int) -> Path:
        who = f"{self.host}:{self.pids[rank]}:{self.pids[rank]} [{rank}] NCCL INFO "
        comm = f"0x55d{rank}"
        init = f"comm {comm} rank {rank} nranks 2 cudaDev {rank} nvmlDev {rank} busId 1000"
        lines = [
            (self.begin_us - 90, "NCCL version 2.28.9+cuda13.0"),
            (
                self.begin_us - 80,
                f"ncclCommInitRank {init} commId {self.comm_id:#x} - Init COMPLETE",
            ),
            (self.begin_us - 70, f"Channel 00/0 : {rank}[{rank}] -> {1 - rank}[0] via P2P/CUMEM"),
        ]
        for _, _, size, at in self.calls():
            call = f"AllReduce: opCount 0 sendbuff 0x1 recvbuff 0x2 count {size // 2} datatype 9"
            lines.append((at - 12, f"{call} op 0 root 0 comm {comm} [nranks=2] stream 0x7"))
            if rank == 0:
                algo, proto, channels = CHOICES[size]
                choice = f"Algo {algo} proto {proto} channel{{Lo..Hi}}={{0..{channels - 1}}}"
                lines.append((at - 11, f"AllReduce: {size} Bytes -> {choice}"))
        path = folder / f"nccl.{self.host}.{self.pids[rank]}.log"
        path.write_text("".join(f"[{self._wall(at)}] {who}{said}\n" for at, said in lines))
        return path

    def _wall(self, at: float) -> str:
        micros = BASE // 1000 + int(at)
        return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"

    def inspector(self, folder: Path, rank: int) -> Path:
        lines = []
        for ordinal, _, size, at in self.calls():
            start, length = self.interval(rank, at)
            stop = BASE // 1000 + int(start + length) + 2
            algo, proto, _ = CHOICES[size]
            perf = {
                **{"coll": "AllReduce", "coll_sn": ordinal, "coll_msg_size_bytes": size},
                **{"coll_exec_time_us": int(length), "coll_timing_source": "kernel_gpu"},
                **{"coll_algobw_gbs": size / length / 1e3, "coll_algo": algo, "coll_proto": proto},
                "event_trace_ts": {"kernel_events": [{"kernel_stop_ts": stop}]},
            }
            header = {"id": f"{self.comm_id:#x}", "rank": rank, "n_ranks": 2, "nnodes": 1}
            metadata = {"hostname": self.host, "pid": self.pids[rank]}
            lines.append({"header": header, "metadata": metadata, "coll_perf": perf})
        path = folder / f"{self.host}-pid{self.pids[rank]}.log"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def flight_recorder(self, folder: Path, rank: int) -> Path:
        entries = [
            {
                **{"record_id": ordinal, "pg_id": 0, "process_group": ["0", "default_pg"]},
                **{"collective_seq_id": ordinal + 1, "p2p_seq_id": 0, "op_id": ordinal + 1},
                **{"profiling_name": "nccl:all_reduce", "is_p2p": False, "state": "completed"},
                "time_created_ns": BASE + round((at - 20) * 1000),
                **{"input_sizes": [[size // 2]], "input_dtypes": ["BFloat16"]},
                **{"output_sizes": [[size // 2]], "output_dtypes": ["BFloat16"]},
                **{"retired": True, "timeout_ms": 600_000, "frames": []},
            }
            for ordinal, _, size, at in self.calls()
        ]
        config = {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}}
        path = folder / f"fr_rank_{rank}.json"
        path.write_text(json.dumps({"version": "2.10", "pg_config": config, "entries": entries}))
        return path

    def nsys(self, folder: Path) -> Path:
        report = Report("3.25.0", epoch=BASE)
        for rank, pid in enumerate(self.pids):
            process = report.process(pid)
            for step in range(STEPS):
                at = self.begin_us + step * self.step_us
                process.range(f"decode_step_{step + 1}", at, 800.0)
                process.launched(1000 + step, at + 10, at + 30, 100.0, GEMM, rank)
            for ordinal, _, size, at in self.calls():
                start, length = self.interval(rank, at)
                process.range("ncclAllReduce", at - 2, 8, **self._payload(size, rank))
                process.launched(ordinal + 1, at, start, length, ALLREDUCE, rank, stream=13)
        return report.write(folder / "report.sqlite")

    def _payload(self, size: int, rank: int) -> dict[str, bytes]:
        from unit.collectors.nsys.exports import payload

        return {"binaryData": payload("collective", self.comm_id, size)}
