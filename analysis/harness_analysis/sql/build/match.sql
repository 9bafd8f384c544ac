-- Match collectives and point-to-point calls over ranks and split wait from transfer
-- (design, section 3). Input: temp tables parts_here (aligned; some groups whole, the next ones
-- in another pass: harness_analysis.build.chunks), rank_clock, floor_of, replays and evidence_exact
-- (source: its device intervals are those of kernels).

-- One row a collective: what its ranks agree on, who came when.
CREATE OR REPLACE TEMP TABLE joined AS
  SELECT c.source, c.timeline, c.comm_group, c.seq,
    any_value(c.op) AS op, any_value(c.bytes) AS bytes, any_value(c.group_size) AS group_size,
    ranks_in(c.rank) AS ranks_present, count(*) AS rows_present,
    min(c.op) <> max(c.op) AS ops_differ, min(c.bytes) IS DISTINCT FROM max(c.bytes) AS sizes_differ,
    min(hash(c.batch, c.microbatch, c.repeat, c.phase, c.step))
      <> max(hash(c.batch, c.microbatch, c.repeat, c.phase, c.step)) AS units_differ,
    any_value(c.batch) AS batch, any_value(c.microbatch) AS microbatch,
    any_value(c.repeat) AS repeat, any_value(c.phase) AS phase, any_value(c.step) AS step,
    bool_or(c.warmup) AS warmup, any_value(c.perturbed_by) AS perturbed_by,
    min(c.start_ns) AS first_start, max(c.start_ns) AS last_start,
    max(c.end_ns) AS last_end, max(c.end_ns) - min(c.end_ns) AS end_spread_ns,
    min(c.duration_ns) AS min_duration,
    max(c.start_ns, 2) AS two_latest, min(c.duration_ns, 2) AS two_shortest,
    arg_max(c.rank, c.start_ns) AS latest_rank, arg_min(c.rank, c.duration_ns) AS shortest_rank,
    max(c.start_ns) FILTER (c.rank = coalesce(c.src_rank, c.dst_rank)) AS root_start,
    count(*) FILTER (c.duration_ns IS NULL) AS open,
    any_value(c.unsplit_reason) FILTER (c.unsplit_reason IN
      ('unequal splits', 'a kernel that computes and communicates')) AS inherent,
    -- Processes of one host read one clock, however well that is tied to the other hosts'.
    coalesce(min(k.clock_domain) = max(k.clock_domain), false) AND count(k.clock_domain) = count(*)
      AND c.timeline = 'host' AS one_clock,
    CASE WHEN one_clock THEN 100 ELSE max(k.residual_ns) END AS residual_ns,
    CASE WHEN one_clock THEN 0 ELSE count(*) FILTER (k.residual_ns IS NULL) END AS unknown_clocks
  FROM parts_here c
  LEFT JOIN rank_clock k ON k.source = c.source AND k.rank = c.rank AND k.timeline = c.timeline
  WHERE c.op NOT IN ('send', 'recv') AND c.seq IS NOT NULL AND c.comm_group IS NOT NULL
  GROUP BY c.source, c.timeline, c.comm_group, c.seq;

-- One method for a whole group: kernels and in-graph events end together whatever their clocks;
-- blocking host calls are compared by their starts, where the clocks can be compared.
CREATE OR REPLACE TEMP TABLE methods AS
  SELECT source, timeline, comm_group,
    CASE WHEN timeline = 'device' AND source IN (FROM evidence_exact) THEN 'end_anchored'
         WHEN timeline = 'host' AND sum(unknown_clocks) = 0 THEN 'start_anchored' END AS wait_method,
    CASE WHEN timeline = 'device' THEN 'event pairs enclose the launch'
         ELSE 'no common clock' END AS no_method
  FROM joined GROUP BY source, timeline, comm_group;

