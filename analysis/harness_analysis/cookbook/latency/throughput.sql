-- How fast was it?
-- Tokens after the end of a sequence do not count; step_ms and cadence_ms differ where steps overlap.
SELECT name, tp, pp, world_size, output_tokens, round(wall_s, 4) AS wall_s,
  round(tok_per_s, 1) AS tok_per_s, round(tok_per_s_per_rank, 1) AS per_rank,
  round(step_ms, 3) AS step_ms, round(cadence_ms, 3) AS cadence_ms
FROM run_summary
