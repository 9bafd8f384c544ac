"""What ingest works out: matched collectives, causes of lateness, breakdowns, findings."""

from __future__ import annotations

from harness_schemas.tables.columns import KEYS, RANK, RUN, Table, columns

DERIVED_TABLES: tuple[Table, ...] = (
    Table(
        "job_verdicts",
        "Why each Slurm job in the evidence ended, judged from all its steps.",
        RUN
        + columns(
            """
            job_id VARCHAR job as Slurm shows it
            verdict VARCHAR ok, oom_host, timeout, cancelled, preempted, node_fail, rank_failed, ... or unknown
            evidence VARCHAR the row behind the verdict
            remedy VARCHAR what to do
            """
        ),
    ),
    Table(
        "collective_instances",
        "One synchronising or rooted collective over all its ranks (view collective_waits).",
        RUN
        + KEYS
        + columns(
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
            floor_ns BIGINT measured floor of this operation, size and group behind other work; NULL: none
            floor_warm_ns BIGINT the same right behind another call, caches warm: the least; NULL: not measured
            excess_ns BIGINT transfer above floor_ns, or (negative) below floor_warm_ns; between them 0; where the method is `floor` not above 0 by construction
            """
        ),
    ),
    Table(
        "straggler_causes",
        "Per group, phase and rank: how often it came last, what that cost, and why (view stragglers).",
        RUN
        + RANK
        + columns(
            """
            source VARCHAR evidence
            comm_group VARCHAR group
            phase VARCHAR phase
            collectives BIGINT collectives of the group in this phase whose last arriver is known
            undecided BIGINT collectives in which nobody can be named
            times_last BIGINT of these, how often this rank was last
            wait_caused_ns BIGINT waiting of the other ranks in those
            own_wait_ns BIGINT waiting of this rank in the group's collectives
            perturbed BOOLEAN only perturbed units show this phase: the row rests on them
            saving_ns BIGINT how much earlier all could have gone on, had it come with the next to last
            late_ns BIGINT its time since the group's last synchronisation beyond its peers' mean
            late_compute_ns BIGINT of late_ns: computing longer
            late_copy_ns BIGINT of late_ns: copying memory (kernel evidence)
            late_gap_ns BIGINT of late_ns: nothing on the device, it waits for launches (kernel evidence)
            late_inherited_ns BIGINT of late_ns: other communication in between (an earlier wait passed on)
            late_io_ns BIGINT of late_ns: files (host evidence)
            late_preempted_ns BIGINT of late_ns: neither on a CPU nor communicating (host evidence)
            late_root_rank INTEGER where most of it is inherited, the rank the chain of waits began with
            """
        ),
    ),
    Table(
        "findings",
        "What the run shows, in sentences, most important first.",
        RUN
        + columns(
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
        "can_answer",
        "What the evidence at hand can answer: a row a relation, or a group of its columns, that needs it.",
        RUN
        + columns(
            """
            relation VARCHAR table or view
            of_columns VARCHAR columns that are answered or not, comma-separated; NULL: its rows
            needs VARCHAR collectors that can give them, comma-separated
            answerable BOOLEAN false: nothing was seen of them, and NULL does not mean zero
            reason VARCHAR why not, as in: nsys skipped on node2 (not found); NULL: answerable
            """
        ),
    ),
    Table(
        "unit_breakdown",
        "A unit's window on one rank divided into nine parts, by one evidence (view step_breakdown_all).",
        RUN
        + RANK
        + KEYS
        + columns(
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
            on_all_ranks BOOLEAN false: not all ranks show it, headline numbers leave it out; NULL: unit of no step
            """
        ),
    ),
)
