-- How many bytes are all-reduced per token?
-- Message sizes, each collective counted once, over the tokens decoded.
SELECT w.op, w.bytes AS message_bytes, count(*) AS collectives,
  sum(w.bytes)::BIGINT AS total_bytes, any_value(t.tokens) AS tokens,
  round(sum(w.bytes) / any_value(t.tokens), 1) AS bytes_per_token
FROM collective_waits w
JOIN (SELECT run_id, sum(n_tokens)::BIGINT AS tokens FROM step_tokens
  WHERE phase = 'decode' AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
  GROUP BY run_id) t USING (run_id)
WHERE w.phase = 'decode' AND w.op = 'all_reduce' AND NOT coalesce(w.warmup, false)
  AND w.perturbed_by IS NULL
GROUP BY w.op, w.bytes ORDER BY total_bytes DESC, op, message_bytes
