-- How many collectives and messages does a decode step issue?
-- Tensor parallelism: two all-reduces a layer; a pipeline: one hop a stage and the token back.
SELECT rank, op, round(count(*) / count(DISTINCT (repeat, batch, microbatch, step)), 2) AS per_step,
  any_value(bytes) AS bytes
FROM collectives WHERE phase = 'decode' AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
GROUP BY rank, op ORDER BY rank, op
