-- Why is a rank late?
-- Its excess since the group's last synchronisation, divided. NULL: that evidence is not there.
SELECT comm_group, rank, round(late_ns / 1e6, 3) AS late_ms,
  round(late_compute_ns / 1e6, 3) AS computing, round(late_copy_ns / 1e6, 3) AS copying,
  round(late_gap_ns / 1e6, 3) AS launch_gaps, round(late_inherited_ns / 1e6, 3) AS inherited,
  round(late_io_ns / 1e6, 3) AS files, round(late_preempted_ns / 1e6, 3) AS preempted
FROM stragglers WHERE phase = 'decode'
ORDER BY late_ns DESC NULLS LAST, comm_group, rank
