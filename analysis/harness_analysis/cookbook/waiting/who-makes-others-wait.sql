-- Which rank makes the others wait?
-- The rank with the most communication time is the earliest, not the latest: look at times_last
-- and at the waiting that its lateness caused.
SELECT phase, comm_group, rank, times_last, collectives, round(share_last, 3) AS share_last,
  round(wait_caused_ns / 1e6, 3) AS wait_caused_ms, main_cause
FROM stragglers
WHERE phase = 'decode' AND times_last > 0
ORDER BY wait_caused_ns DESC, comm_group, rank
