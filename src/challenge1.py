"""Challenge 1: response time, and response or no response, in every trial of contrast change detection.

Reads  data/dataset, models/encoder.pt
Writes models/challenge1.pt, metrics/challenge1.json, plots/challenge1/
"""

from pathlib import Path

import numpy as np
import torch

from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.files import write_csv, write_json
from hbn.networks import inference
from hbn.scoring import comparison, distribution, groups, metrics, stacking, trials
from hbn.stage import run
from hbn.training.device import choose_device, first
from hbn.training.response_time import checkpoint, members, outputs, split_trials, train, zero_shot

ENCODER = Path("models/encoder.pt")
PLOTS = Path("plots/challenge1")
# Does pretraining help? Does EEG know more than metadata, and what does each add to the other?
PAIRS = (
    ("pretrained", "from_scratch"),
    ("pretrained", "stimulus_history"),
    ("eeg_and_metadata", "stimulus_history"),
    ("eeg_and_metadata", "pretrained"),
)


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    split = split_trials(dataset)
    torch.manual_seed(p.challenge1.seed)
    networks = {
        "zero_shot": zero_shot(p, dataset, split["train"], device, ENCODER),
        "pretrained": train(p, dataset, split, device, PLOTS, ENCODER),
        "from_scratch": train(p, dataset, split, device, PLOTS, None),
    }
    if not first():
        return
    about = {"model": p.model.model_dump(), "window_s": p.windows.window_s, "trial_offset_s": p.windows.trial_offset_s}
    about["settings"] = p.challenge1.model_dump()
    about["pretraining_events"] = inference.load_file(ENCODER, made_by="pretrain")["events"]
    inference.save("models/challenge1.pt", networks["pretrained"], **about, **dataset.facts)
    held_out, test = (
        {name: outputs(network, dataset, split[part], device) for name, network in networks.items()}
        | trials.without_eeg(split["train"], split[part], dataset.participants)
        for part in ("validation", "test")
    )
    test["eeg_and_metadata"] = together(held_out, response_times_s(split["validation"]), test)
    predicted = distributions(held_out, split, test, p.windows)
    write_json("metrics/challenge1.json", report(dataset, split["test"], test, predicted, p.scores))
    write_plots(split["test"], test["pretrained"], predicted)
    for encoder in (ENCODER, None):
        for member in members(p.challenge1):
            checkpoint(p, member, dataset, encoder).unlink(missing_ok=True)


def together(held_out: dict[str, np.ndarray], rt_s: np.ndarray, test: dict[str, np.ndarray]) -> np.ndarray:
    """Outputs on the test trials of EEG and metadata, by a stack that is fitted to the validation trials (N,)."""
    parts = ("pretrained", "stimulus_history")
    return stacking.stack_trials([held_out[name] for name in parts], rt_s, [test[name] for name in parts])


def distributions(held_out: dict, split: dict, test: dict, p) -> dict[str, distribution.Predicted]:
    """Predicted distributions of the test trials' response times, each calibrated on validation trials."""
    n_bins = test["pretrained"].shape[1] - distribution.COLUMNS.start
    edges_s = distribution.bin_edges_s(p.trial_offset_s, p.window_s, n_bins)
    rt_s = {part: response_times_s(rows) for part, rows in split.items()}
    error_s = rt_s["validation"] - held_out["stimulus_history"][:, 0]
    masses = {name: test[name][:, distribution.COLUMNS] for name in ("pretrained", "from_scratch")}
    masses["mean"] = distribution.empirical(rt_s["train"], edges_s, len(split["test"]))
    masses["stimulus_history"] = distribution.gaussian(test["stimulus_history"][:, 0], np.nanstd(error_s), edges_s)
    return {name: distribution.Predicted(mass, edges_s) for name, mass in masses.items()}


def report(dataset: Dataset, rows: list[dict], test: dict, predicted: dict[str, distribution.Predicted], p) -> dict:
    """Scores of every predictor on the test trials, comparisons, scores by group and scores of distributions."""
    rt_s, participant = response_times_s(rows), np.array([t["participant_id"] for t in rows])
    answered = ~np.isnan(rt_s)
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    groupings = groups.of_participants([dataset.participants[name] for name in participant])
    groupings["block"] = np.where([t["fast_block"] == "1" for t in rows], "fast", "slow")
    return {
        "source": dataset.source,
        "n": {"participants": len(set(participant)), "trials": len(rows), "answered": int(answered.sum())},
        "auroc_of": "no response against a response",
        "test": {name: trials.scores(rt_s, participant, output, p) for name, output in test.items()},
        "comparisons": comparison.table(trials.JUDGED, participant, rt_s, test, PAIRS, **draws),
        "distribution": {
            name: distribution.scores(participant[answered], rt_s[answered], distributions.rows(answered), **draws)
            for name, distributions in predicted.items()
        },
        "groups": groups.table(trials.JUDGED, participant, groupings, rt_s, test["pretrained"], **draws),
    }


def write_plots(rows: list[dict], output: np.ndarray, predicted: dict[str, distribution.Predicted]) -> None:
    """Write tables of true and predicted response times, of ROC and calibration of no response, and of coverage."""
    rt_s, miss = response_times_s(rows), np.isnan(response_times_s(rows))
    names = [t["participant_id"] for t in rows]
    times = [row for row in zip(names, rt_s.tolist(), output[:, 0].tolist(), strict=True) if not np.isnan(row[1])]
    for name, columns, values in (
        ("response_time", ["participant_id", "rt_s", "predicted_s"], times),
        ("roc", ["false_positive_rate", "true_positive_rate"], np.stack(metrics.roc_curve(miss, output[:, 1]), 1)),
        ("calibration", ["predicted", "observed", "trials"], metrics.calibration(miss, output[:, 1])),
        ("coverage", ["interval", *predicted], distribution.coverage_curves(predicted, rt_s)),
    ):
        write_csv(PLOTS / f"{name}.csv", [dict(zip(columns, row, strict=True)) for row in values], columns)


if __name__ == "__main__":
    run(main, reads=("model", "windows.window_s", "windows.trial_offset_s", "challenge1", "scores"))
