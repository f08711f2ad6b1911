"""Predicted distributions of response time: their intervals, their scores and their calibration.

A distribution is the probability of each of K bins, uniform inside a bin: `mass` (N, K), which sums to 1 over the bins,
and `edges_s` (K + 1,), ascending. The outcomes of the network, a Gaussian around a baseline's prediction and the
response times of the training trials all take this form, so that the same code scores them.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from hbn.scoring import metrics

LEVELS = (0.5, 0.8, 0.95)  # of central intervals
TEMPERATURES = (0.2, 5.0)
SMALLEST_MASS = 1e-12  # a probability of zero would make a single trial's log likelihood infinite


def from_outcomes(probability: np.ndarray, trial_offset_s: float, bin_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcome probabilities (N, bins + 2) of the network -> mass (N, bins + 1) given a response, edges_s (bins + 2,).

    The network's outcomes are its time bins, a press before the window and no response. The early press becomes
    the first bin, from 0 to `trial_offset_s`.
    """
    mass = np.concatenate([probability[:, -2:-1], probability[:, :-2]], axis=1).astype(float)
    edges_s = np.concatenate([[0.0], trial_offset_s + bin_s * np.arange(mass.shape[1])])
    return mass / mass.sum(1, keepdims=True), edges_s


def gaussian(mean_s: np.ndarray, sd_s: float, edges_s: np.ndarray) -> np.ndarray:
    """Mass (N, K) of Gaussians around mean_s (N,); the tails belong to the first and the last bin."""
    cumulative = ndtr((edges_s - mean_s[:, None]) / sd_s)
    cumulative[:, 0], cumulative[:, -1] = 0.0, 1.0
    return np.diff(cumulative, axis=1)


def empirical(sample_s: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """Mass (1, K): the share of response times (n,) in each bin; those outside belong to the first or the last bin."""
    counts, _ = np.histogram(np.clip(sample_s, edges_s[0], edges_s[-1]), edges_s)
    return counts[None] / len(sample_s)


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
    """Share of response times (N,) inside their intervals: at best the level of the intervals."""
    return float(np.mean((low_s <= y_s) & (y_s <= high_s)))


def crps_s(mass: np.ndarray, edges_s: np.ndarray, y_s: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score (N,) in s: lower is better, for a point prediction the absolute error.

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
    """Mass (N, K) with its log probabilities divided by `temperature`: above 1 wider, below 1 narrower."""
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
    participant: np.ndarray, y_s: np.ndarray, mass: np.ndarray, edges_s: np.ndarray, n_bootstrap: int, seed: int
) -> dict[str, dict]:
    """CRPS, and coverage and mean width of the central intervals, each with its interval over participants.

    participant and y_s are (N,), of answered trials; mass is (N, K), or (1, K) for a distribution that is the same in
    all trials. Keys: crps_s, and coverage_<percent> and width_s_<percent> of every level.
    """
    draws = {"n_bootstrap": n_bootstrap, "seed": seed}
    mass = np.broadcast_to(mass, (len(y_s), mass.shape[1]))
    report = {"crps_s": metrics.with_interval(_mean, participant, crps_s(mass, edges_s, y_s), **draws)}
    for level in LEVELS:
        low_s, high_s = central_interval(mass, edges_s, level)
        percent = f"{100 * level:g}"
        report[f"coverage_{percent}"] = metrics.with_interval(coverage, participant, y_s, low_s, high_s, **draws)
        report[f"width_s_{percent}"] = metrics.with_interval(_mean, participant, high_s - low_s, **draws)
    return report


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def _mean_square(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The mean of the square of a line from `start` to `end`."""
    return (start**2 + start * end + end**2) / 3
