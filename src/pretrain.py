"""Pretraining: the encoder learns at which sample of a window there is a press, a stimulus onset, ...

Reads  data/dataset
Writes models/encoder.pt, metrics/pretrain.json, plots/pretrain.csv

The events are those of all tasks but `pretrain.excluded_tasks`, in training participants; no label of challenge 1
or 2 is read.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbn.data.dataset import DATASET, Dataset
from hbn.files import write_json
from hbn.networks import inference
from hbn.networks.architecture import KINDS
from hbn.networks.inference import adapted_encoder, predict
from hbn.networks.pretraining import EventPretraining, event_loss, loss_of_rates
from hbn.stage import run, scratch
from hbn.training.criteria import calibrated_cross_entropy
from hbn.training.device import first, shard
from hbn.training.event_windows import EventWindows
from hbn.training.loop import checkpoint_path, choose_device, fit

N_VALIDATION_STEPS = 8


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    torch.manual_seed(p.pretrain.seed)
    network = EventPretraining(adapted_encoder(dataset, p.model)).to(device)
    n_samples = network.encoder.n_samples
    train, validation = (EventWindows(dataset, split, p.pretrain) for split in ("train", "validation"))
    weights = train.weights.to(device)

    def loss(network: EventPretraining, step: int) -> Tensor:
        windows = shard(train(step))
        logits = network(dataset.batch_uv(windows).to(device))
        return event_loss(logits, train.targets(windows, n_samples).to(device), weights)

    held_out = np.concatenate([validation(step) for step in range(N_VALIDATION_STEPS)])
    held_out_target = validation.targets(held_out, n_samples)

    def kind_losses(network: EventPretraining) -> Tensor:
        logits = predict(lambda x_uv: network(x_uv.to(device)), dataset, held_out)
        return calibrated_cross_entropy(torch.from_numpy(logits), held_out_target)  # (K,)

    def validate(network: EventPretraining) -> float:
        return (kind_losses(network) @ train.weights / train.weights.sum()).item()

    decides = {"model": p.model.model_dump(), "pretrain": p.pretrain.model_dump(), "windows": p.windows.window_s}
    checkpoint = checkpoint_path(scratch(), "pretrain", data=dataset.sha256, **decides)
    fit(network, loss, validate, p.pretrain, checkpoint, Path("plots/pretrain.csv"), train)
    if not first():
        return
    inference.save("models/encoder.pt", network, events=train.counts(), **decides, **dataset.facts)
    write_json("metrics/pretrain.json", report(dataset, train, kind_losses(network), held_out_target))
    checkpoint.unlink(missing_ok=True)


def report(dataset: Dataset, train: EventWindows, losses: Tensor, target: Tensor) -> dict:
    """What was seen and, for every kind of event, how much better than its rate alone its place is known."""
    floors = loss_of_rates(target)
    kinds = {
        name: {"validation_loss": losses[k].item(), "of_its_rate": floors[k].item()}
        | {"explained": (1 - losses[k] / floors[k]).item()}
        for k, name in enumerate(KINDS)
        if k in train.around
    }
    return {
        **{"source": dataset.source, "windows": len(train.rows), "events": train.counts(), "kinds": kinds},
        "explained": (1 - losses @ train.weights / (floors @ train.weights)).item(),
    }


if __name__ == "__main__":
    run(main, reads=("model", "pretrain", "windows.window_s"))
