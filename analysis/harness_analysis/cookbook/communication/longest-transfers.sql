-- Which single collectives moved data for longest?
-- Transfer is an upper bound: a network delay of the last arriver is part of it.
SELECT phase, step, op, comm_group, seq, bytes, round(transfer_ns / 1e3, 2) AS transfer_us,
  last_arriver
FROM collective_waits WHERE transfer_ns IS NOT NULL
ORDER BY transfer_ns DESC, phase, step, comm_group, seq LIMIT 5
