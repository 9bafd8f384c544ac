-- Evidence that lists calls and times none of them, as NCCL's log does, has nothing to split into wait
-- and transfer: it is matched by listed.sql, the rest by match.sql. Input: temp collective_parts.
CREATE TEMP TABLE untimed AS
  SELECT source FROM collective_parts WHERE source IS NOT NULL GROUP BY source
  HAVING count(start_ns) + count(end_ns) + count(duration_ns) + count(return_ns) + count(low_ns) = 0;
CREATE TEMP VIEW timed_parts AS FROM collective_parts WHERE coalesce(source, '') NOT IN (FROM untimed);
CREATE TEMP VIEW untimed_parts AS FROM collective_parts WHERE source IN (FROM untimed);
