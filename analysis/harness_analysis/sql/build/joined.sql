-- Complete the best row of every call by what other evidence says of the same call, and put the
-- other rows aside, so that sums over `collectives` count a call once. Input: temp tables
-- call_rows and same_call (row_id, master, aside), from harness_analysis.build.same_calls.

-- What NCCL's own records say of a call.
CREATE TEMP TABLE said AS
  SELECT r.row_id, r.rank, r.source, r.comm_group, r.stream_name, r.kind, r.seq, r.op,
    c.algo, c.proto, c.channels, c.transport, c.bytes, c.dtype
  FROM call_rows r JOIN run.collectives c ON c.rowid = r.row_id
  WHERE r.source IN ('nccl_log', 'nccl_inspector');

-- What all its calls of one group, operation and size agree on; of a group that is found again.
CREATE TEMP TABLE said_of_kind AS
  WITH agreed AS (
    SELECT stream_name, kind, string_agg(DISTINCT source, '+' ORDER BY source) AS sources,
      CASE WHEN count(DISTINCT (algo, proto)) FILTER (algo IS NOT NULL) = 1 THEN max(algo) END AS algo,
      CASE WHEN count(DISTINCT (algo, proto)) FILTER (algo IS NOT NULL) = 1 THEN max(proto) END AS proto,
      CASE WHEN count(DISTINCT channels) = 1 THEN max(channels) END AS channels
    FROM said GROUP BY ALL
  ), found AS (
    SELECT stream_name FROM call_rows r LEFT JOIN agreed a USING (stream_name, kind)
    WHERE r.source NOT IN ('nccl_log', 'nccl_inspector')
    GROUP BY stream_name HAVING count(a.kind) >= 0.9 * count(*)
  )
  SELECT a.* FROM agreed a JOIN found USING (stream_name);

-- The edges that a rank may use are printed by itself.
CREATE TEMP TABLE said_of_edges AS
  SELECT rank, stream_name, kind, max(transport) AS transport FROM said
  GROUP BY ALL HAVING count(DISTINCT transport) = 1;

CREATE TEMP TABLE completed AS
  WITH others AS (
    SELECT s.master AS row_id, string_agg(DISTINCT r.source, '+' ORDER BY r.source) AS sources,
      max(n.seq) FILTER (r.source = 'nccl_log') AS nccl_seq,
      arg_max(n.algo, r.source) AS algo, arg_max(n.proto, r.source) AS proto,
      arg_max(n.channels, r.source) AS channels, arg_max(n.transport, r.source) AS transport,
      any_value(c.bytes) AS bytes, any_value(c.dtype) AS dtype
    FROM same_call s JOIN call_rows r ON r.row_id = s.row_id
    JOIN run.collectives c ON c.rowid = s.row_id
    LEFT JOIN said n ON n.row_id = s.row_id
    WHERE s.aside = 'same call' GROUP BY s.master
  ), timed AS (
    SELECT r.* FROM call_rows r LEFT JOIN same_call s USING (row_id)
    WHERE s.aside IS NULL AND r.source NOT IN ('nccl_log', 'flight_recorder')
  )
  SELECT t.row_id, o.nccl_seq, o.bytes, o.dtype,
    coalesce(o.algo, k.algo) AS algo, coalesce(o.proto, k.proto) AS proto,
    coalesce(o.channels, k.channels) AS channels, coalesce(o.transport, e.transport) AS transport,
    nullif(concat_ws('+', o.sources,
      CASE WHEN (o.algo IS NULL AND k.algo IS NOT NULL)
             OR (o.transport IS NULL AND k.kind IS NOT NULL AND e.transport IS NOT NULL)
           THEN '~' || k.sources END), '') AS joined
  FROM timed t LEFT JOIN others o USING (row_id)
  LEFT JOIN said_of_kind k ON k.stream_name = t.stream_name AND k.kind = t.kind
  LEFT JOIN said_of_edges e ON e.rank = t.rank AND e.stream_name = t.stream_name AND e.kind = t.kind
    AND k.kind IS NOT NULL
  WHERE o.row_id IS NOT NULL OR k.kind IS NOT NULL;

UPDATE run.collectives SET call = row_number
  FROM (SELECT row_id, dense_rank() OVER (ORDER BY master) AS row_number FROM same_call) s
  WHERE s.row_id = collectives.rowid;

UPDATE run.collectives SET nccl_seq = f.nccl_seq, joined = f.joined,
    algo = coalesce(collectives.algo, f.algo), proto = coalesce(collectives.proto, f.proto),
    channels = coalesce(collectives.channels, f.channels),
    transport = coalesce(collectives.transport, f.transport),
    bytes = coalesce(collectives.bytes, f.bytes), dtype = coalesce(collectives.dtype, f.dtype)
  FROM completed f WHERE f.row_id = collectives.rowid;

INSERT INTO run.collectives_aside BY NAME
  SELECT c.*, s.aside FROM run.collectives c JOIN same_call s ON s.row_id = c.rowid
  WHERE s.aside IS NOT NULL;
DELETE FROM run.collectives WHERE rowid IN (SELECT row_id FROM same_call WHERE aside IS NOT NULL);
