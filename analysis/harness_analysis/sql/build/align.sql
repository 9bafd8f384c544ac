-- Move rows from the stage to the run, their times mapped to the run's axis.
-- Input: temp table clock_map (source, rank, host, offset_ns, drift_ppb, ref_ns, residual_ns),
-- rank or host NULL where the clock serves all of them. A source without a clock is taken to
-- write Unix time already.
CREATE TEMP MACRO aligned(raw, offset_ns, drift_ppb, ref_ns) AS
  raw + coalesce(offset_ns, 0)
  + CASE WHEN coalesce(drift_ppb, 0) = 0 THEN 0
         ELSE CAST((raw - ref_ns)::HUGEINT * drift_ppb // 1000000000 AS BIGINT) END;

CREATE TEMP TABLE rank_clock AS
  SELECT source, rank, any_value(offset_ns) AS offset_ns, any_value(drift_ppb) AS drift_ppb,
         any_value(ref_ns) AS ref_ns, any_value(clock_domain) AS clock_domain,
         any_value(residual_ns) AS residual_ns
  FROM clock_map WHERE rank IS NOT NULL GROUP BY ALL;

CREATE TEMP TABLE host_clock AS
  SELECT source, host, any_value(offset_ns) AS offset_ns, any_value(drift_ppb) AS drift_ppb,
         any_value(ref_ns) AS ref_ns
  FROM clock_map WHERE host IS NOT NULL GROUP BY ALL;

INSERT INTO run.spans BY NAME
  SELECT s.* REPLACE (
    aligned(s.start_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS start_ns,
    aligned(s.end_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS end_ns,
    coalesce(s.raw_start_ns, s.start_ns) AS raw_start_ns,
    aligned(s.launch_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS launch_ns)
  FROM stage.spans s LEFT JOIN rank_clock c ON c.source = s.source AND c.rank = s.rank;

UPDATE stage.collectives SET
    start_ns = aligned(collectives.start_ns, c.offset_ns, c.drift_ppb, c.ref_ns),
    end_ns = aligned(collectives.end_ns, c.offset_ns, c.drift_ppb, c.ref_ns),
    enqueue_ns = aligned(collectives.enqueue_ns, c.offset_ns, c.drift_ppb, c.ref_ns)
  FROM rank_clock c WHERE c.source = collectives.source AND c.rank = collectives.rank;

-- Requests and tokens are recorded by one rank each, on that host's clock; all app timers share
-- the lowest rank's mapping unless hosts differ, and then the recorder wrote which rank it was.
INSERT INTO run.step_tokens BY NAME
  SELECT t.* REPLACE (
    aligned(t.device_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS device_ns,
    aligned(t.host_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS host_ns)
  FROM stage.step_tokens t LEFT JOIN rank_clock c ON c.source = 'app_timers' AND c.rank = t.rank;

INSERT INTO run.requests BY NAME
  SELECT r.* REPLACE (
    aligned(r.arrival_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS arrival_ns,
    aligned(r.start_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS start_ns)
  FROM stage.requests r LEFT JOIN rank_clock c ON c.source = 'app_timers' AND c.rank = r.rank;

INSERT INTO run.samples BY NAME
  SELECT s.* REPLACE (
    aligned(s.ts_ns, coalesce(r.offset_ns, h.offset_ns), coalesce(r.drift_ppb, h.drift_ppb),
            coalesce(r.ref_ns, h.ref_ns)) AS ts_ns)
  FROM stage.samples s
  LEFT JOIN rank_clock r ON r.source = s.source AND r.rank = s.rank
  LEFT JOIN host_clock h ON h.source = s.source AND h.host = s.host;

INSERT INTO run.perf_counters BY NAME
  SELECT p.* REPLACE (aligned(p.ts_ns, h.offset_ns, h.drift_ppb, h.ref_ns) AS ts_ns)
  FROM stage.perf_counters p
  LEFT JOIN host_clock h ON h.source = 'perf' AND h.host = p.host;

-- A rank may be described by several sources: what one leaves open another may know.
INSERT INTO run.ranks
  WITH mapped AS (
    SELECT k.* REPLACE (
      aligned(k.last_record_ns, c.offset_ns, c.drift_ppb, c.ref_ns) AS last_record_ns)
    FROM stage.ranks k LEFT JOIN rank_clock c ON c.source = 'app_timers' AND c.rank = k.rank
  )
  SELECT run_id, rank, any_value(COLUMNS(* EXCLUDE (run_id, rank)))
  FROM mapped GROUP BY run_id, rank ORDER BY rank;

INSERT INTO run.runs SELECT * FROM stage.runs;
INSERT INTO run.steps SELECT * FROM stage.steps;
INSERT INTO run.collection SELECT * FROM stage.collection ORDER BY collector, host, rank;
INSERT INTO run.clock_anchors SELECT * FROM stage.clock_anchors;
INSERT INTO run.clock_pingpongs SELECT * FROM stage.clock_pingpongs;
INSERT INTO run.clock_offsets SELECT * FROM stage.clock_offsets ORDER BY source, rank;
INSERT INTO run.nccl_comms SELECT * FROM stage.nccl_comms;
INSERT INTO run.nccl_tuning SELECT * FROM stage.nccl_tuning;
INSERT INTO run.slurm_steps SELECT * FROM stage.slurm_steps;
INSERT INTO run.overhead SELECT * FROM stage.overhead;
