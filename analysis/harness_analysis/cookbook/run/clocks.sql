-- How exactly can the ranks' clocks be compared?
-- Nothing is compared more finely than the residual.
SELECT source, timeline, host, count(*) AS clocks, mode(method) AS method,
  max(residual_ns) AS residual_ns
FROM clock_offsets GROUP BY ALL ORDER BY source, timeline, host
