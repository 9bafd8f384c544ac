-- Percentiles of the four latencies, each with the count it rests on. Requests and steps of the
-- warm-up and perturbed ones are left out.
-- @column run_id: run
-- @column metric: ttft, itl, tpot or e2e
-- @column count: requests (ttft, tpot, e2e) or gaps between tokens (itl)
-- @column mean_ns: mean
-- @column p50_ns: median
-- @column p90_ns: 90th percentile
-- @column p95_ns: 95th percentile
-- @column p99_ns: 99th percentile
-- @column max_ns: largest
CREATE VIEW latency AS
WITH kept AS (
  SELECT * FROM requests WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL
), token_times AS (
  SELECT t.run_id, t.request_id, t.repeat, t.perturbed_by,
    coalesce(t.device_ns, t.host_ns) AS at_ns,
    lag(coalesce(t.device_ns, t.host_ns)) OVER (
      PARTITION BY t.run_id, t.request_id, t.batch, t.repeat ORDER BY t.step) AS before_ns
  FROM step_tokens t
  WHERE t.n_tokens > 0 AND NOT coalesce(t.warmup, false)
), measured AS (
  SELECT run_id, 'ttft' AS metric, ttft_ns AS value FROM kept
  UNION ALL
  SELECT run_id, 'itl', at_ns - before_ns FROM token_times WHERE perturbed_by IS NULL
  UNION ALL
  SELECT run_id, 'tpot', tpot_ns FROM kept
  UNION ALL
  SELECT run_id, 'e2e', e2e_ns FROM kept
)
SELECT run_id, metric, count(value) AS count, avg(value) AS mean_ns,
  quantile_cont(value, 0.5) AS p50_ns, quantile_cont(value, 0.9) AS p90_ns,
  quantile_cont(value, 0.95) AS p95_ns, quantile_cont(value, 0.99) AS p99_ns,
  max(value) AS max_ns
FROM measured WHERE value IS NOT NULL
GROUP BY run_id, metric
ORDER BY list_position(['ttft', 'itl', 'tpot', 'e2e'], metric);
