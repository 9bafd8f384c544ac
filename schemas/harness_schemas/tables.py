"""The tables of a run's database, declared once: DDL, Arrow schemas and documentation follow.

Types are DuckDB's. Every time is an integer number of nanoseconds since the Unix epoch on the
run's aligned axis unless its name says `raw`. NULL is "unknown"; zero is a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 1

BIGINT, INTEGER, DOUBLE, VARCHAR, BOOLEAN = "BIGINT", "INTEGER", "DOUBLE", "VARCHAR", "BOOLEAN"


@dataclass(frozen=True)
class Column:
    """A column: its DuckDB type and what it means (with its unit)."""

    name: str
    type: str
    doc: str


@dataclass(frozen=True)
class Table:
    """A table: what a row is, and its columns."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    def column_names(self) -> tuple[str, ...]:
        """Names in declaration order."""
        return tuple(column.name for column in self.columns)


def _columns(text: str) -> tuple[Column, ...]:
    """Parse lines of `name TYPE what it means`."""
    columns = []
    for line in text.strip().splitlines():
        name, kind, doc = line.strip().split(None, 2)
        columns.append(Column(name, kind, doc))
    return tuple(columns)


RUN = _columns("run_id VARCHAR run that the row belongs to")
RANK = _columns("rank INTEGER global rank; NULL: not known")
KEYS = _columns(
    """
    batch INTEGER index of the batch handed to the engine
    microbatch INTEGER index of the micro-batch within the batch
    repeat INTEGER index of the repetition of the whole workload
    phase VARCHAR startup, load, preprocess, warmup, prefill, decode, mixed or postprocess
    step INTEGER decode step k >= 1 emits token k; prefill (step 0) emits token 0; strangers' numbers kept
    warmup BOOLEAN the unit belongs to the warm-up and is left out of headline numbers
    perturbed_by VARCHAR collector known to slow the unit; NULL: none
    """
)

