-- Who came last, what it cost, and why: the last arriver's time since the group's previous
-- synchronisation, beyond its peers' mean, divided (temp table gaps). Where its excess is
-- waiting that it passes on, the chain is followed to the rank it began with.

-- Headline units; where a source shows none of a phase (a profiler slows what it records), the
-- perturbed ones, marked so.
CREATE TEMP TABLE judged AS
  WITH shown AS (
    SELECT * FROM run.collective_instances
    WHERE group_size > 1 AND NOT coalesce(warmup, false) AND wait_method IS NOT NULL
  ), kept AS (
    SELECT source, phase, NOT bool_or(perturbed_by IS NULL) AS perturbed FROM shown GROUP BY ALL
  )
  SELECT s.*, k.perturbed
  FROM shown s JOIN kept k ON k.source = s.source AND k.phase IS NOT DISTINCT FROM s.phase
  WHERE (s.perturbed_by IS NOT NULL) = k.perturbed;

-- A collective that somebody came last to, with every rank's gap since the one before it.
CREATE TEMP TABLE late_gaps AS
  SELECT j.phase, j.last_arriver, j.group_size, g.*, g.entered_ns - g.left_ns AS gap,
    count(*) OVER instance AS ranks, count(DISTINCT g.previous) OVER instance AS origins
  FROM judged j JOIN gaps g ON g.source = j.source AND g.comm_group = j.comm_group AND g.seq = j.seq
  WHERE j.last_arriver IS NOT NULL
  WINDOW instance AS (PARTITION BY g.source, g.comm_group, g.seq)
  QUALIFY ranks = j.group_size AND origins = 1;

-- Its own gap counts fully, each peer's by its share in the mean.
CREATE TEMP TABLE why AS
  WITH weighed AS (
    SELECT *, CASE WHEN rank = last_arriver THEN 1 ELSE -1 / (group_size - 1) END AS weight
    FROM late_gaps
  )
  SELECT source, comm_group, phase, last_arriver AS rank,
    round(sum(weight * gap))::BIGINT AS late_ns,
    round(sum(weight * compute))::BIGINT AS late_compute_ns,
    round(sum(weight * copy))::BIGINT AS late_copy_ns,
    round(sum(weight * launch))::BIGINT AS late_gap_ns,
    round(sum(weight * comm))::BIGINT AS late_inherited_ns,
    round(sum(weight * io))::BIGINT AS late_io_ns,
    round(sum(weight * preempted))::BIGINT AS late_preempted_ns
  FROM weighed GROUP BY ALL;

-- For whom a rank waited in those gaps, by kind of call: waiting that its peers do likewise
-- makes nobody later than they are.
CREATE TEMP TABLE passed_on AS
  WITH calls AS (
    SELECT w.source, w.rank, w.start_ns, w.wait_ns, w.waited_for, g.comm_group,
      CASE WHEN w.kind = 'p2p' THEN w.op ELSE w.op || w.comm_group END AS call
    FROM waits w JOIN (SELECT DISTINCT source, rank, comm_group FROM late_gaps) g USING (source, rank)
    WHERE w.wait_ns > 0
  )
  SELECT g.source, g.comm_group, g.phase, g.last_arriver, g.group_size, c.rank, c.call,
    c.waited_for, sum(c.wait_ns) AS wait_ns
  FROM calls c ASOF JOIN late_gaps g ON g.source = c.source AND g.rank = c.rank
    AND g.comm_group = c.comm_group AND c.start_ns >= g.left_ns
  WHERE c.start_ns < g.entered_ns
  GROUP BY ALL;

