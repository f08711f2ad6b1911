"""Whatever is killed at whatever moment, the next `dvc repro` ends with the results of an undisturbed run."""

import os
import resource
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from test_pipeline import MINIATURE, TIMINGS, Clone

WHO = "dvc", "script", "all"
MOMENTS = 0.1, 0.5, 0.9  # of the stage's undisturbed duration
STAGES = (
    *("check_params", "fetch@R1", "preprocess@R1", "cache_windows@R1", "assemble", "pretrain", "challenge1"),
    *("challenge2", "submission", "quantize", "benchmark"),
)
# Each kind of kill, each moment, and one stage of each kind: many files, one file, checkpoints, subprocesses.
SAMPLE = (
    *(("fetch@R1", 0.5, "all"), ("preprocess@R1", 0.5, "script"), ("cache_windows@R1", 0.1, "all")),
    *(("assemble", 0.5, "dvc"), ("pretrain", 0.5, "dvc"), ("challenge1", 0.5, "all"), ("challenge2", 0.9, "script")),
    *(("submission", 0.1, "dvc"),),
)
EVERY = [(stage, moment, WHO[(i + j) % len(WHO)]) for i, stage in enumerate(STAGES) for j, moment in enumerate(MOMENTS)]


class Undisturbed(Clone):
    """A finished build, committed, and how long each stage took in it."""

    def __init__(self, root, changes):
        super().__init__(root, changes)
        self.environment["PYTHONUNBUFFERED"] = "1"  # tells when a stage begins
        begin, self.duration_s = {}, {}
        dvc = self.start("dvc", "repro")
        for line in dvc.stdout:
            now = time.monotonic()
            if line.startswith("Running stage"):
                begin[line.split("'")[1]] = now
            elif line.startswith("Updating lock"):
                stage = list(begin)[-1]
                self.duration_s[stage] = now - begin[stage]
        assert dvc.wait() == 0
        self.commit("undisturbed results")

    def start(self, *command: str, **options) -> subprocess.Popen:
        """Start a command in a process group of its own."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment, start_new_session=True, **streams, **options
        )

    def forget(self) -> None:
        """Delete what would spare the next run its work: DVC's cache of runs and the scratch store."""
        for name in (".dvc/cache/runs", ".scratch"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def begin(self, stage: str, **options) -> subprocess.Popen:
        """Run one stage that needs no running, and return when its script has been started."""
        self.forget()
        self.dvc = dvc = self.start("dvc", "repro", "-f", "-s", stage, **options)  # kept: an orphan writes to its pipe
        assert any(line.startswith("Running stage") for line in iter(dvc.stdout.readline, ""))
        return dvc

    def kill(self, stage: str, moment: float, who: str) -> None:
        """`kill -9` of dvc, of the stage's script or of all, at this share of the stage's duration."""
        for delay_s in (moment * self.duration_s[stage], 0.5 * moment * self.duration_s[stage], 0):
            dvc = self.begin(stage)
            time.sleep(delay_s)
            if dvc.poll() is None and (scripts := psutil.Process(dvc.pid).children()):
                break
            dvc.communicate()  # faster than the undisturbed run: once more
        else:
            pytest.fail(f"{stage} ended before it could be killed")
        if who == "all":
            os.killpg(dvc.pid, signal.SIGKILL)
        else:
            os.kill(dvc.pid if who == "dvc" else scripts[0].pid, signal.SIGKILL)
        dvc.wait()

    def assert_undisturbed(self) -> None:
        """Results in git (dvc.lock has the checksums of all products) are those of the undisturbed run."""
        changed = {line[3:] for line in self("git", "status", "--porcelain").splitlines()}
        assert changed <= TIMINGS
        assert "up to date" in self("dvc", "status")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("interruption") / "clone", MINIATURE)


@pytest.mark.parametrize(
    ("stage", "moment", "who"),
    [*SAMPLE, *(pytest.param(*one, marks=pytest.mark.campaign) for one in EVERY if one not in SAMPLE)],
)
def test_kill_of(clone, stage, moment, who):
    clone.kill(stage, moment, who)
    clone("dvc", "repro")
    clone.assert_undisturbed()


def test_a_second_repro_beside_the_first_is_refused_and_harms_nothing(clone):
    first = clone.begin("pretrain")
    output = clone("dvc", "repro", status=255)
    assert "is busy" in output or "Unable to acquire lock" in output
    assert "pretrain" in output or "process" in output.lower()  # who holds it, and what to do
    first.communicate()
    assert first.returncode == 0
    clone("dvc", "repro")
    clone.assert_undisturbed()


@pytest.mark.parametrize("stage", ["fetch@R1", "pretrain"])
def test_full_disk(clone, stage):
    """Files cannot grow beyond a limit: to the script this is as good as a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead of the signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    dvc = clone.begin(stage, preexec_fn=limit)
    output, _ = dvc.communicate()
    assert dvc.returncode != 0
    assert "File too large" in output
    assert "Traceback" not in output
    clone("dvc", "repro")
    clone.assert_undisturbed()
