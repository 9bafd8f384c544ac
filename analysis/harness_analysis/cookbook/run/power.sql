-- How much power did the GPUs draw, and what energy is that over the samples?
-- Mean power times the time sampled; one step has no measurable energy of its own.
SELECT host, device, count(*) AS samples, round(avg(value), 1) AS mean_w, max(value) AS max_w,
  round(avg(value) * (max(ts_ns) - min(ts_ns)) / 1e9) AS joules
FROM samples WHERE metric = 'power_usage' AND device IS NOT NULL
GROUP BY host, device ORDER BY host, device
