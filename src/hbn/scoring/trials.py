"""The scores of challenge 1, as functions of all trials, so that one code compares, groups and bootstraps each.

rt_s is (N,) response times, NaN where there was no response. output is (N, K) with the predicted response time in its
first column and the probability of no response in its second. The output of a network has further columns.
"""

import numpy as np

from hbn import params
from hbn.data.dataset import response_times_s
from hbn.scoring import baselines, metrics

Row = dict[str, str]


def _answered(score: metrics.Score) -> metrics.Score:
    """`score` of the predicted response times of the answered trials; None if no trial is answered."""

    def answered_score(rt_s: np.ndarray, output: np.ndarray) -> float | None:
        answered = ~np.isnan(rt_s)
        return score(rt_s[answered], output[answered, 0]) if answered.any() else None

    return answered_score


def auroc_miss(rt_s: np.ndarray, output: np.ndarray) -> float | None:
    """How well the probability of no response tells trials without a response from answered trials."""
    return metrics.auroc(np.isnan(rt_s), output[:, 1])


MEASURES: dict[str, metrics.Score] = {
    "nrmse": _answered(metrics.nrmse),
    "pearson_r": _answered(metrics.pearson_r),
    "mae_s": _answered(metrics.mae),
    "auroc_miss": auroc_miss,
}
JUDGED = {name: MEASURES[name] for name in ("nrmse", "pearson_r", "auroc_miss")}  # in comparisons and groups


def scores(rt_s: np.ndarray, participant: np.ndarray, output: np.ndarray, p: params.Scores) -> dict[str, dict]:
    """All scores of one predictor on the trials (N,), with intervals over participants.

    auroc_miss_within compares trials of the same participant only.
    """
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    table = {name: metrics.with_interval(score, participant, rt_s, output, **draws) for name, score in MEASURES.items()}
    within = metrics.auroc_by_participant(np.isnan(rt_s), output[:, 1], participant)
    return table | {"auroc_miss_within": metrics.with_interval(metrics.weighted_mean, *within, **draws)}


def without_eeg(train: list[Row], trials: list[Row], participants: dict[str, Row]) -> dict[str, np.ndarray]:
    """Outputs (N, 2) on `trials` of predictors that never see EEG, fitted to the trials `train`."""
    train_rt_s = response_times_s(train)
    answered = ~np.isnan(train_rt_s)
    person = [baselines.age_sex([participants[t["participant_id"]] for t in part]) for part in (train, trials)]
    history = [baselines.stimulus_and_history(part) for part in (train, trials)]
    constant = np.array([train_rt_s[answered].mean(), 1 - answered.mean()])
    outputs = {"mean": np.tile(constant, (len(trials), 1))}
    inputs = {"age_sex": person, "stimulus_history": [np.hstack(both) for both in zip(person, history, strict=True)]}
    for name, (train_x, x) in inputs.items():
        predicted_s = baselines.predict_number(train_x[answered], train_rt_s[answered], x)
        outputs[name] = np.stack([predicted_s, baselines.predict_probability(train_x, ~answered, x)], axis=1)
    return outputs
