-- One row a unit, rank and evidence: the unit's window divided into nine parts.
-- @column run_id: run
-- @column rank: global rank
-- @column batch: index of the batch
-- @column microbatch: index of the micro-batch within the batch
-- @column repeat: repetition of the workload
-- @column phase: prefill, decode, ... 
-- @column step: decode step k >= 1 emits token k; NULL outside stepping phases
-- @column warmup: belongs to the warm-up
-- @column perturbed_by: collector known to slow the unit; NULL: none
-- @column timeline: timeline divided, host or device
-- @column evidence: what the row rests on
-- @column start_ns: start of the window
-- @column window_ns: length of the window; windows of a rank tile its timeline
-- @column compute_ns: computing
-- @column fused_ns: kernels that compute and communicate
-- @column comm_transfer_ns: exposed transfer between ranks (an upper bound)
-- @column comm_wait_ns: exposed waiting for a later rank
-- @column comm_unsplit_ns: exposed communication whose parts cannot be told apart
-- @column memcpy_ns: exposed copying between host and device
-- @column io_ns: exposed file reads and writes
-- @column idle_ns: nothing ran, and the evidence is complete
-- @column unresolved_ns: what the evidence cannot classify
-- @column complete: false where the unit was cut
-- @column on_all_ranks: false where not all ranks show the unit (recordings that began or ended at
-- different moments, or were cut in it); NULL in named phases but prefill, decode and mixed
CREATE VIEW step_breakdown_all AS
SELECT run_id, rank, batch, microbatch, repeat, phase, step, warmup, perturbed_by,
  timeline, evidence, start_ns, window_ns,
  compute_ns, fused_ns, comm_transfer_ns, comm_wait_ns, comm_unsplit_ns, memcpy_ns, io_ns,
  idle_ns, unresolved_ns, complete, on_all_ranks
FROM unit_breakdown
WHERE phase IS DISTINCT FROM 'all';
