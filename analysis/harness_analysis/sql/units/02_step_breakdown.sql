-- One row a unit and rank, from the best evidence at hand.
-- @column run_id: run
-- @column rank: global rank
-- @column batch: index of the batch
-- @column microbatch: index of the micro-batch within the batch
-- @column repeat: repetition of the workload
-- @column phase: prefill, decode, ...; NULL: the marks of the steps do not say
-- @column step: decode step k >= 1 emits token k
-- @column warmup: belongs to the warm-up
-- @column perturbed_by: collector known to slow the unit; NULL: none
-- @column timeline: timeline divided, host or device
-- @column evidence: what the row rests on
-- @column start_ns: start of the window
-- @column window_ns: length of the window
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
CREATE VIEW step_breakdown AS
SELECT *
FROM step_breakdown_all
QUALIFY row_number() OVER (
  PARTITION BY run_id, rank, batch, microbatch, repeat, phase, step
  ORDER BY list_position(
    ['nsys', 'torch_profiler', 'graph_events', 'nccl_inspector', 'app_timers'], evidence)
    NULLS LAST, evidence, start_ns) = 1;
