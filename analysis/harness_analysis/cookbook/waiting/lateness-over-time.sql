-- Is the same rank late all the time, or only later in the run?
-- Steps in four equal parts, of the group in which most is waited; a rank that becomes late only
-- later is throttled or disturbed.
SELECT comm_group, quarter, min(step) AS first_step, arg_max(last_arriver, times) AS mostly_last,
  round(max(times) / sum(times), 3) AS share, round(sum(waited_ns) / 1e6, 3) AS waited_ms
FROM (
  SELECT run_id, comm_group, quarter, last_arriver, min(step) AS step, count(*) AS times,
    sum(sum_wait_ns) AS waited_ns
  FROM (SELECT *, ntile(4) OVER (PARTITION BY run_id, comm_group ORDER BY step) AS quarter
    FROM collective_waits WHERE phase = 'decode' AND last_arriver IS NOT NULL)
  GROUP BY ALL)
WHERE (run_id, comm_group) IN (
  SELECT (run_id, comm_group) FROM stragglers WHERE phase = 'decode'
  QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY wait_caused_ns DESC NULLS LAST) = 1)
GROUP BY run_id, comm_group, quarter ORDER BY run_id, quarter
