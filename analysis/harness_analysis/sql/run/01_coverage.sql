-- One row a phase: what its breakdown rests on, and how much of it is resolved.
-- @column run_id: run
-- @column phase: phase
-- @column ranks: ranks with a breakdown
-- @column world_size: ranks of the run
-- @column evidence: evidence used
-- @column units: units of work (over all ranks), without those that were run unobserved
-- @column incomplete: of these, cut ones
-- @column trimmed: of these, not shown by all ranks: headline numbers leave them out
-- @column unresolved_share: share of the windows that the evidence cannot classify
-- @column unsplit_share: share of the windows that is communication not told apart
-- @column unsplit_reason: the most frequent reason
CREATE VIEW coverage AS
WITH reasons AS (
  SELECT run_id, phase, mode(unsplit_reason) AS unsplit_reason
  FROM collectives WHERE unsplit_reason IS NOT NULL GROUP BY ALL
)
SELECT b.run_id, b.phase, count(DISTINCT b.rank) AS ranks, any_value(r.world_size) AS world_size,
  string_agg(DISTINCT b.evidence, '+' ORDER BY b.evidence) AS evidence,
  count(*) AS units, count(*) FILTER (NOT b.complete) AS incomplete,
  count(*) FILTER (NOT b.on_all_ranks) AS trimmed,
  sum(b.unresolved_ns) / nullif(sum(b.window_ns), 0) AS unresolved_share,
  sum(b.comm_unsplit_ns) / nullif(sum(b.window_ns), 0) AS unsplit_share,
  any_value(u.unsplit_reason) AS unsplit_reason
FROM step_breakdown b
LEFT JOIN runs r ON r.run_id = b.run_id
LEFT JOIN reasons u ON u.run_id = b.run_id AND u.phase IS NOT DISTINCT FROM b.phase
-- There the recorder was off on purpose (harness_analysis.overhead.measure).
WHERE b.perturbed_by IS DISTINCT FROM 'calibrate:off'
GROUP BY b.run_id, b.phase;
