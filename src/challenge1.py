"""Challenge 1: response time and hit or miss of every trial of contrast change detection.

Reads  data/dataset, models/encoder.pt
Writes models/challenge1.pt, metrics/challenge1.json, plots/challenge1/
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbn import params
from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.data.windows import samples
from hbn.files import HbnError, sha256, write_csv, write_json
from hbn.networks import architecture, inference
from hbn.networks.inference import adapted_encoder, load_encoder, predict
from hbn.scoring import baselines, metrics
from hbn.stage import run, scratch
from hbn.training.device import first, shard, share
from hbn.training.loop import Sampler, checkpoint_path, choose_device, fit

ENCODER = Path("models/encoder.pt")
PLOTS = Path("plots/challenge1")


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    trials = {split: dataset.split_trials(split) for split in ("train", "validation", "test")}
    for split, found in trials.items():
        if not any(t["rt_s"] for t in found):
            raise HbnError(f"no answered contrast change trial in the {split} split: add its task to data.tasks")

    network = train(p, dataset, trials, device, pretrained=True)
    unprepared = train(p, dataset, trials, device, pretrained=False)
    if not first():
        return
    about = {"model": p.model.model_dump(), "window_s": p.windows.window_s, "trial_offset_s": p.windows.trial_offset_s}
    about["settings"] = p.challenge1.model_dump()
    inference.save("models/challenge1.pt", network, **about, **dataset.facts)
    outputs = {
        "pretrained": network_outputs(network, dataset, trials["test"], device),
        "from_scratch": network_outputs(unprepared, dataset, trials["test"], device),
        **floor_outputs(dataset, trials["train"], trials["test"]),
    }
    test = trials["test"]
    rt_s = response_times_s(test)
    participant = np.array([t["participant_id"] for t in test])
    answered = ~np.isnan(rt_s)
    write_json(
        "metrics/challenge1.json",
        {
            "source": dataset.source,
            "n": {"participants": len(set(participant)), "trials": len(test), "answered": int(answered.sum())},
            "auroc_of": "no response against a response",
            "test": {name: scores(rt_s, participant, *output, p.scores) for name, output in outputs.items()},
            "gain_of_pretraining": gain(rt_s, participant, outputs["pretrained"], outputs["from_scratch"], p.scores),
        },
    )
    predicted_s, p_miss = outputs["pretrained"]
    rows = [
        {"participant_id": t["participant_id"], "rt_s": float(t["rt_s"]), "predicted_s": float(predicted)}
        for t, predicted in zip(test, predicted_s, strict=True)
        if t["rt_s"]
    ]
    write_csv(PLOTS / "response_time.csv", rows, ["participant_id", "rt_s", "predicted_s"])
    false_rate, true_rate = metrics.roc_curve(~answered, p_miss)
    roc = [
        {"false_positive_rate": float(x), "true_positive_rate": float(y)}
        for x, y in zip(false_rate, true_rate, strict=True)
    ]
    write_csv(PLOTS / "roc.csv", roc, ["false_positive_rate", "true_positive_rate"])
    columns = ["predicted", "observed", "trials"]
    tenths = [dict(zip(columns, row, strict=True)) for row in metrics.calibration(~answered, p_miss)]
    write_csv(PLOTS / "calibration.csv", tenths, columns)
    for pretrained in (True, False):
        for settings in members(p.challenge1):
            checkpoint(p.model, settings, dataset, pretrained).unlink(missing_ok=True)


def train(p, dataset: Dataset, trials: dict, device: torch.device, pretrained: bool) -> nn.Module:
    """Fit the network, or the members of an ensemble, from the pretrained encoder or from random weights."""
    fitted = [train_member(p, settings, dataset, trials, device, pretrained) for settings in members(p.challenge1)]
    return fitted[0] if len(fitted) == 1 else architecture.Ensemble(fitted).eval()


def members(p: params.Challenge1) -> list[params.Challenge1]:
    """The settings of each member: successive seeds."""
    return [p.model_copy(update={"seed": p.seed + i, "n_members": 1}) for i in range(p.n_members)]


def train_member(
    p, settings: params.Challenge1, dataset: Dataset, trials: dict, device: torch.device, pretrained: bool
) -> architecture.ResponseTime:
    """Fit one network on the training trials, with these settings."""
    torch.manual_seed(settings.seed)
    encoder = load_encoder(ENCODER, dataset, p.model) if pretrained else adapted_encoder(dataset, p.model)
    network = architecture.ResponseTime(encoder, p.windows.window_s, p.windows.trial_offset_s).to(device)
    windows, rt_s, auxiliary = tensors(dataset, trials["train"])
    last_start = np.array([int(r["samples"]) for r in dataset.cache.recordings]) - dataset.window_samples
    sampler = Sampler(len(windows), settings.batch_size, settings.seed)
    jitter_samples = samples(settings.jitter_s, dataset.cache.sfreq_hz)

    def loss(network: architecture.ResponseTime, step: int) -> Tensor:
        rows = sampler(step)
        rng = np.random.default_rng([settings.seed, step])
        moved = windows[rows]
        start = moved[:, 1] + rng.integers(-jitter_samples, jitter_samples + 1, size=len(rows))
        start = np.clip(start, 0, last_start[moved[:, 0]])
        shift_s = torch.from_numpy((start - moved[:, 1]) / dataset.cache.sfreq_hz).float()
        x_uv = dataset.batch_uv(shard(np.stack([moved[:, 0], start], axis=1)))
        moved_s, sides = rt_s[rows] - shift_s, auxiliary[rows]
        return trial_loss(network, x_uv, shard(moved_s), shard(sides), device, settings, share(~moved_s.isnan()))

    held_out = tensors(dataset, trials["validation"])
    held_out_uv = dataset.batch_uv(held_out[0])

    def validate(network: architecture.ResponseTime) -> float:
        return trial_loss(network, held_out_uv, *held_out[1:], device, settings).item()

    member = "" if settings.seed == p.challenge1.seed else f"_seed_{settings.seed}"
    curve = PLOTS / f"curve_{'pretrained' if pretrained else 'from_scratch'}{member}.csv"
    state = checkpoint(p.model, settings, dataset, pretrained)
    fit(network, loss, validate, settings, state, curve, sampler)
    return network


def checkpoint(p: params.Model, settings: params.Challenge1, dataset: Dataset, pretrained: bool) -> Path:
    """Where a member's training keeps its state until all is done."""
    decides = {"model": p.model_dump(), "challenge1": settings.model_dump()}
    decides["encoder"] = sha256(ENCODER) if pretrained else None
    return checkpoint_path(scratch(), "challenge1", data=dataset.sha256, **decides)


