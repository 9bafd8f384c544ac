-- Do steps get longer as the context grows?
-- Steps in four parts: the median step, and the computing in it.
SELECT quarter, min(step) AS first_step, max(step) AS last_step,
  round(median(window_ns) / 1e6, 3) AS step_ms, round(median(compute_ns) / 1e6, 3) AS compute_ms
FROM (SELECT *, ntile(4) OVER (ORDER BY step) AS quarter FROM step_breakdown
  WHERE phase = 'decode' AND NOT coalesce(warmup, false) AND perturbed_by IS NULL)
GROUP BY quarter ORDER BY quarter
