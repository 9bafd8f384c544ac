-- Units of steps that not all ranks show: recordings that began or ended at different moments.
-- Whatever evidence shows a unit counts, so a profiler on one rank only trims nothing. A unit on a
-- device that the end of its recording cut is not shown: how long it took nobody knows.
UPDATE run.unit_breakdown SET on_all_ranks = f.ranks = f.all_ranks
  FROM (
    SELECT u.phase, u.batch, u.microbatch, u.repeat, u.step, p.all_ranks,
      count(DISTINCT u.rank) FILTER (u.complete OR u.timeline = 'host') AS ranks
    FROM run.unit_breakdown u
    JOIN (SELECT phase, count(DISTINCT rank) AS all_ranks FROM run.unit_breakdown GROUP BY phase) p
      ON p.phase IS NOT DISTINCT FROM u.phase
    WHERE u.phase IS NULL OR u.phase IN ('prefill', 'decode', 'mixed') GROUP BY ALL
  ) f
  WHERE f.phase IS NOT DISTINCT FROM unit_breakdown.phase
    AND f.batch IS NOT DISTINCT FROM unit_breakdown.batch
    AND f.microbatch IS NOT DISTINCT FROM unit_breakdown.microbatch
    AND f.repeat IS NOT DISTINCT FROM unit_breakdown.repeat
    AND f.step IS NOT DISTINCT FROM unit_breakdown.step;
