-- Rows of temp table gaps for some ranks: on the host's timeline, what the recorder saw. Input:
-- temp tables spans_here, collectives_here (harness_analysis.build.chunks).

-- Running totals of each rank's communication and file time before every communication call.
CREATE OR REPLACE TEMP TABLE totals AS
  SELECT source, rank, span_id, start_ns, end_ns, cpu_start_ns, cpu_ns, category,
    sum(CASE WHEN category = 'comm' THEN end_ns - start_ns ELSE 0 END) OVER before AS comm_before,
    sum(CASE WHEN category = 'io' THEN end_ns - start_ns ELSE 0 END) OVER before AS io_before,
    sum(CASE WHEN category IN ('comm', 'io') THEN cpu_ns ELSE 0 END) OVER before AS cpu_before
  FROM spans_here WHERE category IN ('comm', 'io') AND timeline = 'host' AND complete
    AND source = 'app_timers' AND coalesce(stream, 0) = 0
  WINDOW before AS (PARTITION BY source, rank ORDER BY start_ns, span_id
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);

INSERT INTO gaps BY NAME
  SELECT *, entered_ns - left_ns - compute - comm - io AS preempted
  FROM (
    SELECT c.source, c.comm_group, c.rank, c.seq, lag(c.seq) OVER grp AS previous,
      lag(t.end_ns) OVER grp AS left_ns, t.start_ns AS entered_ns,
      t.cpu_start_ns - lag(t.cpu_start_ns + t.cpu_ns) OVER grp
        - (t.cpu_before - lag(t.cpu_before + t.cpu_ns) OVER grp) AS compute,
      t.comm_before - lag(t.comm_before + t.end_ns - t.start_ns) OVER grp AS comm,
      t.io_before - lag(t.io_before) OVER grp AS io
    FROM collectives_here c
    JOIN totals t ON t.source = c.source AND t.rank = c.rank AND t.span_id = c.span_id
    WHERE c.op IN (FROM synchronising) AND c.group_size > 1 AND c.wait_ns IS NOT NULL
      AND t.category = 'comm'
    WINDOW grp AS (PARTITION BY c.source, c.comm_group, c.rank ORDER BY c.seq)
  )
  WHERE previous IS NOT NULL;
