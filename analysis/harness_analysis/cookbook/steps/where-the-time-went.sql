-- Where did the time of decoding go, on every rank?
-- Headline units only: warm-up and perturbed ones are left out.
SELECT rank, units, round(window_ns / 1e6, 2) AS ms,
  round(compute_ns / window_ns, 3) AS compute, round(comm_transfer_ns / window_ns, 3) AS transfer,
  round(comm_wait_ns / window_ns, 3) AS wait, round(io_ns / window_ns, 3) AS io,
  round(idle_ns / window_ns, 3) AS idle, round(unresolved_ns / window_ns, 3) AS unresolved
FROM rank_breakdown WHERE phase = 'decode' ORDER BY rank
