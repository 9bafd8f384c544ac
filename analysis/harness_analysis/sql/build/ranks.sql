-- A rank may be described by several sources: what one leaves open another may know.
INSERT INTO run.ranks
  SELECT run_id, rank, any_value(COLUMNS(* EXCLUDE (run_id, rank)))
  FROM rank_parts GROUP BY run_id, rank ORDER BY rank;
-- How many ranks a stranger's job had only its evidence says: where it agrees, and holds no more.
UPDATE run.runs SET world_size = f.world_size
  FROM (
    SELECT min(told) AS world_size FROM (
      -- A text that is no JSON would end the question for all.
      SELECT CASE WHEN json_valid(detail) THEN TRY_CAST(detail ->> 'world_size' AS INTEGER) END AS told
      FROM run.collection
    )
    HAVING count(DISTINCT told) = 1
  ) f
  WHERE runs.world_size IS NULL
    AND NOT EXISTS (FROM run.ranks WHERE rank >= f.world_size);
