-- One row a group, phase and rank: how often the rank came last, what its lateness cost the
-- others, and what it did in the extra time. Headline units only.
-- @column run_id: run
-- @column source: evidence
-- @column comm_group: group
-- @column phase: phase
-- @column rank: rank
-- @column collectives: collectives of the group whose last arriver is known
-- @column undecided: collectives in which nobody can be named
-- @column times_last: of these, how often this rank was last
-- @column share_last: times_last / collectives
-- @column wait_caused_ns: waiting of the other ranks in those
-- @column share_of_wait: wait_caused_ns over that of all ranks of the group in this phase
-- @column own_wait_ns: waiting of this rank itself
-- @column late_ns: its time since the previous synchronisation beyond its peers' mean
-- @column late_compute_ns: of late_ns, computing longer
-- @column late_inherited_ns: of late_ns, other communication in between
-- @column late_io_ns: of late_ns, files
-- @column late_preempted_ns: of late_ns, neither on a CPU nor communicating
-- @column main_cause: the largest of these, in words; NULL: no such evidence
CREATE VIEW stragglers AS
SELECT run_id, source, comm_group, phase, rank, collectives, undecided, times_last,
  times_last / nullif(collectives, 0) AS share_last,
  wait_caused_ns,
  wait_caused_ns / nullif(sum(wait_caused_ns) OVER (PARTITION BY run_id, source, comm_group, phase), 0)
    AS share_of_wait,
  own_wait_ns, late_ns, late_compute_ns, late_inherited_ns, late_io_ns, late_preempted_ns,
  CASE greatest(late_compute_ns, late_inherited_ns, late_io_ns, late_preempted_ns)
    WHEN late_compute_ns THEN 'it computes longer'
    WHEN late_inherited_ns THEN 'it passes on an earlier wait'
    WHEN late_io_ns THEN 'it reads or writes files'
    WHEN late_preempted_ns THEN 'it was not on a CPU (preempted)'
  END AS main_cause
FROM straggler_causes;
