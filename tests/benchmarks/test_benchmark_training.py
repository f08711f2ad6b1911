"""The benchmarks of training and learning run on small inputs; how fast and how well is not asked here."""

import csv
import importlib
import importlib.util
import json
from pathlib import Path

import planted
import pytest
from clone import REPOSITORY
from ruamel.yaml import YAML
from test_benchmarks import BENCHMARKS, last_line

from hbn.data.dataset import Dataset


def test_training_measures_our_network_and_the_reference_without_a_peer():
    result = last_line("training.py", "--rounds", "1", "--peer-batch", "2", "--without-peer")
    assert result["ratio"] is None
    assert result["ratio_reference"] > 1
    assert 0 < result["share_of_peak"] < 1


def test_gpu_measures_the_cpu_where_there_is_no_gpu():
    result = last_line("gpu.py", "--sizes", "tiny", "--seconds", "1")["sizes"]["tiny"]
    assert result["windows_per_s"] > 0
    assert result["two_processes_windows_per_s"] > 0
    assert result["two_processes_difference"] < 1e-4


@pytest.fixture
def small(tmp_path) -> list[str]:
    """Arguments of a learning run of a few steps on a small dataset."""
    planted.write(tmp_path, n_participants=24, n_trials=6)
    yaml = YAML()
    content = yaml.load(REPOSITORY / "params.yaml")
    content["pretrain"].update(excluded_tasks=[], steps=4, validate_every=2, warmup_steps=1, batch_size=4)
    content["challenge1"].update(steps=4, validate_every=2, warmup_steps=1, batch_size=4)
    yaml.dump(content, tmp_path / "params.yaml")
    paths = {"data": "data/dataset", "params": "params.yaml", "results": "results", "csv": "scores.csv"}
    found = [text for name, path in paths.items() for text in (f"--{name}", str(tmp_path / path))]
    return [*found, "--bootstrap", "10", "--seeds", "1"]


def rows_of(folder: Path) -> list[dict]:
    with open(folder / "scores.csv") as file:
        return list(csv.DictReader(file))


def test_learning_compares_shares_of_labels_and_goes_on_where_it_stopped(small, tmp_path):
    command = ["learning.py", *small, "--studies", "labels", "--shares", "0", "0.5", "1"]
    first = last_line(*command)
    assert {f"gain_pearson_r_pretrained_from_scratch_{n}_percent_low" for n in (50, 100)} <= set(first)
    lines = (tmp_path / "results/runs.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    assert [(run["pretrained"], run["labels"]) for run in runs] == [
        *((True, 0.0), (True, 0.5), (False, 0.5), (True, 1.0), (False, 1.0))
    ]
    assert len(list((tmp_path / "results").glob("encoder-*.pt"))) == 1  # one pretraining for all shares
    rows = rows_of(tmp_path)
    assert {row["model"] for row in rows} == {"zero_shot", "pretrained", "from_scratch"}
    assert last_line(*command) == first
    assert (tmp_path / "results/runs.jsonl").read_text().splitlines() == lines


def test_learning_compares_participants_and_winners(small, tmp_path):
    studies = ["--studies", "participants", "peers", "--participants", "4", "--minutes", "0.01"]
    last_line("learning.py", *small, *studies)
    rows = rows_of(tmp_path)
    assert {row["versus"] for row in rows if row["study"] == "peers"} >= {"", "unet_from_scratch", "tcn_from_scratch"}
    assert {row["pretraining_participants"] for row in rows if row["study"] == "participants"} == {"", "4"}
    peer = importlib.util.find_spec("braindecode") is not None
    assert ("braindecode_pretrained" in {row["model"] for row in rows}) == peer


def test_learning_says_what_an_encoder_adds_to_spectral_features(small, tmp_path):
    last_line("learning.py", *small, "--studies", "factors", "--stride", "3")
    rows = [row for row in rows_of(tmp_path) if row["score"] == "mean_pearson_r"]
    both = [f"spectral_and_{start}_encoder" for start in ("untrained", "pretrained")]
    assert {row["model"] for row in rows if row["versus"] == "spectral"} == set(both)
    scored = {row["model"]: float(row["value"]) for row in rows if not row["versus"]}
    assert set(scored) == {"age_sex", "spectral", "untrained_encoder", "pretrained_encoder", *both}
    gained = {row["model"]: float(row["value"]) for row in rows if row["versus"]}
    assert all(gained[name] == pytest.approx(scored[name] - scored["spectral"], abs=1e-5) for name in both)


def test_withheld_participants_are_in_no_split_and_a_smaller_number_is_part_of_a_larger(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    learning = importlib.import_module("learning")
    dataset = Dataset.open(planted.write(tmp_path, n_participants=24, n_trials=2), 2.0)
    few, more = (learning.withhold(dataset, "train", n, seed=1) for n in (3, 6))
    people = [{trial["participant_id"] for trial in one.split_trials("train")} for one in (few, more, dataset)]
    assert [len(one) for one in people] == [3, 6, 12]
    assert people[0] < people[1] < people[2]
    seen = {few.cache.recordings[i]["participant_id"] for i in few.split_windows("train")[:, 0]}
    assert seen == people[0]
    assert few.split_trials("test") == dataset.split_trials("test")
