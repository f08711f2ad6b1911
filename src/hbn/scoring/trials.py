"""The scores of challenge 1 as functions of all trials, so that each can be compared, grouped and drawn with the rest.

rt_s is (N,) response times, NaN where there was no response. output is (N, K) with the predicted response time in its
first column and the probability of no response in its second.
"""

import numpy as np

from hbn.scoring import metrics


def _answered(score: metrics.Score) -> metrics.Score:
    """`score` of the predicted response times of the answered trials; None without any."""

    def of_answered(rt_s: np.ndarray, output: np.ndarray) -> float | None:
        answered = ~np.isnan(rt_s)
        return score(rt_s[answered], output[answered, 0]) if answered.any() else None

    return of_answered


def auroc_miss(rt_s: np.ndarray, output: np.ndarray) -> float | None:
    """How well the probability of no response tells trials without a response from answered trials."""
    return metrics.auroc(np.isnan(rt_s), output[:, 1])


MEASURES: dict[str, metrics.Score] = {
    "nrmse": _answered(metrics.nrmse),
    "pearson_r": _answered(metrics.pearson_r),
    "mae_s": _answered(metrics.mae),
    "auroc_miss": auroc_miss,
}
