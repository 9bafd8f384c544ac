-- What are TTFT, ITL, TPOT and E2E?
-- Each with the count that it rests on.
SELECT metric, count, round(mean_ns / 1e6, 3) AS mean_ms, round(p50_ns / 1e6, 3) AS p50_ms,
  round(p90_ns / 1e6, 3) AS p90_ms, round(p99_ns / 1e6, 3) AS p99_ms, round(max_ns / 1e6, 3) AS max_ms
FROM latency
