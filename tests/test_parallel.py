"""Recordings on a real Dask cluster of two workers, one of which is killed; and what is said when there is none."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_recordings import add, build, parameters, recording_uv

from hbn.files import HbnError, read_json

N_RECORDINGS = 10


@pytest.fixture
def cluster(tmp_path_factory):
    """Address of a scheduler, and what starts a worker of n threads, all in a folder that is not the checkout's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "DASK_TEMPORARY_DIRECTORY": str(folder)}
    processes = []

    def start(*command: str) -> subprocess.Popen:
        with open(folder / f"{len(processes)}.log", "w") as log:
            options = {"cwd": folder, "env": environment, "stdout": log, "stderr": log}
            processes.append(subprocess.Popen([sys.executable, "-m", "dask", *command], **options))
        return processes[-1]

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", "scheduler.json")
    address = wait_for(lambda: announced(folder / "scheduler.json"))

    def work(n_threads: int) -> subprocess.Popen:
        n, threads = len(processes), ("--nthreads", str(n_threads))
        process = start("worker", *threads, "--no-nanny", "--no-dashboard", "--scheduler-file", "scheduler.json")
        wait_for(lambda: "Registered to" in (folder / f"{n}.log").read_text())
        return process

    yield address, work
    for process in processes:
        process.kill()
        process.wait()


def announced(file: Path) -> str:
    """Address in the scheduler's file; empty while that is absent or being written."""
    try:
        return read_json(file)["address"]
    except HbnError:
        return ""


def wait_for(what, limit_s: float = 60.0):
    """What `what` returns, once it is true."""
    end_s = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return found


def fill() -> None:
    for i in range(N_RECORDINGS):
        add(f"sub-{i}", recording_uv(i, duration_s=40.0))


def on(address: str):
    p = parameters()
    p.exec = p.exec.model_copy(update={"dask_scheduler": address})
    return p


def test_a_cluster_makes_the_same_bytes_though_a_worker_is_killed(workspace, cluster, tmp_path_factory, monkeypatch):
    address, work = cluster
    workers = [work(1), work(1)]
    fill()
    expected = build(parameters())
    monkeypatch.chdir(tmp_path_factory.mktemp("spread"))
    fill()
    done = []

    def kill() -> None:
        wait_for(lambda: list(Path("data/preprocessed").glob("R1/*/*.npy")))
        workers[0].send_signal(signal.SIGKILL)
        done.append(len(list(Path("data/preprocessed").glob("R1/*/*.json"))))

    killer = threading.Thread(target=kill)
    killer.start()
    found = build(on(address))
    killer.join()
    assert workers[0].wait(5) == -signal.SIGKILL
    assert done[0] < N_RECORDINGS  # in the middle
    assert found == expected
    assert sum(path.endswith(".npy") for path in found) == N_RECORDINGS
    work(2)
    with pytest.raises(HbnError, match="should have one thread each"):
        build(on(address))


def test_no_scheduler_and_no_dask_are_said(workspace, monkeypatch):
    add("sub-A", recording_uv(0))
    with pytest.raises(HbnError, match=r"exec\.dask_scheduler: no scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        build(on("tcp://127.0.0.1:9"))
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    with pytest.raises(HbnError, match=r"pip install -r requirements-dask\.txt"):
        build(on("tcp://127.0.0.1:9"))
