"""Make the zip file for the EEG Foundation Challenge (NeurIPS 2025); run and score it as its organisers do.

Reads  data/dataset, data/raw, models/challenge1.pt, models/challenge2.pt
Writes models/submission.zip, metrics/submission.json

The zip is unpacked into an empty folder and run there by a process without this library. The read-out of its factor
is fitted again, to single windows. On the pipeline's test windows, at 100 Hz against Cz, its predictions must equal
those of the pipeline's networks with this read-out. On the same windows as the organisers have them, with bad
channels, its score estimates the score in the challenge. If the parameters do not fit the challenge (other windows),
the zip is empty and the metrics say why.
"""

import logging
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from hbn.data.bids import FACTORS
from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.deploy import as_distributed, challenge_zip, window_readout, zip_run
from hbn.files import write_json
from hbn.networks import architecture, inference
from hbn.networks.architecture import SFREQ_HZ
from hbn.networks.arithmetic import use_cpu
from hbn.scoring import metrics
from hbn.stage import run

log = logging.getLogger(__name__)

ZIP = Path("models/submission.zip")
OUTPUT = challenge_zip.OUTPUTS["challenge2"]
FACTOR = FACTORS[OUTPUT]
Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]  # windows (N, 2), labels (N,), participants (N,)


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
    tests = {"challenge1": trials(dataset, "test"), "challenge2": factors(dataset, "test")}
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ZIP) as archive:
            archive.extractall(folder)
        for name, test in tests.items():
            report[name] = scores(name, networks[name], dataset, test, means[name], folder, p)
    report["overall"] = {
        score: sum(share * report[name][score]["value"] for name, share in challenge_zip.SHARES.items())
        for score in ("nrmse", "nrmse_of_pipeline", "nrmse_training_mean")
    }
    write_json("metrics/submission.json", report)


def write_zip(networks: dict[str, nn.Module], saved: dict[str, dict]) -> None:
    """Write the zip with the networks' weights and the facts in their files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.pt" for name in networks}
        for name, path in paths.items():
            inference.save(path, networks[name], **{k: v for k, v in saved[name].items() if k != "state"})
        challenge_zip.write(ZIP, paths)


def trials(dataset: Dataset, split: str) -> Labelled:
    """Answered trials of a split and their response times in s."""
    answered = [trial for trial in dataset.split_trials(split) if trial["rt_s"]]
    participant = np.array([trial["participant_id"] for trial in answered])
    return dataset.trial_windows(answered), response_times_s(answered), participant


def factors(dataset: Dataset, *splits: str) -> Labelled:
    """All windows of participants with factors, each with the factor of its participant."""
    participants = [row for split in splits for row in dataset.split_participants(split, known=FACTOR)]
    windows, owner = dataset.participant_windows(participants)
    value, participant = (np.array([row[key] for row in participants]) for key in (FACTOR, "participant_id"))
    return windows, value.astype(float)[owner], participant[owner]


def scores(
    name: str, network: nn.Module, dataset: Dataset, test: Labelled, training_mean: float, folder: str, p
) -> dict:
    """NRMSE of the zip on test windows as distributed and as the pipeline cleans them, and of the training mean."""
    rows = as_distributed.contrast_windows(dataset, test[0])
    windows, y, participant = (values[rows] for values in test)
    cleaned = zip_run.run(name, as_recorded(dataset, windows), folder, p.exec.threads)
    own = inference.predict(network, dataset, windows)[:, challenge_zip.OUTPUTS[name]]
    log.info("%s: largest difference from the pipeline %.2g", name, zip_run.check(name, cleaned, own))
    distributed = zip_run.run(name, as_distributed.batches(dataset, windows), folder, p.exec.threads)
    draws = {"n_bootstrap": p.scores.n_bootstrap, "seed": p.scores.seed}
    constant = np.full(len(y), training_mean)
    return {
        "n": {"participants": len(set(participant)), "predictions": len(y)},
        "nrmse": metrics.with_interval(metrics.nrmse, participant, y, distributed, **draws),
        "nrmse_of_pipeline": metrics.with_interval(metrics.nrmse, participant, y, cleaned, **draws),
        "nrmse_training_mean": metrics.with_interval(metrics.nrmse, participant, y, constant, **draws),
        "loss_as_distributed": metrics.with_interval(
            metrics.difference(metrics.nrmse), participant, y, distributed, cleaned, **draws
        ),
    }


def as_recorded(dataset: Dataset, windows: np.ndarray) -> Iterator[np.ndarray]:
    """The pipeline's windows (N, 2) as recordings are, in batches."""
    step = round(dataset.cache.sfreq_hz / SFREQ_HZ)
    for i in range(0, len(windows), challenge_zip.BATCH):
        yield challenge_zip.as_recorded(dataset.batch_uv(windows[i : i + challenge_zip.BATCH]), step).numpy()


if __name__ == "__main__":
    run(main, reads=("challenge2.ridge_alphas", "scores"))
