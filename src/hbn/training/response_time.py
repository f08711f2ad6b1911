"""Training of challenge 1: networks that read out the press of a trial, pretrained or from random weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbn import params
from hbn.data.dataset import Dataset, response_times_s
from hbn.data.windows import samples
from hbn.files import HbnError, sha256
from hbn.networks import architecture
from hbn.networks.architecture import ResponseTime
from hbn.networks.inference import adapted_encoder, load_pretrained, new_encoder, predict
from hbn.scoring import distribution
from hbn.stage import scratch
from hbn.training.criteria import calibrated_cross_entropy
from hbn.training.device import shard, share
from hbn.training.loop import Rate, Sampler, checkpoint_path, fit

SPLITS = ("train", "validation", "test")
PRIOR_WIDTH = 1.5  # times the width of the targets, so that few trials give a smooth prior
SMALLEST_SHARE = 1e-4  # of all trials, in a sample where no training trial has a response
N_EXPECTATIONS = 20


@dataclass(frozen=True)
class Trials:
    """The inputs and labels of trials."""

    windows: np.ndarray  # (N, 2)
    rt_s: Tensor  # (N,), NaN without a response
    auxiliary: Tensor  # (N, 2): pressed right, correct

    @classmethod
    def of(cls, dataset: Dataset, trials: list[dict]) -> "Trials":
        correct = np.array([t["outcome"] == "correct" for t in trials])
        right = np.array([t["side"] == "right" for t in trials]) == correct
        auxiliary = torch.from_numpy(np.stack([right, correct], axis=1)).float()
        return cls(dataset.trial_windows(trials), torch.from_numpy(response_times_s(trials)).float(), auxiliary)


def split_trials(dataset: Dataset) -> dict[str, list[dict]]:
    """The trials of every split; HbnError for a split without a response to learn from or to score."""
    trials = {split: dataset.split_trials(split) for split in SPLITS}
    for split, rows in trials.items():
        if not any(trial["rt_s"] for trial in rows):
            raise HbnError(f"no answered contrast change trial in the {split} split: add its task to data.tasks")
    return trials


def new_network(p: params.Params, dataset: Dataset, encoder: Path | None) -> ResponseTime:
    """The network before training: encoder and event read-out from a file, or random weights with a whitener."""
    start = new_encoder(dataset, p.model) if encoder else adapted_encoder(dataset, p.model)
    network = ResponseTime(start, p.windows.window_s, p.windows.trial_offset_s)
    if encoder:
        load_pretrained(encoder, network)
    return network


def zero_shot(
    p: params.Params, dataset: Dataset, trials: list[dict], device: torch.device, encoder: Path
) -> ResponseTime:
    """The pretrained network without any label of challenge 1. Of the trials, only the signals are used."""
    network = new_network(p, dataset, encoder).to(device).eval()
    start_without_labels(network, p.challenge1, dataset, trials, device)
    return network


def train(
    p: params.Params, dataset: Dataset, trials: dict, device: torch.device, plots: Path, encoder: Path | None
) -> nn.Module:
    """Fit the network, or the members of an ensemble; their learning curves go into the folder `plots`."""
    fitted = [train_member(p, member, dataset, trials, device, plots, encoder) for member in members(p.challenge1)]
    return fitted[0] if len(fitted) == 1 else architecture.Ensemble(fitted).eval()


def members(p: params.Challenge1) -> list[params.Challenge1]:
    """The settings of each member: successive seeds."""
    return [p.model_copy(update={"seed": p.seed + i, "n_members": 1}) for i in range(p.n_members)]


def train_member(
    p: params.Params,
    settings: params.Challenge1,
    dataset: Dataset,
    trials: dict[str, list[dict]],
    device: torch.device,
    plots: Path,
    encoder: Path | None,
) -> ResponseTime:
    """Fit one network on the training trials, with these settings."""
    torch.manual_seed(settings.seed)
    network = new_network(p, dataset, encoder).to(device)
    member = "" if settings.seed == p.challenge1.seed else f"_seed_{settings.seed}"
    curve = plots / f"curve_{'pretrained' if encoder else 'from_scratch'}{member}.csv"
    state = checkpoint(p, settings, dataset, encoder)
    fit_trials(network, settings, dataset, trials, device, state, curve, pretrained=encoder is not None)
    calibrate(network, dataset, trials["validation"], device, p.windows.window_s)
    return network


def fit_trials(
    network: ResponseTime,
    p: params.Challenge1,
    dataset: Dataset,
    trials: dict[str, list[dict]],
    device: torch.device,
    state: Path,
    curve: Path,
    pretrained: bool,
) -> None:
    """Fit a network in place (see loop.fit); a pretrained encoder moves as p.encoder_rate and p.frozen_steps say.

    With few trials, training ends after p.max_epochs. Otherwise the few validation trials would choose badly among
    the many later steps, in which the network only gets worse.
    """
    known = Trials.of(dataset, trials["train"])
    start_from(network, known.rt_s, p.target_sd_s)
    sampler = Sampler(len(known.windows), p.batch_size, p.seed)
    p = p.model_copy(update={"steps": min(p.steps, p.max_epochs * sampler.batches_per_epoch)})

    def loss(network: ResponseTime, step: int) -> Tensor:
        rows = sampler(step)
        windows, shift_s = jittered(dataset, known.windows[rows], p.jitter_s, [p.seed, step])
        rt_s = known.rt_s[rows] - shift_s
        x_uv = dataset.batch_uv(shard(windows))
        labels = shard(rt_s).to(device), shard(known.auxiliary[rows]).to(device)
        return trial_loss(network, x_uv.to(device), *labels, p, share(~rt_s.isnan()))

    held_out = Trials.of(dataset, trials["validation"])
    held_out_target = network.targets(held_out.rt_s.to(device), p.target_sd_s).cpu()

    def validate(network: ResponseTime) -> float:
        outcome = predict(lambda x_uv: network.logits(x_uv.to(device))[0], dataset, held_out.windows)
        return calibrated_cross_entropy(torch.from_numpy(outcome), held_out_target).item()

    rates = {"encoder.": Rate(p.encoder_rate, p.frozen_steps)} if pretrained else {}
    fit(network, loss, validate, p, state, curve, sampler, rates)


def start_from(network: ResponseTime, rt_s: Tensor, sd_s: float) -> None:
    """Set the prior over outcomes with a response to their distribution in the training trials (N,)."""
    target = network.targets(rt_s[~rt_s.isnan()].to(network.prior.device), PRIOR_WIDTH * sd_s).mean(0)
    _set_prior(network, target[: len(network.prior)], target[len(network.prior)])


def start_without_labels(
    network: ResponseTime, p: params.Challenge1, dataset: Dataset, trials: list[dict], device: torch.device
) -> None:
    """Set the prior of a pretrained network to the times at which it sees presses in trials, without any label.

    In pretraining, presses were anywhere in a window; after a target their times have another distribution.
    Expectation-maximisation estimates it (Saerens, Latinne & Decaestecker 2002, for a changed prior of classes).
    """
    windows, n = dataset.trial_windows(trials), len(network.prior)
    outcome = torch.from_numpy(predict(lambda x_uv: network.logits(x_uv.to(device))[0], dataset, windows))
    when, none = outcome[:, :n] - network.prior.detach().cpu(), outcome[:, -1:]
    smooth = network.targets(network.centres_s[:n], PRIOR_WIDTH * p.target_sd_s)[:, :n].cpu()  # (T', T')
    share = torch.full((n,), 1 / n)
    for _ in range(N_EXPECTATIONS):
        press = torch.cat([when + (share * n + SMALLEST_SHARE).log(), none], dim=1).softmax(1)[:, :n]
        share = press.sum(0) @ smooth
        share = share / share.sum()
    _set_prior(network, share.to(device), torch.zeros((), device=device))


@torch.no_grad()
def _set_prior(network: ResponseTime, share: Tensor, early: Tensor) -> None:
    """Set the prior to the shares of responses in each sample (T',) and before the window."""
    mean = share.mean() + SMALLEST_SHARE
    network.prior.copy_(((share + SMALLEST_SHARE) / mean).log())
    network.early.bias.fill_(((early + SMALLEST_SHARE) / mean).log())


def jittered(dataset: Dataset, windows: np.ndarray, jitter_s: float, seed: list[int]) -> tuple[np.ndarray, Tensor]:
    """Windows (B, 2) moved by up to jitter_s within their recordings, and the shift of each in s (B,)."""
    most = samples(jitter_s, dataset.cache.sfreq_hz)
    length = np.array([int(dataset.cache.recordings[i]["samples"]) for i in windows[:, 0]])
    start = windows[:, 1] + np.random.default_rng(seed).integers(-most, most + 1, size=len(windows))
    start = np.clip(start, 0, length - dataset.window_samples)
    shift_s = torch.from_numpy((start - windows[:, 1]) / dataset.cache.sfreq_hz).float()
    return np.stack([windows[:, 0], start], axis=1), shift_s


def trial_loss(
    network: ResponseTime,
    x_uv: Tensor,
    rt_s: Tensor,
    auxiliary: Tensor,
    p: params.Challenge1,
    share_answered: float = 1.0,
) -> Tensor:
    """Cross-entropy of the outcome distribution, plus that of side and correctness of the answered trials.

    `share_answered` is the weight of a shard's answered trials (see device.share). All trials are shared evenly, so
    the outcome term needs no weight.
    """
    outcome, side_correct = network.logits(x_uv)
    value = F.cross_entropy(outcome, network.targets(rt_s, p.target_sd_s))
    known = ~rt_s.isnan()
    if known.any():
        of_answered = F.binary_cross_entropy_with_logits(side_correct[known], auxiliary[known])
        value = value + p.auxiliary_weight * share_answered * of_answered
    return value


def checkpoint(p: params.Params, settings: params.Challenge1, dataset: Dataset, encoder: Path | None) -> Path:
    """The checkpoint of a member's training, which the stage deletes at its end."""
    decides = {"model": p.model.model_dump(), "challenge1": settings.model_dump()}
    decides["encoder"] = sha256(encoder) if encoder else None
    return checkpoint_path(scratch(), "challenge1", data=dataset.sha256, **decides)


def outputs(network: nn.Module, dataset: Dataset, trials: list[dict], device: torch.device) -> np.ndarray:
    """Outputs (N, K) of the network on trials (see ResponseTime.forward)."""
    return predict(lambda x_uv: network(x_uv.to(device)), dataset, dataset.trial_windows(trials))


def calibrate(
    network: ResponseTime, dataset: Dataset, trials: list[dict], device: torch.device, window_s: float
) -> None:
    """Set the temperature of the network's distribution, under which the trials' response times are most likely."""
    rt_s = response_times_s(trials)
    answered = ~np.isnan(rt_s)
    mass = outputs(network, dataset, trials, device)[answered, distribution.COLUMNS].astype(float)
    edges_s = distribution.bin_edges_s(network.trial_offset_s, window_s, mass.shape[1])
    network.temperature.fill_(distribution.fit_temperature(mass, edges_s, rt_s[answered]))
