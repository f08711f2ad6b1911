"""Make, save and load networks, and run them on windows of a dataset."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hbn import params
from hbn.data.dataset import Dataset
from hbn.files import HbnError, atomic, existing
from hbn.networks.architecture import Encoder, rebuild

N_ADAPT_WINDOWS = 500  # 10^5 samples at 100 Hz suffice for a covariance of 129 channels


def new_encoder(dataset: Dataset, p: params.Model) -> Encoder:
    """An encoder for this dataset's montage, rate and window, with random weights and without a whitener."""
    window_s = dataset.window_samples / dataset.cache.sfreq_hz
    settings = p.size, p.n_spatial_filters, p.dropout
    try:
        return Encoder(dataset.positions_m, round(dataset.cache.sfreq_hz), window_s, *settings)
    except ValueError as error:
        raise HbnError(str(error)) from None


def adapted_encoder(dataset: Dataset, p: params.Model) -> Encoder:
    """A new encoder whose whitener is fitted to windows of training participants."""
    encoder = new_encoder(dataset, p)
    train = dataset.split_windows("train")
    if not len(train):
        raise HbnError("the training split holds no window; raise data.n_participants or change the section splits")
    encoder.adapt(dataset.batch_uv(train[:: max(1, len(train) // N_ADAPT_WINDOWS)]))
    return encoder


def load_pretrained(path: Path | str, network: nn.Module) -> None:
    """Load pretrained weights into a network's encoder and event read-out, if any; HbnError for other shapes."""
    shared = dict(network.named_children())
    state = load_file(path, made_by="pretrain")["state"]
    try:
        for part in ("encoder", "events"):
            if part in shared:
                own = {name.removeprefix(f"{part}."): x for name, x in state.items() if name.startswith(f"{part}.")}
                shared[part].load_state_dict(own)
    except RuntimeError as error:
        raise HbnError(
            f"{path} does not fit the section model or the montage ({error}); run `dvc repro pretrain`"
        ) from None


def predict(
    network: Callable[[Tensor], Tensor], dataset: Dataset, windows: np.ndarray, batch_size: int = 256
) -> np.ndarray:
    """Outputs (N, ...) of `network` on windows (N, 2), in order."""
    with torch.inference_mode():
        parts = [
            network(dataset.batch_uv(windows[i : i + batch_size])).cpu() for i in range(0, len(windows), batch_size)
        ]
    return torch.cat(parts).numpy()


def save(path: Path | str, network: nn.Module, **about: object) -> None:
    """Write a network's weights, plain facts about it ('about') and the versions that made it."""
    about["versions"] = {name: version(name) for name in ("numpy", "torch")}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save({"state": state, **about}, file)


def load_file(path: Path | str, made_by: str) -> dict:
    """Read a file of `save`; for an absent or damaged file, HbnError names the stage that makes it."""
    try:
        return torch.load(existing(path, made_by), map_location="cpu", weights_only=True)
    except HbnError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        raise HbnError(f"{path} is not a readable model file ({error}); run `dvc repro -f {made_by}`") from error


def load_network(path: Path | str, made_by: str) -> tuple[nn.Module, dict]:
    """Rebuild the network that challenge1 or challenge2 saved, without the dataset; returns it and its facts."""
    saved = load_file(path, made_by)
    return rebuild(saved, round(saved["sfreq_hz"])), {key: saved[key] for key in saved if key != "state"}
