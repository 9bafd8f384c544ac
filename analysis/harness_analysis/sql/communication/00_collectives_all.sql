-- Every row of every evidence: `collectives`, which holds each call of a rank once, and
-- `collectives_aside`. For comparing evidence; sums over it count calls several times.
-- @columns of collectives
-- @column aside: why the row is not in `collectives`; NULL: it is
CREATE VIEW collectives_all AS
SELECT *, NULL::VARCHAR AS aside FROM collectives
UNION ALL BY NAME
SELECT * FROM collectives_aside;
