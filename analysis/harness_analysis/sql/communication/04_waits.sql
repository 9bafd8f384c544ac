-- One row a rank and communication call: how long the rank waited in it, and for whom.
-- Unlike the breakdown, which counts exposed time, this counts every wait of the evidence.
-- @column run_id: run
-- @column source: evidence
-- @column timeline: host or device
-- @column rank: rank that waited
-- @column waited_for: rank it waited for: the last arriver, the root, or the other side of a
-- point-to-point call; NULL: nobody can be named
-- @column kind: collective or p2p
-- @column comm_group: group
-- @column seq: ordinal of the call in its group, or in the ordered pair
-- @column op: operation
-- @column batch: index of the batch
-- @column microbatch: index of the micro-batch
-- @column repeat: repetition
-- @column phase: phase
-- @column step: step
-- @column warmup: belongs to the warm-up
-- @column perturbed_by: collector known to slow the unit
-- @column start_ns: start of the call
-- @column wait_ns: waiting; NULL: wait and transfer cannot be told apart
-- @column wait_method: how they were told apart
-- @column wait_error_ns: error of the split
CREATE VIEW waits AS
SELECT c.run_id, c.source, c.timeline, c.rank,
  nullif(CASE
    WHEN c.op = 'send' THEN c.dst_rank
    WHEN c.op = 'recv' THEN c.src_rank
    WHEN c.op IN ('broadcast', 'reduce') THEN coalesce(c.src_rank, c.dst_rank)
    ELSE i.last_arriver
  END, c.rank) AS waited_for,
  CASE WHEN c.op IN ('send', 'recv') THEN 'p2p' ELSE 'collective' END AS kind,
  c.comm_group, c.seq, c.op, c.batch, c.microbatch, c.repeat, c.phase, c.step, c.warmup,
  c.perturbed_by, c.start_ns, c.wait_ns, c.wait_method, c.wait_error_ns
FROM collectives_all c
LEFT JOIN collective_instances i
  -- Equalities only: any other condition makes this join several times slower.
  ON i.run_id = c.run_id AND i.source = c.source AND i.timeline = c.timeline AND i.seq = c.seq
  AND i.comm_group = CASE WHEN c.op NOT IN ('send', 'recv') THEN c.comm_group END;
