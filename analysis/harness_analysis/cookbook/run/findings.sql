-- What stands out in this run?
-- In sentences, most important first; `harness report` prints the same.
SELECT position, severity, kind, rank, text FROM findings ORDER BY position
