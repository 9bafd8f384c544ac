-- Did the ranks need the memory that was planned?
-- On a GPU by torch's allocator, on a CPU by the resident memory of the process (docs/plan.md).
SELECT rank, stage, planned_weights_bytes, weights_bytes,
  round(planned_bytes / 1048576, 1) AS planned_mib, round(measured_bytes / 1048576, 1) AS measured_mib,
  measured_by, round(ratio, 2) AS ratio
FROM memory_against_plan ORDER BY rank
