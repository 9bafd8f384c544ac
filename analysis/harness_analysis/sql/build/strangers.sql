-- Evidence that is of another job than the rest, by rank and source: it is not joined with it.
-- NCCL's log names the process of each rank, and so does a trace; records with times cannot be of
-- a recording that ended a minute before they began, nor can an Inspector's that ended before it,
-- nor one recorder's intervals that lie a minute from those of the recorder of most ranks.
CREATE TEMP TABLE strangers AS
  WITH processes AS (
    SELECT rank, any_value(pid) AS pid FROM run.ranks WHERE rank IS NOT NULL AND pid IS NOT NULL
    GROUP BY rank HAVING count(DISTINCT pid) = 1
  ), logged AS (
    SELECT rank, list(DISTINCT pid) AS pids FROM run.nccl_comms
    WHERE rank IS NOT NULL AND pid IS NOT NULL GROUP BY rank
  ), times AS (
    SELECT rank, source, min(coalesce(enqueue_ns, start_ns, end_ns)) AS first_ns,
      max(coalesce(end_ns, start_ns, enqueue_ns)) AS last_ns
    FROM run.collectives
    -- Earlier times are of no wall clock.
    WHERE rank IS NOT NULL AND coalesce(enqueue_ns, start_ns, end_ns) > 1000000000000000000
    GROUP BY ALL
  ), recorder AS (
    SELECT source FROM times WHERE source IN ('nsys', 'torch_profiler', 'graph_events', 'app_timers')
    GROUP BY source ORDER BY count(*) DESC, source LIMIT 1
  )
  SELECT l.rank, 'nccl_log' AS source,
    format('NCCL''s log is of process {}, the other evidence of process {}', l.pids[1], p.pid) AS why
  FROM logged l JOIN processes p USING (rank) WHERE NOT list_contains(l.pids, p.pid)
  UNION ALL
  SELECT o.rank, o.source, format('its records lie {} s {} the others''',
      (abs(o.first_ns - t.first_ns) // 1000000000),
      CASE WHEN o.first_ns > t.first_ns THEN 'behind' ELSE 'before' END)
  FROM times o JOIN (
    SELECT rank, min(first_ns) AS first_ns, max(last_ns) AS last_ns FROM times
    WHERE source NOT IN ('nccl_log', 'nccl_inspector', 'flight_recorder') GROUP BY rank
  ) t USING (rank)
  WHERE (o.source IN ('nccl_log', 'nccl_inspector') AND o.first_ns > t.last_ns + 60000000000)
     OR (o.source = 'nccl_inspector' AND o.last_ns < t.first_ns - 60000000000)
  UNION ALL
  SELECT o.rank, o.source, format('recorded {} s {} it',
      greatest(o.first_ns - t.last_ns, t.first_ns - o.last_ns) // 1000000000,
      CASE WHEN o.first_ns > t.last_ns THEN 'after' ELSE 'before' END)
  FROM times o JOIN times t USING (rank)
  WHERE t.source IN (FROM recorder) AND o.source <> t.source
    AND o.source IN ('nsys', 'torch_profiler', 'graph_events', 'app_timers')
    AND greatest(o.first_ns - t.last_ns, t.first_ns - o.last_ns) > 60000000000;
