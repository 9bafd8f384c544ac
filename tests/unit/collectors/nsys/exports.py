"""Exports of our own making, in the schemas that nsys has written, and their rows."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

from harness_collectors.nsys import COLLECTOR
from harness_schemas.spi import IngestContext

EPOCH = 1_790_857_026_000_000_000
GEMM = "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT"
ALLREDUCE = (
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<(unsigned long)4096>)"
)
SENDRECV = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<(unsigned long)4096>)"
SECRET = "hf_plantedsecret1234567890"
MARK, PUSH_POP, START_END, DOMAIN = 34, 59, 60, 75

KERNEL = (
    "start end deviceId contextId streamId correlationId globalPid demangledName shortName "
    "mangledName gridX graphNodeId"
)
MEMCPY = (
    "start end deviceId contextId streamId correlationId globalPid bytes copyKind srcKind dstKind "
    "graphNodeId"
)
MEMSET = "start end deviceId contextId streamId correlationId globalPid value bytes graphNodeId"
GRAPH = "start end deviceId contextId streamId correlationId globalPid graphId graphExecId"
CALL = "start end eventClass globalTid correlationId nameId returnValue"
NVTX = "start end eventType category #text globalTid endGlobalTid textId domainId"
OLD = {
    "StringIds": "id! #value",
    "EXPORT_META_DATA": "#name #value",
    "META_DATA_CAPTURE": "#name #value",
    "TARGET_INFO_SYSTEM_ENV": "globalVid #devStateName #name nameEnum #value",
    "TARGET_INFO_SESSION_START_TIME": "utcEpochNs #utcTime #localTime",
    "TARGET_INFO_GPU": "vmId id #name #busLocation #uuid cuDevice",
    "ANALYSIS_DETAILS": "globalVid duration startTime stopTime",
    "PROCESSES": "globalPid pid #name",
    "CUPTI_ACTIVITY_KIND_KERNEL": KERNEL,
    "CUPTI_ACTIVITY_KIND_MEMCPY": MEMCPY,
    "CUPTI_ACTIVITY_KIND_MEMSET": MEMSET,
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": GRAPH,
    "CUPTI_ACTIVITY_KIND_RUNTIME": CALL,
    "NVTX_EVENTS": NVTX,
    "OSRT_API": "start end eventClass globalTid nameId returnValue nestingLevel",
    "PROFILER_OVERHEAD": "start end globalTid nameId",
    "DIAGNOSTIC_EVENT": "timestamp severity #text",
}
MIDDLE = {
    **{name: columns for name, columns in OLD.items() if name != "EXPORT_META_DATA"},
    "META_DATA_EXPORT": "#name #value",
    "ENUM_NSYS_EVENT_TYPE": "id! #name #label",
    "ENUM_CUDA_MEMCPY_OPER": "id! #name #label",
    "ENUM_CUDA_MEM_KIND": "id! #name #label",
    "ENUM_DIAGNOSTIC_SEVERITY_LEVEL": "id! #name #label",
    "TARGET_INFO_CUDA_DEVICE": "gpuId cudaId pid #uuid numMultiprocessors",
}
NEW = {
    **MIDDLE,
    "TARGET_INFO_SESSION_START_TIME": "utcEpochNs #utcTime #localTime systemClockNs",
    "CUPTI_ACTIVITY_KIND_KERNEL": f"{KERNEL} graphId greenContextId",
    "NVTX_EVENTS": f"{NVTX} #binaryData",
    "NVTX_PAYLOAD_SCHEMA_ENTRIES": "domainId schemaId idx type #name offset",
}
SCHEMAS = {"2.9.1": OLD, "3.7.2": MIDDLE, "3.25.0": NEW}
ENUMS = {
    "ENUM_NSYS_EVENT_TYPE": [
        (MARK, "NvtxMark"), (PUSH_POP, "NvtxPushPopRange"), (START_END, "NvtxStartEndRange"),
        (DOMAIN, "NvtxDomainCreate"),
    ],
    "ENUM_CUDA_MEMCPY_OPER": [(1, "Host-to-Device"), (2, "Device-to-Host"), (3, "Host-to-Array")],
    "ENUM_CUDA_MEM_KIND": [(0, "Pageable"), (1, "Pinned"), (2, "Device")],
    "ENUM_DIAGNOSTIC_SEVERITY_LEVEL": [(1, "Information"), (2, "Warning"), (3, "Error")],
}  # fmt: skip
COMM, SIZE, PEER = (1, 18, "NCCL communicator ID", None), 8, 16
PAYLOADS = {
    "init": (101, [COMM, (2, 5, "No. of ranks", 8), (3, 5, "Rank", 12)], "<QII"),
    "collective": (102, [COMM, (2, 22, "Message size [bytes]", 8)], "<QQ"),
    "pair": (103, [COMM, (2, 22, "Message size [bytes]", 8), (3, 5, "Peer rank", 16)], "<QQI"),
}

VERSIONS = ("2.9.1", "3.7.2", "3.25.0")
RUN = {"run_id": "r"}


def payload(kind, *values):
    """A blob as nsys exports it: 32 bytes, then the fields."""
    schema, _, layout = PAYLOADS[kind]
    fields = struct.pack(layout, *values)
    fields += bytes(-len(fields) % 8)
    return struct.pack("<QQQQ", 1, schema, len(fields), 32 + len(fields)) + fields


class Report:
    """Rows to be written; times in microseconds after the session's start."""

    def __init__(self, version="3.25.0", epoch=EPOCH):
        self.schema = SCHEMAS[version]
        self.rows = {}
        self.ids = {}
        self.meta("EXPORT_SCHEMA_VERSION", version)
        if epoch is not None:
            self.add("TARGET_INFO_SESSION_START_TIME", utcEpochNs=epoch)
        for table, entries in ENUMS.items():
            for key, label in entries if table in self.schema else ():
                self.add(table, id=key, name=label, label=label)
        if version == "3.25.0":
            for schema, fields, _ in PAYLOADS.values():
                for idx, kind, name, offset in fields:
                    self.add(
                        "NVTX_PAYLOAD_SCHEMA_ENTRIES", domainId=1, schemaId=schema, idx=idx - 1,
                        type=kind, name=name, offset=offset,
                    )  # fmt: skip

    def add(self, table, **values):
        self.rows.setdefault(table, []).append(values)

    def meta(self, name, value):
        table = "META_DATA_EXPORT" if "META_DATA_EXPORT" in self.schema else "EXPORT_META_DATA"
        self.add(table, name=name, value=value)

    def text(self, text):
        """The id of a text."""
        if text not in self.ids:
            self.ids[text] = len(self.ids) + 1
            self.add("StringIds", id=self.ids[text], value=text)
        return self.ids[text]

    def process(self, pid):
        return Process(self, pid)

    def write(self, path, without=()):
        """Write the tables that have rows, as nsys does; `without` some of them."""
        Path(path).unlink(missing_ok=True)
        with sqlite3.connect(path) as con:
            con.execute("PRAGMA page_size = 512")
            for table, columns in self.schema.items():
                if table in self.rows and table not in without:
                    con.execute(f"CREATE TABLE {table} ({declared(columns)})")
                    for row in self.rows[table]:
                        names = ", ".join(f'"{name}"' for name in row)
                        marks = ", ".join("?" * len(row))
                        con.execute(
                            f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values())
                        )
        con.close()
        return path


