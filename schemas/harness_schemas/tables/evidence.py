"""What was observed: intervals, communication, samples, and what NCCL and perf said."""

from __future__ import annotations

from harness_schemas.tables.columns import KEYS, RANK, RUN, Column, Table, columns

_COLLECTIVE: tuple[Column, ...] = (
    RUN
    + RANK
    + KEYS
    + columns(
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
        floor_ns BIGINT measured floor of this operation, size and group behind other work; NULL: none
        floor_warm_ns BIGINT the same right behind another call, caches warm: the least; NULL: not measured
        unsplit_reason VARCHAR why wait and transfer cannot be told apart
        kernel VARCHAR device kernel that did the work
        algo VARCHAR algorithm NCCL chose
        proto VARCHAR protocol NCCL chose
        channels INTEGER channels NCCL used
        transport VARCHAR P2P, SHM, NET/IB, NET/Socket, ...
        nccl_seq BIGINT ordinal of the call in its NCCL communicator, from NCCL's log; NULL: not known
        joined VARCHAR other evidence of the call that completed the row, as in app_timers+nccl_log; after ~: what all calls of this group, operation and size agree on
        call BIGINT number of the call: rows of collectives_aside with the same number show it too; NULL: no second evidence of the rank
        """
    )
)

EVIDENCE_TABLES: tuple[Table, ...] = (
    Table(
        "spans",
        "A named interval on one rank.",
        RUN
        + RANK
        + KEYS
        + columns(
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
        "One rank's part in a collective or point-to-point operation, once: by the best evidence, "
        "completed by the others.",
        _COLLECTIVE,
    ),
    Table(
        "collectives_aside",
        "What weaker evidence shows of calls that stand in `collectives` already (view collectives_all).",
        (
            *_COLLECTIVE,
            *columns(
                "aside VARCHAR why the row is not counted: same call, may be one, unit shown better"
            ),
        ),
    ),
    Table(
        "samples",
        "A value at a moment.",
        RUN
        + columns(
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
        "nccl_comms",
        "An NCCL communicator on one rank, from NCCL's own log.",
        RUN
        + RANK
        + columns(
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
        + columns(
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
        + columns(
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
        "log_lines",
        "A line of a log that may say why a run ended, secrets masked.",
        RUN
        + RANK
        + columns(
            """
            host VARCHAR host; NULL: the line does not say
            kind VARCHAR stderr, kernel or log: what sort of log it is from; survived: of a failure after which the work went on
            file VARCHAR file, relative to where ingest looked
            line BIGINT number of the line; NULL: only the end of the file was read
            text VARCHAR the line
            source VARCHAR collector
            """
        ),
    ),
    Table(
        "topology",
        "How two devices of a host are linked, in the direction from a to b.",
        RUN
        + columns(
            """
            host VARCHAR host; NULL: not said
            a VARCHAR device as the source names it: GPU0, NIC3
            b VARCHAR the other device
            link VARCHAR NV18, PIX, PXB, PHB, NODE, SYS as nvidia-smi prints them; nvlink: one NVLink
            lanes INTEGER bonded NVLinks; NULL: the link is none
            state VARCHAR active or inactive (NVML), or what nvidia-smi says of peer access
            cpus VARCHAR CPU affinity of a; NULL: not said
            numa VARCHAR NUMA affinity of a; NULL: not said
            source VARCHAR collector
            """
        ),
    ),
    Table(
        "perf_counters",
        "A performance counter over an interval.",
        RUN
        + RANK
        + columns(
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
        "floors",
        "How long an operation takes on these devices when nobody is late (bench collectives).",
        RUN
        + columns(
            """
            source VARCHAR file it is from
            device VARCHAR device that it was measured on
            op VARCHAR all_reduce, all_gather, reduce_scatter, or send_recv (one way)
            implementation VARCHAR nccl, gloo, symm_one_shot or symm_two_shot
            dtype VARCHAR data type
            bytes BIGINT message size by the convention of nccl-tests
            group_size INTEGER ranks in the group; of a message 2
            calls BIGINT calls measured
            p10_ns BIGINT time of a call, 10th percentile: by kernels, shortest rank's; on CPUs of a chain, slowest rank's
            p50_ns BIGINT the median
            p90_ns BIGINT the 90th percentile
            stamps_ns BIGINT the same call between time stamps inside a CUDA graph; median
            warm_ns BIGINT the same call right behind another, nothing thrown out of the caches; by kernels, median; NULL: not told apart
            warm_stamps_ns BIGINT the same between time stamps
            chain_ns BIGINT time per call of a chain of calls, what lies between them included; median
            algbw_gb_s DOUBLE bytes over the median time, 1e9 bytes/s
            busbw_gb_s DOUBLE the same times the factor of nccl-tests
            """
        ),
    ),
)
