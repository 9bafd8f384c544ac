-- How long would a step take without the late rank?
-- What it would be had the rank always come with the next to last, everything else unchanged.
SELECT comm_group, phase, rank, steps, round(step_ms, 3) AS step_ms,
  round(saving_ms, 3) AS saving_ms, round(predicted_step_ms, 3) AS predicted_step_ms
FROM what_if
ORDER BY saving_ms DESC NULLS LAST, comm_group, phase, rank LIMIT 5
