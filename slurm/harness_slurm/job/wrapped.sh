# A task of an array has a run folder of its own.
[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || harness_run=$harness_run/task-$SLURM_ARRAY_TASK_ID
harness_attempt=${SLURM_RESTART_COUNT:-0}
if ((harness_attempt > 0)) && [[ ! -e $harness_run/attempts/$((harness_attempt - 1)) ]]; then
    harness_before=$harness_run/attempts/$((harness_attempt - 1))
    mkdir -p "$harness_before/job"
    for harness_part in spans logs artifacts completions; do
        mv "$harness_run/$harness_part" "$harness_before/$harness_part"
        mkdir "$harness_run/$harness_part"
    done
    mv "$harness_run"/job/{begin,end}.json "$harness_before/job/" 2>/dev/null
    cp "$harness_run/run.json" "$harness_before/run.json"
fi
mkdir -p "$harness_run"/{job,logs,spans,artifacts}
for harness_name in $harness_collectors; do mkdir -p "$harness_run/artifacts/$harness_name"; done

mark() { # NAME JSON: readers never see half a file; a full disk is not the script's failure
    { printf '%s\n' "$2" >"$harness_run/job/.$1" &&
        mv "$harness_run/job/.$1" "$harness_run/job/$1"; } 2>/dev/null
}
harness_job=$SLURM_JOB_ID
[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || harness_job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
mark begin.json "{\"attempt\": $harness_attempt, \"job_id\": \"$harness_job\",
 \"host\": \"$(hostname)\",
 \"stdout\": \"$(readlink /proc/$$/fd/1)\", \"stderr\": \"$(readlink /proc/$$/fd/2)\",
 \"began_ns\": $(date +%s%N)}"

set_environment

# Samplers, once on every node, until this end of their input is closed.
harness_sampler=
if ((${#harness_samplers[@]})) && command -v "${harness_samplers[0]}" >/dev/null; then
    exec {harness_input}> >(exec env -u SLURM_NTASKS -u SLURM_NPROCS -u SLURM_NTASKS_PER_NODE \
        -u SLURM_CPUS_PER_TASK -u SLURM_DISTRIBUTION -u SLURM_EXPORT_ENV \
        -u SLURM_MEM_PER_CPU -u SLURM_MEM_PER_NODE -u SLURM_MEM_PER_GPU \
        srun --overlap --job-name=harness-samplers --nodes="$SLURM_JOB_NUM_NODES" \
        --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 --cpu-bind=none \
        --mem=0 --mpi=none "${harness_samplers[@]}" --run-dir "$harness_run" \
        >>"$harness_run/logs/agent.log" 2>&1)
    harness_sampler=$!
else
    exec {harness_input}>/dev/null
fi

# The script itself; what Slurm signals to the batch shell is passed on.
harness_stopped=false
"$harness_script" "$@" {harness_input}>&- &
harness_child=$!
for harness_name in HUP INT QUIT USR1 USR2 CONT; do
    trap "harness_again=1; kill -s $harness_name $harness_child 2>/dev/null" $harness_name
done
trap 'harness_again=1; harness_stopped=true; kill -s TERM $harness_child 2>/dev/null' TERM
harness_again=1
while [[ -n $harness_again ]]; do # a signal ends the wait, not the script
    harness_again=
    wait "$harness_child"
    harness_code=$?
done

mark end.json "{\"exit_code\": $harness_code, \"stopped\": $harness_stopped,
 \"ended_ns\": $(date +%s%N)}"
exec {harness_input}>&-
if [[ -n $harness_sampler ]]; then
    for _ in {1..50}; do
        kill -0 "$harness_sampler" 2>/dev/null || break
        sleep 0.1
    done
    kill "$harness_sampler" 2>/dev/null
fi
exit "$harness_code"
