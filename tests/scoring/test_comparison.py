"""What EEG adds, for whom, and whether beyond chance."""

import numpy as np
import pytest

from hbn.scoring import comparison, groups, metrics, stacking, trials
from hbn.scoring.names import direction

DRAWS = {"n_bootstrap": 400, "seed": 1}


@pytest.fixture
def people():
    """30 participants with 20 trials each: metadata and EEG explain a part of y each."""
    rng = np.random.default_rng(0)
    participant = np.repeat(np.arange(30), 20)
    eeg, metadata, rest = rng.normal(size=(3, 600))
    return participant, eeg + metadata + 0.5 * rest, eeg, metadata


def test_a_stack_recovers_the_weights_of_its_parts_and_gains_over_each(people):
    participant, y, eeg, metadata = people
    held_out, new = participant < 15, participant >= 15
    models = np.stack([0.5 * eeg, 3 + 2 * metadata], axis=1)
    together = stacking.stack_number(models[held_out], y[held_out], models[new])
    assert together == pytest.approx((eeg + metadata)[new], abs=0.2)
    gain = comparison.paired(metrics.pearson_r, participant[new], y[new], together, models[new, 1], **DRAWS)
    assert gain["low"] > 0
    assert gain["p"] == pytest.approx(2 / 401)
    useless = np.stack([np.random.default_rng(5).normal(size=600), metadata], axis=1)
    together = stacking.stack_number(useless[held_out], y[held_out], useless[new])
    gain = comparison.paired(metrics.pearson_r, participant[new], y[new], together, metadata[new], **DRAWS)
    assert gain["value"] == pytest.approx(0, abs=0.02)
    assert gain["p"] > 0.05


def test_a_stack_of_probabilities_orders_better_than_each(people):
    _, y, eeg, metadata = people
    label = y > 1
    models = 1 / (1 + np.exp(-np.stack([eeg, metadata], axis=1)))
    together = stacking.stack_probability(models[:300], label[:300], models[300:])
    assert metrics.auroc(label[300:], together) > 0.05 + max(
        metrics.auroc(label[300:], column[300:]) for column in models.T
    )
    assert (stacking.stack_probability(models[:9], np.zeros(9, bool), models[9:]) == 0).all()
    certain = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert np.isfinite(stacking.stack_probability(certain, np.array([0, 1, 0, 1]), certain)).all()


def test_out_of_fold_predictions_never_saw_their_row():
    y = np.stack([np.arange(25.0), -np.arange(25.0)], axis=1)

    def nearest(rows, rest):
        """Gives itself away where a row was fitted to: its own y would come back."""
        return y[rows[np.abs(rows - rest[:, None]).argmin(1)]]

    for n_rows in (25, 3):  # and fewer rows than folds
        predicted = stacking.out_of_fold(nearest, n_rows)
        assert predicted.shape == (n_rows, 2)
        assert (predicted != y[:n_rows]).all()
        assert (np.abs(predicted - y[:n_rows]) <= 10).all()  # each at its place


def test_a_stack_of_trials_takes_times_from_answered_trials_and_misses_from_all():
    rng = np.random.default_rng(4)
    truth_s, miss = rng.uniform(1, 2, 400), rng.random(400) < 0.3
    rt_s = np.where(miss, np.nan, truth_s)
    log_odds = np.where(miss, 1.0, -1.0) + rng.normal(size=(2, 400))
    outputs = [np.stack([k + truth_s + 0.3 * rng.normal(size=400), 1 / (1 + np.exp(-log_odds[k]))], 1) for k in (0, 1)]
    held_out, new = [output[:200] for output in outputs], [output[200:] for output in outputs]
    together = stacking.stack_trials(held_out, rt_s[:200], new)
    assert together.shape == (200, 2)
    parts = [trials.MEASURES["nrmse"](rt_s[200:], output) for output in new]
    assert trials.MEASURES["nrmse"](rt_s[200:], together) < min(parts) - 0.05
    parts = [trials.MEASURES["auroc_miss"](rt_s[200:], output) for output in new]
    assert trials.MEASURES["auroc_miss"](rt_s[200:], together) > max(parts) + 0.02


def test_scores_by_group_with_n_and_the_small_ones_named():
    participant = np.repeat(np.arange(12), 10)
    group = np.where(participant < 6, "F", np.where(participant < 11, "M", "n/a"))
    y = np.tile(np.arange(10.0), 12)
    predicted = np.where(participant < 6, y, -y)
    rows = groups.by_group(metrics.pearson_r, participant, group, y, predicted, **DRAWS)
    assert rows["F"] == {
        "n": {"participants": 6, "rows": 60},
        "value": 1.0,
        "low": pytest.approx(1),
        "high": pytest.approx(1),
    }
    assert rows["M"]["value"] == pytest.approx(-1)
    assert rows["n/a"] == {"n": {"participants": 1, "rows": 10}, "reason": "fewer than 5 participants"}
    constant = groups.by_group(metrics.nrmse, participant, group, np.ones(120), predicted, **DRAWS)
    assert constant["F"]["reason"].startswith("not defined")


