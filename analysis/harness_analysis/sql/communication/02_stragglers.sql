-- One row a group, phase and rank: how often the rank came last, what its lateness cost the
-- others, and what it did in the extra time. Headline units, or perturbed ones where a source
-- shows no others of the phase.
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
-- @column late_copy_ns: of late_ns, copying memory
-- @column late_gap_ns: of late_ns, nothing on the device: its launches came late
-- @column late_inherited_ns: of late_ns, other communication in between
-- @column late_io_ns: of late_ns, files
-- @column late_preempted_ns: of late_ns, neither on a CPU nor communicating
-- @column late_root_rank: where most of late_ns is inherited, the rank the chain of waits began
-- with; NULL: this rank itself, or the calls do not tell
-- @column main_cause: the part that is at least half of late_ns, in words; NULL: none is, or
-- there is no such evidence
-- @column saving_ns: how much earlier all ranks could have gone on, had this rank come with the
-- next to last each time
-- @column perturbed: the row rests on units that a collector slowed; there are no others
CREATE VIEW stragglers AS
SELECT run_id, source, comm_group, phase, rank, collectives, undecided, times_last,
  times_last / nullif(collectives, 0) AS share_last,
  wait_caused_ns,
  wait_caused_ns / nullif(sum(wait_caused_ns) OVER (PARTITION BY run_id, source, comm_group, phase), 0)
    AS share_of_wait,
  own_wait_ns, late_ns, late_compute_ns, late_copy_ns, late_gap_ns, late_inherited_ns, late_io_ns,
  late_preempted_ns, late_root_rank,
  CASE WHEN late_ns > 0 AND 2 * greatest(late_compute_ns, late_copy_ns, late_gap_ns,
      late_inherited_ns, late_io_ns, late_preempted_ns) >= late_ns THEN
    CASE greatest(late_compute_ns, late_copy_ns, late_gap_ns, late_inherited_ns, late_io_ns,
        late_preempted_ns)
      WHEN late_compute_ns THEN 'it computes longer'
      WHEN late_copy_ns THEN 'it copies memory'
      WHEN late_gap_ns THEN 'its device waits for launches (bound by its host)'
      WHEN late_inherited_ns
        THEN 'it passes on an earlier wait' || coalesce(' for rank ' || late_root_rank, '')
      WHEN late_io_ns THEN 'it reads or writes files'
      WHEN late_preempted_ns THEN 'it was not on a CPU (preempted or asleep)'
    END
  END AS main_cause,
  saving_ns, perturbed
FROM straggler_causes;
