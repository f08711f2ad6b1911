"""Pieces of the stage scripts whose mistakes whole runs would not show."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil  # which DVC needs itself
import pytest
import torch
from clone import REPOSITORY

import assemble
from hbn import params, stage
from hbn.data import events
from hbn.data.dataset import Dataset
from hbn.data.release_tables import with_previous
from hbn.files import read_csv
from hbn.networks import architecture
from hbn.networks.inference import new_encoder
from hbn.training.factors import participant_features, ridge, set_readout
from hbn.training.response_time import Trials

P = params.load()
SLOW = """
import sys, time
sys.path.insert(0, "src")
from hbn.stage import run
def main(p, log):
    for word in ("begin", "end"):
        print(word, file=open(log, "a"))
        time.sleep(0.5)
run(main, reads=())
"""


def test_long_work_without_a_terminal_says_in_the_log_how_far_it_is(monkeypatch, caplog):
    caplog.set_level("INFO")
    assert list(stage.progress(range(3), total=3, unit="file")) == [0, 1, 2]
    assert caplog.text == ""  # too short
    monkeypatch.setattr(stage, "LOG_EVERY_S", 0.05)
    with stage.progress(total=3_000_000, unit="B", unit_scale=True) as bar:
        for _ in range(3):
            time.sleep(0.06)
            bar.update(1_000_000)
    said = dict.fromkeys(one.message.split(" of ")[0] for one in caplog.records)  # the last one twice
    assert list(said) == ["1.00M", "2.00M", "3.00M"]
    assert all(re.fullmatch(r"\S+M of 3\.00M, \S+MB/s, \S+ left", one.message) for one in caplog.records)


def test_labels_of_trials(tiny_dataset):
    dataset = Dataset.open(tiny_dataset, 2.0)
    trial = dataset.trials[0]
    trials = [
        {**trial, "side": "right", "outcome": "correct", "rt_s": "1.5"},
        {**trial, "side": "right", "outcome": "wrong", "rt_s": "0.3"},
        {**trial, "side": "left", "outcome": "wrong", "rt_s": "2"},
        {**trial, "side": "left", "outcome": "miss", "rt_s": ""},
    ]
    known = Trials.of(dataset, trials)
    assert known.rt_s[:3].tolist() == pytest.approx([1.5, 0.3, 2.0])
    assert known.rt_s[3].isnan()
    assert known.auxiliary[:3].tolist() == [[1, 1], [0, 0], [1, 0]]  # pressed right, correct
    assert (known.windows[:, 1] == int(trial["start_sample"])).all()


def test_no_participant_is_in_two_splits_and_no_window_is_shared(tiny_dataset):
    dataset = Dataset.open(tiny_dataset, 2.0)
    seen = [dataset.split_windows(split) for split in ("train", "validation", "test")]
    assert sum(map(len, seen)) == len(dataset.windows)
    owners = [{dataset.cache.recordings[r]["participant_id"] for r in windows[:, 0]} for windows in seen]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]


def test_the_readout_of_factors_is_the_ridge_regression(tiny_dataset):
    dataset = Dataset.open(tiny_dataset, 2.0)
    network = architecture.Factors(new_encoder(dataset, P.model), 3, 4).eval()
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, size=(60, network.n_features))
    y = x[:, :4] * [0.5, -1, 0, 2] + [1, 2, 3, 4]
    age_sex = np.where(rng.random((60, 2)) < 0.1, np.nan, x[:, 4:6])
    set_readout(network, *ridge(x, y, age_sex, [1e-6]))
    with torch.inference_mode():
        predicted = network.readout(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(predicted, y, atol=0.02)


def test_a_participants_factors_are_the_mean_of_the_window_predictions(tiny_dataset):
    dataset = Dataset.open(tiny_dataset, 2.0)
    torch.manual_seed(0)
    network = architecture.Factors(new_encoder(dataset, P.model), 3, 4).eval()
    one = dataset.participants["sub-D"]
    pooled = participant_features(network, dataset, [one], torch.device("cpu"))
    owner = np.array([row["participant_id"] for row in dataset.cache.recordings])
    windows = dataset.windows[owner[dataset.windows[:, 0]] == "sub-D"]
    with torch.inference_mode():
        of_pooled = network.readout(torch.from_numpy(pooled).float()).numpy()[0]
        of_windows = network(dataset.batch_uv(windows)).numpy().mean(0)
    np.testing.assert_allclose(of_pooled, of_windows, atol=1e-4)


def test_the_trial_before_is_the_one_right_before():
    facts = {"onset_s": 1.0, "side": "left", "foreperiod_s": 2.8, "fast_block": False, "early_press": False}
    facts |= {"n_presses_after": 1}
    trials = [
        events.Trial(trial=0, outcome="correct", rt_s=1.5, **facts),
        events.Trial(trial=1, outcome="miss", rt_s=None, **facts),
        events.Trial(trial=3, outcome="wrong", rt_s=2.0, **facts),  # trial 2 was dropped
    ]
    rows = with_previous(trials)
    assert [(row["previous_outcome"], row["previous_rt_s"]) for row in rows] == [
        (None, None),
        ("correct", 1.5),
        (None, None),
    ]


def test_a_missing_argument_is_named():
    command = [sys.executable, "src/preprocess.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert "missing a required argument: 'release'; the first lines of src/preprocess.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_stage_says_so_in_a_line(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path / "log")]
    options = {"cwd": REPOSITORY, "text": True, "stderr": subprocess.PIPE, "start_new_session": True}
    stage = subprocess.Popen(command, **options)
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    stage.send_signal(signal.SIGINT)  # as Ctrl-C
    said = stage.communicate()[1]
    assert stage.returncode == 130
    assert "interrupted; run the same command again" in said
    assert "Traceback" not in said


def test_a_stage_waits_for_an_earlier_run_of_itself(tmp_path):
    """As a script does whose `dvc` was killed, and which the next `dvc repro` starts again."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path / "log")]
    options = {"cwd": REPOSITORY, "env": {**os.environ, "DVC_STAGE": "slow"}, "text": True}
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, **options) for _ in range(2)]
    said = [one.communicate()[1] for one in both]
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * 2
    assert sorted("waiting for an earlier run" in text for text in said) == [False, True]


