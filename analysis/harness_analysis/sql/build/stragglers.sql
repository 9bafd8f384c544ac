-- Where a late rank's excess is waiting that it passes on, the chain is followed to the rank it
-- began with. Input: temp tables causes and inherited (late.sql), all groups in them.
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
  SELECT c.* EXCLUDE (late_root_rank), r.late_root_rank
  FROM causes c
  LEFT JOIN roots r ON r.source = c.source AND r.comm_group = c.comm_group
    AND r.phase IS NOT DISTINCT FROM c.phase AND r.rank = c.rank
  ORDER BY c.comm_group, c.phase, c.rank;
