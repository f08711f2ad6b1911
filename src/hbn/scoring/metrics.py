"""Scores and their confidence intervals over participants."""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sk

Score = Callable[..., float | None]  # None where it is undefined


def nrmse(y: np.ndarray, prediction: np.ndarray) -> float | None:
    """Root mean square error over the population standard deviation of y; the mean of y scores 1.

    None when y is constant, such as one participant drawn again and again.
    Source: the scoring rule of the EEG Foundation Challenge (NeurIPS 2025).
    """
    return float(np.sqrt(np.mean((y - prediction) ** 2)) / np.std(y)) if np.ptp(y) > 0 else None


def mae(y: np.ndarray, prediction: np.ndarray) -> float:
    """Mean absolute error, in the unit of y."""
    return float(np.mean(np.abs(y - prediction)))


def pearson_r(y: np.ndarray, prediction: np.ndarray) -> float:
    """Pearson correlation; 0 when the prediction is constant, which orders nothing."""
    if np.std(prediction) < 1e-9 * (1 + np.abs(np.mean(prediction))) or np.std(y) == 0:
        return 0.0
    return float(np.corrcoef(y, prediction)[0, 1])


def auroc(label: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the ROC curve: the share of pairs in which the positive (N,) has the higher score (N,).

    None when only one class is present. Computed from ranks, which is fast enough for thousands of bootstrap samples.
    """
    positive = np.asarray(label, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    return float((rankdata(score)[positive].sum() / n_positive - (n_positive + 1) / 2) / n_negative)


def roc_curve(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of all useful thresholds."""
    return sk.roc_curve(label, score)[:2]


def calibration(label: np.ndarray, probability: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean probability, share of positive labels and number of items in each tenth of the items by probability."""
    tenths = [part for part in np.array_split(np.argsort(probability, kind="stable"), 10) if len(part)]
    return [(float(probability[part].mean()), float(label[part].mean()), len(part)) for part in tenths]


def auroc_by_participant(label: np.ndarray, score: np.ndarray, participant: np.ndarray) -> tuple[np.ndarray, ...]:
    """Participants (P,) with both classes, their own AUROC (P,) and number of pairs of trials (P,).

    Pooled AUROC also rewards knowing each participant's overall rate, which does not help within a participant.
    """
    rows = []
    for name in np.unique(participant):
        own = participant == name
        area = auroc(label[own], score[own])
        if area is not None:
            rows.append((name, area, float(np.sum(label[own] == 1) * np.sum(label[own] == 0))))
    names, areas, pairs = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(names), np.array(areas), np.array(pairs)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    """Mean of `values` (N,) weighted by `weights` (N,); None when there is nothing to average."""
    return float(np.average(values, weights=weights)) if len(values) else None


def difference(score: Score) -> Score:
    """By how much `score` of a first prediction exceeds that of a second, on the same rows: (y, first, second)."""

    def paired(y: np.ndarray, first: np.ndarray, second: np.ndarray) -> float | None:
        first_score, second_score = score(y, first), score(y, second)
        return None if first_score is None or second_score is None else first_score - second_score

    return paired


def mean_over_columns(score: Score) -> Score:
    """The average of `score` over the columns of (N, K) arrays; None where it is undefined for one of them."""

    def mean(y: np.ndarray, prediction: np.ndarray) -> float | None:
        values = [score(a, b) for a, b in zip(y.T, prediction.T, strict=True)]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if len(defined) == len(values) else None

    return mean


def with_interval(score: Score, participant: np.ndarray, *arrays: np.ndarray, n_bootstrap: int, seed: int) -> dict:
    """`score(*arrays)` with its 95 % percentile bootstrap interval over participants.

    participant and each array are (N,); whole participants are drawn with replacement, because
    trials of one participant are not independent. Returns {'value', 'low', 'high'}, or {} where the
    score is undefined.
    """
    value = score(*arrays)
    if value is None:
        return {}
    draws = list(bootstrap(score, participant, *arrays, n_bootstrap=n_bootstrap, seed=seed))
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}


def bootstrap(score: Score, participant: np.ndarray, *arrays: np.ndarray, n_bootstrap: int, seed: int) -> np.ndarray:
    """Scores (<= n_bootstrap,) of samples of participants drawn with replacement, without undefined scores."""
    rows = [np.flatnonzero(participant == name) for name in np.unique(participant)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_bootstrap):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        value = score(*(array[drawn] for array in arrays))
        if value is not None and np.isfinite(value):
            draws.append(value)
    return np.array(draws)
