-- Kernels say how long a collective took, the recorder says which one it was. Join them by
-- their order within a unit of work on a rank: the k-th all-reduce kernel is the k-th all-reduce
-- call, whether that call was made eagerly or is part of a replayed graph. Only where a unit
-- shows as many kernels as calls; elsewhere the kernels stay unidentified.
CREATE TEMP MACRO op_class(op, kernel) AS
  CASE WHEN op IN ('send', 'recv', 'send_recv') OR (op IS NULL AND kernel LIKE '%SendRecv%')
       THEN 'p2p' ELSE op END;

CREATE TEMP TABLE known_calls AS
  SELECT rank, batch, microbatch, repeat, phase, step, op_class(op, kernel) AS class, op, comm_group, seq, bytes,
    dtype, group_size, src_rank, dst_rank,
    row_number() OVER unit AS k, count(*) OVER (
      PARTITION BY rank, batch, microbatch, repeat, phase, step, op_class(op, kernel)) AS n
  FROM collective_parts
  WHERE source IN ('app_timers', 'graph_events') AND timeline = 'device' AND phase IS NOT NULL
    AND enqueue_ns IS NOT NULL
  WINDOW unit AS (PARTITION BY rank, batch, microbatch, repeat, phase, step, op_class(op, kernel)
                  ORDER BY enqueue_ns, seq NULLS LAST);

CREATE TEMP TABLE nameless_kernels AS
  SELECT rowid AS row_id, rank, batch, microbatch, repeat, phase, step, op_class(op, kernel) AS class,
    row_number() OVER unit AS k, count(*) OVER (
      PARTITION BY source, rank, batch, microbatch, repeat, phase, step, op_class(op, kernel)) AS n
  FROM collective_parts
  WHERE source IN (FROM evidence_exact) AND source <> 'graph_events' AND comm_group IS NULL AND phase IS NOT NULL
    AND start_ns IS NOT NULL
  WINDOW unit AS (PARTITION BY source, rank, batch, microbatch, repeat, phase, step, op_class(op, kernel)
                  ORDER BY start_ns);

-- A call made eagerly has its ordinal. One inside a clean graph gets a number that is the same
-- on all ranks and grows with time: unit first, then place.
UPDATE collective_parts SET comm_group = f.comm_group, seq = f.seq, op = f.op, bytes = f.bytes,
    dtype = f.dtype, group_size = f.group_size, src_rank = f.src_rank, dst_rank = f.dst_rank
  FROM (
    SELECT n.row_id, c.comm_group, c.op, c.bytes, c.dtype, c.group_size, c.src_rank, c.dst_rank,
      coalesce(c.seq, ((((coalesce(c.repeat, 0) + 2)::BIGINT * 100000 + coalesce(c.batch, 0)) * 1000
        + coalesce(c.microbatch, 0)) * 100000 + coalesce(c.step, 0)) * 10000 + c.k) AS seq
    FROM nameless_kernels n JOIN known_calls c
      ON c.rank = n.rank AND c.batch IS NOT DISTINCT FROM n.batch
      AND c.microbatch IS NOT DISTINCT FROM n.microbatch
      AND c.repeat IS NOT DISTINCT FROM n.repeat AND c.phase = n.phase
      AND c.step IS NOT DISTINCT FROM n.step AND c.class = n.class AND c.k = n.k AND c.n = n.n
  ) f
  WHERE collective_parts.rowid = f.row_id;
