-- One row a unit over all its ranks: how much longer than the median unit of its phase it was, and
-- the rank and the part of its own work that explain it. Headline units, or perturbed ones where
-- a phase shows no others. A part's excess is against the median of the same rank and phase.
-- @column run_id: run
-- @column phase: prefill, decode or mixed
-- @column repeat: repetition of the workload
-- @column batch: index of the batch
-- @column microbatch: index of the micro-batch
-- @column step: step
-- @column evidence: what it rests on
-- @column ranks: ranks that show the unit
-- @column units: units of the phase that the medians rest on
-- @column step_ns: longest window of the unit on a rank
-- @column median_ns: median of step_ns over the units of the phase
-- @column excess_ns: step_ns - median_ns
-- @column rank: rank whose own work (all but waiting) grew most
-- @column own_excess_ns: by how much; NULL: no part of its work is known
-- @column part: the part of it that grew most, without _ns
-- @column part_excess_ns: by how much
-- @column waiting_rank: rank whose waiting grew most; NULL: waiting is not told apart
-- @column wait_excess_ns: by how much
-- @column perturbed: the unit is one that a collector slowed; the phase shows no others
CREATE VIEW slow_units AS
WITH kept AS (
  SELECT * EXCLUDE (warmup, perturbed_by, timeline, complete),
    perturbed_by IS NOT NULL AS perturbed
  FROM step_breakdown
  WHERE phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false) AND complete
    AND rank IS NOT NULL
  QUALIFY perturbed = min(perturbed) OVER (PARTITION BY run_id, phase)
), medians AS (
  SELECT run_id, phase, evidence, rank,
    median(COLUMNS('^(compute|fused|comm_transfer|comm_wait|comm_unsplit|memcpy|io|idle|unresolved)_ns$'))
  FROM kept GROUP BY run_id, phase, evidence, rank
), against AS (
  SELECT k.run_id, k.phase, k.evidence, k.rank, k.repeat, k.batch, k.microbatch, k.step,
    k.perturbed, k.window_ns, k.comm_wait_ns - m.comm_wait_ns AS wait_excess_ns,
    list_filter([
      {'ns': k.compute_ns - m.compute_ns, 'part': 'compute'},
      {'ns': k.fused_ns - m.fused_ns, 'part': 'fused'},
      {'ns': k.comm_transfer_ns - m.comm_transfer_ns, 'part': 'comm_transfer'},
      {'ns': k.comm_unsplit_ns - m.comm_unsplit_ns, 'part': 'comm_unsplit'},
      {'ns': k.memcpy_ns - m.memcpy_ns, 'part': 'memcpy'},
      {'ns': k.io_ns - m.io_ns, 'part': 'io'},
      {'ns': k.idle_ns - m.idle_ns, 'part': 'idle'},
      {'ns': k.unresolved_ns - m.unresolved_ns, 'part': 'unresolved'}
    ], lambda x: x.ns IS NOT NULL) AS parts
  FROM kept k JOIN medians m ON m.run_id = k.run_id AND m.phase = k.phase
    AND m.evidence = k.evidence AND m.rank = k.rank
), summed AS (
  SELECT * EXCLUDE (parts), list_max(parts) AS most,
    list_sum(list_transform(parts, lambda x: x.ns)) AS own_ns
  FROM against
), units AS (
  SELECT run_id, phase, repeat, batch, microbatch, step,
    string_agg(DISTINCT evidence, '+' ORDER BY evidence) AS evidence, count(*) AS ranks,
    bool_or(perturbed) AS perturbed, max(window_ns) AS step_ns,
    arg_max(rank, (own_ns, -rank)) FILTER (own_ns IS NOT NULL) AS rank, max(own_ns)::BIGINT AS own_excess_ns,
    arg_max(most, (own_ns, -rank)) FILTER (own_ns IS NOT NULL) AS most,
    arg_max(rank, (wait_excess_ns, -rank)) FILTER (wait_excess_ns IS NOT NULL)
      AS waiting_rank, max(wait_excess_ns)::BIGINT AS wait_excess_ns
  FROM summed GROUP BY run_id, phase, repeat, batch, microbatch, step
)
SELECT run_id, phase, repeat, batch, microbatch, step, evidence, ranks,
  count(*) OVER of_phase AS units, step_ns, (median(step_ns) OVER of_phase)::BIGINT AS median_ns,
  step_ns - median_ns AS excess_ns, rank, own_excess_ns, most.part AS part,
  most.ns::BIGINT AS part_excess_ns, waiting_rank, wait_excess_ns, perturbed
FROM units
WINDOW of_phase AS (PARTITION BY run_id, phase);
