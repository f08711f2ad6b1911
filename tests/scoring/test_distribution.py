"""Predicted distributions against values worked out by hand and in closed form."""

import numpy as np
import pytest
from scipy.special import ndtr

from hbn.scoring import distribution

EDGES_S = np.array([0.0, 1.0, 2.0, 4.0])
MASS = np.array([[0.25, 0.5, 0.25]])
FINE_S = np.linspace(-10, 10, 20_001)


def test_quantiles_and_intervals_by_hand():
    for q, expected_s in ((0.0, 0.0), (0.25, 1.0), (0.5, 1.5), (0.75, 2.0), (0.875, 3.0), (1.0, 4.0)):
        assert distribution.quantile(MASS, EDGES_S, q) == pytest.approx([expected_s])
    low_s, high_s = distribution.central_interval(MASS, EDGES_S, 0.5)
    assert (low_s, high_s) == (pytest.approx([1.0]), pytest.approx([2.0]))
    certain = np.array([[0.0, 1.0, 0.0]])
    assert distribution.central_interval(certain, EDGES_S, 0.8) == (pytest.approx([1.1]), pytest.approx([1.9]))
    assert distribution.coverage(np.array([1.0, 1.4, 2.5, 4.2]), np.full(4, 1.0), np.full(4, 2.0)) == 0.5


def test_the_bins_of_the_network_are_an_early_press_and_the_window():
    assert distribution.bin_edges_s(trial_offset_s=0.5, window_s=2.0, n_bins=3) == pytest.approx([0.0, 0.5, 1.5, 2.5])


def test_curves_of_coverage_reach_the_level_where_the_distribution_is_the_truth():
    rng = np.random.default_rng(2)
    mean_s = rng.uniform(1, 2, size=4000)
    rt_s = mean_s + 0.2 * rng.normal(size=4000)
    rt_s[::10] = np.nan
    edges_s = np.linspace(0, 3, 301)
    predicted = {
        name: distribution.Predicted(distribution.gaussian(mean_s, sd_s, edges_s), edges_s)
        for name, sd_s in (("right", 0.2), ("narrow", 0.1))
    }
    level, right, narrow = distribution.coverage_curves(predicted, rt_s).T
    assert right == pytest.approx(level, abs=0.03)
    assert (narrow[5:] < level[5:] - 0.05).all()


def test_crps_by_hand_and_in_closed_form():
    # One bin [0, 1]: the integral of t^2 to 0.5 and of (1 - t)^2 from there; outside, the distance comes on top.
    uniform, unit_s = np.ones((3, 1)), np.array([0.0, 1.0])
    scored_s = distribution.crps_s(uniform, unit_s, np.array([0.5, 0.0, 3.0]))
    assert scored_s == pytest.approx([1 / 12, 1 / 3, 1 / 3 + 2])
    # A Gaussian (Gneiting and Raftery 2007, equation 21).
    y_s, mean_s, sd_s = np.array([0.3, -1.0, 2.0]), np.array([0.0, 0.5, -1.0]), 0.7
    z = (y_s - mean_s) / sd_s
    expected_s = sd_s * (z * (2 * ndtr(z) - 1) + 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - 1 / np.sqrt(np.pi))
    mass = distribution.gaussian(mean_s, sd_s, FINE_S)
    assert distribution.crps_s(mass, FINE_S, y_s) == pytest.approx(expected_s, abs=1e-5)
    # A sample: mean distance to y less half the mean distance within the sample.
    sample_s = np.array([0.1, 0.5, 2.0])
    within_s = np.abs(sample_s[:, None] - sample_s).mean() / 2
    expected_s = np.abs(sample_s - 0.4).mean() - within_s
    mass = distribution.empirical(sample_s, FINE_S, n_trials=1)
    assert distribution.crps_s(mass, FINE_S, np.array([0.4])) == pytest.approx([expected_s], abs=1e-3)


def test_nothing_predicts_better_than_the_distribution_that_drew_the_truth():
    rng = np.random.default_rng(0)
    y_s = 1.5 + 0.3 * rng.normal(size=4000)
    edges_s = np.linspace(0, 3, 61)
    by_sd = {sd: distribution.crps_s(distribution.gaussian(np.full(4000, 1.5), sd, edges_s), edges_s, y_s).mean()
             for sd in (0.1, 0.3, 0.9)}  # fmt: skip
    assert min(by_sd, key=by_sd.get) == 0.3


@pytest.mark.parametrize(("sd_s", "expected"), [(0.15, 4.0), (0.3, 1.0), (0.6, 0.25)])
def test_the_temperature_undoes_a_wrong_width(sd_s, expected):
    """The log of a Gaussian divided by T is that of one whose variance is T times as large."""
    rng = np.random.default_rng(1)
    mean_s = rng.uniform(1, 2, size=3000)
    y_s = mean_s + 0.3 * rng.normal(size=3000)
    edges_s = np.linspace(-1, 4, 201)
    mass = distribution.gaussian(mean_s, sd_s, edges_s)
    temperature = distribution.fit_temperature(mass, edges_s, y_s)
    assert temperature == pytest.approx(expected, rel=0.1)
    calibrated = distribution.temper(mass, temperature)
    assert calibrated.sum(1) == pytest.approx(np.ones(3000))
    for level in distribution.LEVELS:
        assert distribution.coverage(y_s, *distribution.central_interval(calibrated, edges_s, level)) == pytest.approx(
            level, abs=0.03
        )


def test_scores_name_every_level():
    rng = np.random.default_rng(2)
    participant, y_s = np.repeat(np.arange(10), 20), rng.uniform(0, 4, size=200)
    predicted = distribution.Predicted(np.tile([0.25, 0.25, 0.5], (200, 1)), EDGES_S)
    rows = distribution.scores(participant, y_s, predicted, n_bootstrap=50, seed=1)
    assert set(rows) == {"crps_s", *(f"{what}_{level}" for what in ("coverage", "width_s") for level in (50, 80, 95))}
    assert rows["width_s_50"]["value"] == pytest.approx(2.0)
    assert rows["coverage_80"]["low"] < 0.8 < rows["coverage_80"]["high"]
    assert rows["crps_s"]["value"] == pytest.approx(4 / 6, rel=0.1)  # of a uniform: a sixth of its width