def test_thirds_by_age_count_participants_not_trials():
    participant = np.array(["a"] * 50 + ["b", "c", "d", "e", "f", "g"])
    age_years = np.array([6.0] * 50 + [7.0, 9.0, 11.0, 14.0, 15.0, np.nan])
    labels = groups.age_thirds(participant, age_years)
    assert labels[0] == labels[50] == "youngest (6 to 7 years)"
    assert labels[51] == labels[52] == "middle (9 to 11 years)"
    assert labels[53] == labels[54] == "oldest (14 to 15 years)"
    assert labels[55] == groups.UNKNOWN
    assert set(groups.age_thirds(participant, np.full(56, np.nan))) == {groups.UNKNOWN}


def test_holm_by_hand():
    corrected = comparison.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert corrected == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.5})


def test_the_verdict_needs_the_corrected_p_and_knows_the_direction():
    row = {"value": 0.1, "low": 0.01, "high": 0.2, "p": 0.02}
    alone = comparison.judge({"gain.pearson_r": row})
    assert alone["gain.pearson_r"] == row | {"p_holm": 0.02, "verdict": comparison.BETTER}
    assert comparison.judge({"gain.nrmse": row})["gain.nrmse"]["verdict"] == comparison.WORSE
    many = comparison.judge({f"gain.{i}.pearson_r": row for i in range(3)} | {"gain.auroc_miss": {}})
    assert many["gain.0.pearson_r"] == row | {"p_holm": pytest.approx(0.06), "verdict": comparison.UNCLEAR}
    assert many["gain.auroc_miss"] == {}
    with pytest.raises(ValueError, match="no direction"):
        comparison.judge({"gain.seconds": row})


def test_the_tables_are_those_of_all_trials():
    rng = np.random.default_rng(3)
    participant = np.repeat(np.arange(20), 15)
    rt_s = np.where(rng.random(300) < 0.2, np.nan, rng.normal(1.5, 0.3, size=300))
    good = np.stack([np.nan_to_num(rt_s, nan=1.5) + 0.1 * rng.normal(size=300), np.isnan(rt_s) * 1.0], axis=1)
    blind = np.stack([np.full(300, 1.5), np.full(300, 0.2)], axis=1)
    answered = ~np.isnan(rt_s)
    assert trials.MEASURES["mae_s"](rt_s, good) == metrics.mae(rt_s[answered], good[answered, 0])
    assert trials.MEASURES["auroc_miss"](rt_s, good) == 1
    assert trials.MEASURES["nrmse"](rt_s[~answered], good[~answered]) is None
    rows = comparison.table(
        trials.MEASURES, participant, rt_s, {"good": good, "blind": blind}, [("good", "blind")], **DRAWS
    )
    assert {name: row["verdict"] for name, row in rows.items()} == {
        f"good_over_blind.{measure}": comparison.BETTER for measure in trials.MEASURES
    }
    assert rows["good_over_blind.nrmse"]["value"] < 0
    half = np.where(participant < 10, "a", "b")
    grouped = groups.table(trials.MEASURES, participant, {"half": half}, rt_s, good, **DRAWS)
    entry = grouped["half"]["mae_s"]["a"]
    assert entry["n"] == {"participants": 10, "rows": 150}
    assert entry["value"] == trials.MEASURES["mae_s"](rt_s[:150], good[:150])


def test_equal_predictors_do_not_differ(people):
    participant, y, eeg, _ = people
    same = comparison.paired(metrics.nrmse, participant, y, eeg, eeg, **DRAWS)
    assert (same["value"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    assert comparison.paired(metrics.auroc, participant, np.zeros(600), eeg, eeg, **DRAWS) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test.pretrained.mae_s", -1),
        ("validation_loss", -1),
        ("validation_loss_of_zero", 0),
        ("test.eeg.mean_nrmse.value", -1),
        ("variants.challenge1.fp16.windows_per_s.256", 1),
        ("variants.challenge1.fp16.p99_ms", -1),
        ("challenge1.fp16.size_kb", -1),
        ("targets.challenge1.speedup_over_reference_onnx", 1),
        ("variants.reference.onnx.p99_ms", 0),
        ("test.mean.nrmse", 0),
        ("test.age_sex.auroc_miss", 0),
        ("challenge1.nrmse_training_mean", 0),
        ("challenge1.r", 1),
        ("test.pretrained.response_time.crps_s", -1),
        ("splits.test.trials", 0),
        ("chosen.challenge1", 0),
    ],
)
def test_directions(name, expected):
    assert direction(name) == expected