-- Where clocks cannot be compared, ends still show how evenly ranks leave: about each rank's own
-- usual place, by the median of the group's collectives. Too few of them tell nothing.
CREATE OR REPLACE TEMP TABLE uneven_ends AS
  SELECT source, timeline, comm_group, seq, (max(e) - min(e))::BIGINT AS own_spread_ns
  FROM (
    SELECT c.source, c.timeline, c.comm_group, c.seq,
      c.end_ns - j.last_end - median(c.end_ns - j.last_end) OVER place AS e, count(*) OVER place AS n
    FROM parts_here c JOIN joined j ON j.source = c.source AND j.timeline = c.timeline
      AND j.comm_group = c.comm_group AND j.seq = c.seq
    WHERE j.unknown_clocks > 0 AND c.timeline = 'device' AND c.source IN (FROM evidence_exact)
      AND c.op NOT IN ('send', 'recv')
    WINDOW place AS (PARTITION BY c.source, c.timeline, c.comm_group, c.rank)
  )
  WHERE n >= 10 GROUP BY source, timeline, comm_group, seq;

CREATE OR REPLACE TEMP TABLE split_or_why AS
  SELECT j.*,
    CASE WHEN open > 0 THEN 'never ended on every rank'
         WHEN group_size IS NULL THEN 'size of the group unknown'
         WHEN ranks_present < group_size THEN 'seen on ' || ranks_present || ' of ' || group_size || ' ranks'
         WHEN rows_present > ranks_present THEN 'seen twice on a rank'
         WHEN ops_differ THEN 'ranks disagree on the operation'
         WHEN sizes_differ THEN 'ranks disagree on the size'
         WHEN units_differ THEN 'ranks disagree on the step'
         WHEN inherent IS NOT NULL THEN inherent
         WHEN op = 'all_to_all' AND m.wait_method <> 'end_anchored' THEN 'sizes of all_to_all unknown'
         WHEN op IN ('gather', 'scatter') THEN 'rooted operation without pairwise evidence'
         WHEN m.wait_method IS NULL THEN no_method
         WHEN op IN ('broadcast', 'reduce') AND m.wait_method = 'start_anchored' AND root_start IS NULL
              AND group_size > 1 THEN 'the root is not known'
    END AS unsplit_reason,
    -- Between kernels the shortest tells how long a rooted operation takes, whoever the root is.
    CASE WHEN op = 'all_to_all' OR (op IN ('broadcast', 'reduce') AND m.wait_method = 'end_anchored')
         THEN 'end_anchored_unverified' ELSE m.wait_method END AS wait_method,
    CASE WHEN m.wait_method = 'end_anchored' THEN least(end_spread_ns, u.own_spread_ns)
         ELSE residual_ns END AS wait_error_ns
  FROM joined j JOIN methods m USING (source, timeline, comm_group)
  LEFT JOIN uneven_ends u USING (source, timeline, comm_group, seq);

CREATE OR REPLACE TEMP TABLE split_here AS
  WITH split AS (
    SELECT c.* EXCLUDE (transfer_ns, wait_ns, wait_method, wait_error_ns, unsplit_reason),
      CASE WHEN c.duration_ns IS NULL OR j.unsplit_reason IS NOT NULL OR j.op IS NULL THEN NULL
           WHEN j.group_size = 1 THEN 0
           WHEN j.op IN ('broadcast', 'reduce') AND j.wait_method = 'start_anchored' THEN
             -- The pairwise rule with the root: the others wait for it; it waits for the last of
             -- them only if it was still inside when that one came.
             CASE WHEN j.root_start IS NULL THEN NULL
                  WHEN c.rank = coalesce(c.src_rank, c.dst_rank) THEN
                    CASE WHEN c.end_ns > j.last_start THEN j.last_start - c.start_ns ELSE 0 END
                  ELSE greatest(0, least(j.root_start, c.end_ns) - c.start_ns) END
           WHEN j.wait_method = 'start_anchored'
             THEN greatest(0, least(j.last_start, c.end_ns) - c.start_ns)
           ELSE c.duration_ns - j.min_duration END AS wait_ns,
      j.wait_method, j.wait_error_ns,
      coalesce(c.unsplit_reason, j.unsplit_reason,
               CASE WHEN c.op IS NULL THEN 'the operation is not known'
                    WHEN j.op IS NULL THEN 'no group or ordinal' END) AS unsplit_reason
    FROM parts_here c
    LEFT JOIN split_or_why j ON j.source = c.source AND j.timeline = c.timeline
      AND j.comm_group = c.comm_group AND j.seq = c.seq
    WHERE c.op IS NULL OR c.op NOT IN ('send', 'recv')
  )
  SELECT * EXCLUDE (wait_method, wait_error_ns),
    duration_ns - wait_ns AS transfer_ns,
    CASE WHEN wait_ns IS NOT NULL THEN wait_method WHEN low_ns IS NOT NULL THEN 'bounded' END AS wait_method,
    CASE WHEN wait_ns IS NOT NULL THEN wait_error_ns END AS wait_error_ns
  FROM split;

