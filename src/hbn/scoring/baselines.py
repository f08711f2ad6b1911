"""Baselines: predictions without EEG, with which every score of EEG is compared."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Row = Mapping[str, str]


def age_sex(participants: Sequence[Row]) -> np.ndarray:
    """Age in years and sex (N, 2); NaN where unknown."""
    sex = {"F": 0.0, "M": 1.0}
    return np.array([(_number(row["age_years"]), sex.get(row["sex"], np.nan)) for row in participants])


def stimulus_and_history(trials: Sequence[Row]) -> np.ndarray:
    """Features (N, 10) of what a trial showed and of how the previous trial went, without EEG.

    Columns: side, foreperiod and its square, fast block, trial number, early press, previous response time (NaN
    where there was none), previous outcome (correct, wrong, miss).
    """
    rows = []
    for t in trials:
        foreperiod_s, fast = float(t["foreperiod_s"]), float(t["fast_block"])
        previous = [float(t["previous_outcome"] == outcome) for outcome in ("correct", "wrong", "miss")]
        rows.append(
            [
                *(float(t["side"] == "right"), foreperiod_s, foreperiod_s**2, fast, float(t["trial"])),
                *(float(t["early_press"]), _number(t["previous_rt_s"]), *previous),
            ]
        )
    return np.array(rows).reshape(len(trials), 10)


def predict_number(train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Predictions (M,) of ridge regression; the penalty is chosen by leave-one-out on the training rows."""
    return _prepared(RidgeCV(alphas=np.logspace(-2, 4, 13))).fit(train_x, train_y).predict(x)


def predict_numbers(train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Predictions (M, K) of each column of train_y (N, K), each with its own penalty (see predict_number)."""
    return np.stack([predict_number(train_x, column, x) for column in train_y.T], axis=1)


def predict_probability(train_x: np.ndarray, train_label: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Probability (M,) of label 1 by logistic regression; where the training rows have one label, that label."""
    if len(np.unique(train_label)) < 2:
        return np.full(len(x), float(train_label[0]))
    return _prepared(LogisticRegression()).fit(train_x, train_label).predict_proba(x)[:, 1]


def _prepared(estimator):
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), estimator)


def _number(text: str) -> float:
    return float(text) if text else np.nan
