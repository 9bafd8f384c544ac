-- One row a rank and phase, as in rank_breakdown; where its units do not tell computing (CUDA graphs
-- replayed without stamps), the parts are those of the sampled steps, if observing slowed these by at
-- most a tenth, scaled to the length of the others.
-- @column run_id: run
-- @column rank: global rank
-- @column phase: phase
-- @column timeline: timeline divided
-- @column basis: measured, or sampled: the parts are estimated from sampled steps
-- @column evidence: what the parts rest on
-- @column units: headline units, whose windows are summed
-- @column left_out: units of the phase left out (warm-up, perturbed, not on all ranks)
-- @column sampled_units: sampled units that the parts rest on; NULL where measured
-- @column slowed: how much longer sampled units are than the median headline unit, as a share;
-- NULL where measured
-- @column window_ns: length of the headline windows together
-- @column compute_ns: computing
-- @column fused_ns: kernels that compute and communicate
-- @column comm_transfer_ns: exposed transfer between ranks
-- @column comm_wait_ns: exposed waiting for a later rank
-- @column comm_unsplit_ns: exposed communication whose parts cannot be told apart
-- @column memcpy_ns: exposed copying between host and device
-- @column io_ns: exposed file reads and writes
-- @column idle_ns: nothing ran, and the evidence is complete
-- @column unresolved_ns: what the evidence cannot classify
CREATE VIEW rank_estimate AS
WITH kept AS (
  SELECT * FROM step_breakdown WHERE NOT coalesce(warmup, false) AND coalesce(on_all_ranks, true)
), untold AS (
  SELECT run_id, rank, phase, median(window_ns) AS usual_ns FROM kept WHERE perturbed_by IS NULL
  GROUP BY ALL HAVING count(*) > count(compute_ns)
), seen AS (
  SELECT k.*, u.usual_ns,
    max(k.window_ns / u.usual_ns) OVER (PARTITION BY run_id, evidence, repeat, batch, microbatch,
      phase, step) AS slowest
  FROM kept k JOIN untold u USING (run_id, rank, phase)
  WHERE k.perturbed_by IS NOT NULL AND k.compute_ns IS NOT NULL AND k.timeline = 'device'
), best AS (
  SELECT run_id, phase, evidence FROM seen WHERE slowest <= 1.1 GROUP BY run_id, phase, evidence
  QUALIFY row_number() OVER (PARTITION BY run_id, phase
    ORDER BY count(DISTINCT rank) DESC, count(*) DESC, evidence) = 1
), chosen AS (
  SELECT run_id, rank, phase, evidence, count(*) AS units,
    sum(window_ns) / sum(usual_ns) - 1 AS slowed, sum(window_ns) AS window_ns,
    sum(compute_ns) AS compute_ns, sum(fused_ns) AS fused_ns,
    sum(comm_transfer_ns) AS comm_transfer_ns, sum(comm_wait_ns) AS comm_wait_ns,
    sum(comm_unsplit_ns) AS comm_unsplit_ns, sum(memcpy_ns) AS memcpy_ns, sum(io_ns) AS io_ns,
    sum(idle_ns) AS idle_ns, sum(unresolved_ns) AS unresolved_ns
  FROM seen SEMI JOIN best USING (run_id, phase, evidence) WHERE slowest <= 1.1 GROUP BY ALL
)
SELECT b.run_id, b.rank, b.phase, b.timeline,
  CASE WHEN s.units IS NULL THEN 'measured' ELSE 'sampled' END AS basis,
  coalesce(s.evidence, b.evidence) AS evidence, b.units, b.left_out, s.units AS sampled_units, s.slowed,
  b.window_ns,
  -- Parts are rounded; computing takes what that leaves, so that all add up to the window.
  if(s.units IS NULL, b.compute_ns, b.window_ns - coalesce(round(s.unresolved_ns * share)::BIGINT, 0)
    - coalesce(round(s.fused_ns * share)::BIGINT, 0)
    - coalesce(round(s.comm_transfer_ns * share)::BIGINT, 0)
    - coalesce(round(s.comm_wait_ns * share)::BIGINT, 0)
    - coalesce(round(s.comm_unsplit_ns * share)::BIGINT, 0)
    - coalesce(round(s.memcpy_ns * share)::BIGINT, 0)
    - coalesce(round(s.io_ns * share)::BIGINT, 0)
    - coalesce(round(s.idle_ns * share)::BIGINT, 0)) AS compute_ns,
  if(s.units IS NULL, b.fused_ns, round(s.fused_ns * share)::BIGINT) AS fused_ns,
  if(s.units IS NULL, b.comm_transfer_ns, round(s.comm_transfer_ns * share)::BIGINT)
    AS comm_transfer_ns,
  if(s.units IS NULL, b.comm_wait_ns, round(s.comm_wait_ns * share)::BIGINT) AS comm_wait_ns,
  if(s.units IS NULL, b.comm_unsplit_ns, round(s.comm_unsplit_ns * share)::BIGINT)
    AS comm_unsplit_ns,
  if(s.units IS NULL, b.memcpy_ns, round(s.memcpy_ns * share)::BIGINT) AS memcpy_ns,
  if(s.units IS NULL, b.io_ns, round(s.io_ns * share)::BIGINT) AS io_ns,
  if(s.units IS NULL, b.idle_ns, round(s.idle_ns * share)::BIGINT) AS idle_ns,
  if(s.units IS NULL, b.unresolved_ns, round(s.unresolved_ns * share)::BIGINT) AS unresolved_ns
FROM (
  SELECT b.*, b.window_ns / s.window_ns AS share
  FROM rank_breakdown b LEFT JOIN chosen s USING (run_id, rank, phase) WHERE b.phase IS DISTINCT FROM 'all'
) b LEFT JOIN chosen s USING (run_id, rank, phase);
