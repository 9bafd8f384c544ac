-- What harness_analysis.build.same_calls needs of every row of `collectives`, as numbers. A stream is
-- what keeps its order in every evidence: the collectives of a group, the messages of an ordered
-- pair. Of a group only its members count: creation ordinals differ between evidence.
-- Input: temp table strangers, macros of choices.sql.
CREATE TEMP MACRO stream_of(comm_group, op, src, dst) AS
  CASE WHEN op IN ('send', 'recv') THEN op || ' ' || src || '>' || dst ELSE members_of(comm_group) END;
CREATE TEMP MACRO number_of(text) AS CASE WHEN text IS NOT NULL THEN (hash(text) % 9223372036854775807)::BIGINT END;

CREATE TEMP TABLE call_rows AS
  WITH streams AS (
    SELECT rowid AS row_id, *,
      -- Of another job: a stream of its own.
      CASE WHEN (rank, source) IN (SELECT (rank, source) FROM strangers) THEN source || ' ' ELSE '' END
        || stream_of(comm_group, op, src_rank, dst_rank) AS stream_name,
      CASE op WHEN 'barrier' THEN 'all_reduce' ELSE op END AS plain_op,
      CASE WHEN phase IS NOT NULL
        THEN concat_ws('/', phase, coalesce(repeat, -1), coalesce(batch, -1),
                       coalesce(microbatch, -1), coalesce(step, -1)) END AS unit_name
    FROM run.collectives WHERE rank IS NOT NULL AND op IS NOT NULL
  )
  SELECT row_id, rank, source, timeline, comm_group, op, plain_op, stream_name,
    number_of(stream_name || plain_op) AS sort, number_of(stream_name) AS stream,
    number_of(comm_group) AS comm,     number_of(unit_name) AS unit, number_of(unit_name || stream_name || plain_op) AS slot,
    CASE WHEN is_barrier(op, bytes) THEN 0 ELSE bytes END AS size, (timeline = 'host')::BIGINT AS host,
    kind_of(op, bytes) AS kind, seq, enqueue_ns, start_ns, end_ns
  FROM streams WHERE stream_name IS NOT NULL;
