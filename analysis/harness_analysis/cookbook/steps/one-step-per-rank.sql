-- How many milliseconds did decode step 17 take on every rank, and of what?
-- The parts sum up to the window; NULL is a part without evidence.
SELECT rank, round(window_ns / 1e6, 3) AS ms, round(compute_ns / 1e6, 3) AS compute,
  round(comm_transfer_ns / 1e6, 3) AS transfer, round(comm_wait_ns / 1e6, 3) AS wait,
  round(idle_ns / 1e6, 3) AS idle, round(unresolved_ns / 1e6, 3) AS unresolved, evidence
FROM step_breakdown
WHERE phase = 'decode' AND step = 17 AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
ORDER BY repeat, batch, microbatch, rank
