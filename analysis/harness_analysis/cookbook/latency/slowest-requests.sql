-- Which requests waited longest for their first token?
-- Prompts of one batch share a prefill: the longest sets the pace.
SELECT request_id, batch, prompt_tokens, output_tokens, round(ttft_ns / 1e6, 3) AS ttft_ms,
  round(tpot_ns / 1e6, 3) AS tpot_ms, round(e2e_ns / 1e6, 3) AS e2e_ms
FROM requests WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL
ORDER BY ttft_ns DESC, request_id LIMIT 5