def declared(columns):
    """Columns as SQL: `#` before a text, `!` after a primary key."""
    parts = []
    for name in columns.split():
        kind = "TEXT" if name.startswith("#") else "INTEGER"
        key = " NOT NULL PRIMARY KEY" if name.endswith("!") else ""
        parts.append(f'"{name.strip("#!")}" {kind}{key}, -- what it means\n')
    return "".join(parts)[: -len(", -- what it means\n")]


class Process:
    """Writes rows of one process."""

    def __init__(self, report, pid):
        self.report = report
        self.gid = 1 << 48 | pid << 24
        self.tid = self.gid | pid
        report.add("PROCESSES", globalPid=self.gid, pid=pid, name="python3")

    def range(self, name, start, length, thread=None, kind=PUSH_POP, registered=False, **more):
        text = {"textId": self.report.text(name)} if registered else {"text": name}
        end = None if length is None else round((start + length) * 1000)
        self.report.add(
            "NVTX_EVENTS", start=round(start * 1000), end=end, eventType=kind, domainId=0,
            globalTid=self.gid | thread if thread else self.tid, **text, **more,
        )  # fmt: skip

    def call(self, correlation, at, length=4, name="cudaLaunchKernel_v7000", thread=None):
        self.report.add(
            "CUPTI_ACTIVITY_KIND_RUNTIME", start=round(at * 1000),
            end=round((at + length) * 1000), eventClass=0, correlationId=correlation,
            globalTid=self.gid | thread if thread else self.tid, returnValue=0,
            nameId=self.report.text(name),
        )  # fmt: skip

    def _work(self, table, correlation, start, length, device, stream=7, **more):
        self.report.add(
            table, start=round(start * 1000), end=round((start + length) * 1000),
            deviceId=device, contextId=1, streamId=stream, correlationId=correlation,
            globalPid=self.gid, **more,
        )  # fmt: skip

    def kernel(self, correlation, start, length, name=GEMM, device=0, stream=7, **more):
        text = self.report.text(name)
        self._work(
            "CUPTI_ACTIVITY_KIND_KERNEL", correlation, start, length, device, stream,
            demangledName=text, shortName=text, gridX=24, **more,
        )  # fmt: skip

    def launched(self, correlation, at, start, length, name=GEMM, device=0, **more):
        """A call and the kernel that it launched."""
        self.call(correlation, at)
        self.kernel(correlation, start, length, name, device, **more)

    def copy(self, correlation, at, start, length, num_bytes=64, device=0, kind=2):
        self.call(correlation, at, name="cudaMemcpyAsync_v3020")
        ends = {"srcKind": 2, "dstKind": 1}
        self._work(
            "CUPTI_ACTIVITY_KIND_MEMCPY", correlation, start, length, device, bytes=num_bytes,
            copyKind=kind, **ends,
        )  # fmt: skip

    def graph(self, correlation, at, start, length, device=0):
        """A CUDA graph recorded as a whole."""
        self.call(correlation, at, name="cudaGraphLaunch_v10000")
        self._work(
            "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", correlation, start, length, device, graphId=5,
            graphExecId=6,
        )  # fmt: skip


