-- How much of the time is classified, and from which evidence?
-- unsplit is communication whose waiting cannot be told apart; the reason is the commonest one.
SELECT phase, ranks, evidence, units, incomplete, round(unresolved_share, 4) AS unresolved,
  round(unsplit_share, 4) AS unsplit, unsplit_reason
FROM coverage ORDER BY phase
