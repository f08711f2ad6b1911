"""Self-supervised pretraining: the encoder learns to fill in masked patches of the training windows.

Reads  data/dataset
Writes models/encoder.pt, metrics/pretrain.json, plots/pretrain.csv
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbn.data.dataset import DATASET, Dataset
from hbn.files import write_json
from hbn.networks import inference, pretraining
from hbn.networks.inference import adapted_encoder
from hbn.networks.pretraining import block_masks
from hbn.stage import run, scratch
from hbn.training.device import first, shard, share
from hbn.training.loop import Sampler, checkpoint_path, choose_device, fit

N_VALIDATION_WINDOWS = 512


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    train, validation = dataset.split_windows("train"), dataset.split_windows("validation")
    keep = np.random.default_rng(p.pretrain.seed).permutation(len(validation))[:N_VALIDATION_WINDOWS]
    held_out = dataset.batch_uv(validation[np.sort(keep)]).to(device)

    torch.manual_seed(p.pretrain.seed)
    network = pretraining.MaskedPretraining(adapted_encoder(dataset, p.model)).to(device)
    sampler = Sampler(len(train), p.pretrain.batch_size, p.pretrain.seed)

    def masks(n: int, seed: list[int]) -> Tensor:
        return block_masks(n, dataset.positions_m, network.encoder.n_tokens, p.windows.window_s, p.pretrain, seed)

    def loss(network: pretraining.MaskedPretraining, step: int) -> Tensor:
        rows = sampler(step)
        mask = masks(len(rows), [p.pretrain.seed, step])
        x_uv = dataset.batch_uv(train[shard(rows)])
        return network(x_uv.to(device), shard(mask).to(device)) * share(mask)

    held_out_masks = masks(len(held_out), [p.pretrain.seed, 2**31]).to(device)

    def validate(network: pretraining.MaskedPretraining) -> float:
        return network(held_out, held_out_masks).item()

    decides = {"model": p.model.model_dump(), "pretrain": p.pretrain.model_dump(), "windows": p.windows.window_s}
    checkpoint = checkpoint_path(scratch(), "pretrain", data=dataset.sha256, **decides)
    fit(network, loss, validate, p.pretrain, checkpoint, Path("plots/pretrain.csv"), sampler)
    if not first():
        return

    with torch.inference_mode():
        floor = network.baseline(held_out, held_out_masks).item()
        reached = validate(network)
    inference.save("models/encoder.pt", network.encoder, **decides, **dataset.facts)
    write_json(
        "metrics/pretrain.json",
        {
            "source": dataset.source,
            "windows": {"train": len(train), "validation": len(validation)},
            "validation_loss": reached,
            "validation_loss_of_zero": floor,
            "explained": 1 - reached / floor,
            "masked_fraction": held_out_masks.float().mean().item(),
        },
    )
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main, reads=("model", "pretrain", "windows.window_s"))
