"""The scores of challenge 2, as functions of the true factors (P, K) and the predicted factors (P, K)."""

import numpy as np

from hbn import params
from hbn.data.bids import FACTORS
from hbn.scoring import metrics

SINGLE: dict[str, metrics.Score] = {"pearson_r": metrics.pearson_r, "nrmse": metrics.nrmse}
MEASURES: dict[str, metrics.Score] = {
    f"mean_{name}": metrics.mean_over_columns(score) for name, score in SINGLE.items()
}


def scores(participant: np.ndarray, y: np.ndarray, predicted: np.ndarray, p: params.Scores) -> dict[str, dict]:
    """Every measure of y and predicted (P, K), and Pearson r and NRMSE by factor, with intervals over participants."""
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    table = {name: metrics.with_interval(score, participant, y, predicted, **draws) for name, score in MEASURES.items()}
    for k, factor in enumerate(FACTORS):
        column = participant, y[:, k], predicted[:, k]
        table[factor] = {name: metrics.with_interval(score, *column, **draws) for name, score in SINGLE.items()}
    return table
