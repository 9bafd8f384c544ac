-- How are the step times distributed?
-- A step is as long as its longest window on a rank; the count stands beside every percentile.
SELECT phase, count(*) AS steps, round(quantile_cont(ns, 0.5) / 1e6, 3) AS p50_ms,
  round(quantile_cont(ns, 0.9) / 1e6, 3) AS p90_ms, round(quantile_cont(ns, 0.99) / 1e6, 3) AS p99_ms,
  round(max(ns) / 1e6, 3) AS max_ms
FROM (SELECT phase, max(window_ns) AS ns FROM step_breakdown
  WHERE phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false)
    AND perturbed_by IS NULL
  GROUP BY phase, repeat, batch, microbatch, step)
GROUP BY phase ORDER BY phase
