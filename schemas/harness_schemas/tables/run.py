"""What was run: the run, its ranks, units and requests, how it was observed, its clocks."""

from __future__ import annotations

from harness_schemas.tables.columns import KEYS, RANK, RUN, Table, columns

RUN_TABLES: tuple[Table, ...] = (
    Table(
        "runs",
        "One execution of one configuration.",
        RUN
        + columns(
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
        + columns(
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
            gpu_name VARCHAR the GPU as its driver names it
            weights_bytes BIGINT bytes of parameters held
            step_weight_bytes BIGINT of these, bytes that every decode step reads (not the embedding)
            kv_bytes_per_token BIGINT bytes of keys and values a token held, over this rank's layers
            flops_per_token BIGINT 2 x matrix elements that a token is multiplied with on this rank
            attention_flops_per_kv_token BIGINT FLOPs of attention for one query and one token held
            memory_plan VARCHAR bytes that its plan foretold for the rank, by part (JSON; docs/plan.md)
            peak_memory_bytes BIGINT most that torch's allocator held on the GPU
            peak_bytes_per_s DOUBLE memory bandwidth of the device: bytes read and written by a copy
            peak_flops_per_s DOUBLE FLOP/s of a matrix product in the run's data type
            peak_source VARCHAR of the two peaks: measured (generation.peaks) or datasheet
            complete BOOLEAN the rank closed its spool; false: it was cut
            exit_code INTEGER exit code of the process; negative: killed by that signal
            last_record_ns BIGINT end of the last thing known of this rank
            """
        ),
    ),
    Table(
        "steps",
        "The engine's view of a unit of work on one rank.",
        RUN
        + RANK
        + KEYS
        + columns(
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
        + columns("rank INTEGER rank that recorded it")
        + KEYS
        + columns(
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
        + columns(
            """
            request_id VARCHAR request
            rank INTEGER rank that recorded it
            batch INTEGER batch it ran in
            repeat INTEGER repetition
            warmup BOOLEAN belongs to the warm-up
            perturbed_by VARCHAR what made it no measure of the run: a collector that slowed its steps, correctness, calibrate:on or calibrate:off; NULL also where every measured request was slowed
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
        "collection",
        "How every collector fared: what the numbers rest on.",
        RUN
        + columns(
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
        + columns(
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
            method VARCHAR reference, same_host, ping_pong, messages, wall_clock, collective_ends, wall_clock+collective_ends (checked)
            samples BIGINT measurements behind it
            """
        ),
    ),
    Table(
        "clock_anchors",
        "A moment read on a source's own clock and on the wall clock (input of the alignment).",
        RUN
        + columns(
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
        + columns(
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
        "slurm_steps",
        "A row of Slurm's accounting.",
        RUN
        + columns(
            """
            source VARCHAR who said it: sacct, sacct_json, sstat, scontrol, squeue_json, squeue or seff
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
        "overhead",
        "What observing cost, measured inside the run.",
        RUN
        + columns(
            """
            collector VARCHAR what was off and on; recorder: recorder and hooks in the ranks, samplers of the node ran on
            phase VARCHAR phase it was measured in; all: the whole batch
            pairs INTEGER interleaved pairs of off and on
            off_ns BIGINT median unit with the collector off
            effect_ns BIGINT median paired difference
            low_ns BIGINT lower end of the 95 % interval; NULL: too few pairs
            high_ns BIGINT upper end of the 95 % interval
            resolved BOOLEAN the interval excludes zero; NULL: too few pairs
            """
        ),
    ),
)
