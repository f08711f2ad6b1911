"""The real `dvc` command on miniature cohorts: whole runs, nothing rerun needlessly, no stale data."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from clone import TIMINGS, Clone, finite
from ruamel.yaml import YAML


@pytest.fixture(scope="module")
def clone(built, tmp_path_factory):
    return built.copy(tmp_path_factory.mktemp("pipeline") / "clone")


def test_a_second_repro_runs_nothing_and_git_is_clean(clone):
    assert clone.ran(clone("dvc", "repro")) == set()
    assert clone("git", "status", "--porcelain") == ""


def test_every_metric_names_its_source_and_is_a_number(clone):
    files = sorted((clone.root / "metrics").rglob("*.json"))
    assert len(files) >= 10
    for path in files:
        content = json.loads(path.read_text())
        assert content["source"] == "simulated", path
        assert finite(content), path


def test_building_again_from_nothing_gives_the_same_bytes(clone, tmp_path):
    lock = (clone.root / "dvc.lock").read_text()
    again = tmp_path / "again"
    clone("git", "clone", "-q", str(clone.root), str(again))
    other = Clone.__new__(Clone)
    other.root = again
    other.environment = {**clone.environment, "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache")}
    assert "fetch" in other.ran(other("dvc", "repro"))
    assert (again / "dvc.lock").read_text() == lock
    changed = [line[3:] for line in other("git", "status", "--porcelain").splitlines()]
    assert set(changed) <= TIMINGS


@pytest.mark.parametrize("script", ["predict.py {recording}", "describe.py models/challenge1.pt", "table.py"])
def test_what_prints_ends_quietly_when_its_reader_has_gone(clone, script):
    """As in `python src/predict.py RECORDING | head`."""
    recording = str(next((clone.root / "data/raw").rglob("*contrastChange*_eeg.bdf")))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *f"src/{script}".format(recording=recording).split()]
    options = {"cwd": clone.root, "env": clone.environment, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run(command, stdout=writer, **options)
    os.close(writer)
    assert done.returncode == -signal.SIGPIPE
    assert done.stderr == ""


def test_an_experiment_reruns_only_what_reads_the_parameter(clone):
    clone("dvc", "exp", "run", "-S", "pretrain.learning_rate=3e-4", "challenge1")
    output = clone("dvc", "status", "--json")
    changed = {name.split("@")[0] for name in json.loads(output)}
    assert changed == {"challenge2", "submission", "quantize", "benchmark"}  # what follows pretrain and has not run yet
    clone.restore()
    output = clone("dvc", "exp", "run", "-S", "quantize.max_score_drop=0.02")
    assert clone.ran(output) == {"check_params", "quantize", "benchmark"}
    clone.restore()


def test_temporary_and_queued_experiments(clone):
    clone("dvc", "exp", "run", "--temp", "-n", "temporary", "-S", "challenge1.learning_rate=2e-3", "challenge1")
    clone("dvc", "exp", "run", "--queue", "-n", "queued", "-S", "challenge1.learning_rate=3e-3", "challenge1")
    clone("dvc", "queue", "start", "-j", "1")
    while "Running" in (shown := clone("dvc", "queue", "status")) or "Queued" in shown:
        time.sleep(1)
    shown = json.loads(clone("dvc", "exp", "show", "--json"))
    rates = {
        e["name"]: e["revs"][0]["data"]["params"]["params.yaml"]["data"]["challenge1"]["learning_rate"]
        for one in shown for e in one["experiments"] or [] if e["name"] in ("temporary", "queued")
    }  # fmt: skip
    assert rates == {"temporary": 2e-3, "queued": 3e-3}
    assert clone("git", "status", "--porcelain") == ""


@pytest.mark.campaign
def test_two_workers_of_the_queue_do_not_disturb_each_other(built, tmp_path):
    """They share the scratch folder and the DVC cache, and make the same new recordings at the same time."""
    clone = built.copy(tmp_path / "clone")
    experiments = {
        "slow": {"data.n_participants": 4, "pretrain.learning_rate": 1e-4},
        "fast": {"data.n_participants": 4, "pretrain.learning_rate": 2e-4},
    }
    for name, changes in experiments.items():
        options = [word for key, value in changes.items() for word in ("-S", f"{key}={value}")]
        clone("dvc", "exp", "run", "--queue", "-n", name, *options, "challenge1")
    clone.start_queue("-j", "2")
    most = 0
    while "Running" in (shown := clone("dvc", "queue", "status")) or "Queued" in shown:
        most = max(most, shown.count("Running"))
        time.sleep(1)
    assert most == 2
    assert shown.count("Success") == 2, clone("dvc", "queue", "logs", "slow") + clone("dvc", "queue", "logs", "fast")
    references = {one.rsplit("/", 1)[1]: one for one in clone("git", "for-each-ref", "--format=%(refname)").split()}
    for name, changes in experiments.items():
        clone.restore()
        for cache in (".dvc/cache/runs", ".scratch"):
            shutil.rmtree(clone.root / cache)
        clone.change(changes)
        clone("dvc", "repro", "challenge1")
        queued, alone = clone("git", "show", f"{references[name]}:dvc.lock"), (clone.root / "dvc.lock").read_text()
        stages = [YAML(typ="safe").load(text)["stages"] for text in (queued, alone)]
        for one in stages:
            del one["check_params"]  # has the checksum of params.yaml, in which -S writes numbers in its own way
        assert stages[0] == stages[1]


def test_a_wrong_value_stops_before_any_work(clone):
    output = clone("dvc", "exp", "run", "-S", "exec.workers=none", status=255)
    assert "exec.workers: 'none' is not allowed" in output
    assert clone.ran(output) == {"check_params"}
    assert "Invalid `--set-param` value" in clone("dvc", "exp", "run", "-S", "pretrain.lr=1", status=255)
    clone.restore()


def test_dropping_a_release_and_adding_it_again_leaves_nothing_stale(clone):
    before = {name: clone.metrics(name) for name in ("dataset", "challenge1")}
    clone.change({"data.releases": ["R1", "R2", "R5"]})
    clone("dvc", "repro", "challenge1")
    more = clone.metrics("dataset")
    assert more["splits"]["train"]["participants"] + more["splits"]["validation"]["participants"] == 6
    clone.change({"data.releases": ["R1", "R5"]})
    clone("dvc", "repro", "challenge1")
    assert {name: clone.metrics(name) for name in before} == before
    assert not (clone.root / "data/windows/R2").exists()
    assert clone("git", "status", "--porcelain", "metrics", "plots") == ""
    clone.restore()


def test_a_new_participant_costs_one_participant_however_small_the_scratch_folder_may_be(clone):
    """What the DVC cache holds takes no room in it."""
    made = lambda: {path.name for path in (clone.root / ".scratch/preprocessed").rglob("*.npy")}  # noqa: E731
    before = made()
    clone.change({"data.n_participants": 4, "exec.scratch_gb": 1e-3})  # less than a recording
    output = clone("dvc", "repro", "preprocess")
    assert re.findall(r"to fetch: (\d+) files", output) == ["4", "4"]  # signal, sidecar, channels, events; two releases
    assert before < made()
    assert len(made() - before) == 2
    clone.restore()
    output = clone("dvc", "repro", "-f", "fetch")
    assert re.findall(r"to fetch: (\d+) files", output) == ["0", "0"]


def test_diffs_are_readable_from_git_alone(clone):
    clone.change({"challenge2.n_regions": 5})
    clone("dvc", "repro", "challenge2")
    clone.commit("fewer regions")
    table = clone("dvc", "metrics", "diff", "HEAD~1", "--md")
    assert "metrics/challenge2.json" in table
    assert "test.eeg.mean_pearson_r.value" in table
    clone("dvc", "plots", "diff", "HEAD~1", "--out", str(clone.root.parent / "plots"))
    declared = [clone.root / name for (name,) in YAML(typ="safe").load(clone.root / "dvc.yaml")["plots"]]
    n_plots = sum(len(list(path.iterdir())) if path.is_dir() else 1 for path in declared)  # of a folder, each file
    assert (clone.root.parent / "plots/index.html").read_text().count("vegaEmbed(") == n_plots