def trial_loss(
    network: architecture.ResponseTime,
    x_uv: Tensor,
    rt_s: Tensor,
    auxiliary: Tensor,
    device: torch.device,
    p,
    share_answered: float = 1.0,
) -> Tensor:
    """Cross-entropy of the outcome distribution plus that of side and correctness of the answered.

    `share_answered` weighs the answered of a shard (see device.share); the trials are shared evenly.
    """
    rt_s, auxiliary = rt_s.to(device), auxiliary.to(device)
    outcome, side_correct = network.logits(x_uv.to(device))
    value = F.cross_entropy(outcome, network.targets(rt_s, p.target_sd_s))
    known = ~rt_s.isnan()
    if known.any():
        of_answered = F.binary_cross_entropy_with_logits(side_correct[known], auxiliary[known])
        value = value + p.auxiliary_weight * share_answered * of_answered
    return value


def tensors(dataset: Dataset, trials: list[dict]) -> tuple[np.ndarray, Tensor, Tensor]:
    """Windows (N, 2), response times (N,) with NaN for none, and (pressed right, correct) (N, 2)."""
    correct = np.array([t["outcome"] == "correct" for t in trials])
    right = np.array([t["side"] == "right" for t in trials]) == correct
    auxiliary = torch.from_numpy(np.stack([right, correct], axis=1)).float()
    return dataset.trial_windows(trials), torch.from_numpy(response_times_s(trials)).float(), auxiliary


def network_outputs(
    network: architecture.ResponseTime, dataset: Dataset, trials: list[dict], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted response time in s and probability of no response, (N,) each."""
    output = predict(lambda x_uv: network(x_uv.to(device)), dataset, dataset.trial_windows(trials))
    return output[:, 0], output[:, 1]


def floor_outputs(dataset: Dataset, train: list[dict], test: list[dict]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The same two outputs by predictors that never see EEG."""
    y = response_times_s(train)
    answered = ~np.isnan(y)
    person = {
        id(trials): baselines.age_sex([dataset.participants[t["participant_id"]] for t in trials])
        for trials in (train, test)
    }
    inputs = {
        "age_sex": [person[id(trials)] for trials in (train, test)],
        "stimulus_history": [
            np.hstack([person[id(trials)], baselines.stimulus_and_history(trials)]) for trials in (train, test)
        ],
    }
    outputs = {"mean": (np.full(len(test), y[answered].mean()), np.full(len(test), 1 - answered.mean()))}
    for name, (train_x, test_x) in inputs.items():
        predicted_s = baselines.predict_number(train_x[answered], y[answered], test_x)
        outputs[name] = predicted_s, baselines.predict_probability(train_x, ~answered, test_x)
    return outputs


def scores(rt_s: np.ndarray, participant: np.ndarray, predicted_s: np.ndarray, p_miss: np.ndarray, p) -> dict:
    """All scores of one predictor on the test trials, with intervals over participants."""
    miss = np.isnan(rt_s)
    answered = participant[~miss], rt_s[~miss], predicted_s[~miss]
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    return {
        "nrmse": metrics.with_interval(metrics.nrmse, *answered, **draws),
        "pearson_r": metrics.with_interval(metrics.pearson_r, *answered, **draws),
        "mae_s": metrics.with_interval(metrics.mae, *answered, **draws),
        "auroc_miss": metrics.with_interval(metrics.auroc, participant, miss, p_miss, **draws),
        "auroc_miss_within": metrics.with_interval(
            metrics.weighted_mean, *metrics.auroc_by_participant(miss, p_miss, participant), **draws
        ),
    }


def gain(rt_s: np.ndarray, participant: np.ndarray, better: tuple, worse: tuple, p) -> dict:
    """Paired differences of two predictors' Pearson r and AUROC on the test trials, with intervals."""
    miss = np.isnan(rt_s)
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    answered = participant[~miss], rt_s[~miss], better[0][~miss], worse[0][~miss]
    return {
        "pearson_r": metrics.with_interval(metrics.difference(metrics.pearson_r), *answered, **draws),
        "auroc_miss": metrics.with_interval(
            metrics.difference(metrics.auroc), participant, miss, better[1], worse[1], **draws
        ),
    }


if __name__ == "__main__":
    run(main, reads=("model", "windows.window_s", "windows.trial_offset_s", "challenge1", "scores"))
