-- How much of the memory bandwidth and of the arithmetic do steps use?
-- With one batch in a pipeline mbu is at most 1 / stages; mbu_busy is against the stage's own work.
SELECT phase, rank, count(*) AS units, round(median(mbu), 4) AS mbu,
  round(median(mbu_busy), 4) AS mbu_busy, round(median(mfu), 4) AS mfu, any_value(peak_source) AS peak
FROM utilisation
WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL
GROUP BY phase, rank ORDER BY phase, rank
