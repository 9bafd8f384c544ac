-- One row a rank and phase: the windows of its headline units summed (neither warm-up nor
-- perturbed, and shown by all ranks), and one row of phase 'all' from the rank's first to its last activity.
-- @column run_id: run
-- @column rank: global rank
-- @column phase: phase, or 'all'; NULL: steps whose marks do not say
-- @column timeline: timeline divided
-- @column evidence: what the row rests on
-- @column units: units summed; for phase 'all' NULL
-- @column left_out: units of the phase left out (warm-up, perturbed, not on all ranks)
-- @column window_ns: length of the windows together
-- @column compute_ns: computing
-- @column fused_ns: kernels that compute and communicate
-- @column comm_transfer_ns: exposed transfer between ranks
-- @column comm_wait_ns: exposed waiting for a later rank
-- @column comm_unsplit_ns: exposed communication whose parts cannot be told apart
-- @column memcpy_ns: exposed copying between host and device
-- @column io_ns: exposed file reads and writes
-- @column idle_ns: nothing ran, and the evidence is complete
-- @column unresolved_ns: what the evidence cannot classify
CREATE VIEW rank_breakdown AS
WITH headline AS (
  SELECT *, NOT coalesce(warmup, false) AND perturbed_by IS NULL
    AND coalesce(on_all_ranks, true) AS counts FROM step_breakdown
)
SELECT run_id, rank, phase, any_value(timeline) AS timeline,
  string_agg(DISTINCT evidence, '+' ORDER BY evidence) AS evidence,
  count(*) FILTER (counts) AS units, count(*) FILTER (NOT counts) AS left_out,
  (sum(window_ns) FILTER (counts))::BIGINT AS window_ns,
  (sum(compute_ns) FILTER (counts))::BIGINT AS compute_ns,
  (sum(fused_ns) FILTER (counts))::BIGINT AS fused_ns,
  (sum(comm_transfer_ns) FILTER (counts))::BIGINT AS comm_transfer_ns,
  (sum(comm_wait_ns) FILTER (counts))::BIGINT AS comm_wait_ns,
  (sum(comm_unsplit_ns) FILTER (counts))::BIGINT AS comm_unsplit_ns,
  (sum(memcpy_ns) FILTER (counts))::BIGINT AS memcpy_ns,
  (sum(io_ns) FILTER (counts))::BIGINT AS io_ns,
  (sum(idle_ns) FILTER (counts))::BIGINT AS idle_ns,
  (sum(unresolved_ns) FILTER (counts))::BIGINT AS unresolved_ns
FROM headline
GROUP BY run_id, rank, phase
HAVING count(*) FILTER (counts) > 0
UNION ALL
SELECT run_id, rank, phase, timeline, evidence, NULL, NULL, window_ns, compute_ns, fused_ns,
  comm_transfer_ns, comm_wait_ns, comm_unsplit_ns, memcpy_ns, io_ns, idle_ns, unresolved_ns
FROM unit_breakdown
WHERE phase = 'all'
QUALIFY row_number() OVER (
  PARTITION BY run_id, rank
  ORDER BY list_position(
    ['nsys', 'torch_profiler', 'graph_events', 'nccl_inspector', 'app_timers'], evidence)
    NULLS LAST, evidence) = 1;
