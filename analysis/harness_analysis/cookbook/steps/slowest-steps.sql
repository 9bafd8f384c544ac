-- Which steps were slowest, and what made them slow?
-- The rank whose own work grew most against its median, and by what; `harness explain` says it in
-- words.
SELECT phase, batch, step, round(step_ns / 1e6, 3) AS ms, round(excess_ns / 1e3, 1) AS over_us,
  rank, part, round(part_excess_ns / 1e3, 1) AS part_us
FROM slow_units
WHERE units >= 5
ORDER BY excess_ns DESC, phase, batch, step LIMIT 5
