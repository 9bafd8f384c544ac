-- Ends of the graph replays that the recorder saw, and each rank's end before it.
CREATE TEMP TABLE replays AS
  SELECT rank, end_ns, lag(end_ns, 1, 0) OVER (PARTITION BY rank ORDER BY end_ns) AS before_ns
  FROM run.spans
  WHERE category = 'graph' AND timeline = 'device' AND source IN ('app_timers', 'graph_events');
