"""Predicted distributions of response time: their intervals, their scores and their calibration.

A distribution is the probability of each of K bins, uniform inside a bin: `mass` (N, K), which sums to 1 over the bins,
and `edges_s` (K + 1,), ascending. The outcomes of the network, a Gaussian around a baseline's prediction and the
response times of the training trials all take this form, so that the same code scores them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from hbn.scoring import metrics

COLUMNS = slice(3, None)  # of the network's output: those that hold its distribution
LEVELS = (0.5, 0.8, 0.95)  # of central intervals
TEMPERATURES = (0.2, 5.0)  # bounds of the search
SMALLEST_MASS = 1e-12  # a probability of zero would make a single trial's log likelihood infinite
PLOTTED_LEVELS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Predicted:
    """The distributions of N trials."""

    mass: np.ndarray  # (N, K)
    edges_s: np.ndarray  # (K + 1,)

    def rows(self, index: np.ndarray) -> "Predicted":
        """The distributions of the trials in `index`."""
        return Predicted(self.mass[index], self.edges_s)


def bin_edges_s(trial_offset_s: float, window_s: float, n_bins: int) -> np.ndarray:
    """Edges (n_bins + 1,) in s of the network's bins: one before the window, then the window in equal parts."""
    return np.concatenate([[0.0], trial_offset_s + window_s * np.linspace(0, 1, n_bins)])


def gaussian(mean_s: np.ndarray, sd_s: float, edges_s: np.ndarray) -> np.ndarray:
    """Mass (N, K) of Gaussians around mean_s (N,); the tails belong to the first and the last bin."""
    cumulative = ndtr((edges_s - mean_s[:, None]) / sd_s)
    cumulative[:, 0], cumulative[:, -1] = 0.0, 1.0
    return np.diff(cumulative, axis=1)


def empirical(sample_s: np.ndarray, edges_s: np.ndarray, n_trials: int) -> np.ndarray:
    """Mass (n_trials, K), the same in every row: the share of the response times in each bin.

    In sample_s, NaN is no response. Times outside the edges belong to the first or the last bin.
    """
    known_s = sample_s[~np.isnan(sample_s)]
    counts, _ = np.histogram(np.clip(known_s, edges_s[0], edges_s[-1]), edges_s)
    return np.tile(counts / len(known_s), (n_trials, 1))


def quantile(mass: np.ndarray, edges_s: np.ndarray, q: float) -> np.ndarray:
    """The q-quantile (N,) in s of each distribution."""
    cumulative = np.cumsum(mass, axis=1)  # (N, K) at the upper edges
    bins = np.minimum((cumulative < q).sum(1), mass.shape[1] - 1)
    rows = np.arange(len(mass))
    inside = mass[rows, bins]
    share = (q - (cumulative[rows, bins] - inside)) / np.where(inside > 0, inside, 1.0)
    return edges_s[bins] + np.clip(share, 0, 1) * np.diff(edges_s)[bins]


def central_interval(mass: np.ndarray, edges_s: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends (N,), (N,) in s of the interval that leaves (1 - level) / 2 of the probability on each side."""
    return quantile(mass, edges_s, (1 - level) / 2), quantile(mass, edges_s, (1 + level) / 2)


def coverage(y_s: np.ndarray, low_s: np.ndarray, high_s: np.ndarray) -> float:
    """Share of response times (N,) inside their intervals; it equals the level if the intervals are calibrated."""
    return float(np.mean((low_s <= y_s) & (y_s <= high_s)))


def crps_s(mass: np.ndarray, edges_s: np.ndarray, y_s: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score (N,) in s; lower is better. For a point prediction it is the absolute error.

    The integral over t of (F(t) - [t >= y])^2, exact for the piecewise linear F of these distributions.
    Source: Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation (2007).
    """
    upper = np.cumsum(mass, axis=1)  # F at the upper edges, (N, K)
    lower = upper - mass
    width_s = np.diff(edges_s)
    before = np.clip((y_s[:, None] - edges_s[:-1]) / width_s, 0, 1)  # share of each bin before y
    at_y = lower + before * mass
    squared_before = _mean_square(lower, at_y) * before
    squared_after = _mean_square(1 - at_y, 1 - upper) * (1 - before)
    outside_s = np.maximum(edges_s[0] - y_s, 0) + np.maximum(y_s - edges_s[-1], 0)
    return (width_s * (squared_before + squared_after)).sum(1) + outside_s


def temper(mass: np.ndarray, temperature: float) -> np.ndarray:
    """Mass (N, K) with log probabilities divided by `temperature`: wider if it is above 1, narrower if below."""
    powered = mass ** (1 / temperature)
    return powered / powered.sum(1, keepdims=True)


def fit_temperature(mass: np.ndarray, edges_s: np.ndarray, y_s: np.ndarray) -> float:
    """The temperature under which response times (N,) of validation trials are most likely.

    Source: Guo et al., On calibration of modern neural networks (2017).
    """
    bins = np.clip(np.searchsorted(edges_s, y_s, side="right") - 1, 0, mass.shape[1] - 1)

    def loss(log_temperature: float) -> float:
        likelihood = temper(mass, np.exp(log_temperature))[np.arange(len(y_s)), bins]
        return -float(np.log(np.maximum(likelihood, SMALLEST_MASS)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def scores(
    participant: np.ndarray, y_s: np.ndarray, predicted: Predicted, n_bootstrap: int, seed: int
) -> dict[str, dict]:
    """CRPS, and coverage and mean width of the central intervals, each with its interval over participants.

    participant and y_s are (N,), of answered trials. Keys: crps_s, and coverage_<percent> and width_s_<percent> of
    every level.
    """
    draws = {"n_bootstrap": n_bootstrap, "seed": seed}
    mass, edges_s = predicted.mass, predicted.edges_s
    report = {"crps_s": metrics.with_interval(_mean, participant, crps_s(mass, edges_s, y_s), **draws)}
    for level in LEVELS:
        low_s, high_s = central_interval(mass, edges_s, level)
        percent = f"{100 * level:g}"
        report[f"coverage_{percent}"] = metrics.with_interval(coverage, participant, y_s, low_s, high_s, **draws)
        report[f"width_s_{percent}"] = metrics.with_interval(_mean, participant, high_s - low_s, **draws)
    return report


def coverage_curves(predicted: dict[str, Predicted], rt_s: np.ndarray) -> np.ndarray:
    """A row for each level of an interval: the level, then the share of response times inside it by predictor.

    rt_s is (N,), NaN without a response.
    """
    answered = ~np.isnan(rt_s)
    columns = [PLOTTED_LEVELS]
    for distributions in predicted.values():
        mass, edges_s = distributions.mass[answered], distributions.edges_s
        ends = [central_interval(mass, edges_s, level) for level in PLOTTED_LEVELS]
        columns.append(np.array([coverage(rt_s[answered], low_s, high_s) for low_s, high_s in ends]))
    return np.stack(columns, axis=1)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def _mean_square(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The mean of the square of a line from `start` to `end`."""
    return (start**2 + start * end + end**2) / 3
