"""Training of challenge 2: features of whole participants, and the ridge regression that becomes the read-out."""

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from hbn.data.dataset import Dataset
from hbn.networks.architecture import Factors
from hbn.networks.inference import predict


def participant_features(
    network: Factors, dataset: Dataset, participants: list[dict[str, str]], device: torch.device
) -> np.ndarray:
    """Mean features (P, F) over all windows of each participant."""
    windows, owner = dataset.participant_windows(participants)
    means = [
        predict(lambda x_uv: network.features(x_uv.to(device)), dataset, windows[owner == i]).mean(0)
        for i in range(len(participants))
    ]
    return np.stack(means).astype(np.float64)


def ridge(x: np.ndarray, y: np.ndarray, auxiliary: np.ndarray, alphas: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, F) and bias (K,) of the ridge regression of standardised features (P, F) on factors (P, K).

    The penalty, one of `alphas` times the number of participants, is chosen by leave-one-out on the factors and the
    auxiliary targets (P, A), NaN where unknown. With few participants, the factors alone would choose it by luck.
    """
    features, factors = StandardScaler().fit(x), StandardScaler().fit(y)
    others = np.nan_to_num(StandardScaler().fit_transform(auxiliary))
    targets = np.concatenate([factors.transform(y), others], axis=1)
    fitted = RidgeCV(alphas=np.array(alphas) * len(x)).fit(features.transform(x), targets)
    weights = fitted.coef_[: y.shape[1]] * factors.scale_[:, None] / features.scale_
    return weights, factors.mean_ - weights @ features.mean_


def set_readout(network: Factors, weights: np.ndarray, bias: np.ndarray) -> None:
    """Make weights (K, F) and bias (K,) the network's read-out."""
    with torch.no_grad():
        network.readout.weight.copy_(torch.from_numpy(weights))
        network.readout.bias.copy_(torch.from_numpy(bias))
