-- What late.sql needs and adds to, group by group.

-- Headline units; where a source shows none of a phase (a profiler slows what it records), the
-- perturbed ones, marked so.
CREATE TEMP TABLE judged_units AS
  SELECT source, phase, NOT bool_or(perturbed_by IS NULL) AS perturbed
  FROM run.collective_instances
  WHERE group_size > 1 AND NOT coalesce(warmup, false) AND wait_method IS NOT NULL GROUP BY ALL;

-- Rows of straggler_causes; the root of inherited lateness is known when all groups are.
CREATE TEMP TABLE causes AS FROM run.straggler_causes LIMIT 0;

-- Whom a late rank itself waited for, where that is most of its lateness.
CREATE TEMP TABLE inherited (
  source VARCHAR, comm_group VARCHAR, phase VARCHAR, rank INTEGER, late_inherited_ns BIGINT,
  parent INTEGER);
