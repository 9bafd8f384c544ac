-- A GPU's host runs ahead of it: a token is there when the unit that sampled it ends on the
-- device's own timeline. Requests are then measured to those moments.
CREATE TEMP TABLE sampled AS
  SELECT rank, batch, microbatch, repeat, phase, step, max(end_ns) AS end_ns
  FROM run.spans
  WHERE source = 'app_timers' AND timeline = 'device' AND category = 'unit'
  GROUP BY ALL;

UPDATE run.step_tokens SET device_ns = s.end_ns
  FROM sampled s
  WHERE step_tokens.device_ns IS NULL AND s.rank = step_tokens.rank
    AND s.batch IS NOT DISTINCT FROM step_tokens.batch
    AND s.microbatch IS NOT DISTINCT FROM step_tokens.microbatch
    AND s.repeat IS NOT DISTINCT FROM step_tokens.repeat AND s.phase = step_tokens.phase
    AND s.step IS NOT DISTINCT FROM step_tokens.step;

UPDATE run.requests SET
    ttft_ns = t.first_ns - requests.start_ns,
    e2e_ns = t.last_ns - requests.start_ns,
    tpot_ns = CASE WHEN t.tokens > 1 THEN (t.last_ns - t.first_ns) // (t.tokens - 1) END
  FROM (
    SELECT request_id, batch, repeat, min(device_ns) AS first_ns, max(device_ns) AS last_ns,
      sum(n_tokens)::BIGINT AS tokens
    FROM run.step_tokens WHERE n_tokens > 0
    GROUP BY ALL HAVING count(device_ns) = count(*)
  ) t
  WHERE EXISTS (FROM sampled) AND t.request_id = requests.request_id
    AND t.batch IS NOT DISTINCT FROM requests.batch
    AND t.repeat IS NOT DISTINCT FROM requests.repeat;
