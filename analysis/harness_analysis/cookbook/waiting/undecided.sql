-- In how many collectives can nobody be named?
-- Where all arrive within the clocks' error the last arriver is a coin toss, and is left open.
SELECT phase, comm_group, any_value(collectives) AS decided, any_value(undecided) AS undecided,
  max(wait_error_ns) AS error_ns
FROM stragglers JOIN collective_waits USING (run_id, source, comm_group, phase)
GROUP BY ALL ORDER BY phase, comm_group
