-- What did observing cost?
-- The paired difference of steps with the recorder off and on, with its 95 % interval.
SELECT collector, phase, pairs, round(off_ns / 1e6, 3) AS off_ms,
  round(effect_ns / off_ns, 4) AS share, round(low_ns / off_ns, 4) AS low,
  round(high_ns / off_ns, 4) AS high, resolved
FROM overhead ORDER BY phase
