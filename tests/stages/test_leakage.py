"""Nothing but the signal may tell a label: permuted labels are not learned, nothing is counted or split twice."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import planted
import pytest
import torch

from hbn import params
from hbn.data.bids import FACTORS, factor_values
from hbn.data.dataset import Dataset, response_times_s
from hbn.data.events import Event, contrast_trials
from hbn.data.splits import split_of
from hbn.networks import architecture
from hbn.networks.inference import adapted_encoder
from hbn.scoring import baselines, factors, trials
from hbn.training import response_time
from hbn.training.factors import participant_features, ridge, set_readout

P = params.load()
CPU = torch.device("cpu")
SCORES = P.scores.model_copy(update={"n_bootstrap": 100})
QUICK = {"steps": 60, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 10, "validate_every": 20}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    torch.set_num_threads(1)  # small products, which more threads slow down
    return Dataset.open(planted.write(tmp_path_factory.mktemp("planted")), 2.0)


def permuted(rows: list[dict], columns: tuple[str, ...], seed: int) -> list[dict]:
    """The same rows, their labels drawn from one another."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [row | {column: rows[i][column] for column in columns} for row, i in zip(rows, order, strict=True)]


def challenge1_scores(dataset: Dataset, folder: Path) -> dict[str, dict]:
    """Scores of the stage's network on the test trials, and of their mean; `folder` takes its checkpoint."""
    p = P.model_copy(update={"challenge1": P.challenge1.model_copy(update=QUICK)})
    split = response_time.split_trials(dataset)
    test = split["test"]
    folder.mkdir()
    with contextlib.chdir(folder):
        network = response_time.train(p, dataset, split, CPU, Path("plots"), None)
    outputs = {"eeg": response_time.outputs(network, dataset, test, CPU)}
    outputs["mean"] = trials.without_eeg(split["train"], test, dataset.participants)["mean"]
    participant = np.array([t["participant_id"] for t in test])
    rt_s = response_times_s(test)
    return {name: trials.scores(rt_s, participant, output, SCORES) for name, output in outputs.items()}


def challenge2_scores(dataset: Dataset) -> dict[str, dict]:
    torch.manual_seed(1)
    network = architecture.Factors(adapted_encoder(dataset, P.model), P.challenge2.n_regions, len(FACTORS)).eval()
    fitted = dataset.split_participants("train", FACTORS[0]) + dataset.split_participants("validation", FACTORS[0])
    test = dataset.split_participants("test", FACTORS[0])
    features = participant_features(network, dataset, fitted + test, CPU)
    known = features[: len(fitted)], factor_values(fitted), baselines.age_sex(fitted)
    set_readout(network, *ridge(*known, P.challenge2.ridge_alphas))
    with torch.inference_mode():
        predicted = network.readout(torch.from_numpy(features[len(fitted) :]).float()).numpy()
    ids = np.array([one["participant_id"] for one in test])
    return factors.scores(ids, factor_values(test), predicted, SCORES)


def test_response_times_are_learned_from_the_signal_alone(dataset, tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    real = challenge1_scores(dataset, tmp_path / "real")["eeg"]
    assert real["pearson_r"]["low"] > 0.6
    assert real["nrmse"]["high"] < 0.85
    assert real["auroc_miss"]["low"] > 0.7

    shuffled = dataclasses.replace(dataset, trials=permuted(dataset.trials, ("outcome", "rt_s"), seed=2))
    found = challenge1_scores(shuffled, tmp_path / "permuted")
    for score, chance in (("pearson_r", 0.0), ("auroc_miss", 0.5), ("auroc_miss_within", 0.5)):
        assert found["eeg"][score]["low"] < chance < found["eeg"][score]["high"], score
        assert found["eeg"][score]["value"] == pytest.approx(chance, abs=0.15), score
    assert found["eeg"]["nrmse"]["value"] > found["mean"]["nrmse"]["value"] - 0.02


def test_factors_are_learned_from_the_signal_alone(dataset):
    real = challenge2_scores(dataset)
    assert real["mean_pearson_r"]["low"] > 0.4
    assert real["mean_nrmse"]["value"] < 0.9

    people = permuted(list(dataset.participants.values()), FACTORS, seed=2)
    found = challenge2_scores(dataclasses.replace(dataset, participants={one["participant_id"]: one for one in people}))
    assert found["mean_pearson_r"]["low"] < 0 < found["mean_pearson_r"]["high"]
    assert found["mean_nrmse"]["value"] > 0.95


def test_no_participant_is_in_two_splits(dataset):
    splits = "train", "validation", "test"
    of_windows = [
        {dataset.cache.recordings[i]["participant_id"] for i in dataset.split_windows(split)[:, 0]} for split in splits
    ]
    of_trials = [{t["participant_id"] for t in dataset.split_trials(split)} for split in splits]
    of_factors = [{one["participant_id"] for one in dataset.split_participants(split, FACTORS[0])} for split in splits]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        for seen in (of_windows, of_trials, of_factors):
            assert seen[first]
            assert not seen[first] & (of_windows[second] | of_trials[second] | of_factors[second])
    assert len(set.union(*of_windows)) == len(dataset.participants)


@pytest.mark.parametrize("test_releases", [["R5"], []])
def test_a_participant_has_the_same_split_whoever_else_is_there(test_releases):
    """The split is a function of id and release; within the training releases it does not depend on the release."""
    for name in (f"sub-{i}" for i in range(200)):
        found = {split_of(name, release, test_releases, 0.2, 0.15) for release in ("R1", "R2", "R3")}
        assert len(found) == 1
    assert split_of("sub-1", "R5", ["R5"], 0.2, 0.15) == "test"


def block(label: int, start_s: float, n_trials: int = 24) -> list[Event]:
    """A block of answered trials, 8 s each."""
    rows = [Event(start_s, f"contrastChangeB{label}_start", "n/a")]
    for k in range(n_trials):
        begin_s = start_s + 1 + 8 * k
        target_s = begin_s + (2.8, 4.4, 6.0)[k % 3]
        side = ("left", "right")[k % 2]
        rows += [Event(begin_s, "contrastTrial_start", "n/a"), Event(target_s, f"{side}_target", "n/a")]
        rows.append(Event(target_s + 1.0 + 0.03 * k, f"{side}_buttonPress", "smiley_face"))
    return rows


def test_a_copied_block_is_never_counted_twice():
    """As in many real files of runs 1 and 2, which also hold an exact copy of the next run's block."""
    blocks = {run: block(run, 300.0 * run) for run in (1, 2, 3)}
    clean = {run: contrast_trials(blocks[run], run)[0] for run in blocks}
    files = {1: blocks[1] + blocks[2], 2: blocks[2] + blocks[3], 3: blocks[3]}
    kept = {run: contrast_trials(rows, run) for run, rows in files.items()}
    assert {run: trials for run, (trials, _) in kept.items()} == clean
    assert sum(len(trials) for trials, _ in kept.values()) == 3 * 24
    assert [dropped["foreign_block"] for _, dropped in kept.values()] == [24, 24, 0]

    again = [dataclasses.replace(event, onset_s=event.onset_s + 300) for event in blocks[1]]
    trials, dropped = contrast_trials(blocks[1] + again, 1)
    assert trials == clean[1]
    assert dropped == {"repeated_block": 24}
