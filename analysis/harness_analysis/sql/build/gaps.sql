-- What each rank did between leaving one synchronising collective of a group and entering the
-- next. Here the host's timeline; harness_analysis.build.lateness adds what kernels and in-graph
-- events show. A part without evidence is NULL.
CREATE TEMP TABLE gaps (
  source VARCHAR, comm_group VARCHAR, rank INTEGER, seq BIGINT,
  previous BIGINT, -- ordinal of the collective that it left
  left_ns BIGINT, entered_ns BIGINT,
  compute BIGINT, copy BIGINT, launch BIGINT, comm BIGINT, io BIGINT, preempted BIGINT);
