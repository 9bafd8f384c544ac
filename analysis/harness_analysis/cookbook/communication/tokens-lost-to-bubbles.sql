-- How many tokens are lost to pipeline bubbles?
-- Tokens that the same stages would have decoded in the time in which they waited for each other;
-- of these, what more micro-batches in flight could win (the floor) and what something else costs.
SELECT round(avg(b.wait_share), 3) AS wait_share, any_value(t.tokens) AS tokens_decoded,
  round(any_value(t.tokens) * avg(b.wait_share) / (1 - avg(b.wait_share))) AS tokens_lost,
  round(any_value(t.tokens) * least(avg(b.floor_share), avg(b.wait_share))
    / (1 - avg(b.wait_share))) AS of_these_by_construction
FROM pipeline_bubbles b
JOIN (SELECT run_id, sum(n_tokens)::BIGINT AS tokens FROM step_tokens
  WHERE phase = 'decode' AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
  GROUP BY run_id) t USING (run_id)
WHERE b.phase = 'decode' GROUP BY b.run_id
