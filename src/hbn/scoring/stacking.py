"""EEG and metadata combined into one prediction, which shows what EEG adds.

A stack must be fitted to predictions for trials or participants that neither of the two models was fitted to.
Otherwise it would trust the model that memorises more. For response times these are the validation participants.
Where nothing was chosen on validation participants, `out_of_fold` makes such predictions for all fitted participants.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import logit
from sklearn.model_selection import KFold

from hbn.scoring.baselines import predict_number, predict_probability

SMALLEST_PROBABILITY = 1e-4  # keeps log odds finite

FitPredict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (rows to fit, other rows) -> predictions for these


def stack_number(held_out: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions (M,) of a linear combination of K models: their predictions are held_out (N, K) and new (M, K)."""
    return predict_number(held_out, y, new)


def stack_probability(held_out: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Probability (M,) of label 1 by logistic regression on the log odds of K models, held_out (N, K) and new (M, K).

    If all labels (N,) are equal, the probability is that label.
    """
    return predict_probability(_log_odds(held_out), label, _log_odds(new))


def stack_trials(held_out: Sequence[np.ndarray], rt_s: np.ndarray, new: Sequence[np.ndarray]) -> np.ndarray:
    """Output (M, 2) of K models together: response time in s and probability of no response.

    held_out and new hold the outputs of each model, (N, >= 2) and (M, >= 2); rt_s is (N,), NaN without a response.
    """
    answered = ~np.isnan(rt_s)
    times, misses = ([np.stack([output[:, i] for output in part], 1) for part in (held_out, new)] for i in (0, 1))
    predicted_s = stack_number(times[0][answered], rt_s[answered], times[1])
    return np.stack([predicted_s, stack_probability(misses[0], ~answered, misses[1])], axis=1)


def out_of_fold(fit_predict: FitPredict, n_rows: int, n_folds: int = 10) -> np.ndarray:
    """Predictions (n_rows, ...) for every row, each by a model that was fitted to the other folds.

    A row is a participant, so no participant is in two folds.
    """
    folds = list(KFold(min(n_folds, n_rows), shuffle=True, random_state=0).split(np.arange(n_rows)))
    parts = [fit_predict(rows, rest) for rows, rest in folds]
    return np.concatenate(parts)[np.argsort(np.concatenate([rest for _, rest in folds]))]


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
