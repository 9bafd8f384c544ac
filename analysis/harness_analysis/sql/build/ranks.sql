-- A rank may be described by several sources: what one leaves open another may know.
INSERT INTO run.ranks
  SELECT run_id, rank, any_value(COLUMNS(* EXCLUDE (run_id, rank)))
  FROM rank_parts GROUP BY run_id, rank ORDER BY rank;
