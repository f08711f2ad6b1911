"""Scores of challenge 1: response times and absent responses of trials, for networks and for what never sees EEG.

A predictor's output is a pair of (N,) arrays: the predicted response time in s and the probability of no response.
"""

from collections.abc import Sequence

import numpy as np

from hbn import params
from hbn.scoring import baselines, metrics

Output = tuple[np.ndarray, np.ndarray]
Row = dict[str, str]


def floors(
    train: Sequence[Row], train_rt_s: np.ndarray, test: Sequence[Row], participants: dict[str, Row]
) -> dict[str, Output]:
    """The outputs on test trials of predictors that never see EEG; train_rt_s (N,) is NaN without a response."""
    answered = ~np.isnan(train_rt_s)
    person = [baselines.age_sex([participants[t["participant_id"]] for t in trials]) for trials in (train, test)]
    history = [baselines.stimulus_and_history(trials) for trials in (train, test)]
    outputs = {"mean": (np.full(len(test), train_rt_s[answered].mean()), np.full(len(test), 1 - answered.mean()))}
    inputs = {"age_sex": person, "stimulus_history": [np.hstack(both) for both in zip(person, history, strict=True)]}
    for name, (train_x, test_x) in inputs.items():
        predicted_s = baselines.predict_number(train_x[answered], train_rt_s[answered], test_x)
        outputs[name] = predicted_s, baselines.predict_probability(train_x, ~answered, test_x)
    return outputs


def scores(rt_s: np.ndarray, participant: np.ndarray, output: Output, p: params.Scores) -> dict[str, dict]:
    """All scores of one predictor on the trials (N,), with intervals over participants."""
    miss, (predicted_s, p_miss) = np.isnan(rt_s), output
    answered = participant[~miss], rt_s[~miss], predicted_s[~miss]
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    return {
        "nrmse": metrics.with_interval(metrics.nrmse, *answered, **draws),
        "pearson_r": metrics.with_interval(metrics.pearson_r, *answered, **draws),
        "mae_s": metrics.with_interval(metrics.mae, *answered, **draws),
        "auroc_miss": metrics.with_interval(metrics.auroc, participant, miss, p_miss, **draws),
        "auroc_miss_within": metrics.with_interval(
            metrics.weighted_mean, *metrics.auroc_by_participant(miss, p_miss, participant), **draws
        ),
    }


def gain(rt_s: np.ndarray, participant: np.ndarray, better: Output, worse: Output, p: params.Scores) -> dict[str, dict]:
    """Paired differences of two predictors' Pearson r and AUROC on the trials, with intervals."""
    miss = np.isnan(rt_s)
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    answered = participant[~miss], rt_s[~miss], better[0][~miss], worse[0][~miss]
    return {
        "pearson_r": metrics.with_interval(metrics.difference(metrics.pearson_r), *answered, **draws),
        "auroc_miss": metrics.with_interval(
            metrics.difference(metrics.auroc), participant, miss, better[1], worse[1], **draws
        ),
    }
