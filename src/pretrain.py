"""Pretraining: the encoder learns which sample of a window holds a press, a stimulus onset, ...

Reads  data/dataset
Writes models/encoder.pt, metrics/pretrain.json, plots/pretrain.csv

It uses the events of training participants in all tasks except `pretrain.excluded_tasks`. It reads no label of
challenge 1 or 2.
"""

from pathlib import Path

import torch

from hbn.data.dataset import DATASET, Dataset
from hbn.files import write_json
from hbn.networks import inference
from hbn.networks.inference import adapted_encoder
from hbn.networks.pretraining import EventPretraining
from hbn.stage import run, scratch
from hbn.training.device import choose_device, first
from hbn.training.loop import checkpoint_path
from hbn.training.pretraining import Pretraining


def main(p) -> None:
    device = choose_device(p.exec.device, p.exec.threads)
    dataset = Dataset.open(DATASET, p.windows.window_s)
    torch.manual_seed(p.pretrain.seed)
    network = EventPretraining(adapted_encoder(dataset, p.model)).to(device)
    pretraining = Pretraining(dataset, p.pretrain, device, network.encoder.n_samples)
    decides = {"model": p.model.model_dump(), "pretrain": p.pretrain.model_dump(), "windows": p.windows.window_s}
    checkpoint = checkpoint_path(scratch(), "pretrain", data=dataset.sha256, **decides)
    pretraining.fit(network, checkpoint, Path("plots/pretrain.csv"))
    if not first():
        return
    inference.save("models/encoder.pt", network, events=pretraining.train.counts(), **decides, **dataset.facts)
    write_json("metrics/pretrain.json", {"source": dataset.source, **pretraining.report(network)})
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main, reads=("model", "pretrain", "windows.window_s"))
