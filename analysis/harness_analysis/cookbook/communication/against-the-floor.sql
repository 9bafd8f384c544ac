-- How far above the measured floor are the transfers?
-- Floors come from `harness bench collectives`; NULL where none was measured for the size.
SELECT op, bytes, count(*) AS calls, round(median(transfer_ns) / 1e3, 2) AS transfer_us,
  round(any_value(floor_ns) / 1e3, 2) AS floor_us, round(median(excess_ns) / 1e3, 2) AS excess_us
FROM collective_waits WHERE phase = 'decode' AND transfer_ns IS NOT NULL
GROUP BY op, bytes ORDER BY op, bytes
