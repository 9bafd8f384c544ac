-- One row a collective over all its ranks: how long data moved, who waited, who came last.
-- Point-to-point pairs are not here: see pipeline_bubbles.
-- @column run_id: run
-- @column source: evidence
-- @column comm_group: ordered global ranks and creation ordinal of the group
-- @column seq: ordinal of the collective in its group
-- @column op: operation
-- @column bytes: message size by the convention of nccl-tests
-- @column batch: index of the batch
-- @column microbatch: index of the micro-batch
-- @column repeat: repetition
-- @column phase: phase
-- @column step: step
-- @column warmup: belongs to the warm-up
-- @column perturbed_by: collector known to slow the unit
-- @column start_ns: earliest start over its ranks
-- @column end_ns: latest end over its ranks
-- @column group_size: ranks in the group
-- @column ranks_present: ranks in the evidence; fewer than group_size leave it unsplit
-- @column transfer_ns: longest transfer of a rank; NULL: unsplit
-- @column sum_wait_ns: waiting summed over ranks
-- @column max_wait_ns: longest wait of a rank
-- @column last_arriver: rank that the others waited for; NULL: nobody can be named
-- @column arrival_margin_ns: how much later than the next to last it came
-- @column end_spread_ns: latest end minus earliest end
-- @column wait_method: how wait and transfer were told apart; NULL: unsplit
-- @column wait_error_ns: error of the split
-- @column floor_ns: measured floor of this operation, size and group behind other work; NULL: none
-- @column floor_warm_ns: the same right behind another call, caches warm: the least; NULL: not measured
-- @column excess_ns: transfer above floor_ns, or (negative) below floor_warm_ns; between them 0; where the method is floor not above 0 by construction
CREATE VIEW collective_waits AS
SELECT run_id, source, comm_group, seq, op, bytes, batch, microbatch, repeat, phase, step, warmup,
  perturbed_by, start_ns, end_ns, group_size, ranks_present, transfer_ns, sum_wait_ns,
  max_wait_ns, last_arriver, arrival_margin_ns, end_spread_ns, wait_method, wait_error_ns,
  floor_ns, floor_warm_ns, excess_ns
FROM collective_instances;
