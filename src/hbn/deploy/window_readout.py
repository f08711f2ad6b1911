"""A read-out of one factor that is fitted to single windows.

The read-out of challenge2 is fitted to means over hundreds of windows. The features of single windows vary more, so
that read-out is far too steep for them. The challenge's organisers score every window.
"""

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hbn.data.dataset import Dataset
from hbn.networks.architecture import Factors
from hbn.networks.inference import predict


def fit(
    network: Factors,
    output: int,
    windows: np.ndarray,
    y: np.ndarray,
    participant: np.ndarray,
    dataset: Dataset,
    alphas: list[float],
) -> None:
    """Set the read-out of `output` to the ridge regression of single windows (N, 2) on y (N,).

    The penalty, `alphas` times the number of windows, is chosen by leaving out a fifth of the participants (N,).
    """
    x = predict(network.features, dataset, windows).astype(np.float64)
    scaler = StandardScaler().fit(x)
    folds = GroupKFold(min(5, len(set(participant))))
    grid = {"alpha": len(x) * np.array(alphas)}
    with threadpool_limits(1):  # the last bits of a matrix product depend on the number of threads
        search = GridSearchCV(Ridge(), grid, cv=folds, scoring="neg_mean_squared_error")
        ridge = search.fit(scaler.transform(x), y, groups=participant).best_estimator_
    weight = ridge.coef_ / scaler.scale_
    with torch.no_grad():
        network.readout.weight[output] = torch.from_numpy(weight)
        network.readout.bias[output] = float(ridge.intercept_ - weight @ scaler.mean_)
