-- Are the stages balanced?
-- POP load balance: mean over ranks of the computing over its maximum; 1 is even.
SELECT stage, round(sum(compute_ns) / 1e6, 3) AS compute_ms,
  round(avg(avg(compute_ns)) OVER () / max(avg(compute_ns)) OVER (), 3) AS balance_of_stages,
  round(avg(compute_ns) / max(compute_ns), 3) AS balance_within
FROM rank_breakdown JOIN ranks USING (run_id, rank)
WHERE phase = 'decode' GROUP BY stage ORDER BY stage
