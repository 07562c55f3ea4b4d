"""scripts/slurm.sbatch."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import ROOT, SMALL, free_port, rows

# as SLURM does: the command once on each node, here side by side. srun takes SIGTERM for the order to kill them
# (src/srun/libsrun/srun_job.c, launch_g_fwd_signal(SIGKILL)); scancel signals every process of the step
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for node in $(seq "${SLURM_NNODES:-1}"); do "$@" & tasks="$tasks $!"; done
echo $tasks > "$STUBS/tasks"
trap 'kill -KILL $tasks' TERM
code=0
for task in $tasks; do
    while kill -0 "$task" 2>/dev/null; do wait "$task"; done
    wait "$task" || code=$?
done
exit $code
"""


SCANCEL = """#!/bin/bash
[ "$*" = "--signal=TERM 77.0" ] || exit 1
signal() { for child in $(pgrep -P $1); do signal $child; done; kill -TERM $1; }
for task in $(cat "$STUBS/tasks"); do signal $task; done
"""


STUBS = {
    "srun": SRUN,
    "scancel": SCANCEL,
    "scontrol": '#!/bin/sh\nif [ "$1" = show ]; then echo localhost; else echo "$@" >> "$STUBS/requeued"; fi\n',
}


@pytest.mark.slow
def test_a_slurm_job_requeues_itself_when_it_was_stopped_and_not_when_it_is_through(tmp_path: Path):
    """On two nodes with a process each, then on one node with two."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)

    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "STUBS": str(tmp_path), "SLURM_JOB_ID": "77", "SLURM_NNODES": "2",
        "PROCESSES_PER_NODE": "1", "SLURM_SUBMIT_DIR": str(ROOT), "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    command = ["bash", str(ROOT / "scripts/slurm.sbatch"), *SMALL, "epochs=30", "name=run", f"runs_dir={tmp_path}/runs"]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "runs/run/log.jsonl").exists() or not rows(tmp_path / "runs/run"):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0 and "stopped and saved: back into the queue" in said, said
    assert "x 2 processes" in said and said.count("finished") == 0
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    # options of srun, and a command that starts the container
    environment |= {"SLURM_NNODES": "1", "PROCESSES_PER_NODE": "2", "SRUN_OPTIONS": "--container-image=x",
                    "CONTAINER": "env IN_CONTAINER=1"}  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "after step" in done.stdout and "finished" in done.stdout, done.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    # the marker of an earlier attempt is not this one's
    (tmp_path / "runs/run/stopped").touch()
    (tmp_path / "requeued").unlink()
    failed = subprocess.run([*command, "epochs=0"], env=environment, capture_output=True, text=True, timeout=200)
    assert failed.returncode != 0 and not (tmp_path / "requeued").exists(), failed.stdout
    refused = subprocess.run(command[:3], env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and "give name=NAME" in refused.stderr
