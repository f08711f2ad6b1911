"""The zip file for the EEG Foundation Challenge (NeurIPS 2025), run and scored as its organisers do.

Reads  data/dataset, models/challenge1.pt, models/challenge2.pt
Writes models/submission.zip, metrics/submission.json

The zip is unpacked into an empty folder and run there by a process that knows nothing of this
library, on the test windows at 100 Hz against Cz. Its predictions must be those of the pipeline's
networks, but for one thing: the organisers score every window's factor, and a read-out that was
fitted to means over hundreds of windows is far too steep for one. So it is fitted again, to windows.
Where the parameters are not the challenge's (other windows), the zip is empty and the metrics say why.
"""

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from hbn.data.bids import FACTORS
from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.deploy import challenge_zip
from hbn.files import HbnError, write_json
from hbn.networks import architecture, inference
from hbn.networks.inference import predict
from hbn.scoring import metrics
from hbn.stage import run
from hbn.training.loop import choose_device

log = logging.getLogger(__name__)

ZIP = Path("models/submission.zip")
FACTOR = FACTORS[challenge_zip.OUTPUTS["challenge2"]]
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


def main(p) -> None:
    choose_device("cpu", p.exec.threads)
    saved = {name: inference.load_file(f"models/{name}.pt", made_by=name) for name in challenge_zip.NAMES}
    dataset = Dataset.open(DATASET, saved["challenge1"]["window_s"])
    if reason := next(filter(None, map(challenge_zip.misfit, saved.values())), None):
        log.warning("no submission: %s", reason)
        challenge_zip.write(ZIP, {})
        write_json("metrics/submission.json", {"source": dataset.source, "reason": reason})
        return
    networks = {name: architecture.rebuild(saved[name], round(dataset.cache.sfreq_hz)) for name in challenge_zip.NAMES}
    fitted = factors(dataset, "train", "validation")  # as in challenge2
    fit_readout(networks["challenge2"], *fitted, dataset, p.challenge2.ridge_alphas)
    make_zip(networks, saved)

    report = {"source": dataset.source}
    means = {"challenge1": trials(dataset, "train")[1].mean(), "challenge2": fitted[1].mean()}
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ZIP) as archive:
            archive.extractall(folder)
        for name, known in (("challenge1", trials), ("challenge2", factors)):
            windows, y, participant = known(dataset, "test")
            predicted, expected = run_both(name, networks[name], dataset, windows, folder, p.exec.threads)
            check(name, predicted, expected)
            report[name] = scores(participant, y, predicted, means[name], p.scores)
    report["overall"] = {
        score: sum(share * report[name][score]["value"] for name, share in challenge_zip.SHARES.items())
        for score in ("nrmse", "nrmse_training_mean")
    }
    _, first, owner = np.unique(participant, return_index=True, return_inverse=True)
    mean = np.bincount(owner, predicted) / np.bincount(owner)
    report["challenge2_by_participant"] = scores(participant[first], y[first], mean, means["challenge2"], p.scores)
    write_json("metrics/submission.json", report)


def make_zip(networks: dict[str, nn.Module], saved: dict[str, dict]) -> None:
    """Write the zip with the networks' weights and what else their files say."""
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
    """All windows (N, 2) of participants with factors, the factor (N,) each stands for, participants (N,)."""
    people = [one for split in splits for one in dataset.split_participants(split, known=FACTOR)]
    windows, owner = dataset.participant_windows(people)
    value, participant = (np.array([one[key] for one in people]) for key in (FACTOR, "participant_id"))
    return windows, value.astype(float)[owner], participant[owner]


def fit_readout(
    network: architecture.Factors,
    windows: np.ndarray,
    y: np.ndarray,
    participant: np.ndarray,
    dataset: Dataset,
    alphas: list[float],
) -> None:
    """Set the factor's read-out to the ridge regression of single windows (N, 2) on y (N,).

    The penalty (times the number of windows) is chosen by leaving out a fifth of the participants.
    """
    x = predict(network.features, dataset, windows).astype(np.float64)
    scaler = StandardScaler().fit(x)
    folds = GroupKFold(min(5, len(set(participant))))
    grid = {"alpha": len(x) * np.array(alphas)}
    with threadpool_limits(1):  # the last bits of a matrix product depend on the number of threads
        search = GridSearchCV(Ridge(), grid, cv=folds, scoring="neg_mean_squared_error")
        ridge = search.fit(scaler.transform(x), y, groups=participant).best_estimator_
    weight, row = ridge.coef_ / scaler.scale_, challenge_zip.OUTPUTS["challenge2"]
    with torch.no_grad():
        network.readout.weight[row] = torch.from_numpy(weight)
        network.readout.bias[row] = float(ridge.intercept_ - weight @ scaler.mean_)


def scores(participant: np.ndarray, y: np.ndarray, predicted: np.ndarray, training_mean: float, p) -> dict:
    """NRMSE of predictions (N,) with its interval over participants, beside that of the training mean."""
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    guess = np.full(len(y), training_mean)
    return {
        "n": {"participants": len(set(participant)), "predictions": len(y)},
        "nrmse": metrics.with_interval(metrics.nrmse, participant, y, predicted, **draws),
        "nrmse_training_mean": metrics.with_interval(metrics.nrmse, participant, y, guess, **draws),
    }


def run_both(
    name: str, network: nn.Module, dataset: Dataset, windows: np.ndarray, folder: str, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N,) of the submission in `folder`, in a process of its own, and of the pipeline's network."""
    command = [sys.executable, "-I", "-c", LOOP, name.replace("challenge", "challenge_")]
    command += map(str, (challenge_zip.BATCH, *challenge_zip.SHAPE))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    expected, answer = [], b""
    with tempfile.TemporaryFile("w+") as messages:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": messages}
        try:
            with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process, torch.inference_mode():
                for i in range(0, len(windows), challenge_zip.BATCH):
                    x_uv = dataset.batch_uv(windows[i : i + challenge_zip.BATCH])
                    expected.append(network(x_uv)[:, challenge_zip.OUTPUTS[name]].numpy())
                    process.stdin.write(challenge_zip.as_recorded(x_uv, network.encoder.step).numpy().tobytes())
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
    run(main, reads=("challenge2.ridge_alphas", "scores"))
