"""Challenge 1: its prior over when a response comes, with and without labels, and how long it trains."""

import numpy as np
import planted
import torch
from torch import Tensor

from hbn import params
from hbn.data import bids
from hbn.data.dataset import Dataset
from hbn.files import read_csv
from hbn.networks.architecture import Encoder, ResponseTime
from hbn.networks.inference import adapted_encoder
from hbn.training.response_time import fit_trials, split_trials, start_from, start_without_labels

CPU = torch.device("cpu")


class FromEvidence(ResponseTime):
    """Its input (B, T' + 2) is the evidence for each outcome that a pretrained network would see."""

    def logits(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        n = len(self.prior)
        early = self.early.bias.expand(len(x_uv), 1)
        outcome = torch.cat([x_uv[:, :n] + self.prior, early, x_uv[:, -1:]], dim=1)
        return outcome, torch.zeros(len(x_uv), 2)


class Trials:
    """Trials with weak evidence of when the press was, as a dataset has them."""

    def __init__(self, rt_s: Tensor, offset_s: float, n: int):
        rng = torch.Generator().manual_seed(0)
        distance_s = (
            offset_s + (torch.arange(n) + 0.5) / 100 - (rt_s + 0.4 * torch.randn(len(rt_s), generator=rng))[:, None]
        )
        self.evidence = torch.cat([2 - 0.5 * (distance_s / 0.4) ** 2, torch.zeros(len(rt_s), 1)], dim=1)
        self.evidence[rt_s.isnan()] = torch.tensor([*[0.0] * n, 7.0])  # no press is seen

    def trial_windows(self, trials: list[int]) -> np.ndarray:
        return np.array(trials)

    def batch_uv(self, windows: np.ndarray) -> Tensor:
        return self.evidence[windows]


def network() -> ResponseTime:
    encoder = Encoder(torch.from_numpy(bids.electrode_positions_m()).float(), 100, 2.0, "tiny", 4, 0.0)
    return FromEvidence(encoder, 2.0, 0.5).eval()


def error_s(net: ResponseTime, trials: Trials, rt_s: Tensor) -> float:
    predicted_s = net(trials.evidence).detach()[:, 0]
    return (predicted_s - rt_s)[~rt_s.isnan()].square().mean().sqrt().item()


def test_without_labels_the_prior_is_where_presses_are_seen():
    rt_s = 1.3 + 0.2 * torch.randn(400, generator=torch.Generator().manual_seed(1))
    rt_s[::5] = torch.nan
    net, p = network(), params.load().challenge1
    trials = Trials(rt_s, net.trial_offset_s, len(net.prior))
    flat_s = error_s(net, trials, rt_s)
    start_without_labels(net, p, trials, list(range(400)), CPU)
    centres_s, share = net.centres_s[:-1], net.prior.detach().exp()
    assert abs((share * centres_s).sum() / share.sum() - 1.3) < 0.05
    blind_s = error_s(net, trials, rt_s)
    start_from(net, rt_s, p.target_sd_s)
    told_s = error_s(net, trials, rt_s)
    assert blind_s < 0.8 * flat_s
    assert abs(blind_s - told_s) < 0.03


def test_few_trials_are_seen_no_more_often_than_the_most_epochs(tmp_path):
    dataset = Dataset.open(planted.write(tmp_path, n_participants=12, n_trials=4), 2.0)
    trials, p = split_trials(dataset), params.load()
    changes = {"batch_size": 8, "steps": 50, "warmup_steps": 1, "validate_every": 1, "patience": 50}
    net = ResponseTime(adapted_encoder(dataset, p.model), 2.0, 0.5)
    for max_epochs, steps in ((2, 2 * (len(trials["train"]) // 8)), (1000, 50)):
        settings = p.challenge1.model_copy(update=changes | {"max_epochs": max_epochs})
        paths = tmp_path / f"{max_epochs}.pt", tmp_path / f"{max_epochs}.csv"
        fit_trials(net, settings, dataset, trials, CPU, *paths, pretrained=False)
        assert read_csv(paths[1])[-1]["step"] == str(steps)
