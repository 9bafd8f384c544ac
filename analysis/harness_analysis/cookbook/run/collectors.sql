-- Which evidence is missing, and why?
-- Every collector states how it fared; an answer without its evidence is unknown, never zero.
SELECT collector, host, state, records, dropped, reason FROM collection
WHERE rank IS NULL ORDER BY state <> 'ok' DESC, collector
