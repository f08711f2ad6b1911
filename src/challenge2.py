"""Challenge 2: the four psychopathology factors, one prediction per participant.

Reads  data/dataset, models/encoder.pt
Writes models/challenge2.pt, metrics/challenge2.json, plots/challenge2.csv

Features of all windows of a participant are averaged; a ridge regression of the factors and, as auxiliary
targets, of age and sex, with one penalty chosen by leave-one-out over training participants, becomes the
network's linear read-out.
"""

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from hbn.data.bids import FACTORS, factor_values
from hbn.data.dataset import DATASET, Dataset
from hbn.files import HbnError, write_csv, write_json
from hbn.networks import architecture, inference
from hbn.networks.inference import load_pretrained, new_encoder, predict
from hbn.scoring import baselines, metrics
from hbn.stage import run
from hbn.training.device import choose_device


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    network = architecture.Factors(new_encoder(dataset, p.model), p.challenge2.n_regions, len(FACTORS))
    load_pretrained("models/encoder.pt", network)
    network.to(device).eval()

    people = {split: dataset.split_participants(split, known=FACTORS[0]) for split in ("train", "validation", "test")}
    fitted = people["train"] + people["validation"]  # nothing is chosen on validation here
    if len(fitted) < 3 or len(people["test"]) < 2:
        raise HbnError("too few participants with factors (3 to train, 2 to test); raise data.n_participants")
    features = participant_features(network, dataset, fitted + people["test"], device)
    train_x, test_x = features[: len(fitted)], features[len(fitted) :]
    train_y, test_y = factor_values(fitted), factor_values(people["test"])

    fit_readout(network, train_x, train_y, baselines.age_sex(fitted), p.challenge2.ridge_alphas)
    with torch.inference_mode():
        predicted = network.readout(torch.from_numpy(test_x).float().to(device)).cpu().numpy()
    about = {"model": p.model.model_dump(), "window_s": p.windows.window_s, "n_regions": p.challenge2.n_regions}
    about["settings"] = p.challenge2.model_dump()
    inference.save("models/challenge2.pt", network, **about, **dataset.facts)

    outputs = {
        "eeg": predicted,
        "mean": np.tile(train_y.mean(0), (len(test_y), 1)),
        "age_sex": np.stack(
            [
                baselines.predict_number(baselines.age_sex(fitted), train_y[:, k], baselines.age_sex(people["test"]))
                for k in range(len(FACTORS))
            ],
            axis=1,
        ),
    }
    ids = np.array([one["participant_id"] for one in people["test"]])
    write_json(
        "metrics/challenge2.json",
        {
            "source": dataset.source,
            "n": {"train_participants": len(fitted), "test_participants": len(ids)},
            "test": {name: scores(ids, test_y, output, p.scores) for name, output in outputs.items()},
        },
    )
    rows = [
        {"participant_id": one, "factor": factor, "value": float(y[k]), "predicted": float(predicted_row[k])}
        for one, y, predicted_row in zip(ids, test_y, predicted, strict=True)
        for k, factor in enumerate(FACTORS)
    ]
    write_csv("plots/challenge2.csv", rows, ["participant_id", "factor", "value", "predicted"])


def participant_features(
    network: architecture.Factors, dataset: Dataset, people: list[dict[str, str]], device: torch.device
) -> np.ndarray:
    """Mean features (P, F) over all windows of each participant."""
    windows, owner = dataset.participant_windows(people)
    means = [
        predict(lambda x_uv: network.features(x_uv.to(device)), dataset, windows[owner == i]).mean(0)
        for i in range(len(people))
    ]
    return np.stack(means).astype(np.float64)


def fit_readout(
    network: architecture.Factors, x: np.ndarray, y: np.ndarray, auxiliary: np.ndarray, alphas: list[float]
) -> None:
    """Set the linear read-out to the ridge regression of standardised features (P, F) on factors (P, K).

    The auxiliary targets (P, A), NaN where unknown, have a say in the choice of the penalty, which few
    participants and single factors make a matter of luck.
    """
    of_x, of_y = StandardScaler().fit(x), StandardScaler().fit(y)
    others = np.nan_to_num(StandardScaler().fit_transform(auxiliary))
    targets = np.concatenate([of_y.transform(y), others], axis=1)
    ridge = RidgeCV(alphas=np.array(alphas) * len(x)).fit(of_x.transform(x), targets)
    weights = ridge.coef_[: y.shape[1]] * of_y.scale_[:, None] / of_x.scale_
    with torch.no_grad():
        network.readout.weight.copy_(torch.from_numpy(weights))
        network.readout.bias.copy_(torch.from_numpy(of_y.mean_ - weights @ of_x.mean_))


def scores(participant: np.ndarray, y: np.ndarray, predicted: np.ndarray, p) -> dict:
    """Pearson r and NRMSE (P, K) per factor and their means, with intervals over participants."""
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    by_name = {}
    for name, score in (("pearson_r", metrics.pearson_r), ("nrmse", metrics.nrmse)):
        by_name[f"mean_{name}"] = metrics.with_interval(
            metrics.mean_over_columns(score), participant, y, predicted, **draws
        )
        for k, factor in enumerate(FACTORS):
            by_name.setdefault(factor, {})[name] = metrics.with_interval(
                score, participant, y[:, k], predicted[:, k], **draws
            )
    return by_name


if __name__ == "__main__":
    run(main, reads=("model", "windows.window_s", "challenge2", "scores"))
