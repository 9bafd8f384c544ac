-- What every collective and message of the run would take at least: the measured floor of its
-- operation, group and size, straight between the two neighbouring sizes where both axes are
-- logarithms. Outside the measured sizes there is none. Input: run.floors, temp collective_parts.
-- A message has its floor whatever the group; it is a matter between two ranks. Time stamps inside
-- a graph hold the hand-over to and from the kernel as well: they have a floor of their own.
CREATE TEMP MACRO floor_op(op) AS CASE WHEN op IN ('send', 'recv') THEN 'send_recv' ELSE op END;
CREATE TEMP MACRO floor_size(op, size) AS CASE WHEN op IN ('send', 'recv') THEN 2 ELSE size END;

CREATE TEMP TABLE floor_of AS
  WITH measured AS (
    SELECT CASE implementation WHEN 'nccl' THEN 'device' ELSE 'host' END AS timeline,
      op, group_size, bytes, min(p50_ns) AS p50, arg_min(p90_ns - p10_ns, p50_ns) AS spread,
      coalesce(min(stamps_ns), 0) AS stamps
    FROM run.floors WHERE implementation IN ('nccl', 'gloo') GROUP BY ALL
  ), issued AS (
    SELECT DISTINCT timeline, floor_op(op) AS op, floor_size(op, group_size) AS group_size, bytes
    FROM collective_parts WHERE bytes > 0
  ), neighbours AS (
    SELECT i.*, max(m.bytes) FILTER (m.bytes <= i.bytes) AS bytes_1,
      min(m.bytes) FILTER (m.bytes >= i.bytes) AS bytes_2,
      arg_max(m.p50, m.bytes) FILTER (m.bytes <= i.bytes) AS p50_1,
      arg_min(m.p50, m.bytes) FILTER (m.bytes >= i.bytes) AS p50_2,
      arg_max(m.stamps, m.bytes) FILTER (m.bytes <= i.bytes) AS stamps_1,
      arg_min(m.stamps, m.bytes) FILTER (m.bytes >= i.bytes) AS stamps_2,
      arg_max(m.spread, m.bytes) FILTER (m.bytes <= i.bytes) AS spread_1,
      arg_min(m.spread, m.bytes) FILTER (m.bytes >= i.bytes) AS spread_2
    FROM issued i JOIN measured m USING (timeline, op, group_size) GROUP BY ALL
  ), placed AS (
    SELECT *, CASE WHEN bytes_1 = bytes_2 THEN 0
                   ELSE ln(bytes / bytes_1) / ln(bytes_2 / bytes_1) END AS place
    FROM neighbours WHERE bytes_1 IS NOT NULL AND bytes_2 IS NOT NULL
  )
  SELECT timeline, op, group_size, bytes, greatest(spread_1, spread_2) AS spread_ns,
    round(exp(ln(p50_1) + place * (ln(p50_2) - ln(p50_1))))::BIGINT AS floor_ns,
    CASE WHEN least(stamps_1, stamps_2) > 0
         THEN round(exp(ln(stamps_1) + place * (ln(stamps_2) - ln(stamps_1))))::BIGINT
    END AS stamps_floor_ns
  FROM placed;