CREATE TEMP TABLE inherited AS
  WITH excess AS (
    SELECT source, comm_group, phase, last_arriver AS rank, call,
      sum(CASE WHEN rank = last_arriver THEN wait_ns ELSE -wait_ns / (group_size - 1) END) AS excess_ns
    FROM passed_on GROUP BY source, comm_group, phase, last_arriver, call
  ), target AS (
    SELECT source, comm_group, phase, rank, call, arg_max(waited_for, wait_ns) AS parent
    FROM passed_on WHERE rank = last_arriver AND waited_for IS NOT NULL GROUP BY ALL
  )
  SELECT w.source, w.comm_group, w.phase, w.rank, w.late_inherited_ns,
    arg_max(t.parent, e.excess_ns) AS parent
  FROM why w JOIN excess e ON e.source = w.source AND e.comm_group = w.comm_group
      AND e.phase IS NOT DISTINCT FROM w.phase AND e.rank = w.rank AND e.excess_ns > 0
    JOIN target t ON t.source = w.source AND t.comm_group = w.comm_group
      AND t.phase IS NOT DISTINCT FROM w.phase AND t.rank = w.rank AND t.call = e.call
  WHERE w.late_inherited_ns > 0 AND 2 * w.late_inherited_ns >= w.late_ns
  GROUP BY ALL;

CREATE TEMP TABLE roots AS
  WITH RECURSIVE link AS (
    SELECT source, phase, rank, arg_max(parent, late_inherited_ns) AS parent
    FROM inherited GROUP BY source, phase, rank
  ), chain AS (
    SELECT source, comm_group, phase, rank, parent AS root, [rank, parent] AS path FROM inherited
    UNION ALL
    SELECT c.source, c.comm_group, c.phase, c.rank, l.parent, list_append(c.path, l.parent)
    FROM chain c JOIN link l
      ON l.source = c.source AND l.phase IS NOT DISTINCT FROM c.phase AND l.rank = c.root
    WHERE NOT list_contains(c.path, l.parent)
  )
  SELECT source, comm_group, phase, rank, arg_max(root, len(path)) AS late_root_rank
  FROM chain GROUP BY ALL;

INSERT INTO run.straggler_causes BY NAME
  WITH counted AS (
    SELECT run_id, source, comm_group, phase, any_value(perturbed) AS perturbed,
      count(last_arriver) AS collectives, count(*) FILTER (last_arriver IS NULL) AS undecided
    FROM judged GROUP BY ALL
  ), lasts AS (
    SELECT source, comm_group, phase, last_arriver AS rank, count(*) AS times_last,
      sum(sum_wait_ns)::BIGINT AS wait_caused_ns, sum(arrival_margin_ns)::BIGINT AS saving_ns
    FROM judged WHERE last_arriver IS NOT NULL GROUP BY ALL
  ), members AS (
    SELECT c.source, c.comm_group, c.phase, c.rank, sum(c.wait_ns)::BIGINT AS own_wait_ns
    FROM run.collectives c
    JOIN judged j ON j.source = c.source AND j.timeline = c.timeline
      AND j.comm_group = c.comm_group AND j.seq = c.seq
    WHERE c.op NOT IN ('send', 'recv') GROUP BY ALL
  )
  SELECT c.*, m.rank, m.own_wait_ns, coalesce(l.times_last, 0) AS times_last,
    coalesce(l.wait_caused_ns, 0) AS wait_caused_ns, coalesce(l.saving_ns, 0) AS saving_ns,
    w.* EXCLUDE (source, comm_group, phase, rank), r.late_root_rank
  FROM counted c
  JOIN members m ON m.source = c.source AND m.comm_group = c.comm_group AND m.phase IS NOT DISTINCT FROM c.phase
  LEFT JOIN lasts l ON l.source = c.source AND l.comm_group = c.comm_group
    AND l.phase IS NOT DISTINCT FROM c.phase AND l.rank = m.rank
  LEFT JOIN why w ON w.source = c.source AND w.comm_group = c.comm_group
    AND w.phase IS NOT DISTINCT FROM c.phase AND w.rank = m.rank
  LEFT JOIN roots r ON r.source = c.source AND r.comm_group = c.comm_group
    AND r.phase IS NOT DISTINCT FROM c.phase AND r.rank = m.rank
  ORDER BY c.comm_group, c.phase, m.rank;
