"""Pretraining on events: the network learns which sample of a window holds a press, a stimulus onset, ..., if any."""

import torch
from torch import Tensor, nn

from hbn.networks.architecture import KINDS, SFREQ_HZ, Encoder, EventReadout


class EventPretraining(nn.Module):
    """An encoder with the read-out of events."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.events = encoder, EventReadout(encoder)

    def forward(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) -> logits (B, T' + 1, K) of every sample at 100 Hz and, last, of no event in the window."""
        when, none, _ = self.events(*self.encoder(x_uv))
        return torch.cat([when, none[:, None]], dim=1)


def event_targets(window: Tensor, kind: Tensor, at_s: Tensor, n_windows: int, n_samples: int, sd_s: float) -> Tensor:
    """Target distributions (B, T' + 1, K) over the samples of n_windows windows and "none".

    window, kind (E,) and at_s (E,), seconds from the start of the window, describe the events inside and near it.
    Each event is a Gaussian of width sd_s. Only its mass inside the window counts: half of it for an event on the
    edge. Several events of a kind share the distribution; "none" has the rest of the mass up to 1.
    """
    n_kinds = len(KINDS)
    edges_s = torch.arange(n_samples + 1) / SFREQ_HZ
    mass = torch.special.ndtr((edges_s - at_s[:, None]) / sd_s).diff(dim=1)  # (E, T')
    total = torch.zeros(n_windows * n_kinds, n_samples).index_add_(0, window * n_kinds + kind, mass)
    total = total.reshape(n_windows, n_kinds, n_samples)
    inside = total.sum(-1, keepdim=True)
    inside_or_one = inside.clamp(min=1.0)
    target = torch.cat([total / inside_or_one, (1 - inside).clamp(min=0.0)], dim=-1)  # (B, K, T' + 1)
    return target.transpose(1, 2)


def event_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of distributions (B, T' + 1, K): mean over windows, then mean over kinds weighted by (K,).

    A target of zeros, where nothing is known of a kind, costs nothing.
    """
    cross_entropy = -(target * logits.log_softmax(1)).sum(1)  # (B, K)
    return (cross_entropy.mean(0) * weights).sum() / weights.sum()


def loss_of_rates(target: Tensor) -> Tensor:
    """The loss (K,) of a predictor that knows only how often a window holds each kind, not at which sample."""
    rates = target.sum(0) / target.sum((0, 1)).clamp(min=1.0)  # (T' + 1, K), over the windows with a target
    samples = rates[:-1].mean(0, keepdim=True).expand(len(rates) - 1, -1)
    log_rates = torch.cat([samples, rates[-1:]]).clamp(min=1e-9).log()
    return -(target * log_rates).sum(1).mean(0)
