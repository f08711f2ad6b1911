"""The zip file for the EEG Foundation Challenge (NeurIPS 2025), run and scored as its organisers do.

Reads  data/dataset, models/challenge1.pt, models/challenge2.pt
Writes models/submission.zip, metrics/submission.json

The zip is unpacked into an empty folder and run there by a process that knows nothing of this
library, on the test windows at 100 Hz against Cz. Its predictions must be the pipeline's own. Where
the parameters are not the challenge's (other windows), the zip is empty and the metrics say why.
"""

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hbn import challenge, metrics
from hbn.bids import FACTORS
from hbn.files import HbnError, write_json
from hbn.model import load_file
from hbn.stage import run
from hbn.training import DATASET, Dataset, choose_device

log = logging.getLogger(__name__)

ZIP = Path("models/submission.zip")
FACTOR = FACTORS[challenge.OUTPUTS["challenge2"]]
# Largest difference from the pipeline, in s and in units of the factor. Stored samples are rounded to 11
# bits, so their mean over channels is not quite zero and the average reference moves them a little.
TOLERANCE = 2e-3
LOOP = """
import sys
import torch
sys.path.insert(0, "")  # the working directory, which -I leaves out
from submission import Submission
batch, channels, samples = map(int, sys.argv[2:])
model = getattr(Submission(SFREQ=100, DEVICE=torch.device("cpu")), f"get_model_{sys.argv[1]}")()
model.eval()
predictions = []
with torch.inference_mode():
    while data := sys.stdin.buffer.read(batch * channels * samples * 4):
        X = torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(-1, channels, samples)
        predictions.append(model.forward(X))
sys.stdout.buffer.write(torch.cat(predictions).numpy().tobytes())
"""


@dataclass(frozen=True)
class Test:
    """What a network is scored on: whose each of N predictions is (N,), what is true (N,), what a guess would be."""

    participant: np.ndarray
    y: np.ndarray
    training_mean: float

    def scores(self, predicted: np.ndarray, p) -> dict:
        """NRMSE of predictions (N,) with its interval over participants, beside that of the training mean."""

        def score(y, predicted):
            return metrics.nrmse(y, predicted) if np.ptp(y) > 0 else None  # one participant drawn again and again

        draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
        return {
            "n": {"participants": len(set(self.participant)), "predictions": len(self.y)},
            "nrmse": metrics.with_interval(score, self.participant, self.y, predicted, **draws),
            "nrmse_training_mean": metrics.nrmse(self.y, np.full(len(self.y), self.training_mean)),
        }

    def by_participant(self, predicted: np.ndarray) -> tuple["Test", np.ndarray]:
        """The same with one prediction for each participant, the mean of all."""
        names, first, owner = np.unique(self.participant, return_index=True, return_inverse=True)
        mean = np.bincount(owner, predicted) / np.bincount(owner)
        return Test(names, self.y[first], self.training_mean), mean


def main(p) -> None:
    choose_device("cpu", p.exec.threads)
    saved = {name: load_file(f"models/{name}.pt", made_by=name) for name in challenge.NAMES}
    dataset = Dataset.open(DATASET, saved["challenge1"]["window_s"])
    if reason := next(filter(None, map(challenge.misfit, saved.values())), None):
        log.warning("no submission: %s", reason)
        challenge.write(ZIP, {})
        write_json("metrics/submission.json", {"source": dataset.source, "reason": reason})
        return
    challenge.write(ZIP, {name: Path(f"models/{name}.pt") for name in challenge.NAMES})
    report = {"source": dataset.source}
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ZIP) as archive:
            archive.extractall(folder)
        for name, (windows, test) in {"challenge1": trials(dataset), "challenge2": factors(dataset)}.items():
            network = challenge.rebuild(saved[name], round(dataset.cache.sfreq_hz))
            predicted, expected = run_both(name, network, dataset, windows, folder, p.exec.threads)
            check(name, predicted, expected)
            report[name] = test.scores(predicted, p.scores)
    once, mean = test.by_participant(predicted)
    report["challenge2_by_participant"] = once.scores(mean, p.scores)
    found = {name: report[name] for name in challenge.NAMES}
    report["overall"] = {
        "network": sum(challenge.SHARES[name] * row["nrmse"]["value"] for name, row in found.items()),
        "training_mean": sum(challenge.SHARES[name] * row["nrmse_training_mean"] for name, row in found.items()),
    }
    write_json("metrics/submission.json", report)


def trials(dataset: Dataset) -> tuple[np.ndarray, Test]:
    """Windows (N, 2) and response times in s of the answered test trials."""
    answered = {split: [t for t in dataset.split_trials(split) if t["rt_s"]] for split in ("train", "test")}
    rt_s = {split: np.array([float(t["rt_s"]) for t in rows]) for split, rows in answered.items()}
    participant = np.array([t["participant_id"] for t in answered["test"]])
    return dataset.trial_windows(answered["test"]), Test(participant, rt_s["test"], rt_s["train"].mean())


def factors(dataset: Dataset) -> tuple[np.ndarray, Test]:
    """Windows (N, 2) of the test participants and the externalizing factor that each stands for."""
    known = {name: one for name, one in dataset.participants.items() if one[FACTOR]}
    owner = np.array([row["participant_id"] for row in dataset.cache.recordings])
    windows = dataset.split_windows("test")
    windows = windows[np.isin(owner[windows[:, 0]], list(known))]
    participant = owner[windows[:, 0]]
    y = np.array([float(known[name][FACTOR]) for name in participant])
    train = [float(one[FACTOR]) for one in known.values() if one["split"] == "train"]
    return windows, Test(participant, y, float(np.mean(train)))


def run_both(
    name: str, network: nn.Module, dataset: Dataset, windows: np.ndarray, folder: str, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N,) of the submission in `folder`, in a process of its own, and of the pipeline's network."""
    command = [sys.executable, "-I", "-c", LOOP, name.replace("challenge", "challenge_")]
    command += map(str, (challenge.BATCH, *challenge.SHAPE))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    expected, answer = [], b""
    with tempfile.TemporaryFile("w+") as messages:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": messages}
        try:
            with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process, torch.inference_mode():
                for i in range(0, len(windows), challenge.BATCH):
                    x_uv = dataset.batch_uv(windows[i : i + challenge.BATCH])
                    expected.append(network(x_uv)[:, challenge.OUTPUTS[name]].numpy())
                    process.stdin.write(challenge.as_recorded(x_uv, network.encoder.step).numpy().tobytes())
                process.stdin.close()
                answer = process.stdout.read()
        except BrokenPipeError:
            pass  # it stopped before it had read all: its messages say why
        if process.returncode:
            messages.seek(0)
            raise HbnError(f"the submission of {name} does not run by itself:\n{messages.read().strip()}")
    return np.frombuffer(answer, dtype=np.float32), np.concatenate(expected)


def check(name: str, predicted: np.ndarray, expected: np.ndarray) -> None:
    """HbnError unless the submission predicts what the pipeline's network does."""
    if predicted.shape != expected.shape:
        raise HbnError(f"the submission of {name} has {len(predicted)} outputs for {len(expected)} windows")
    difference = float(np.abs(predicted - expected).max())
    log.info("%s: largest difference from the pipeline %.2g", name, difference)
    if not difference <= TOLERANCE:  # NaN as well
        raise HbnError(f"the submission of {name} differs from the pipeline by {difference:.3g}, not {TOLERANCE:g}")


if __name__ == "__main__":
    run(main, reads=("scores",))
