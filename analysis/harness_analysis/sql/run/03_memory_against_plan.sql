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
  SELECT run_id, rank, TRY_CAST(max(value) AS BIGINT) AS rss_bytes FROM samples
  WHERE metric = 'rss' AND unit = 'bytes' AND rank IS NOT NULL GROUP BY run_id, rank
), plans AS (
  SELECT *, CASE WHEN json_valid(memory_plan) THEN memory_plan END AS plan FROM ranks
), parts AS (
  SELECT run_id, rank, stage, weights_bytes, peak_memory_bytes, rss_bytes,
    CASE WHEN peak_memory_bytes IS NOT NULL THEN 'torch_allocator'
      WHEN device = 'cpu' AND rss_bytes IS NOT NULL THEN 'rss' END AS measured_by,
    TRY_CAST(plan->>'weights' AS BIGINT) AS weights,
    TRY_CAST(plan->>'KV cache' AS BIGINT) AS kv_bytes,
    TRY(TRY_CAST(plan->>'activations' AS BIGINT)
      + coalesce(TRY_CAST(plan->>'logits' AS BIGINT), 0)) AS activation_bytes,
    coalesce(TRY_CAST(plan->>'process' AS BIGINT), 0) AS process_bytes
  FROM plans LEFT JOIN resident USING (run_id, rank)
)
SELECT run_id, rank, stage, weights AS planned_weights_bytes, weights_bytes,
  TRY(weights + kv_bytes + activation_bytes
    + CASE WHEN measured_by = 'rss' THEN process_bytes ELSE 0 END) AS planned_bytes,
  coalesce(peak_memory_bytes, CASE WHEN measured_by = 'rss' THEN rss_bytes END) AS measured_bytes,
  measured_by, measured_bytes / planned_bytes AS ratio, kv_bytes, activation_bytes
FROM parts;
