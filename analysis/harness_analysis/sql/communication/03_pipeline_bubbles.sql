-- One row a rank and phase of a pipeline: waiting for the neighbouring stage, against what the
-- schedule costs by construction. Headline units only.
-- @column run_id: run
-- @column rank: rank
-- @column stage: pipeline stage
-- @column phase: prefill or decode
-- @column window_ns: length of the windows
-- @column p2p_wait_ns: waiting in point-to-point calls
-- @column p2p_transfer_ns: transferring in point-to-point calls
-- @column wait_share: p2p_wait_ns / window_ns
-- @column floor_share: idle share of the schedule itself: max(0, 1 - m/P) when decoding,
-- (P-1)/(m+P-1) for the fill and drain of one prefill, with m micro-batches over P stages
-- @column excess_share: wait_share - floor_share
CREATE VIEW pipeline_bubbles AS
WITH waits AS (
  SELECT run_id, rank, phase, sum(wait_ns)::BIGINT AS p2p_wait_ns,
    sum(transfer_ns)::BIGINT AS p2p_transfer_ns
  FROM collectives
  WHERE op IN ('send', 'recv') AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
  GROUP BY ALL
)
SELECT b.run_id, b.rank, k.stage, b.phase, b.window_ns, w.p2p_wait_ns, w.p2p_transfer_ns,
  w.p2p_wait_ns / b.window_ns AS wait_share,
  CASE b.phase
    WHEN 'decode' THEN greatest(0, 1 - coalesce(r.microbatches, 1) / r.pp)
    WHEN 'prefill' THEN (r.pp - 1) / (coalesce(r.microbatches, 1) + r.pp - 1)
  END AS floor_share,
  w.p2p_wait_ns / b.window_ns - floor_share AS excess_share
FROM rank_breakdown b
JOIN waits w ON w.run_id = b.run_id AND w.rank = b.rank AND w.phase = b.phase
JOIN runs r ON r.run_id = b.run_id
LEFT JOIN ranks k ON k.run_id = b.run_id AND k.rank = b.rank
WHERE r.pp > 1;
