-- How fast were the weights read?
-- Bytes asked for over the time in the calls; a page cache that holds the files makes this fast.
SELECT rank, phase, count(*) AS files, sum(bytes) AS bytes,
  round(sum(end_ns - start_ns) / 1e6, 3) AS ms,
  round(sum(bytes) / sum(end_ns - start_ns), 4) AS gb_per_s
FROM spans WHERE category = 'io' AND end_ns IS NOT NULL
GROUP BY rank, phase ORDER BY rank, phase
