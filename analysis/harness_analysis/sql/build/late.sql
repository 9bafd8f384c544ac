-- Who came last in some groups, what it cost, and why: the last arriver's time since the group's
-- previous synchronisation, beyond its peers' mean, divided. Input: temp views instances_here,
-- members_here, gaps_here (harness_analysis.build.chunks: some groups whole) and temp table judged_units.

CREATE OR REPLACE TEMP TABLE judged AS
  SELECT i.*, k.perturbed
  FROM instances_here i
  JOIN judged_units k ON k.source = i.source AND k.phase IS NOT DISTINCT FROM i.phase
  WHERE i.group_size > 1 AND NOT coalesce(i.warmup, false) AND i.wait_method IS NOT NULL
    AND (i.perturbed_by IS NOT NULL) = k.perturbed;

-- A collective that somebody came last to, with every rank's gap since the one before it.
CREATE OR REPLACE TEMP TABLE late_gaps AS
  WITH whole AS (
    SELECT source, comm_group, seq, count(*) AS ranks FROM gaps_here
    GROUP BY source, comm_group, seq HAVING min(previous) = max(previous)
  )
  SELECT j.phase, j.last_arriver, j.group_size, g.*, g.entered_ns - g.left_ns AS gap
  FROM judged j
  JOIN whole w ON w.source = j.source AND w.comm_group = j.comm_group AND w.seq = j.seq
    AND w.ranks = j.group_size
  JOIN gaps_here g ON g.source = j.source AND g.comm_group = j.comm_group AND g.seq = j.seq
  WHERE j.last_arriver IS NOT NULL;

-- Its own gap counts fully, each peer's by its share in the mean.
CREATE OR REPLACE TEMP TABLE why AS
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
-- makes nobody later than they are. Looked at where it is most of a lateness.
CREATE OR REPLACE TEMP TABLE passed_on AS
  WITH gaps_of AS (
    SELECT g.* FROM late_gaps g
    JOIN why w ON w.source = g.source AND w.comm_group = g.comm_group
      AND w.phase IS NOT DISTINCT FROM g.phase AND w.rank = g.last_arriver
    WHERE w.late_inherited_ns > 0 AND 2 * w.late_inherited_ns >= w.late_ns
  ), calls AS (
    SELECT w.source, w.rank, w.start_ns, w.wait_ns, w.waited_for, g.comm_group,
      CASE WHEN w.kind = 'p2p' THEN w.op ELSE w.op || w.comm_group END AS call
    FROM waits w JOIN (SELECT DISTINCT source, rank, comm_group FROM gaps_of) g USING (source, rank)
    WHERE w.wait_ns > 0
  )
  SELECT g.source, g.comm_group, g.phase, g.last_arriver, g.group_size, c.rank, c.call,
    c.waited_for, sum(c.wait_ns) AS wait_ns
  FROM calls c ASOF JOIN gaps_of g ON g.source = c.source AND g.rank = c.rank
    AND g.comm_group = c.comm_group AND c.start_ns >= g.left_ns
  WHERE c.start_ns < g.entered_ns
  GROUP BY ALL;

INSERT INTO inherited BY NAME
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
  GROUP BY ALL;

INSERT INTO causes BY NAME
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
    FROM members_here c
    JOIN judged j ON j.source = c.source AND j.timeline = c.timeline
      AND j.comm_group = c.comm_group AND j.seq = c.seq
    GROUP BY ALL
  )
  SELECT c.*, m.rank, m.own_wait_ns, coalesce(l.times_last, 0) AS times_last,
    coalesce(l.wait_caused_ns, 0) AS wait_caused_ns, coalesce(l.saving_ns, 0) AS saving_ns,
    w.* EXCLUDE (source, comm_group, phase, rank)
  FROM counted c
  JOIN members m ON m.source = c.source AND m.comm_group = c.comm_group AND m.phase IS NOT DISTINCT FROM c.phase
  LEFT JOIN lasts l ON l.source = c.source AND l.comm_group = c.comm_group
    AND l.phase IS NOT DISTINCT FROM c.phase AND l.rank = m.rank
  LEFT JOIN why w ON w.source = c.source AND w.comm_group = c.comm_group
    AND w.phase IS NOT DISTINCT FROM c.phase AND w.rank = m.rank;
