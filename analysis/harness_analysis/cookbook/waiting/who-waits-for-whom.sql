-- Who waits for whom?
-- Every wait, hidden ones too; collectives and messages between stages.
SELECT kind, rank, waited_for, count(*) AS calls, round(sum(wait_ns) / 1e6, 3) AS waited_ms
FROM waits
WHERE phase = 'decode' AND waited_for IS NOT NULL AND wait_ns > 0
GROUP BY ALL ORDER BY waited_ms DESC, kind, rank, waited_for LIMIT 8
