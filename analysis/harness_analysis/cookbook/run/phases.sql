-- How long did each phase take?
-- The longest rank counts for the wall clock; the spread tells who held the others up.
SELECT phase, count(*) AS ranks, round(min(window_ns) / 1e6, 2) AS fastest_ms,
  round(max(window_ns) / 1e6, 2) AS slowest_ms, arg_max(rank, (window_ns, -rank)) AS slowest_rank
FROM rank_breakdown WHERE phase <> 'all' GROUP BY phase ORDER BY slowest_ms DESC, phase
