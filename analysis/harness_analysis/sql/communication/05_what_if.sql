-- One row a group, phase and rank that came last at least once: how long a step takes, and how
-- long it would take had this rank always come with the next to last (everything else as it
-- was). Exact where ranks work in lockstep and on time once nothing holds them up; where several
-- micro-batches overlap in a pipeline, or the others' hosts launch no faster than the late one's,
-- something else may hold the step up, and the prediction is a lower bound of the step. No row
-- where the evidence does not tell who came last (bounded); NULL where it shows no steps.
-- @column run_id: run
-- @column source: evidence
-- @column comm_group: group
-- @column phase: phase
-- @column rank: rank
-- @column steps: steps that the medians are over
-- @column step_ms: median of the step's longest window on a rank: what it adds to the run. Windows
-- tile, so this is the cadence; run_summary.step_ms is longer where steps of stages overlap
-- @column saving_ms: median over steps of what each would be shorter
-- @column predicted_step_ms: median over steps of the step's length less its saving
-- @column perturbed: the steps are ones that a collector slowed; there are no others
CREATE VIEW what_if AS
WITH lengths AS (
  SELECT run_id, evidence AS source, timeline, phase, repeat, batch, microbatch, step,
    perturbed_by IS NOT NULL AS perturbed, max(window_ns) AS step_ns
  FROM step_breakdown_all
  WHERE phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false) AND complete
  GROUP BY run_id, evidence, timeline, phase, repeat, batch, microbatch, step, perturbed_by
), savings AS (
  SELECT run_id, source, timeline, comm_group, phase, repeat, batch, microbatch, step,
    perturbed_by IS NOT NULL AS perturbed, last_arriver AS rank, sum(arrival_margin_ns) AS saving_ns
  FROM collective_instances
  WHERE last_arriver IS NOT NULL AND NOT coalesce(warmup, false)
  GROUP BY ALL
), predicted AS (
  SELECT s.run_id, s.source, s.comm_group, s.phase, s.rank, s.perturbed, l.step_ns,
    CASE WHEN l.step_ns IS NOT NULL THEN coalesce(v.saving_ns, 0) END AS saving_ns
  FROM straggler_causes s
  LEFT JOIN lengths l ON l.run_id = s.run_id AND l.source = s.source AND l.phase = s.phase
    AND l.perturbed = s.perturbed
  LEFT JOIN savings v ON v.run_id = s.run_id AND v.source = s.source AND v.timeline = l.timeline
    AND v.comm_group = s.comm_group AND v.phase = s.phase AND v.rank = s.rank
    AND v.perturbed = s.perturbed AND v.repeat IS NOT DISTINCT FROM l.repeat
    AND v.batch IS NOT DISTINCT FROM l.batch AND v.microbatch IS NOT DISTINCT FROM l.microbatch
    AND v.step IS NOT DISTINCT FROM l.step
  WHERE s.times_last > 0 AND s.phase IN ('prefill', 'decode', 'mixed')
)
SELECT run_id, source, comm_group, phase, rank, count(step_ns) AS steps,
  median(step_ns) / 1e6 AS step_ms, median(saving_ns) / 1e6 AS saving_ms,
  median(greatest(0, step_ns - saving_ns)) / 1e6 AS predicted_step_ms,
  any_value(perturbed) AS perturbed
FROM predicted GROUP BY run_id, source, comm_group, phase, rank;
