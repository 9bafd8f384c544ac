-- The catalogue's tables and views. Raise FORMAT in refresh.py with every change: catalogues of
-- another format are built anew.
CREATE TABLE format (version INTEGER);

CREATE TABLE runs (
  run_id VARCHAR, folder VARCHAR, stamp VARCHAR, present BOOLEAN, has_database BOOLEAN,
  name VARCHAR, status VARCHAR, verdict VARCHAR, verdict_detail VARCHAR, exit_code INTEGER,
  sweep_id VARCHAR, cell VARCHAR, repeat INTEGER, job_id VARCHAR, attempt INTEGER,
  runner VARCHAR, dtype VARCHAR, device VARCHAR, tp INTEGER, pp INTEGER, world_size INTEGER,
  batch_size INTEGER, microbatches INTEGER, spec VARCHAR, host VARCHAR,
  started_ns BIGINT, ended_ns BIGINT,
  requests BIGINT, output_tokens BIGINT, wall_s DOUBLE, tok_per_s DOUBLE,
  tok_per_s_per_rank DOUBLE, step_ms DOUBLE, ttft_p50_ms DOUBLE, tpot_p50_ms DOUBLE,
  resource_use DOUBLE, io_s DOUBLE, communication_s DOUBLE, communication_wait_share DOUBLE,
  preprocessing_s DOUBLE, load_s DOUBLE
);
COMMENT ON TABLE runs IS 'One row a run: configuration, how it ended, headline numbers.';
COMMENT ON COLUMN runs.folder IS 'run folder';
COMMENT ON COLUMN runs.stamp IS 'by what a change of run.json or run.duckdb is noticed';
COMMENT ON COLUMN runs.present IS 'the folder was there at the last refresh; false: removed since';
COMMENT ON COLUMN runs.spec IS 'resolved specification (JSON)';
COMMENT ON COLUMN runs.host IS 'host that the run was started on';
COMMENT ON COLUMN runs.ttft_p50_ms IS 'median time to first token';
COMMENT ON COLUMN runs.tpot_p50_ms IS 'median time per output token';

CREATE TABLE lateness (
  run_id VARCHAR, phase VARCHAR, comm_group VARCHAR, source VARCHAR, rank INTEGER, host VARCHAR,
  local_rank INTEGER, gpu_uuid VARCHAR, collectives BIGINT, times_last BIGINT,
  wait_caused_ns BIGINT, share_of_wait DOUBLE, named BOOLEAN, main_cause VARCHAR
);
COMMENT ON TABLE lateness IS
  'One row a run, phase, group and rank: how often the rank came last, on which device.';
COMMENT ON COLUMN lateness.collectives IS 'collectives of the group whose last arriver is known';
COMMENT ON COLUMN lateness.times_last IS 'of these, how often this rank was last';
COMMENT ON COLUMN lateness.wait_caused_ns IS 'waiting of the other ranks in those';
COMMENT ON COLUMN lateness.named IS 'the run''s findings call it a straggler';

CREATE VIEW device_history AS
WITH a_run AS (
  SELECT run_id, host, local_rank, gpu_uuid, coalesce(gpu_uuid, host || '/' || local_rank) AS place,
    sum(collectives)::BIGINT AS collectives, sum(times_last)::BIGINT AS times_last,
    max(times_last / nullif(collectives, 0)) > 0.5 AS mostly_last, bool_or(named) AS named,
    sum(wait_caused_ns)::BIGINT AS wait_caused_ns
  FROM lateness WHERE collectives > 0 GROUP BY ALL
)
SELECT place, any_value(a_run.host) AS host, any_value(gpu_uuid) AS gpu_uuid,
  count(*) AS runs, count(*) FILTER (mostly_last) AS runs_mostly_last,
  count(*) FILTER (named) AS runs_named,
  sum(times_last)::BIGINT AS times_last, sum(collectives)::BIGINT AS collectives,
  sum(times_last) / sum(collectives) AS share_last, sum(wait_caused_ns) / 1e9 AS wait_caused_s,
  max(r.started_ns) AS last_run_ns
FROM a_run JOIN runs r USING (run_id)
GROUP BY place ORDER BY runs_named DESC, runs_mostly_last DESC, place;
COMMENT ON VIEW device_history IS
  'One row a GPU (on CPUs: host and local rank), over all runs: in how many it was the late one.';
COMMENT ON COLUMN device_history.place IS 'UUID of the GPU; without one, host and local rank';
COMMENT ON COLUMN device_history.runs IS 'runs in which it shared a group whose last arriver is known';
COMMENT ON COLUMN device_history.runs_mostly_last IS
  'runs in which it was last in more than half of a group''s collectives; of two ranks one always is';
COMMENT ON COLUMN device_history.runs_named IS
  'runs whose findings name it: late in most steps (sign test), at a material cost';