def decode(version="3.25.0", payloads=True):
    """Two processes, two decode steps each; correlation ids are the same in both."""
    report = Report(version)
    blobs = payloads and version == "3.25.0"

    def nccl(kind, *values):
        return {"binaryData": payload(kind, *values)} if blobs else {}

    for rank, pid in enumerate((700, 701)):
        process = report.process(pid)
        late = 5 * rank
        process.range(
            "ncclCommInitRankConfig", 10, 20, registered=True, **nccl("init", 77, 2, rank)
        )
        process.range("decode_step_1", 100, 50)
        process.range("aten::mm, op_id = 41", 105, 12)
        process.range("aten::empty, op_id = 42", 106, 2)
        process.launched(11, 110, 130.125, 20.5, device=rank)
        process.range("ncclAllReduce", 118, 8, registered=True, **nccl("collective", 77, 4096))
        process.launched(12, 120, 155 + late, 30.25 - late, ALLREDUCE, rank, stream=13)
        process.copy(13, 155, 190, 3.5, device=rank)
        process.range("decode_step_2", 160, 50, registered=True)
        process.launched(14, 170, 200, 20.5, device=rank)
        process.range("ncclAllReduce", 178, 8, registered=True, **nccl("collective", 77, 4096))
        process.launched(15, 180, 225 + late, 30.25 - late, ALLREDUCE, rank, stream=13)
        process.kernel(999, 300, 5, device=rank)  # its launch is not on record
    report.add("TARGET_INFO_SYSTEM_ENV", name="Hostname", value="node-a", globalVid=1)
    report.add("TARGET_INFO_SYSTEM_ENV", name="DeviceEnvironment", value=f"T={SECRET}")
    report.add("META_DATA_CAPTURE", name="CAPTURE_EVENT_TYPE", value="Cuda")
    report.add(
        "META_DATA_CAPTURE", name="PROCESS_0:ENVIRONMENT_VARIABLE", value=f"HF_TOKEN={SECRET}"
    )
    report.text(f"output of the program: {SECRET}")
    for device in (0, 1):
        report.add(
            "TARGET_INFO_GPU", id=device + 4, cuDevice=device, name="NVIDIA H100", vmId=0,
            busLocation=f"0000:0{device}:00.0", uuid=f"GPU-{device}",
        )  # fmt: skip
    return report


def tables(paths, root, run=None):
    """Rows of every table, as dictionaries."""
    found = {}
    for batch in COLLECTOR.ingest(list(paths), IngestContext(Path(root), run or {})):
        found.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return found


def rows(tmp_path, report, name="report.sqlite", run=None, without=()):
    """Rows of one report."""
    return tables([report.write(tmp_path / name, without)], tmp_path, run)


def device_spans(found):
    return [row for row in found.get("spans", []) if row["timeline"] == "device"]


def units(found):
    return [row for row in found.get("spans", []) if row["category"] == "unit"]


def state(found):
    (row,) = found["collection"]
    return row["state"], row["reason"]


def of_rank(found, rank, table="spans"):
    return [row for row in found[table] if row["rank"] == rank]


def named(found, name):
    return [row for row in found["spans"] if row["name"] == name]


def us(microseconds):
    return EPOCH + round(microseconds * 1000)
