"""Other people's sbatch and srun lines, their directives, and the script around theirs."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.errors import LaunchError
from harness_slurm.job.arguments import directive_line, directives, kept_directives, split_line
from harness_slurm.job.controller import Controller, parse_submitted
from harness_slurm.job.wrap_script import render_wrap


@pytest.mark.parametrize(
    ("text", "options", "rest"),
    [
        ("-N2 -n 4 job.sh a -b", [("N", "2"), ("n", "4")], ["job.sh", "a", "-b"]),
        ("--nodes 2 --exclusive job.sh", [("nodes", "2"), ("exclusive", None)], ["job.sh"]),
        (
            "--exclusive=user -Wv job.sh",
            [("exclusive", "user"), ("W", None), ("v", None)],
            ["job.sh"],
        ),
        ("-vJname job.sh", [("v", None), ("J", "name")], ["job.sh"]),
        ("-vJ name job.sh", [("v", None), ("J", "name")], ["job.sh"]),
        ("--wrap 'sleep 1'", [("wrap", "sleep 1")], []),
        ("--parsable --hold -- -odd.sh", [("parsable", None), ("hold", None)], ["-odd.sh"]),
    ],
)
def test_where_options_end(text, options, rest):
    line = split_line(shlex.split(text), "sbatch")
    assert list(line.options) == options and list(line.rest) == rest


def test_options_can_be_left_out_and_looked_up():
    line = split_line(shlex.split("-W --array 0-3 --wait -a5 job.sh"), "sbatch")
    assert line.without("W", "wait") == ("--array", "0-3", "-a5")
    assert line.value("a", "array") == "5" and line.value("wait") == "" and line.value("x") is None


def test_letters_of_a_cluster_are_left_out_one_by_one():
    line = split_line(["-QvJname", "-vQ", "-WN", "2", "job.sh"], "sbatch")
    assert line.without("Q", "W") == ("-v", "-Jname", "-v", "-N", "2")


def test_srun_has_letters_of_its_own():
    line = split_line(["-l", "-W", "30", "-K", "python", "-u", "x.py"], "srun")
    assert line.value("W") == "30" and line.rest == ("python", "-u", "x.py")


OPTION = st.one_of(
    st.tuples(
        st.sampled_from("NnpAtJ"), st.text("abc12", min_size=1, max_size=4), st.booleans()
    ).map(lambda t: [f"-{t[0]}{t[1]}"] if t[2] else [f"-{t[0]}", t[1]]),
    st.tuples(st.sampled_from(["nodes", "time", "comment"]), st.text("abc-= ", max_size=4)).map(
        lambda t: [f"--{t[0]}", t[1]]
    ),
    st.sampled_from([["--hold"], ["-H"], ["--exclusive"], ["--parsable"], ["-Q"]]),
)


@given(st.lists(OPTION, max_size=6), st.lists(st.text("ab-=", max_size=4), max_size=3))
def test_any_line_is_cut_before_its_script(options, arguments):
    words = [word for option in options for word in option]
    line = split_line([*words, "job.sh", *arguments], "sbatch")
    assert line.rest == ("job.sh", *arguments)
    assert line.without() == tuple(words)


def test_only_directives_before_the_first_command_count():
    script = "#!/bin/bash\n#SBATCH -N2 # two\n# note\n\n#SBATCH --array=0-1\necho\n#SBATCH -N9\n"
    found = directives(script)
    assert found == ["#SBATCH -N2 # two", "#SBATCH --array=0-1"]
    line = directive_line(found)
    assert line.value("N") == "2" and line.value("array") == "0-1" and line.rest == ()


def test_directives_of_other_batch_systems_are_read_as_sbatch_reads_them():
    script = "#!/bin/sh\n#PBS -N mine -t 1-2\n#PBS -l walltime=1:00\n#SBATCH -N1\n"
    line = directive_line(directives(script))
    assert (line.value("J"), line.value("a"), line.value("N")) == ("mine", "1-2", "1")


def test_directives_lose_options_and_otherwise_stay_as_they_are():
    lines = ["#SBATCH --wait", "#SBATCH -o 'a b' -W -N2 # two", "#SBATCH  -n 4 # four", "#PBS -W x"]
    kept = ["#SBATCH -o 'a b' -N2", "#SBATCH  -n 4 # four", "#PBS -W x"]
    assert kept_directives(lines, "wait", "W") == kept


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Submitted batch job 12\n", ("12", None)),
        ("Submitted batch job 12 on cluster c-1\n", ("12", "c-1")),
        ("12\n", ("12", None)),
        ("12;c1\n", ("12", "c1")),
        ("sbatch: lua: hello\nSubmitted batch job 12\n", ("12", None)),
    ],
)
def test_what_sbatch_prints(text, read):
    assert parse_submitted(text) == read
    with pytest.raises(LaunchError):
        parse_submitted("no job here")


def test_the_controller_is_asked_at_most_every_five_seconds():
    now = [100.0]
    controller = Controller(clock=lambda: now[0])
    controller.states(["1"])
    now[0] += 4.9
    assert controller.states(["1"]) is None and 0 < controller.due() < 0.2


def run_wrap(tmp_path: Path, script: str, *arguments: str, **env: str):
    """The script around theirs as a batch shell would run it, without samplers."""
    run = tmp_path / "my run"
    (run / "job").mkdir(parents=True)
    theirs = run / "job" / "theirs"
    theirs.write_text(script)
    theirs.chmod(0o755)
    made = {"HARNESS_SPOOL_DIR": f"{run}/spans", "TRACEPARENT": "00-1-2-01", "EMPTY": ""}
    (run / "job" / "script.sh").write_text(
        render_wrap(run, theirs, ["#SBATCH -N1"], made, (), ("psutil",))
    )
    done = subprocess.run(
        ["bash", str(run / "job" / "script.sh"), *arguments],
        env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7", **env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return run, done


def test_their_script_runs_unchanged_and_leaves_marks(tmp_path):
    text = '#!/bin/sh\necho "$1|$2|$HARNESS_SPOOL_DIR|$run|$code"\nexit 9\n'
    run, done = run_wrap(tmp_path, text, "a b", "c", run="theirs", code="x")
    assert done.returncode == 9 and done.stderr == ""
    assert done.stdout == f"a b|c|{run}/spans|theirs|x\n"
    end = (run / "job" / "end.json").read_text()
    assert '"exit_code": 9' in end and '"stopped": false' in end


def test_a_requeued_array_task_has_its_own_folder_and_attempt(tmp_path):
    task = {"SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "3"}
    run, done = run_wrap(tmp_path, "#!/bin/sh\necho $HARNESS_SPOOL_DIR\n", **task)
    own = run / "task-3"
    assert (
        done.stdout == f"{own}/spans\n"
        and '"job_id": "6_3"' in (own / "job/begin.json").read_text()
    )
    (own / "spans" / "rank-00000.spans").write_text("first")
    again = subprocess.run(
        ["bash", str(run / "job" / "script.sh")],
        env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1", **task},
        timeout=30,
    )
    assert again.returncode == 0
    assert (own / "attempts/0/spans/rank-00000.spans").read_text() == "first"
    assert not list((own / "spans").iterdir()) and (own / "attempts/0/job/end.json").exists()
    assert '"attempt": 1' in (own / "job/begin.json").read_text()


def test_signals_reach_their_script_and_do_not_end_ours(tmp_path):
    waits = "for i in 1 2 3 4; do sleep 0.2; done"
    text = f"#!/bin/bash\ntrap 'echo told' USR1\nkill -s USR1 $PPID\n{waits}\nexit 5\n"
    _, done = run_wrap(tmp_path, text)
    assert done.stdout == "told\n" and done.returncode == 5
