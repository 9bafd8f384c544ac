-- Which algorithm and protocol did NCCL choose for each size?
-- From NCCL's own log (NCCL_DEBUG=INFO, subsystem TUNING); a choice for many sizes is one row.
SELECT op, bytes, algo, proto, any_value(channels) AS channels, sum(count) AS times
FROM nccl_tuning GROUP BY op, bytes, algo, proto ORDER BY op, bytes
