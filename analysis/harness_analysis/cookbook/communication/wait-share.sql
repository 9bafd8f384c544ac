-- How much of what looks like communication is waiting for a late rank?
-- Summed over ranks; a profiler that adds up communication time reports the whole.
SELECT phase, op, count(*) AS calls, round(sum(duration_ns) / 1e6, 3) AS total_ms,
  round(sum(transfer_ns) / 1e6, 3) AS transfer_ms, round(sum(wait_ns) / 1e6, 3) AS wait_ms,
  round(sum(wait_ns) / (sum(wait_ns) + sum(transfer_ns)), 3) AS wait_share
FROM collectives
WHERE phase IN ('prefill', 'decode') AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
GROUP BY phase, op ORDER BY phase, total_ms DESC, op
