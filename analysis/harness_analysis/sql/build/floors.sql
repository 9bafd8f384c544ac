-- What every collective and message of the run would take at least: the measured floor of its
-- operation, group and size, straight between the two neighbouring sizes where both axes are
-- logarithms. Outside the measured sizes there is none. Input: run.floors, temp collective_parts.
-- A message has its floor whatever the group; it is a matter between two ranks. Time stamps inside
-- a graph hold the hand-over to and from the kernel as well: they have a floor of their own.
-- A floor is a range: behind other work (the caches swept), and right behind another call (warm).
CREATE TEMP MACRO floor_op(op) AS CASE WHEN op IN ('send', 'recv') THEN 'send_recv' ELSE op END;
CREATE TEMP MACRO floor_size(op, size) AS CASE WHEN op IN ('send', 'recv') THEN 2 ELSE size END;
-- How far a time lies above the range, or (negative) below it; NULL where either is not known.
CREATE TEMP MACRO beyond_floor(ns, warm_ns, floor_ns) AS
  CASE WHEN ns > floor_ns THEN ns - floor_ns
       WHEN ns < least(warm_ns, floor_ns) THEN ns - least(warm_ns, floor_ns)
       WHEN ns <= floor_ns THEN 0 END;

-- Straight between two values where both axes are logarithms; one of them unknown: unknown.
CREATE TEMP MACRO between_sizes(low, high, place) AS
  round(exp(ln(low) + place * (ln(high) - ln(low))))::BIGINT;

CREATE TEMP TABLE floor_of AS
  WITH measured AS (
    SELECT CASE implementation WHEN 'nccl' THEN 'device' ELSE 'host' END AS timeline,
      op, group_size, bytes, arg_min({p50: p50_ns, spread: p90_ns - p10_ns, stamps: stamps_ns,
        warm: warm_ns, warm_stamps: warm_stamps_ns}, p50_ns) AS ns
    FROM run.floors WHERE implementation IN ('nccl', 'gloo') GROUP BY ALL
  ), issued AS (
    SELECT DISTINCT timeline, floor_op(op) AS op, floor_size(op, group_size) AS group_size, bytes
    FROM collective_parts WHERE bytes > 0
  ), neighbours AS (
    SELECT i.*, max(m.bytes) FILTER (m.bytes <= i.bytes) AS bytes_1,
      min(m.bytes) FILTER (m.bytes >= i.bytes) AS bytes_2,
      arg_max(m.ns, m.bytes) FILTER (m.bytes <= i.bytes) AS low,
      arg_min(m.ns, m.bytes) FILTER (m.bytes >= i.bytes) AS high
    FROM issued i JOIN measured m USING (timeline, op, group_size) GROUP BY ALL
  ), placed AS (
    SELECT *, CASE WHEN bytes_1 = bytes_2 THEN 0
                   ELSE ln(bytes / bytes_1) / ln(bytes_2 / bytes_1) END AS place
    FROM neighbours WHERE bytes_1 IS NOT NULL AND bytes_2 IS NOT NULL
  )
  SELECT timeline, op, group_size, bytes,
    between_sizes(low.p50, high.p50, place) AS floor_ns,
    between_sizes(low.stamps, high.stamps, place) AS stamps_floor_ns,
    between_sizes(low.warm, high.warm, place) AS warm_floor_ns,
    between_sizes(low.warm_stamps, high.warm_stamps, place) AS warm_stamps_floor_ns,
    greatest(low.spread, high.spread, floor_ns - warm_floor_ns) AS spread_ns
  FROM placed;
