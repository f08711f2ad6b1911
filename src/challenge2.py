"""Challenge 2: the four psychopathology factors, one prediction per participant.

Reads  data/dataset, models/encoder.pt
Writes models/challenge2.pt, metrics/challenge2.json, plots/challenge2.csv

The features of all windows of a participant are averaged. A ridge regression predicts the factors and, as auxiliary
targets, age and sex; its penalty is chosen by leave-one-out over the fitted participants. Its weights for the factors
become the network's linear read-out.
"""

import numpy as np

from hbn.data.bids import FACTORS, factor_values
from hbn.data.dataset import DATASET, Dataset
from hbn.files import HbnError, write_csv, write_json
from hbn.networks import architecture, inference
from hbn.networks.inference import load_pretrained, new_encoder
from hbn.scoring import baselines, comparison, factors, groups, stacking
from hbn.stage import run
from hbn.training.device import choose_device
from hbn.training.factors import participant_features, ridge, set_readout

# Does EEG know more than age and sex, and what does each add to the other?
PAIRS = (("eeg", "age_sex"), ("eeg_and_metadata", "age_sex"), ("eeg_and_metadata", "eeg"))


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    network = architecture.Factors(new_encoder(dataset, p.model), p.challenge2.n_regions, len(FACTORS))
    load_pretrained("models/encoder.pt", network)
    network.to(device).eval()

    split = {name: dataset.split_participants(name, known=FACTORS[0]) for name in ("train", "validation", "test")}
    fitted, test = split["train"] + split["validation"], split["test"]  # nothing is chosen on validation here
    if len(fitted) < 3 or len(test) < 2:
        raise HbnError("too few participants with factors (3 to train, 2 to test); raise data.n_participants")
    features = participant_features(network, dataset, fitted + test, device)
    x, new_x = features[: len(fitted)], features[len(fitted) :]

    set_readout(network, *ridge(x, factor_values(fitted), baselines.age_sex(fitted), p.challenge2.ridge_alphas))
    about = {"model": p.model.model_dump(), "window_s": p.windows.window_s, "n_regions": p.challenge2.n_regions}
    about["settings"] = p.challenge2.model_dump()
    inference.save("models/challenge2.pt", network, **about, **dataset.facts)

    outputs = predictors(x, fitted, new_x, test, p.challenge2.ridge_alphas)
    write_json("metrics/challenge2.json", report(dataset, len(fitted), test, outputs, p.scores))
    rows = [
        {"participant_id": row["participant_id"], "factor": factor, "value": float(row[factor]), "predicted": value}
        for row, values in zip(test, outputs["eeg"].tolist(), strict=True)
        for factor, value in zip(FACTORS, values, strict=True)
    ]
    write_csv("plots/challenge2.csv", rows, ["participant_id", "factor", "value", "predicted"])


def predictors(
    x: np.ndarray, fitted: list[dict], new_x: np.ndarray, test: list[dict], alphas: list[float]
) -> dict[str, np.ndarray]:
    """Predicted factors (P, 4) of the test participants, from EEG, from age and sex, from both, and the mean.

    x and new_x are the features (N, F) and (P, F). EEG and metadata are combined by a stack that is fitted to
    predictions for left-out participants (see stacking).
    """
    y, person, new_person = factor_values(fitted), baselines.age_sex(fitted), baselines.age_sex(test)

    def eeg(rows: np.ndarray, new: np.ndarray) -> np.ndarray:
        weights, bias = ridge(x[rows], y[rows], person[rows], alphas)
        return new @ weights.T + bias

    everyone = np.arange(len(y))
    outputs = {"eeg": eeg(everyone, new_x), "age_sex": baselines.predict_numbers(person, y, new_person)}
    held_out = [
        stacking.out_of_fold(lambda rows, rest: eeg(rows, x[rest]), len(y)),
        stacking.out_of_fold(lambda rows, rest: baselines.predict_numbers(person[rows], y[rows], person[rest]), len(y)),
    ]
    parts, new_parts = np.stack(held_out, axis=1), np.stack([outputs["eeg"], outputs["age_sex"]], axis=1)  # (N, 2, 4)
    both = [stacking.stack_number(parts[..., k], y[:, k], new_parts[..., k]) for k in range(y.shape[1])]
    outputs["eeg_and_metadata"] = np.stack(both, axis=1)
    return outputs | {"mean": np.tile(y.mean(0), (len(test), 1))}


def report(dataset: Dataset, n_fitted: int, test: list[dict], outputs: dict[str, np.ndarray], p) -> dict:
    """Scores of every predictor on the test participants, their comparisons and groups."""
    y, participant = factor_values(test), np.array([row["participant_id"] for row in test])
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    groupings = groups.of_participants(test)
    return {
        "source": dataset.source,
        "n": {"train_participants": n_fitted, "test_participants": len(test)},
        "test": {name: factors.scores(participant, y, output, p) for name, output in outputs.items()},
        "comparisons": comparison.table(factors.MEASURES, participant, y, outputs, PAIRS, **draws),
        "groups": groups.table(factors.MEASURES, participant, groupings, y, outputs["eeg"], **draws),
    }


if __name__ == "__main__":
    run(main, reads=("model", "windows.window_s", "challenge2", "scores"))