-- Nothing leaves a rank while it replays a graph: what a receiver behind event pairs spent until the
-- sender's replay ended was waiting, whenever the send itself was seen.
CREATE OR REPLACE TEMP TABLE replayed AS
  WITH behind_pairs AS (
    SELECT c.rank, c.span_id, c.src_rank, greatest(c.start_ns, c.return_ns) AS entry_ns,
      c.end_ns + k.residual_ns + p.residual_ns AS until_ns
    FROM parts_here c
    JOIN rank_clock k ON k.source = c.source AND k.rank = c.rank AND k.timeline = 'device'
    JOIN rank_clock p ON p.source = c.source AND p.rank = c.src_rank AND p.timeline = 'device'
    WHERE c.op = 'recv' AND c.timeline = 'device' AND c.source = 'app_timers'
      AND c.return_ns IS NOT NULL
  )
  SELECT r.rank, r.span_id, g.end_ns AS replayed_until
  FROM behind_pairs r ASOF JOIN replays g ON g.rank = r.src_rank AND g.end_ns <= r.until_ns
  -- The sender's last replay ended while the receiver waited, and no other did.
  WHERE g.end_ns > r.entry_ns AND g.before_ns <= r.entry_ns;

-- Point-to-point: sender and receiver of the same ordered pair and ordinal.
CREATE OR REPLACE TEMP TABLE sides AS
  SELECT c.*, k.clock_domain, k.residual_ns,
    row_number() OVER message AS nth, count(*) OVER message AS times
  FROM parts_here c
  LEFT JOIN rank_clock k ON k.source = c.source AND k.rank = c.rank AND k.timeline = c.timeline
  WHERE c.op IN ('send', 'recv')
  WINDOW message AS (PARTITION BY c.source, c.timeline, c.src_rank, c.dst_rank, c.seq, c.op);

