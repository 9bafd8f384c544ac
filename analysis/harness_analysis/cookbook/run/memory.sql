-- How much memory did every rank need?
-- Resident memory of the process; GPU memory is `memory_used` (NVML), or ranks.peak_memory_bytes.
SELECT rank, metric, source, round(max(value) / 1048576, 1) AS peak_mib,
  round(arg_max(value, ts_ns) / 1048576, 1) AS last_mib
FROM samples WHERE metric IN ('rss', 'memory_used') AND unit = 'bytes'
GROUP BY rank, metric, source ORDER BY metric, rank