TABLES: tuple[Table, ...] = (
    Table(
        "runs",
        "One execution of one configuration.",
        RUN
        + _columns(
            """
            name VARCHAR name given in the specification
            status VARCHAR running, finished or failed
            verdict VARCHAR why it ended: ok, oom_host, oom_gpu, timeout, rank_failed, ... or unknown
            verdict_detail VARCHAR the evidence line behind the verdict and what to do
            exit_code INTEGER exit code of the workload
            spec VARCHAR resolved specification (JSON)
            provenance VARCHAR versions, host facts and allow-listed environment (JSON)
            correctness VARCHAR comparison with the reference (JSON); NULL: not made
            runner VARCHAR engine that ran the model
            dtype VARCHAR data type of weights and activations
            device VARCHAR cpu or cuda
            tp INTEGER tensor-parallel degree
            pp INTEGER pipeline stages
            batch_size INTEGER prompts decoded together
            microbatches INTEGER micro-batches of a batch in the pipeline at once
            world_size INTEGER number of ranks
            sweep_id VARCHAR sweep that the run belongs to
            cell VARCHAR cell of the sweep
            repeat INTEGER repetition of the cell
            job_id VARCHAR Slurm job
            attempt INTEGER restart count of the job
            started_ns BIGINT when the run began
            ended_ns BIGINT when the workload ended
            """
        ),
    ),
    Table(
        "ranks",
        "One process of a run.",
        RUN
        + RANK
        + _columns(
            """
            local_rank INTEGER rank within its host
            host VARCHAR host name
            pid INTEGER process id
            clock_domain VARCHAR processes of one domain share a clock (boot id)
            tp_rank INTEGER rank within the stage's tensor-parallel group
            stage INTEGER pipeline stage
            first_layer INTEGER first decoder layer held
            last_layer INTEGER last decoder layer held (inclusive)
            device VARCHAR device the rank computes on
            gpu_uuid VARCHAR identity of the GPU
            pci VARCHAR PCI address of the GPU
            numa INTEGER NUMA node of the GPU
            cpus VARCHAR CPUs the rank may run on
            weights_bytes BIGINT bytes of parameters held
            complete BOOLEAN the rank closed its spool; false: it was cut
            exit_code INTEGER exit code of the process; negative: killed by that signal
            last_record_ns BIGINT end of the last thing known of this rank
            """
        ),
    ),
    Table(
        "spans",
        "A named interval on one rank.",
        RUN
        + RANK
        + KEYS
        + _columns(
            """
            span_id BIGINT id within (run, rank, source)
            parent_id BIGINT enclosing span of the same source; NULL: none
            source VARCHAR evidence: app_timers, torch_profiler, nsys, otel, ...
            timeline VARCHAR host or device
            device INTEGER device index
            stream BIGINT stream id; on the host timeline the thread
            name VARCHAR name as recorded
            category VARCHAR unit, phase, compute, comm, comm_fused, memcpy, memset, io, layer, ...
            rule VARCHAR id of the classification rule that gave the category
            layer INTEGER decoder layer
            request VARCHAR request id
            start_ns BIGINT aligned start
            end_ns BIGINT aligned end; NULL: it never ended
            raw_start_ns BIGINT start on the source's own clock
            launch_ns BIGINT aligned time of the host call that launched it
            correlation BIGINT id that joins a launch with what it launched
            graph_id BIGINT CUDA graph it ran in
            cpu_start_ns BIGINT CPU clock of the recording thread at the start
            cpu_ns BIGINT CPU time of the recording thread inside the span
            bytes BIGINT bytes read, written, copied or sent
            complete BOOLEAN false: cut, or still open when the rank ended
            attrs VARCHAR further attributes (JSON)
            """
        ),
    ),
    Table(
        "collectives",
        "One rank's part in a collective or point-to-point operation.",
        RUN
        + RANK
        + KEYS
        + _columns(
            """
            span_id BIGINT span of the same source and rank
            source VARCHAR evidence
            timeline VARCHAR host or device
            comm_group VARCHAR ordered global ranks and creation ordinal, as in [0,1]#0
            seq BIGINT ordinal in the group; point-to-point: in the ordered pair
            op VARCHAR all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, reduce, barrier, send, recv
            src_rank INTEGER point-to-point: sender
            dst_rank INTEGER point-to-point: receiver
            bytes BIGINT message size by the convention of nccl-tests
            dtype VARCHAR data type
            group_size INTEGER ranks in the group
            enqueue_ns BIGINT when the host issued it
            start_ns BIGINT aligned start of the interval
            end_ns BIGINT aligned end; NULL: it never ended
            duration_ns BIGINT end - start
            return_ns BIGINT aligned return of the host's call; what lies before it may be launch
            low_ns BIGINT lower bound of the duration where the interval encloses the launch
            transfer_ns BIGINT part that moved data (upper bound); NULL: cannot be told
            wait_ns BIGINT part spent waiting for a later rank; NULL: cannot be told
            wait_method VARCHAR end_anchored, start_anchored, floor, bounded; NULL: unsplit
            wait_error_ns BIGINT error of the split
            unsplit_reason VARCHAR why wait and transfer cannot be told apart
            kernel VARCHAR device kernel that did the work
            algo VARCHAR algorithm NCCL chose
            proto VARCHAR protocol NCCL chose
            channels INTEGER channels NCCL used
            transport VARCHAR P2P, SHM, NET/IB, NET/Socket, ...
            """
        ),
    ),
    Table(
        "steps",
        "The engine's view of a unit of work on one rank.",
        RUN
        + RANK
        + KEYS
        + _columns(
            """
            batch_size INTEGER requests in the step
            padded_batch INTEGER rows computed, padding included
            prefill_tokens BIGINT prompt tokens computed, padding excluded
            decode_tokens BIGINT tokens emitted for requests still running
            kv_tokens BIGINT tokens held in the KV cache after the step
            """
        ),
    ),
    Table(
        "step_tokens",
        "Tokens one request received in one step.",
        RUN
        + _columns("rank INTEGER rank that recorded it")
        + KEYS
        + _columns(
            """
            request_id VARCHAR request
            n_tokens INTEGER tokens emitted; 0 after the end of the sequence
            device_ns BIGINT when sampling ended on the device
            host_ns BIGINT when the host had the token
            """
        ),
    ),
    Table(
        "requests",
        "One prompt and its completion.",
        RUN
        + _columns(
            """
            request_id VARCHAR request
            rank INTEGER rank that recorded it
            batch INTEGER batch it ran in
            repeat INTEGER repetition
            warmup BOOLEAN belongs to the warm-up
            perturbed_by VARCHAR collector known to have slowed one of its steps
            prompt_tokens INTEGER tokens of the prompt
            output_tokens INTEGER tokens of the completion, up to and with EOS
            arrival_ns BIGINT when it was known
            start_ns BIGINT when its batch was handed to the engine; before that it queued
            ttft_ns BIGINT first token available minus start
            tpot_ns BIGINT (e2e - ttft) / (output_tokens - 1); NULL for one token
            e2e_ns BIGINT last token available minus start
            """
        ),
    ),
    Table(
        "samples",
        "A value at a moment.",
        RUN
        + _columns(
            """
            host VARCHAR host
            rank INTEGER rank; NULL: the whole host or device
            device INTEGER GPU index; NULL: the host
            metric VARCHAR what was measured
            unit VARCHAR unit of the value
            ts_ns BIGINT aligned time
            value DOUBLE the value
            source VARCHAR collector
            """
        ),
    ),
    Table(
        "collection",
        "How every collector fared: what the numbers rest on.",
        RUN
        + _columns(
            """
            collector VARCHAR collector
            host VARCHAR host; NULL: all
            rank INTEGER rank; NULL: not bound to one
            state VARCHAR ok, skipped, degraded or failed
            reason VARCHAR why not ok, and what to do
            bytes BIGINT bytes of evidence read
            records BIGINT records read from it
            dropped BIGINT records that the collector says it lost
            unreadable BIGINT records or lines that could not be read
            detail VARCHAR support matrix, versions, file names (JSON)
            """
        ),
    ),
    Table(
        "clock_offsets",
        "How each clock was mapped to the run's axis: aligned = raw + offset + drift * (raw - ref).",
        RUN
        + _columns(
            """
            source VARCHAR evidence whose clock this is
            timeline VARCHAR host or device; NULL: both
            rank INTEGER rank; NULL: all ranks of the domain
            host VARCHAR host
            clock_domain VARCHAR boot id, or the name of a device's or file's clock
            offset_ns BIGINT added to raw times
            drift_ppb BIGINT parts per billion, from ref_ns on
            ref_ns BIGINT raw time at which the offset holds exactly
            residual_ns BIGINT how finely two ranks' times may be compared; NULL: unknown
            method VARCHAR reference, same_host, ping_pong, wall_clock, collective_ends
            samples BIGINT measurements behind it
            """
        ),
    ),
    Table(
        "clock_anchors",
        "A moment read on a source's own clock and on the wall clock (input of the alignment).",
        RUN
        + _columns(
            """
            source VARCHAR evidence whose clock this is
            timeline VARCHAR host or device; NULL: both
            rank INTEGER rank that took it
            host VARCHAR host
            clock_domain VARCHAR boot id, or the name of a device's or file's clock
            raw_ns BIGINT the source's own clock
            wall_ns BIGINT Unix time
            width_ns BIGINT uncertainty of the pairing
            """
        ),
    ),
    Table(
        "clock_pingpongs",
        "A round trip between two clocks: own, the peer's twice, own. The peer may be a device.",
        RUN
        + RANK
        + _columns(
            """
            clock_domain VARCHAR own clock; NULL: that of the rank's host
            peer INTEGER rank on the other side
            peer_domain VARCHAR the peer's clock; NULL: that of the peer's host
            t0_ns BIGINT sent, own clock
            t1_ns BIGINT received by the peer, peer's clock
            t2_ns BIGINT sent back by the peer, peer's clock
            t3_ns BIGINT received, own clock
            """
        ),
    ),
    Table(
        "nccl_comms",
        "An NCCL communicator on one rank, from NCCL's own log.",
        RUN
        + RANK
        + _columns(
            """
            host VARCHAR host
            pid INTEGER process
            comm VARCHAR pointer that names the communicator in that process
            comm_id VARCHAR commId; NULL where the version does not print it
            comm_rank INTEGER rank within the communicator
            nranks INTEGER size; NULL: no line says it
            cuda_dev INTEGER CUDA device index
            bus_id VARCHAR PCI address
            nccl_version VARCHAR version
            coll_channels INTEGER collective channels
            p2p_channels INTEGER point-to-point channels
            nvls_channels INTEGER NVLink SHARP channels
            transports VARCHAR edges by transport, deduplicated (JSON)
            parent VARCHAR communicator it was split from
            init_ns BIGINT duration of the initialisation
            state VARCHAR started, complete, destroyed or aborted; NULL: no line says so
            attrs VARCHAR CUDA version, library, network, parts of the initialisation, ... (JSON)
            """
        ),
    ),
    Table(
        "nccl_events",
        "A warning of NCCL, a message of PyTorch's NCCL watchdog, or a collective left pending.",
        RUN
        + RANK
        + _columns(
            """
            host VARCHAR host
            pid INTEGER process
            ts_ns BIGINT when it was printed; NULL: no time, or one without a zone
            severity VARCHAR info, notice or problem
            kind VARCHAR nccl_warn, watchdog_timeout, watchdog_state, process_group or pending
            text VARCHAR the message
            attrs VARCHAR what it names: pg, group_rank, seq, op, timeout_ms, ran_ms, ... (JSON)
            source VARCHAR collector
            """
        ),
    ),
    Table(
        "nccl_tuning",
        "A choice of algorithm and protocol that NCCL printed.",
        RUN
        + RANK
        + _columns(
            """
            comm VARCHAR communicator pointer; NULL where the line does not name it
            op VARCHAR operation
            bytes BIGINT message size
            algo VARCHAR algorithm
            proto VARCHAR protocol
            channels INTEGER channels
            model_us DOUBLE NCCL's own estimate (old versions), not a measurement
            count BIGINT times the same choice was printed
            """
        ),
    ),
    Table(
        "slurm_steps",
        "A row of Slurm's accounting.",
        RUN
        + _columns(
            """
            source VARCHAR who said it: sacct, sacct_json, sstat, scontrol or squeue_json
            job_id VARCHAR job as Slurm shows it; an array task is 8_0
            raw_job_id VARCHAR SLURM_JOB_ID of the job or array task; NULL: not said
            step_id VARCHAR batch, extern or a number; NULL: the job's own row
            attempt INTEGER restart count
            name VARCHAR job or step name
            state VARCHAR final state, one of Slurm's words; NULL: not said or not such a word
            reason VARCHAR why the job ended or waits, in Slurm's words
            cancelled_by BIGINT user id of who cancelled it
            exit_code INTEGER exit code
            signal INTEGER signal that ended it; 125 is Slurm's own for out of memory
            derived_exit VARCHAR highest exit of the job's steps, as code:signal; on the job's own row
            nodes VARCHAR node list
            ntasks INTEGER tasks
            started_ns BIGINT start
            ended_ns BIGINT end
            elapsed_s BIGINT elapsed seconds
            cpu_s DOUBLE CPU seconds
            max_rss_bytes BIGINT largest task's resident memory
            max_rss_node VARCHAR node of that task
            max_disk_read_bytes BIGINT largest task's reads
            max_disk_write_bytes BIGINT largest task's writes
            energy_j DOUBLE joules; NULL: not measured
            tres VARCHAR trackable resources (JSON)
            """
        ),
    ),
    Table(
        "perf_counters",
        "A performance counter over an interval.",
        RUN
        + RANK
        + _columns(
            """
            host VARCHAR host
            pid INTEGER process; NULL: system-wide
            event VARCHAR event name
            scope VARCHAR CPU, core, socket or thread that was counted; NULL: all of the target
            ts_ns BIGINT end of the interval, aligned; NULL: whole run, or when perf began is unknown
            offset_ns BIGINT end of the interval since perf began; NULL: whole run
            interval_ns BIGINT length of the interval
            value DOUBLE count; NULL: not supported or not counted
            unit VARCHAR unit
            running_share DOUBLE share of the time the counter ran; below 1 the value is an estimate
            state VARCHAR ok, estimated, not_supported or not_counted
            """
        ),
    ),
    Table(
        "collective_instances",
        "One synchronising or rooted collective over all its ranks (view collective_waits).",
        RUN
        + KEYS
        + _columns(
            """
            source VARCHAR evidence
            timeline VARCHAR host or device
            comm_group VARCHAR ordered global ranks and creation ordinal
            seq BIGINT ordinal in the group
            op VARCHAR operation
            bytes BIGINT message size
            group_size INTEGER ranks in the group
            ranks_present INTEGER ranks that the evidence shows; fewer than group_size: unsplit
            start_ns BIGINT earliest start
            end_ns BIGINT latest end
            transfer_ns BIGINT longest transfer of a rank; NULL: unsplit
            sum_wait_ns BIGINT waiting, summed over ranks
            max_wait_ns BIGINT longest wait of a rank
            last_arriver INTEGER rank that the others waited for; NULL: a coin toss, or unknown
            arrival_margin_ns BIGINT how much later than the next to last it came
            end_spread_ns BIGINT latest end minus earliest end
            wait_method VARCHAR how wait and transfer were told apart
            wait_error_ns BIGINT error of the split
            """
        ),
    ),
    Table(
        "straggler_causes",
        "Per group, phase and rank: how often it came last, what that cost, and why (view stragglers).",
        RUN
        + RANK
        + _columns(
            """
            source VARCHAR evidence
            comm_group VARCHAR group
            phase VARCHAR phase
            collectives BIGINT collectives of the group in this phase whose last arriver is known
            undecided BIGINT collectives in which nobody can be named
            times_last BIGINT of these, how often this rank was last
            wait_caused_ns BIGINT waiting of the other ranks in those
            own_wait_ns BIGINT waiting of this rank in the group's collectives
            late_ns BIGINT its time since the group's last synchronisation beyond its peers' mean
            late_compute_ns BIGINT of late_ns: computing longer
            late_inherited_ns BIGINT of late_ns: other communication in between (an earlier wait passed on)
            late_io_ns BIGINT of late_ns: files
            late_preempted_ns BIGINT of late_ns: neither on a CPU nor communicating (host evidence)
            """
        ),
    ),
    Table(
        "findings",
        "What the run shows, in sentences, most important first.",
        RUN
        + _columns(
            """
            position INTEGER 0 is the top finding
            severity VARCHAR info, notice or problem
            kind VARCHAR what sort of finding
            rank INTEGER rank it is about
            phase VARCHAR phase it is about
            text VARCHAR one sentence
            value_ns BIGINT time at stake
            share DOUBLE share of the window at stake
            floor_share DOUBLE share that the configuration costs by construction
            evidence VARCHAR what it rests on
            """
        ),
    ),
    Table(
        "overhead",
        "What observing cost, measured inside the run.",
        RUN
        + _columns(
            """
            collector VARCHAR collector, or all of them
            phase VARCHAR phase it was measured in
            pairs INTEGER interleaved pairs of off and on
            off_ns BIGINT median unit with the collector off
            effect_ns BIGINT median paired difference
            low_ns BIGINT lower end of the 95 % interval
            high_ns BIGINT upper end of the 95 % interval
            """
        ),
    ),
    Table(
        "unit_breakdown",
        "A unit's window on one rank divided into nine parts, by one evidence (view step_breakdown_all).",
        RUN
        + RANK
        + KEYS
        + _columns(
            """
            timeline VARCHAR timeline that is divided: host or device
            evidence VARCHAR evidence it rests on
            start_ns BIGINT start of the window
            window_ns BIGINT length of the window
            compute_ns BIGINT computing
            fused_ns BIGINT kernels that compute and communicate
            comm_transfer_ns BIGINT exposed transfer between ranks (upper bound)
            comm_wait_ns BIGINT exposed waiting for a later rank
            comm_unsplit_ns BIGINT exposed communication whose parts cannot be told apart
            memcpy_ns BIGINT exposed copying between host and device
            io_ns BIGINT exposed file reads and writes
            idle_ns BIGINT nothing ran, and the evidence is complete
            unresolved_ns BIGINT what the evidence cannot classify
            complete BOOLEAN false: the unit was cut
            """
        ),
    ),
)

BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}


def ddl(table: Table) -> str:
    """CREATE TABLE and the COMMENT statements of a table."""
    body = ",\n  ".join(f"{column.name} {column.type}" for column in table.columns)
    lines = [f"CREATE TABLE {table.name} (\n  {body}\n);"]
    lines.append(f"COMMENT ON TABLE {table.name} IS {_quote(table.doc)};")
    lines += [
        f"COMMENT ON COLUMN {table.name}.{column.name} IS {_quote(column.doc)};"
        for column in table.columns
    ]
    return "\n".join(lines)


def arrow_schema(table: Table) -> pyarrow.Schema:
    """The Arrow schema that batches for this table have."""
    import pyarrow as pa

    types: dict[str, Any] = {
        BIGINT: pa.int64(),
        INTEGER: pa.int32(),
        DOUBLE: pa.float64(),
        VARCHAR: pa.string(),
        BOOLEAN: pa.bool_(),
    }
    return pa.schema([(column.name, types[column.type]) for column in table.columns])


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