INSERT INTO split_here BY NAME
  WITH paired AS (
    SELECT a.*, w.replayed_until, b.start_ns AS peer_start, b.end_ns AS peer_end, b.duration_ns AS peer_duration,
      b.rank AS peer, b.bytes IS DISTINCT FROM a.bytes AS other_size,
      greatest(a.times, b.times) > 1 AS twice,
      coalesce(a.clock_domain = b.clock_domain AND a.timeline = 'host', false) AS one_clock,
      one_clock OR a.residual_ns IS NOT NULL AND b.residual_ns IS NOT NULL AND a.timeline = 'host'
        AS comparable,
      CASE WHEN one_clock THEN 100 ELSE greatest(a.residual_ns, b.residual_ns) END AS pair_residual
    FROM sides a LEFT JOIN sides b ON a.source = b.source AND a.timeline = b.timeline
      AND a.src_rank = b.src_rank AND a.dst_rank = b.dst_rank AND a.seq = b.seq AND a.op <> b.op
      AND b.nth = 1
    LEFT JOIN replayed w ON w.span_id = a.span_id AND w.rank = a.rank
  ), reasoned AS (
    SELECT *, CASE WHEN duration_ns IS NULL OR (peer IS NOT NULL AND peer_duration IS NULL) THEN 'never ended on both sides'
                   WHEN peer IS NOT NULL AND twice THEN 'seen twice on a rank'
                   WHEN peer IS NOT NULL AND other_size THEN 'the sides disagree on the size'
                   WHEN replayed_until IS NOT NULL THEN NULL
                   WHEN peer IS NULL THEN 'the other side is not in the evidence'
                   WHEN timeline = 'device' AND source NOT IN (FROM evidence_exact)
                     THEN 'event pairs enclose the launch' END AS reason
    FROM paired
  ), waited AS (
    SELECT *, CASE WHEN reason IS NOT NULL THEN NULL
                   WHEN replayed_until IS NOT NULL
                     THEN greatest(0, least(replayed_until, end_ns) - greatest(start_ns, return_ns))
                   -- Without a common clock the shorter side is the later one.
                   WHEN NOT comparable THEN duration_ns - least(duration_ns, peer_duration)
                   -- It had left before the other came: the message was buffered, nobody waited.
                   WHEN end_ns <= peer_start THEN 0
                   ELSE greatest(0, peer_start - start_ns) END AS w
    FROM reasoned
  )
  SELECT * EXCLUDE (replayed_until, peer_start, peer_end, peer_duration, peer, other_size, comparable,
                    pair_residual, one_clock, twice, nth, times, reason, w, clock_domain, residual_ns, transfer_ns, wait_ns,
                    wait_method, wait_error_ns, unsplit_reason),
    w AS wait_ns,
    CASE WHEN replayed_until IS NULL THEN duration_ns - w
         ELSE end_ns - least(replayed_until, end_ns) END AS transfer_ns,
    CASE WHEN w IS NULL AND low_ns IS NOT NULL THEN 'bounded' WHEN w IS NULL THEN NULL
         WHEN comparable OR replayed_until IS NOT NULL THEN 'start_anchored'
         ELSE 'end_anchored' END AS wait_method,
    -- The sender still had to launch after its replay (how long, the end tells at most), and the
    -- receiver's own launch may lie behind its call's return, for as long as chunks.py allows.
    CASE WHEN w IS NULL THEN NULL
         WHEN replayed_until IS NOT NULL
           THEN coalesce(pair_residual, 0) + 100000 + end_ns - least(replayed_until, end_ns)
         WHEN comparable THEN pair_residual END AS wait_error_ns,
    coalesce(unsplit_reason, reason) AS unsplit_reason
  FROM waited;

-- Against measured floors. An eager event pair that could only be bounded is split by its floor:
-- data moved for that long before the end, the rest of what lies behind the call's return waited,
-- but for the time that the launch itself took, which is part of the error. Behind a replay the
-- error is what passed between the sender's replay and the data. Where nothing of the group moved
-- for 10 ms, be it that a receive waited, a link may have had to wake, which takes up to 200 us
-- (docs/performance.md, What makes a message longer).
CREATE OR REPLACE TEMP TABLE matched_here AS
  WITH moved AS (
    SELECT rank, span_id, end_ns - lag(end_ns) OVER (PARTITION BY rank, comm_group
      ORDER BY start_ns) < 10000000 AS lately
    FROM split_here WHERE source = 'app_timers' AND timeline = 'device'
  ), waking AS (
    SELECT rank, span_id, CASE WHEN bool_and(lately) THEN 0 ELSE 200000 END AS waking_ns
    FROM moved GROUP BY rank, span_id
  ), floored AS (
    SELECT c.*, f.floor_ns AS known_ns, f.stamps_floor_ns, f.warm_floor_ns, f.warm_stamps_floor_ns,
      f.spread_ns, f.floor_ns IS NOT NULL
        AND c.source = 'app_timers' AND c.wait_method = 'bounded'
        AND c.unsplit_reason = 'event pairs enclose the launch' AS behind_pairs,
      f.floor_ns IS NOT NULL AND c.source = 'app_timers' AND c.timeline = 'device' AND c.op = 'recv'
        AND c.wait_method = 'start_anchored' AND c.return_ns IS NOT NULL AS behind_replay,
      behind_pairs OR behind_replay AS by_floor, coalesce(w.waking_ns, 200000) AS waking_ns
    FROM split_here c
    LEFT JOIN waking w ON c.source = 'app_timers' AND w.rank = c.rank AND w.span_id = c.span_id
    LEFT JOIN floor_of f ON f.timeline = c.timeline AND f.op = floor_op(c.op)
      AND f.group_size = floor_size(c.op, c.group_size) AND f.bytes = c.bytes
  )
  SELECT * EXCLUDE (known_ns, stamps_floor_ns, warm_floor_ns, warm_stamps_floor_ns, spread_ns,
      by_floor, behind_pairs, behind_replay, waking_ns) REPLACE (
    CASE WHEN known_ns IS NULL THEN floor_ns
         WHEN source = 'graph_events' THEN stamps_floor_ns ELSE known_ns END AS floor_ns,
    CASE WHEN known_ns IS NULL THEN floor_warm_ns
         WHEN source = 'graph_events' THEN warm_stamps_floor_ns
         ELSE warm_floor_ns END AS floor_warm_ns,
    CASE WHEN by_floor THEN least(duration_ns, known_ns) ELSE transfer_ns END AS transfer_ns,
    CASE WHEN by_floor THEN greatest(0, end_ns - greatest(start_ns, return_ns) - known_ns)
         ELSE wait_ns END AS wait_ns,
    CASE WHEN by_floor THEN 'floor' ELSE wait_method END AS wait_method,
    CASE WHEN behind_pairs THEN spread_ns + 100000 + waking_ns
         WHEN behind_replay THEN spread_ns + greatest(0, wait_error_ns - known_ns) + waking_ns
         ELSE wait_error_ns END AS wait_error_ns,
    CASE WHEN by_floor THEN NULL ELSE unsplit_reason END AS unsplit_reason)
  FROM floored;

