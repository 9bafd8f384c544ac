-- One row a unit and rank: how much of the device's memory bandwidth and arithmetic a step used.
-- NULL where the work, the time or the peak is unknown.
-- @column run_id: run
-- @column rank: global rank
-- @column stage: pipeline stage
-- @column batch: index of the batch
-- @column microbatch: index of the micro-batch within the batch
-- @column repeat: repetition of the workload
-- @column phase: prefill, decode or mixed
-- @column step: decode step k >= 1 emits token k
-- @column warmup: belongs to the warm-up
-- @column perturbed_by: collector known to slow the unit; NULL: none
-- @column evidence: what the times rest on
-- @column step_ns: window of the unit on this rank; windows tile, so it is the step's cadence
-- @column busy_ns: of it neither waiting, idle nor unresolved; NULL: computing is not resolved
-- @column read_bytes: what the step must read on this rank: its weights (once, not the
-- embedding) and the keys and values held
-- @column flops: what the step must compute on this rank: 2 a matrix element and token, and
-- attention (of a prefill half the square of its mean prompt)
-- @column mbu: read_bytes / step_ns / peak bandwidth; with one batch in a pipeline of P stages at
-- most 1/P by construction
-- @column mbu_busy: read_bytes / busy_ns / peak bandwidth: the stage's own work
-- @column mfu: flops / step_ns / peak arithmetic
-- @column peak_bytes_per_s: peak bandwidth of the device
-- @column peak_flops_per_s: peak arithmetic of the device in the run's data type
-- @column peak_source: measured on this device in this run, or datasheet
CREATE VIEW utilisation AS
WITH work AS (
  SELECT s.run_id, s.rank, s.batch, s.microbatch, s.repeat, s.phase, s.step,
    any_value(k.stage) AS stage,
    any_value(k.step_weight_bytes + k.kv_bytes_per_token * s.kv_tokens)::BIGINT AS read_bytes,
    any_value(CASE WHEN s.prefill_tokens > 0
      THEN k.flops_per_token * s.prefill_tokens + k.attention_flops_per_kv_token
        * s.prefill_tokens * (s.prefill_tokens / greatest(s.batch_size, 1) + 1) / 2
      ELSE k.flops_per_token * s.decode_tokens + k.attention_flops_per_kv_token * s.kv_tokens
    END)::DOUBLE AS flops,
    any_value(k.peak_bytes_per_s) AS peak_bytes_per_s,
    any_value(k.peak_flops_per_s) AS peak_flops_per_s,
    any_value(k.peak_source) AS peak_source
  FROM steps s JOIN ranks k ON k.run_id = s.run_id AND k.rank = s.rank
  GROUP BY s.run_id, s.rank, s.batch, s.microbatch, s.repeat, s.phase, s.step
), timed AS (
  SELECT *, window_ns AS step_ns, CASE WHEN compute_ns IS NOT NULL
      THEN window_ns - coalesce(comm_wait_ns, 0) - coalesce(idle_ns, 0) - coalesce(unresolved_ns, 0)
    END AS busy_ns
  FROM step_breakdown
  WHERE phase IN ('prefill', 'decode', 'mixed') AND complete
)
SELECT t.run_id, t.rank, w.stage, t.batch, t.microbatch, t.repeat, t.phase, t.step, t.warmup,
  t.perturbed_by, t.evidence, t.step_ns, t.busy_ns, w.read_bytes, w.flops,
  w.read_bytes / nullif(t.step_ns, 0) * 1e9 / w.peak_bytes_per_s AS mbu,
  w.read_bytes / nullif(t.busy_ns, 0) * 1e9 / w.peak_bytes_per_s AS mbu_busy,
  w.flops / nullif(t.step_ns, 0) * 1e9 / w.peak_flops_per_s AS mfu,
  w.peak_bytes_per_s, w.peak_flops_per_s, w.peak_source
FROM timed t JOIN work w ON w.run_id = t.run_id AND w.rank = t.rank AND w.phase = t.phase
  AND w.batch IS NOT DISTINCT FROM t.batch AND w.microbatch IS NOT DISTINCT FROM t.microbatch
  AND w.repeat IS NOT DISTINCT FROM t.repeat AND w.step IS NOT DISTINCT FROM t.step;
