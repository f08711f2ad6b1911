"""Scores against values worked out by hand."""

import numpy as np
import pytest

from hbn.data import splits
from hbn.scoring import baselines, metrics


def test_scores_by_hand():
    y, prediction = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0])
    assert metrics.nrmse(y, prediction) == pytest.approx(np.sqrt(4 / 3) / np.sqrt(2 / 3))
    assert metrics.nrmse(y, np.full(3, y.mean())) == pytest.approx(1.0)
    assert metrics.nrmse(np.full(3, 0.1), prediction) is None  # whose standard deviation is 1e-17
    assert metrics.mean_over_columns(metrics.nrmse)(np.array([[1.0, 0.1], [2.0, 0.1]]), np.zeros((2, 2))) is None
    assert metrics.mae(y, prediction) == pytest.approx(2 / 3)
    assert metrics.pearson_r(y, prediction) == pytest.approx(4 / np.sqrt(2 * 26 / 3))
    assert metrics.pearson_r(y, np.full(3, 0.1)) == 0.0
    assert metrics.auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.5, 0.5])) == pytest.approx(3.5 / 4)
    assert metrics.auroc(np.array([1, 1]), np.array([0.1, 0.9])) is None


def test_knowing_only_a_participants_rate_is_chance_within_participants():
    participant = np.repeat(["a", "b", "c"], 40)
    label = np.concatenate([np.arange(40) < n for n in (2, 20, 40)]).astype(int)
    rate = np.repeat([0.05, 0.5, 1.0], 40)
    assert metrics.auroc(label, rate) > 0.8
    names, areas, pairs = metrics.auroc_by_participant(label, rate, participant)
    assert list(names) == ["a", "b"]  # c has one class only
    assert list(pairs) == [2 * 38, 20 * 20]
    assert metrics.weighted_mean(areas, pairs) == pytest.approx(0.5)


def test_interval_is_over_participants_not_trials():
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=20)
    participant = np.repeat(np.arange(20), 50)
    y = np.repeat(offsets, 50) + 0.01 * rng.normal(size=1000)
    draws = {"n_bootstrap": 500, "seed": 1}
    result = metrics.with_interval(lambda values: float(values.mean()), participant, y, **draws)
    assert result["high"] - result["low"] == pytest.approx(2 * 1.96 * offsets.std() / np.sqrt(20), rel=0.2)
    assert result["low"] < result["value"] < result["high"]
    assert result == metrics.with_interval(lambda values: float(values.mean()), participant, y, **draws)


def test_split_depends_on_the_participant_alone():
    names = [f"sub-{i}" for i in range(4000)]
    drawn = [splits.split_of(name, "R1", [], 0.2, 0.15) for name in names]
    assert drawn.count("test") / len(names) == pytest.approx(0.2, abs=0.02)
    assert drawn.count("validation") / len(names) == pytest.approx(0.8 * 0.15, abs=0.02)
    assert {splits.split_of(name, "R5", ["R5"], 0.2, 0.15) for name in names} == {"test"}
    assert "test" not in {splits.split_of(name, "R1", ["R5"], 0.2, 0.15) for name in names}


def test_baselines_learn_metadata_and_survive_missing_values():
    rng = np.random.default_rng(0)
    people = [{"age_years": f"{a:.2f}", "sex": s} for a, s in zip(rng.uniform(5, 20, 300), "MF" * 150, strict=True)]
    people[3]["age_years"] = people[4]["sex"] = ""
    x = baselines.age_sex(people)
    y = 0.1 * np.nan_to_num(x[:, 0], nan=12) + np.nan_to_num(x[:, 1])
    assert metrics.pearson_r(y, baselines.predict_number(x, y, x)) > 0.99
    trial = dict.fromkeys(("side", "trial", "foreperiod_s", "fast_block", "early_press"), "0")
    assert baselines.stimulus_and_history([{**trial, "previous_rt_s": "", "previous_outcome": "miss"}]).shape == (1, 10)
    assert (baselines.predict_probability(x, np.zeros(300, bool), x) == 0).all()