INSERT INTO run.collectives BY NAME FROM matched_here;

-- Who came last. Nobody is named when the margin is within what the evidence can resolve.
INSERT INTO run.collective_instances BY NAME
  SELECT s.run_id, j.* EXCLUDE (rows_present, ops_differ, sizes_differ, units_differ, first_start, last_start, last_end,
      min_duration, two_latest, two_shortest, latest_rank, shortest_rank, root_start, open, inherent,
      one_clock, residual_ns, unknown_clocks, unsplit_reason, wait_method, wait_error_ns, split,
      margin),
    first_start AS start_ns, last_end AS end_ns,
    s.transfer_ns, s.sum_wait_ns, s.max_wait_ns, s.floor_ns, s.floor_warm_ns,
    beyond_floor(s.transfer_ns, s.floor_warm_ns, s.floor_ns) AS excess_ns,
    CASE WHEN split THEN j.wait_method ELSE s.by_floor END AS wait_method,
    CASE WHEN split THEN j.wait_error_ns WHEN s.by_floor IS NOT NULL THEN s.error_ns END AS wait_error_ns,
    CASE WHEN split AND group_size > 1 THEN margin END AS arrival_margin_ns,
    CASE WHEN split AND group_size > 1 AND j.op IN (FROM synchronising)
              AND margin >= greatest(coalesce(j.wait_error_ns, 0), 1)
         THEN CASE WHEN j.wait_method = 'start_anchored' THEN latest_rank ELSE shortest_rank END
    END AS last_arriver
  FROM (
    SELECT *, unsplit_reason IS NULL AS split,
      CASE WHEN wait_method = 'start_anchored' THEN two_latest[1] - two_latest[2]
           ELSE two_shortest[2] - two_shortest[1] END AS margin
    FROM split_or_why
  ) j
  JOIN (
    SELECT run_id, source, timeline, comm_group, seq, max(transfer_ns) AS transfer_ns,
      sum(wait_ns)::BIGINT AS sum_wait_ns, max(wait_ns) AS max_wait_ns, any_value(floor_ns) AS floor_ns,
      any_value(floor_warm_ns) AS floor_warm_ns,
      max(wait_method) FILTER (wait_method = 'floor') AS by_floor, max(wait_error_ns) AS error_ns
    FROM matched_here WHERE op NOT IN ('send', 'recv') GROUP BY ALL
  ) s USING (source, timeline, comm_group, seq);
