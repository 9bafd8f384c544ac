-- How were waiting and transfer told apart, and how exactly?
-- NULL: they were not; the reason stands beside it.
SELECT source, op, wait_method, unsplit_reason, count(*) AS calls,
  max(wait_error_ns) AS largest_error_ns
FROM collectives GROUP BY ALL ORDER BY calls DESC, source, op, wait_method
