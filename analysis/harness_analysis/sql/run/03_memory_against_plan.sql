-- One row a rank: the memory that its plan foretold, and what it needed (docs/plan.md).
-- @column run_id: run
-- @column rank: global rank
-- @column stage: pipeline stage
-- @column planned_weights_bytes: weights as planned
-- @column weights_bytes: weights as held
-- @column planned_bytes: parts of the plan that measured_by can see: torch's allocator sees tensors
-- only, resident memory everything
-- @column measured_bytes: most that was needed; NULL: no evidence
-- @column measured_by: torch_allocator (GPU), or rss (CPU: the process, psutil)
-- @column ratio: measured_bytes / planned_bytes
-- @column kv_bytes: of planned_bytes, keys and values
-- @column activation_bytes: of planned_bytes, activations and logits
CREATE VIEW memory_against_plan AS
WITH resident AS (
  SELECT run_id, rank, max(value)::BIGINT AS rss_bytes FROM samples
  WHERE metric = 'rss' AND unit = 'bytes' AND rank IS NOT NULL GROUP BY run_id, rank
), parts AS (
  SELECT run_id, rank, stage, weights_bytes, peak_memory_bytes, rss_bytes,
    CASE WHEN peak_memory_bytes IS NOT NULL THEN 'torch_allocator'
      WHEN device = 'cpu' AND rss_bytes IS NOT NULL THEN 'rss' END AS measured_by,
    (memory_plan->>'weights')::BIGINT AS weights, (memory_plan->>'KV cache')::BIGINT AS kv_bytes,
    (memory_plan->>'activations')::BIGINT + coalesce((memory_plan->>'logits')::BIGINT, 0)
      AS activation_bytes,
    coalesce((memory_plan->>'process')::BIGINT, 0) AS process_bytes
  FROM ranks LEFT JOIN resident USING (run_id, rank)
)
SELECT run_id, rank, stage, weights AS planned_weights_bytes, weights_bytes,
  weights + kv_bytes + activation_bytes
    + CASE WHEN measured_by = 'rss' THEN process_bytes ELSE 0 END AS planned_bytes,
  coalesce(peak_memory_bytes, CASE WHEN measured_by = 'rss' THEN rss_bytes END) AS measured_bytes,
  measured_by, measured_bytes / planned_bytes AS ratio, kv_bytes, activation_bytes
FROM parts;
