"""EEG and metadata together: one prediction out of two, to ask what EEG adds.

A stack is fitted to predictions for trials or participants that neither of the two models was fitted to, or it would
trust the one that memorises more. For response times these are the validation participants. Where nothing was chosen
on validation participants, `out_of_fold` makes such predictions for all fitted participants.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import logit
from sklearn.model_selection import KFold

from hbn.scoring.baselines import predict_number, predict_probability

SMALLEST_PROBABILITY = 1e-4  # keeps log odds finite

FitPredict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # train_x, train_y, x -> predictions


def stack_number(held_out: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions (M,) of a linear combination of K models: their predictions are held_out (N, K) and new (M, K)."""
    return predict_number(held_out, y, new)


def stack_probability(held_out: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Probability (M,) of label 1 by logistic regression on the log odds of K models, held_out (N, K) and new (M, K).

    Where all labels (N,) are the same, it is that label.
    """
    return predict_probability(_log_odds(held_out), label, _log_odds(new))


def out_of_fold(fit_predict: FitPredict, x: np.ndarray, y: np.ndarray, n_folds: int = 10) -> np.ndarray:
    """Predictions for every row of x (P, F), each by a model that was fitted to the other folds.

    y is (P,) or (P, K), and so is the result. A row is a participant, so no participant is in two folds.
    """
    predicted = np.full(y.shape, np.nan)
    for train, rest in KFold(min(n_folds, len(x)), shuffle=True, random_state=0).split(x):
        predicted[rest] = fit_predict(x[train], y[train], x[rest])
    return predicted


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
