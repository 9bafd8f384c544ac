-- Which algorithm a collective took: one rank of a communicator prints it, and all its ranks take
-- the same. Macros of this file serve calls.sql too; torch runs a barrier as an all-reduce of one
-- element.
CREATE TEMP MACRO members_of(comm_group) AS nullif(regexp_extract(comm_group, '^\[[0-9,]+\]'), '');
CREATE TEMP MACRO is_barrier(op, bytes) AS op = 'barrier' OR op = 'all_reduce' AND bytes <= 4;
CREATE TEMP MACRO kind_of(op, bytes) AS
  CASE WHEN is_barrier(op, bytes) THEN 'barrier' ELSE op || ' ' || bytes END;

CREATE TEMP TABLE choices AS
  SELECT source, comm_group, kind_of(op, bytes) AS kind, seq,
    max(algo) AS algo, max(proto) AS proto, max(channels) AS channels
  FROM run.collectives
  WHERE source IN ('nccl_log', 'nccl_inspector') AND rank IS NOT NULL AND seq IS NOT NULL
    AND op NOT IN ('send', 'recv') AND (algo IS NOT NULL OR channels IS NOT NULL)
    AND members_of(comm_group) IS NOT NULL
  GROUP BY ALL HAVING count(DISTINCT (algo, proto, channels)) FILTER (algo IS NOT NULL) = 1;

UPDATE run.collectives SET algo = coalesce(collectives.algo, n.algo),
    proto = coalesce(collectives.proto, n.proto), channels = coalesce(collectives.channels, n.channels)
  FROM choices n
  WHERE collectives.source = n.source AND collectives.comm_group = n.comm_group
    AND collectives.seq = n.seq AND kind_of(collectives.op, collectives.bytes) = n.kind
    AND collectives.op NOT IN ('send', 'recv') AND collectives.rank IS NOT NULL
    AND (collectives.algo IS NULL AND n.algo IS NOT NULL
      OR collectives.proto IS NULL AND n.proto IS NOT NULL
      OR collectives.channels IS NULL AND n.channels IS NOT NULL);

DROP TABLE choices;
