-- Where were the longest gaps between two tokens?
-- The step that a gap ends with can be looked up in step_breakdown.
SELECT request_id, batch, step, round(gap_ns / 1e6, 3) AS gap_ms
FROM (SELECT *, coalesce(device_ns, host_ns) - lag(coalesce(device_ns, host_ns)) OVER (
    PARTITION BY run_id, request_id, batch, repeat ORDER BY step) AS gap_ns
  FROM step_tokens WHERE n_tokens > 0 AND NOT coalesce(warmup, false))
WHERE gap_ns IS NOT NULL ORDER BY gap_ns DESC, request_id, step LIMIT 5
