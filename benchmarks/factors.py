"""What an encoder adds to spectral features for challenge 2: the study `factors` of learning.py."""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from hbn import params
from hbn.data.bids import FACTORS, factor_values
from hbn.data.dataset import Dataset
from hbn.networks.architecture import BANDS_HZ, Encoder, Factors
from hbn.scoring import baselines, factors, metrics
from hbn.training.factors import participant_features, ridge

SPECTRAL, STARTS = "spectral", {"untrained": False, "pretrained": True}


def predictions(
    dataset: Dataset, encoder: Callable[[bool, int], Encoder], seeds: Iterable[int], p: params.Challenge2
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Participants outside training, and their factors (P, 4, seeds) by age and sex and by each set of features.

    `encoder(pretrained, seed)` is an encoder. The read-out is fitted to training participants as the stage does;
    those of validation and test are outside.
    """
    split = {name: dataset.split_participants(name, known=FACTORS[0]) for name in ("train", "validation", "test")}
    train, outside = split["train"], split["validation"] + split["test"]
    y, person, n_spectral = factor_values(train), baselines.age_sex(train), p.n_regions * len(BANDS_HZ)
    by_age_sex = baselines.predict_numbers(person, y, baselines.age_sex(outside))
    predicted: dict[str, list[np.ndarray]] = {"age_sex": [by_age_sex]}
    for seed in seeds:
        for start, pretrained in STARTS.items():
            network = Factors(encoder(pretrained, seed), p.n_regions, len(FACTORS)).eval()
            features = participant_features(network, dataset, train + outside, torch.device("cpu"))
            columns = {
                SPECTRAL: slice(0, n_spectral),
                f"{start}_encoder": slice(n_spectral, None),
                f"{SPECTRAL}_and_{start}_encoder": slice(0, None),
            }
            for name, part in columns.items():
                x, new_x = features[: len(train), part], features[len(train) :, part]
                weights, bias = ridge(x, y, person, p.ridge_alphas)
                known = [] if name == SPECTRAL else predicted.get(name, [])  # the spectral ones are alike in all
                predicted[name] = [*known, new_x @ weights.T + bias]
            print(f"factors, {start} encoder of seed {seed}", flush=True)
    return outside, {name: np.stack(values, axis=-1) for name, values in predicted.items()}


def over_seeds(score: metrics.Score) -> metrics.Score:
    """The mean of `score` over seeds, the last axis of predictions (N, ..., seeds); None where one is undefined."""

    def mean(y: np.ndarray, prediction: np.ndarray) -> float | None:
        values = [score(y, one_seed) for one_seed in np.moveaxis(prediction, -1, 0)]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    return mean


def entries(outside: list[dict], predicted: dict[str, np.ndarray], p: params.Scores) -> list[tuple]:
    """(model, versus, score, values with intervals) of every set of features and of its gain over the spectral ones."""
    y, participant = factor_values(outside), np.array([row["participant_id"] for row in outside])
    draws, found = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}, []
    for name, score in factors.MEASURES.items():
        mean = over_seeds(score)
        for model, prediction in predicted.items():
            found.append((model, "", name, metrics.with_interval(mean, participant, y, prediction, **draws)))
            if model.startswith(f"{SPECTRAL}_and"):
                arrays = y, prediction, predicted[SPECTRAL]
                gain = metrics.with_interval(metrics.difference(mean), participant, *arrays, **draws)
                found.append((model, SPECTRAL, name, gain))
    return found
