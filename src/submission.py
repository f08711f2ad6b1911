"""The zip file for the EEG Foundation Challenge (NeurIPS 2025), run and scored as its organisers do.

Reads  data/dataset, models/challenge1.pt, models/challenge2.pt
Writes models/submission.zip, metrics/submission.json

The zip is unpacked into an empty folder and run there by a process that knows nothing of this library, on the test
windows at 100 Hz against Cz. Its predictions must be those of the pipeline's networks, except that the read-out of
its factor is fitted again, to single windows. Where the parameters are not the challenge's (other windows), the zip
is empty and the metrics say why.
"""

import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from hbn.data.bids import FACTORS
from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.deploy import challenge_zip, window_readout, zip_run
from hbn.files import write_json
from hbn.networks import architecture, inference
from hbn.networks.arithmetic import use_cpu
from hbn.scoring import metrics
from hbn.stage import run

log = logging.getLogger(__name__)

ZIP = Path("models/submission.zip")
OUTPUT = challenge_zip.OUTPUTS["challenge2"]
FACTOR = FACTORS[OUTPUT]


def main(p) -> None:
    use_cpu(p.exec.threads)
    saved = {name: inference.load_file(f"models/{name}.pt", made_by=name) for name in challenge_zip.NAMES}
    dataset = Dataset.open(DATASET, saved["challenge1"]["window_s"])
    report: dict[str, Any] = {"source": dataset.source}
    if reason := next(filter(None, map(challenge_zip.misfit, saved.values())), None):
        log.warning("no submission: %s", reason)
        challenge_zip.write(ZIP, {})
        write_json("metrics/submission.json", report | {"reason": reason})
        return
    networks = {name: architecture.rebuild(saved[name], round(dataset.cache.sfreq_hz)) for name in challenge_zip.NAMES}
    fitted = factors(dataset, "train", "validation")  # as in challenge2
    window_readout.fit(
        cast(architecture.Factors, networks["challenge2"]), OUTPUT, *fitted, dataset, p.challenge2.ridge_alphas
    )
    write_zip(networks, saved)

    means = {"challenge1": trials(dataset, "train")[1].mean(), "challenge2": fitted[1].mean()}
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ZIP) as archive:
            archive.extractall(folder)
        for name, labelled in (("challenge1", trials), ("challenge2", factors)):
            windows, y, participant = labelled(dataset, "test")
            outputs = zip_run.beside_pipeline(name, networks[name], dataset, windows, folder, p.exec.threads)
            log.info("%s: largest difference from the pipeline %.2g", name, zip_run.check(name, *outputs))
            report[name] = scores(participant, y, outputs[0], means[name], p.scores)
    report["overall"] = {
        score: sum(share * report[name][score]["value"] for name, share in challenge_zip.SHARES.items())
        for score in ("nrmse", "nrmse_training_mean")
    }
    _, first, owner = np.unique(participant, return_index=True, return_inverse=True)
    of_windows = np.bincount(owner, outputs[0]) / np.bincount(owner)  # their mean, by participant
    by_participant = participant[first], y[first], of_windows
    report["challenge2_by_participant"] = scores(*by_participant, means["challenge2"], p.scores)
    write_json("metrics/submission.json", report)


def write_zip(networks: dict[str, nn.Module], saved: dict[str, dict]) -> None:
    """Write the zip with the networks' weights and the facts in their files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.pt" for name in networks}
        for name, path in paths.items():
            inference.save(path, networks[name], **{k: v for k, v in saved[name].items() if k != "state"})
        challenge_zip.write(ZIP, paths)


def trials(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answered trials of a split: windows (N, 2), response times in s (N,) and participants (N,)."""
    answered = [trial for trial in dataset.split_trials(split) if trial["rt_s"]]
    participant = np.array([trial["participant_id"] for trial in answered])
    return dataset.trial_windows(answered), response_times_s(answered), participant


def factors(dataset: Dataset, *splits: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All windows (N, 2) of participants with factors, the factor (N,) of each window, participants (N,)."""
    participants = [row for split in splits for row in dataset.split_participants(split, known=FACTOR)]
    windows, owner = dataset.participant_windows(participants)
    value, participant = (np.array([row[key] for row in participants]) for key in (FACTOR, "participant_id"))
    return windows, value.astype(float)[owner], participant[owner]


def scores(participant: np.ndarray, y: np.ndarray, predicted: np.ndarray, training_mean: float, p) -> dict:
    """NRMSE of predictions (N,) with its interval over participants, beside that of the training mean."""
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    constant = np.full(len(y), training_mean)
    return {
        "n": {"participants": len(set(participant)), "predictions": len(y)},
        "nrmse": metrics.with_interval(metrics.nrmse, participant, y, predicted, **draws),
        "nrmse_training_mean": metrics.with_interval(metrics.nrmse, participant, y, constant, **draws),
    }


if __name__ == "__main__":
    run(main, reads=("challenge2.ridge_alphas", "scores"))
