-- Calls that no rank timed, over ranks: match.sql says the same of them and takes three times as long.
-- Input: temp relation parts_here (calls whole), temp macro ranks_in, floor_of.
CREATE OR REPLACE TEMP VIEW listed_here AS
  SELECT c.* EXCLUDE (transfer_ns, wait_ns, wait_method, wait_error_ns) REPLACE (
    coalesce(c.unsplit_reason, CASE
      WHEN c.op IN ('send', 'recv') THEN 'never ended on both sides'
      WHEN c.op IS NULL THEN 'the operation is not known'
      WHEN c.seq IS NULL OR c.comm_group IS NULL THEN 'no group or ordinal'
      ELSE 'never ended on every rank' END) AS unsplit_reason,
    coalesce(f.floor_ns, c.floor_ns) AS floor_ns,
    CASE WHEN f.floor_ns IS NULL THEN c.floor_warm_ns ELSE f.warm_floor_ns END AS floor_warm_ns)
  FROM parts_here c LEFT JOIN floor_of f ON f.timeline = c.timeline AND f.op = floor_op(c.op)
    AND f.group_size = floor_size(c.op, c.group_size) AND f.bytes = c.bytes;

INSERT INTO run.collectives BY NAME FROM listed_here;

INSERT INTO run.collective_instances BY NAME
  SELECT (SELECT run_id FROM run.runs) AS run_id, source, timeline, comm_group, seq,
    ranks_in(rank) AS ranks_present,
    any_value(COLUMNS(['op', 'bytes', 'group_size', 'batch', 'microbatch', 'repeat', 'phase', 'step',
      'perturbed_by', 'floor_ns', 'floor_warm_ns'])),
    bool_or(warmup) AS warmup
  FROM listed_here
  WHERE op NOT IN ('send', 'recv') AND seq IS NOT NULL AND comm_group IS NOT NULL
  GROUP BY source, timeline, comm_group, seq;
