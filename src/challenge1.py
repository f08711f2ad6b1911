"""Challenge 1: response time and hit or miss of every trial of contrast change detection.

Reads  data/dataset, models/encoder.pt
Writes models/challenge1.pt, metrics/challenge1.json, plots/challenge1/
"""

from pathlib import Path

import numpy as np
import torch

from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.files import write_csv, write_json
from hbn.networks import inference
from hbn.scoring import metrics, response_time
from hbn.stage import run
from hbn.training.device import choose_device, first
from hbn.training.response_time import (
    checkpoint,
    members,
    new_network,
    outputs,
    split_trials,
    start_without_labels,
    train,
)

ENCODER = Path("models/encoder.pt")
PLOTS = Path("plots/challenge1")


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    trials = split_trials(dataset)
    torch.manual_seed(p.challenge1.seed)
    zero_shot = new_network(p, dataset, ENCODER).to(device).eval()
    start_without_labels(zero_shot, p.challenge1, dataset, trials["train"], device)
    networks = {
        "zero_shot": zero_shot,
        "pretrained": train(p, dataset, trials, device, PLOTS, ENCODER),
        "from_scratch": train(p, dataset, trials, device, PLOTS, None),
    }
    if not first():
        return
    about = {"model": p.model.model_dump(), "window_s": p.windows.window_s, "trial_offset_s": p.windows.trial_offset_s}
    about["settings"] = p.challenge1.model_dump()
    about["pretraining_events"] = inference.load_file(ENCODER, made_by="pretrain")["events"]
    inference.save("models/challenge1.pt", networks["pretrained"], **about, **dataset.facts)
    found = {name: outputs(network, dataset, trials["test"], device) for name, network in networks.items()}
    train_rt_s = response_times_s(trials["train"])
    found |= response_time.floors(trials["train"], train_rt_s, trials["test"], dataset.participants)
    write_json("metrics/challenge1.json", report(dataset, trials["test"], found, p.scores))
    write_plots(trials["test"], *found["pretrained"])
    for encoder in (ENCODER, None):
        for member in members(p.challenge1):
            checkpoint(p, member, dataset, encoder).unlink(missing_ok=True)


def report(dataset: Dataset, test: list[dict], found: dict[str, response_time.Output], p) -> dict:
    """Scores of every predictor on the test trials, and what pretraining brings."""
    rt_s, participant = response_times_s(test), np.array([t["participant_id"] for t in test])
    answered = int(np.sum(~np.isnan(rt_s)))
    pair = found["pretrained"], found["from_scratch"]
    return {
        "source": dataset.source,
        "n": {"participants": len(set(participant)), "trials": len(test), "answered": answered},
        "auroc_of": "no response against a response",
        "test": {name: response_time.scores(rt_s, participant, output, p) for name, output in found.items()},
        "gain_of_pretraining": response_time.gain(rt_s, participant, *pair, p),
    }


def write_plots(test: list[dict], predicted_s: np.ndarray, p_miss: np.ndarray) -> None:
    """Tables of predicted against true response times, of the ROC and of the calibration of no response."""
    rows = [
        {"participant_id": t["participant_id"], "rt_s": float(t["rt_s"]), "predicted_s": float(predicted)}
        for t, predicted in zip(test, predicted_s, strict=True)
        if t["rt_s"]
    ]
    write_csv(PLOTS / "response_time.csv", rows, ["participant_id", "rt_s", "predicted_s"])
    miss = np.isnan(response_times_s(test))
    roc = np.stack(metrics.roc_curve(miss, p_miss), axis=1).tolist()
    for name, columns, values in (
        ("roc", ["false_positive_rate", "true_positive_rate"], roc),
        ("calibration", ["predicted", "observed", "trials"], metrics.calibration(miss, p_miss)),
    ):
        write_csv(PLOTS / f"{name}.csv", [dict(zip(columns, row, strict=True)) for row in values], columns)


if __name__ == "__main__":
    run(main, reads=("model", "windows.window_s", "windows.trial_offset_s", "challenge1", "scores"))
