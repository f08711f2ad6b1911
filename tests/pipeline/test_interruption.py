"""Whatever is killed at whatever moment, the next `dvc repro` ends with the results of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import psutil  # which DVC needs itself
import pytest
from clone import TIMINGS, Clone

pytestmark = pytest.mark.campaign

WHO = "dvc", "script", "all"
MOMENTS = 0.1, 0.5, 0.9  # of the stage's undisturbed duration
STAGES = (
    *("check_params", "fetch@R1", "preprocess@R1", "cache_windows@R1", "assemble", "pretrain", "challenge1"),
    *("challenge2", "submission", "quantize", "benchmark"),
)
# At its three moments each stage meets each kind of kill once.
CAMPAIGN = [
    (stage, moment, WHO[(i + j) % len(WHO)]) for i, stage in enumerate(STAGES) for j, moment in enumerate(MOMENTS)
]


@pytest.fixture(scope="module")
def clone(built, tmp_path_factory) -> Clone:
    return built.copy(tmp_path_factory.mktemp("interruption") / "clone")


def scripts(dvc: subprocess.Popen) -> list[psutil.Process]:
    """What dvc runs at the moment."""
    return psutil.Process(dvc.pid).children() if dvc.poll() is None else []


def begin(clone: Clone, stage: str, **options) -> subprocess.Popen:
    """Run a stage that needs no running, and return when its script is started.

    DVC's cache of runs and the scratch store are deleted first: they would spare it its work.
    """
    for name in (".dvc/cache/runs", ".scratch"):
        shutil.rmtree(clone.root / name, ignore_errors=True)
    dvc = clone.start("dvc", "repro", "-f", "-s", stage, **options)
    assert any(line.startswith("Running stage") for line in iter(dvc.stdout.readline, ""))
    while not scripts(dvc) and dvc.poll() is None:
        time.sleep(0.01)
    return dvc


def kill(clone: Clone, stage: str, moment: float, who: str) -> subprocess.Popen:
    """`kill -9` of dvc, of the stage's script or of all, at this share of the stage's duration."""
    for share in (moment, moment / 2, 0):  # sooner, if the stage is faster this time
        dvc = begin(clone, stage)
        time.sleep(share * clone.duration_s[stage])
        if running := scripts(dvc):
            break
        dvc.communicate()
    else:
        pytest.fail(f"{stage} ended before it could be killed")
    if who == "all":
        os.killpg(dvc.pid, signal.SIGKILL)
    else:
        os.kill(dvc.pid if who == "dvc" else running[0].pid, signal.SIGKILL)
    dvc.wait()
    return dvc


def assert_undisturbed(clone: Clone) -> None:
    """What git has (and dvc.lock has the checksums of all products) is that of the undisturbed run."""
    changed = {line[3:] for line in clone("git", "status", "--porcelain").splitlines()}
    assert changed <= TIMINGS
    assert "up to date" in clone("dvc", "status")


@pytest.mark.parametrize(("stage", "moment", "who"), CAMPAIGN)
def test_kill_of(clone, stage, moment, who):
    killed = kill(clone, stage, moment, who)
    clone("dvc", "repro")
    assert_undisturbed(clone)
    killed.stdout.close()  # only now, for an orphan still writes to it


def test_a_second_repro_beside_the_first_is_refused_and_harms_nothing(clone):
    first = begin(clone, "pretrain")
    output = clone("dvc", "repro", status=255)
    assert "is busy" in output or "Unable to acquire lock" in output
    assert "pretrain" in output or "process" in output.lower()  # who holds it, and what to do
    first.communicate()
    assert first.returncode == 0
    clone("dvc", "repro")
    assert_undisturbed(clone)


@pytest.fixture
def full_disk(clone):
    """The scratch folder on a disk of 200 kB, which needs the right to mount one; what takes it away again."""
    folder = clone.root / ".scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield lambda: subprocess.run(["umount", folder], capture_output=True)
    subprocess.run(["umount", "--lazy", folder], capture_output=True)  # if the test has failed


@pytest.mark.parametrize("stage", ["fetch@R1", "preprocess@R1", "pretrain"])
def test_full_disk(clone, full_disk, stage):
    shutil.rmtree(clone.root / ".dvc/cache/runs", ignore_errors=True)
    output = clone("dvc", "repro", "-f", "-s", stage, status=255)
    assert "the disk is full" in output
    assert "make room" in output
    assert "Traceback" not in output
    full_disk()  # is taken away
    clone("dvc", "repro")
    assert_undisturbed(clone)


def test_where_dvc_is_blocked_it_says_by_what(clone):
    """What docs/troubleshooting.md says about it. DVC itself clears away what processes that are gone have locked."""
    again = "dvc", "repro", "-f", "-s", "assemble"
    rwlock = clone.root / ".dvc/tmp/rwlock"
    # The killed dvc's process number has been given to another process since, which DVC cannot know.
    info = {"pid": os.getpid(), "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"write": {str(clone.root / "data/dataset"): info}, "read": {}}))
    assert ".dvc/tmp/rwlock' and try again" in clone(*again, status=255)
    # Killed while it wrote one of its files, or the disk was full.
    rwlock.write_text("")
    assert "Unable to read RWLock-file" in clone(*again, status=255)
    rwlock.unlink()
    lock = clone.root / "dvc.lock"
    lock.write_text(lock.read_text()[:1003] + "\n- {")
    assert "dvc.lock" in clone(*again, status=255)
    clone("git", "checkout", "dvc.lock")
    clone("dvc", "repro")
    assert_undisturbed(clone)


def test_kill_of_an_experiment(clone):
    command = "dvc", "exp", "run", "-n", "killed", "-S", "challenge1.learning_rate=2e-3", "challenge1"
    experiment = clone.start(*command)
    assert any(line.startswith("Running stage 'challenge1'") for line in iter(experiment.stdout.readline, ""))
    time.sleep(0.5 * clone.duration_s["challenge1"])
    os.killpg(experiment.pid, signal.SIGKILL)
    experiment.communicate()
    clone(*command)
    assert "killed" in clone("dvc", "exp", "list", "--name-only")
    clone.restore()
    clone("dvc", "repro")
    assert_undisturbed(clone)


def test_kill_of_the_queue(clone):
    queue = "dvc", "exp", "run", "--queue", "-S", "challenge1.learning_rate=4e-3", "challenge1"

    def state() -> str:
        return next(line for line in clone("dvc", "queue", "status").splitlines() if "lost" in line).split()[-1]

    def wait_for(condition) -> None:
        end = time.monotonic() + 120
        while not condition() and time.monotonic() < end:
            time.sleep(0.2)
        assert condition()

    def ours() -> list[psutil.Process]:
        """All that runs in the clone: the queue's worker, its dvc, its script."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cwd().startswith(str(clone.root)):
                    found.append(process)
        return found

    clone(*queue, "-n", "lost")
    clone.start_queue()
    wait_for(lambda: any("src/challenge1.py" in process.cmdline() for process in ours()))
    for process in ours():
        with suppress(psutil.NoSuchProcess):  # the script ends with its dvc
            process.kill()
    assert state() == "Running"  # as DVC believes for ever
    clone("dvc", "queue", "kill", "--force", "lost")
    assert state() == "Failed"
    clone(*queue, "-n", "lost-again")
    clone.start_queue()
    wait_for(lambda: "lost-again" in clone("dvc", "exp", "list", "--name-only"))
    clone("dvc", "repro")
    assert_undisturbed(clone)
