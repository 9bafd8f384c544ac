-- Is the last arriver always the same GPU?
-- Over several runs (`'runs/*'`) it tells whether a device is slow wherever it is used. Where no
-- GPU is known the rank's host and number stand for it.
SELECT coalesce(k.gpu_uuid, concat_ws(':', k.host, 'rank ' || k.rank)) AS device,
  count(DISTINCT w.run_id) AS runs, count(*) AS times_last,
  round(count(*) / sum(count(*)) OVER (), 3) AS share
FROM collective_waits w
JOIN ranks k ON k.run_id = w.run_id AND k.rank = w.last_arriver
WHERE NOT coalesce(w.warmup, false)
GROUP BY ALL ORDER BY times_last DESC, device
