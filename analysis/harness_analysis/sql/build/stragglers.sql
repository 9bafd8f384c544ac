-- Why a rank came last: its time since the group's previous synchronisation, against its peers',
-- divided into computing, other communication (an earlier wait passed on), files, and preemption.
-- Host evidence with the thread's CPU clock; where that is missing the parts are NULL.

-- Running totals of each rank's communication and file time before every communication call.
CREATE TEMP TABLE totals AS
  SELECT source, rank, span_id, start_ns, end_ns, cpu_start_ns, cpu_ns, category,
    sum(CASE WHEN category = 'comm' THEN end_ns - start_ns ELSE 0 END) OVER before AS comm_before,
    sum(CASE WHEN category = 'io' THEN end_ns - start_ns ELSE 0 END) OVER before AS io_before,
    sum(CASE WHEN category IN ('comm', 'io') THEN cpu_ns ELSE 0 END) OVER before AS cpu_before
  FROM run.spans WHERE category IN ('comm', 'io') AND timeline = 'host' AND complete
    AND source = 'app_timers' AND coalesce(stream, 0) = 0
  WINDOW before AS (PARTITION BY source, rank ORDER BY start_ns, span_id
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);

-- What each rank did between leaving one collective of the group and entering the next.
CREATE TEMP TABLE gaps AS
  SELECT c.source, c.comm_group, c.seq, c.rank, c.phase, c.warmup, c.perturbed_by,
    t.start_ns - lag(t.end_ns) OVER grp AS gap,
    t.cpu_start_ns - lag(t.cpu_start_ns + t.cpu_ns) OVER grp
      - (t.cpu_before - lag(t.cpu_before + t.cpu_ns) OVER grp) AS compute,
    t.comm_before - lag(t.comm_before + t.end_ns - t.start_ns) OVER grp AS comm,
    t.io_before - lag(t.io_before) OVER grp AS io
  FROM run.collectives c
  JOIN totals t ON t.source = c.source AND t.rank = c.rank AND t.span_id = c.span_id
  WHERE c.op NOT IN ('send', 'recv') AND c.group_size > 1 AND t.category = 'comm'
  WINDOW grp AS (PARTITION BY c.source, c.comm_group, c.rank ORDER BY c.seq);

CREATE TEMP TABLE excess AS
  SELECT g.source, g.comm_group, g.seq, g.rank, g.phase,
    g.gap - p.gap AS late, g.compute - p.compute AS compute, g.comm - p.comm AS comm, g.io - p.io AS io
  FROM gaps g
  JOIN run.collective_instances i ON i.source = g.source AND i.comm_group = g.comm_group
    AND i.seq = g.seq AND i.last_arriver = g.rank
  JOIN (
    SELECT i.source, i.comm_group, i.seq, avg(g.gap) AS gap, avg(g.compute) AS compute,
      avg(g.comm) AS comm, avg(g.io) AS io
    FROM gaps g JOIN run.collective_instances i ON i.source = g.source
      AND i.comm_group = g.comm_group AND i.seq = g.seq AND i.last_arriver <> g.rank
    GROUP BY ALL
  ) p ON p.source = g.source AND p.comm_group = g.comm_group AND p.seq = g.seq
  WHERE NOT coalesce(g.warmup, false) AND g.perturbed_by IS NULL;

INSERT INTO run.straggler_causes BY NAME
  WITH counted AS (
    SELECT run_id, source, comm_group, phase, count(last_arriver) AS collectives,
      count(*) FILTER (last_arriver IS NULL) AS undecided
    FROM run.collective_instances
    WHERE group_size > 1 AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
      AND wait_method IS NOT NULL
    GROUP BY ALL
  ), lasts AS (
    SELECT source, comm_group, phase, last_arriver AS rank, count(*) AS times_last,
      sum(sum_wait_ns)::BIGINT AS wait_caused_ns
    FROM run.collective_instances
    WHERE last_arriver IS NOT NULL AND NOT coalesce(warmup, false) AND perturbed_by IS NULL
    GROUP BY ALL
  ), members AS (
    SELECT source, comm_group, phase, rank, sum(wait_ns)::BIGINT AS own_wait_ns
    FROM run.collectives
    WHERE op NOT IN ('send', 'recv') AND group_size > 1 AND NOT coalesce(warmup, false)
      AND perturbed_by IS NULL AND wait_ns IS NOT NULL
    GROUP BY ALL
  ), why AS (
    SELECT source, comm_group, phase, rank, sum(late)::BIGINT AS late_ns,
      sum(compute)::BIGINT AS late_compute_ns, sum(comm)::BIGINT AS late_inherited_ns,
      sum(io)::BIGINT AS late_io_ns, sum(late - compute - comm - io)::BIGINT AS late_preempted_ns
    FROM excess GROUP BY ALL
  )
  SELECT c.run_id, m.rank, c.source, c.comm_group, c.phase, c.collectives, c.undecided,
    coalesce(l.times_last, 0) AS times_last, coalesce(l.wait_caused_ns, 0) AS wait_caused_ns,
    m.own_wait_ns, w.late_ns, w.late_compute_ns, w.late_inherited_ns, w.late_io_ns, w.late_preempted_ns
  FROM counted c
  JOIN members m ON m.source = c.source AND m.comm_group = c.comm_group AND m.phase IS NOT DISTINCT FROM c.phase
  LEFT JOIN lasts l ON l.source = c.source AND l.comm_group = c.comm_group
    AND l.phase IS NOT DISTINCT FROM c.phase AND l.rank = m.rank
  LEFT JOIN why w ON w.source = c.source AND w.comm_group = c.comm_group
    AND w.phase IS NOT DISTINCT FROM c.phase AND w.rank = m.rank
  ORDER BY c.comm_group, c.phase, m.rank;