def start_under(parent_code: str, tmp_path: Path, *prefix: str) -> subprocess.Popen:
    """A process in the place of dvc (which this test can kill at any moment) that runs SLOW as a stage."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = [*prefix, sys.executable, "-c", PARENT + parent_code, sys.executable, str(tmp_path / "slow.py")]
    options = {"cwd": REPOSITORY, "env": {**os.environ, "DVC_STAGE": "slow"}, "text": True}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([*command, str(tmp_path / "log")], start_new_session=True, **options, **streams)


PARENT = "import subprocess, sys, os, time; script = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); "


def test_a_script_ends_with_the_dvc_that_started_it(tmp_path):
    """The next dvc may take the results from its cache, without a script that would wait for this one."""
    dvc = start_under("script.wait()", tmp_path)
    while not (log := tmp_path / "log").exists() or not log.read_text():
        time.sleep(0.01)
    (script,) = psutil.Process(dvc.pid).children()
    dvc.kill()
    script.wait(timeout=10)
    assert (tmp_path / "log").read_text().split() == ["begin"]
    dvc.communicate()


def test_a_script_whose_dvc_is_gone_before_it_has_begun_does_nothing(tmp_path):
    """Stages import for seconds before they can know that."""
    said = start_under("os._exit(0)", tmp_path).communicate()[0]
    assert "the dvc that started this process is gone" in said
    assert not (tmp_path / "log").exists()


def test_in_a_container_dvc_may_be_process_1(tmp_path):
    process_1 = "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"
    if not shutil.which("unshare") or subprocess.run([*process_1, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a process namespace")
    said = start_under("assert os.getpid() == 1; sys.exit(script.wait())", tmp_path, *process_1).communicate()[0]
    assert (tmp_path / "log").read_text().split() == ["begin", "end"], said


def test_workers_end_with_their_script():
    """Left to themselves, joblib's workers idle for minutes, and finish what was under way."""
    code = "import os; from hbn.parallel import in_processes\n"
    code += "list(in_processes([(os.system, 'echo $PPID; sleep 60')] * 2, 2))"
    options = {"env": {**os.environ, "PYTHONPATH": "src"}, "cwd": REPOSITORY, "text": True}
    script = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, **options)
    workers = [int(script.stdout.readline()) for _ in range(2)]
    script.kill()
    script.wait()
    end = time.monotonic() + 10
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, workers))


def test_the_real_response_times_stand_beside_the_simulated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people = [{"participant_id": name, "release": "R1", "split": name} for name in ("train", "test")]
    trials = [{"participant_id": "train", "rt_s": rt_s} for rt_s in ("0.05", "1.66", "1.69", "")]
    assemble.write_plots(people, trials, Counter())
    rows = {round(float(row["rt_s"]), 2): row for row in read_csv("plots/dataset/response_times.csv")}
    assert [float(rows[s]["train"]) for s in (0.05, 1.65, 1.75)] == pytest.approx([1 / 3, 2 / 3, 0])
    assert {float(row["test"]) for row in rows.values()} == {0.0}
    hbn = {s: float(row["hbn"]) for s, row in rows.items()}
    assert hbn[1.95] == pytest.approx(0.2 * 0.1 / (2.21 - 1.85))
    assert sum(hbn.values()) == pytest.approx(1)
    assert sum(s * share for s, share in hbn.items()) == pytest.approx(1.584, abs=0.02)  # the mean of the same trials
