-- One row a run: the columns that scaling tables are made of.
-- @column run_id: run
-- @column name: name in the specification
-- @column status: finished, failed or running
-- @column verdict: why it ended
-- @column tp: tensor-parallel degree
-- @column pp: pipeline stages
-- @column world_size: ranks
-- @column batch_size: prompts decoded together
-- @column requests: measured requests
-- @column output_tokens: tokens of measured requests
-- @column wall_s: measured batches, each from its earliest start to its latest end over ranks
-- @column tok_per_s: output_tokens / wall_s
-- @column tok_per_s_per_rank: tok_per_s / world_size
-- @column step_ms: median over decode steps of latest end minus earliest start over ranks
-- @column cadence_ms: median time from the end of a decode step to the end of the next; shorter
-- than step_ms where the steps of different stages overlap
-- @column speedup: against another run; NULL here, `harness compare` fills it
-- @column parallel_efficiency: against another run; NULL here
-- @column resource_use: share spent computing of the measured windows whose computing is known
-- (view rank_estimate), mean over ranks
-- @column io_s: reading and writing files, whole run, mean over ranks
-- @column communication_s: exposed communication in measured units (view rank_estimate), mean over
-- ranks; NULL where some of it is not seen
-- @column communication_wait_share: share of it spent waiting for a later rank; NULL where more than
-- 5 % of it is neither known to be waiting nor not
-- @column preprocessing_s: longest preprocess phase of a rank
-- @column load_s: longest load phase of a rank
-- @column startup_s: longest start-up phase of a rank
CREATE VIEW run_summary AS
WITH headline AS (
  SELECT * FROM step_breakdown
  WHERE phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false)
    AND perturbed_by IS NULL AND coalesce(on_all_ranks, true)
), batches AS (
  SELECT run_id, repeat, batch, max(start_ns + window_ns) - min(start_ns) AS wall_ns
  FROM headline h
  WHERE NOT EXISTS (
    FROM requests q WHERE q.run_id = h.run_id AND q.perturbed_by IS NOT NULL
      AND q.repeat IS NOT DISTINCT FROM h.repeat AND q.batch IS NOT DISTINCT FROM h.batch)
  GROUP BY ALL
), steps_over_ranks AS (
  SELECT run_id, max(start_ns + window_ns) - min(start_ns) AS step_ns,
    CASE WHEN step - lag(step) OVER steps = 1 THEN
      max(start_ns + window_ns) - lag(max(start_ns + window_ns)) OVER steps END AS cadence_ns
  FROM headline WHERE phase = 'decode' GROUP BY run_id, repeat, batch, microbatch, step
  WINDOW steps AS (PARTITION BY run_id, repeat, batch, microbatch ORDER BY step)
), parts AS (
  SELECT run_id,
    sum(compute_ns) / nullif(sum(window_ns) FILTER (compute_ns IS NOT NULL), 0) AS resource_use,
    CASE WHEN count(comm_transfer_ns + comm_wait_ns + comm_unsplit_ns) = count(*) THEN
      sum(comm_transfer_ns + comm_wait_ns + comm_unsplit_ns) / count(DISTINCT rank) / 1e9
    END AS communication_s,
    CASE WHEN sum(comm_unsplit_ns) <= 0.05 * sum(comm_transfer_ns + comm_wait_ns + comm_unsplit_ns)
      AND count(comm_transfer_ns + comm_wait_ns) = count(*) THEN
      sum(comm_wait_ns) / nullif(sum(comm_transfer_ns) + sum(comm_wait_ns), 0)
    END AS communication_wait_share
  FROM rank_estimate WHERE phase IN ('prefill', 'decode', 'mixed') GROUP BY run_id
), whole AS (
  SELECT run_id, sum(io_ns) / count(DISTINCT rank) / 1e9 AS io_s FROM step_breakdown GROUP BY run_id
), files AS (
  -- Devices read no files: beside them the host's own intervals are what is known.
  SELECT run_id, (sum(end_ns - start_ns) FILTER (category = 'io')) / count(DISTINCT rank) / 1e9 AS io_s
  FROM spans
  WHERE source = 'app_timers' AND timeline = 'host' AND category IN ('io', 'unit')
    AND coalesce(stream, 0) = 0
  GROUP BY run_id
), phases AS (
  SELECT run_id, max(ns) FILTER (phase = 'preprocess') / 1e9 AS preprocessing_s,
    max(ns) FILTER (phase = 'load') / 1e9 AS load_s,
    max(ns) FILTER (phase = 'startup') / 1e9 AS startup_s
  FROM (SELECT run_id, rank, phase, sum(window_ns) AS ns FROM step_breakdown GROUP BY ALL)
  GROUP BY run_id
), counted AS (
  SELECT run_id, count(*) AS requests, sum(output_tokens)::BIGINT AS output_tokens
  FROM requests WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL GROUP BY run_id
)
SELECT r.run_id, r.name, r.status, r.verdict, r.tp, r.pp, r.world_size, r.batch_size,
  c.requests, c.output_tokens, w.wall_s,
  c.output_tokens / nullif(w.wall_s, 0) AS tok_per_s,
  c.output_tokens / nullif(w.wall_s, 0) / nullif(r.world_size, 0) AS tok_per_s_per_rank,
  s.step_ms, s.cadence_ms,
  NULL::DOUBLE AS speedup, NULL::DOUBLE AS parallel_efficiency,
  p.resource_use, coalesce(i.io_s, o.io_s) AS io_s, p.communication_s, p.communication_wait_share,
  f.preprocessing_s, f.load_s, f.startup_s
FROM runs r
LEFT JOIN counted c USING (run_id)
LEFT JOIN (SELECT run_id, sum(wall_ns) / 1e9 AS wall_s FROM batches GROUP BY run_id) w USING (run_id)
LEFT JOIN (
  SELECT run_id, median(step_ns) / 1e6 AS step_ms, median(cadence_ns) / 1e6 AS cadence_ms
  FROM steps_over_ranks GROUP BY run_id) s USING (run_id)
LEFT JOIN parts p USING (run_id)
LEFT JOIN whole i USING (run_id)
LEFT JOIN files o USING (run_id)
LEFT JOIN phases f USING (run_id);
