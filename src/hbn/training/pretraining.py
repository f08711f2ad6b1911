"""The pretraining stage's training: from a dataset's events to an encoder that detects when they occur."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbn import params
from hbn.data.dataset import Dataset
from hbn.networks.architecture import KINDS
from hbn.networks.inference import predict
from hbn.networks.pretraining import EventPretraining, event_loss, loss_of_rates
from hbn.training.criteria import calibrated_cross_entropy
from hbn.training.device import shard
from hbn.training.event_windows import EventWindows
from hbn.training.loop import fit

N_VALIDATION_STEPS = 8


class Pretraining:
    """The windows for pretraining: of training participants, and of validation participants to choose the best step."""

    def __init__(self, dataset: Dataset, p: params.Pretrain, device: torch.device, n_samples: int):
        self.dataset, self.p, self.device, self.n_samples = dataset, p, device, n_samples
        self.train = EventWindows(dataset, "train", p)
        validation = EventWindows(dataset, "validation", p)
        self.held_out = np.concatenate([validation(step) for step in range(N_VALIDATION_STEPS)])
        self.held_out_target = validation.targets(self.held_out, n_samples)

    def fit(self, network: EventPretraining, checkpoint: Path, curve: Path) -> None:
        """Train the network in place (see loop.fit)."""
        weights = self.train.weights.to(self.device)

        def loss(network: EventPretraining, step: int) -> Tensor:
            windows = shard(self.train(step))
            target = self.train.targets(windows, self.n_samples)
            return event_loss(network(self.dataset.batch_uv(windows).to(self.device)), target.to(self.device), weights)

        def validate(network: EventPretraining) -> float:
            return (self.losses(network) @ self.train.weights / self.train.weights.sum()).item()

        fit(network, loss, validate, self.p, checkpoint, curve, self.train)

    def losses(self, network: EventPretraining) -> Tensor:
        """The loss (K,) of each kind on the held-out windows."""
        logits = predict(lambda x_uv: network(x_uv.to(self.device)), self.dataset, self.held_out)
        return calibrated_cross_entropy(torch.from_numpy(logits), self.held_out_target)

    def report(self, network: EventPretraining) -> dict:
        """The windows and events used, and for every kind the share of its rate's loss that the network explains."""
        losses, floors, weights = self.losses(network), loss_of_rates(self.held_out_target), self.train.weights
        kinds = {
            name: {
                "validation_loss": losses[k].item(),
                "of_its_rate": floors[k].item(),
                "explained": (1 - losses[k] / floors[k]).item() if floors[k] > 0 else None,
            }
            for k, name in enumerate(KINDS)
            if k in self.train.around
        }
        explained = (1 - losses @ weights / (floors @ weights)).item()
        return {"windows": len(self.train.rows), "events": self.train.counts(), "kinds": kinds, "explained": explained}
