-- How much of a stage's time is the pipeline's bubble, and how much is by construction?
-- floor is what a perfect schedule with so many micro-batches in flight still idles.
SELECT stage, phase, round(avg(wait_share), 3) AS wait_share,
  round(any_value(floor_share), 3) AS floor_share, round(avg(excess_share), 3) AS excess
FROM pipeline_bubbles GROUP BY stage, phase ORDER BY stage, phase
