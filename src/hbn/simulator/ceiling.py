"""What the best possible predictor of challenge 1 reaches on the simulated cohort: the ceiling that noise leaves."""

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.linalg

from hbn import params
from hbn.data.bids import CHANNELS
from hbn.scoring import metrics
from hbn.simulator.eeg import (
    BANDS_HZ,
    FLAT_BELOW_HZ,
    RHYTHMS_UV,
    SENSOR_NOISE_UV,
    background_scale,
    head,
)
from hbn.simulator.evoked import HEIGHT_SD, MOTOR_SHARE, hand_modulation, motor, ramp
from hbn.simulator.people import EXPONENT, rng_of

HIGHPASS_HZ = 0.25  # half amplitude of MNE's 0.5 Hz high-pass


def ceiling(
    trials: list[tuple[float | None, str]], p: params.Simulator, n_draws: int = 1500
) -> dict[str, float | None]:
    """What ideal observers of challenge 1's window reach: Pearson r and NRMSE of response time, AUROC of misses.

    They know how an average participant's EEG is made: topographies and time courses of the ramp
    and the readiness potential, the spread of the ramp's height, spectra and topographies of
    background, rhythms and sensor noise, and the distribution of `trials` (response time or None,
    hand). Given the response all of that is Gaussian, so the posterior mean, from what the optimal
    spatial filters pass from 0.5 to 2.5 s after the target, is the best answer there is.
    'challenge1_evoked_*' uses the evoked potentials alone, as a predictor linear in the signal
    does; 'challenge1_*' also how mu and beta weaken before a press and rebound after it.
    Artefacts and differences between participants are not in the model: real predictors stay
    below. Estimated on `n_draws` trials drawn from it.
    """
    still = observer_scores(trials, p, n_draws, lambda press, time_s: (np.ones_like(time_s),) * 2)
    return {
        **{f"challenge1_{name}": score for name, score in observer_scores(trials, p, n_draws, hand_modulation).items()},
        **{f"challenge1_evoked_{name}": score for name, score in still.items()},
    }


def observer_scores(
    trials: list[tuple[float | None, str]], p: params.Simulator, n_draws: int, modulation: Callable
) -> dict[str, float | None]:
    """Scores of the ideal observer of a world in which presses modulate motor rhythms by `modulation`."""
    rng = rng_of(p.seed, "ceiling")
    sfreq_hz, n = 50.0, 100
    topographies, background = head()
    gains = {name: g.astype(np.float64) - g[-1] for name, g in topographies.items()}
    gains = {name: g[:-1] for name, g in gains.items()}  # without the reference, which is zero
    wanted = np.stack([gains[name] for name in ("parietal", "left_motor", "right_motor")], axis=1)  # (C - 1, 3)
    background = (background.astype(np.float64) - background[-1])[:-1]
    of_background = background @ background.T * (p.background_uv * background_scale(p.sfreq_hz)) ** 2
    of_sensors = SENSOR_NOISE_UV**2 * (np.eye(len(CHANNELS) - 1) + 1)
    of_rhythms = sum(np.outer(gains[s], gains[s]) * sum(uv**2 for uv in r.values()) for s, r in RHYTHMS_UV.items())
    filters = np.linalg.solve(of_background + of_sensors + of_rhythms, wanted)  # (C - 1, 3)

    lag_s = np.subtract.outer(np.arange(n), np.arange(n)) / sfreq_hz
    hz = np.arange(HIGHPASS_HZ, sfreq_hz / 2, 0.02)
    density = (np.maximum(hz, FLAT_BELOW_HZ) / 10) ** -EXPONENT / (p.sfreq_hz / 2) * 0.02
    pink = np.array([np.cos(2 * np.pi * lag * hz) @ density for lag in lag_s[:, 0]])
    static = np.kron(filters.T @ of_background @ filters, pink[np.abs(lag_s * sfreq_hz).round().astype(int)])
    static += np.kron(filters.T @ of_sensors @ filters, np.eye(n) * sfreq_hz / p.sfreq_hz)
    moving = {}
    for source, rhythms in RHYTHMS_UV.items():
        course = sum(
            uv**2 * np.cos(2 * np.pi * BANDS_HZ[band][0] * lag_s) * np.exp(-((np.pi * BANDS_HZ[band][1] * lag_s) ** 2))
            for band, uv in rhythms.items()
        )
        space = np.outer(filters.T @ gains[source], gains[source] @ filters)
        if source.endswith("_motor"):
            moving[source] = space, course
        else:
            static += np.kron(space, course)

    # Templates are high-passed like the data, or the observer would find slow shifts free of noise.
    long_s = -4.0 + np.arange(600) / sfreq_hz
    seen, slow = slice(225, 225 + n), scipy.fft.rfftfreq(600, 1 / sfreq_hz) < HIGHPASS_HZ

    def means(rt_s: float | None, hand: str) -> tuple[np.ndarray, np.ndarray]:
        """What the filters pass of a ramp of height 1, and of the readiness potential."""
        courses = np.zeros((2, 3, len(long_s)))
        courses[0, 0] = p.ramp_uv * ramp(long_s, rt_s)
        if rt_s is not None:
            courses[1, 1 + (hand == "left")] = MOTOR_SHARE * p.ramp_uv * motor(long_s, rt_s)
        spectrum = scipy.fft.rfft(courses)
        spectrum[..., slow] = 0
        passed = filters.T @ wanted @ scipy.fft.irfft(spectrum, len(long_s))[..., seen]
        return passed[0].ravel(), passed[1].ravel()

    def root(rt_s: float | None, hand: str) -> np.ndarray:
        """Cholesky factor of the noise's covariance (3 n, 3 n), given the response."""
        press = [] if rt_s is None else [{"onset_s": rt_s, "value": f"{hand}_buttonPress"}]
        covariance = static + 1e-6 * np.trace(static) / len(static) * np.eye(len(static))
        for envelope, (space, course) in zip(modulation(press, long_s[seen]), moving.values(), strict=True):
            covariance += np.kron(space, course * np.outer(envelope, envelope))
        return np.linalg.cholesky(covariance)

    grid_s = np.arange(0.05, 2.4, 0.05)
    times_s = np.array([rt for rt, _ in trials if rt is not None])
    missed = 1 - len(times_s) / len(trials)
    prior = np.array([np.exp(-0.5 * ((times_s - t) / 0.1) ** 2).mean() for t in grid_s])
    prior = np.append(prior / prior.sum() * (1 - missed), missed)
    options = [(t, hand) for t in (*grid_s, None) for hand in ("left", "right")]
    roots = [root(*option) for option in options]

    chosen = [trials[i] for i in rng.integers(len(trials), size=n_draws)]
    draws = np.empty((n_draws, 3 * n))
    for draw, (rt_s, hand) in zip(draws, chosen, strict=True):
        of_ramp, of_hand = means(rt_s, hand)
        near = len(grid_s) if rt_s is None else np.abs(grid_s - rt_s).argmin()
        noise = roots[2 * near + (hand == "right")] @ rng.normal(size=3 * n)
        draw[:] = np.exp(HEIGHT_SD * rng.normal()) * of_ramp + of_hand + noise

    steps = np.linspace(-2, 2, 9)  # of the height, in standard deviations
    scores = np.empty((n_draws, len(options), len(steps)))
    for k, (option, lower) in enumerate(zip(options, roots, strict=True)):
        of_ramp, of_hand = means(*option)
        white = scipy.linalg.solve_triangular(
            lower, np.column_stack([(draws - of_hand).T, of_ramp]), lower=True, check_finite=False
        )
        rest, template = white[:, :-1], white[:, -1:]
        log_density = np.log(prior[k // 2] + 1e-300) - np.log(np.diag(lower)).sum()
        for h, height in enumerate(np.exp(HEIGHT_SD * steps)):
            distance = np.sum((rest - height * template) ** 2, axis=0)
            scores[:, k, h] = log_density - 0.5 * distance - 0.5 * steps[h] ** 2
    weights = np.exp(scores - scores.max(axis=(1, 2), keepdims=True)).sum(axis=2)
    posterior = weights.reshape(n_draws, -1, 2).sum(axis=2)  # both hands
    posterior /= posterior.sum(axis=1, keepdims=True)

    truth = np.array([np.nan if rt_s is None else rt_s for rt_s, _ in chosen])
    answered = ~np.isnan(truth)
    predicted = posterior[:, :-1] @ grid_s / np.maximum(posterior[:, :-1].sum(axis=1), 1e-12)
    seen_misses = metrics.auroc(~answered, posterior[:, -1])
    return {
        "pearson_r": metrics.pearson_r(truth[answered], predicted[answered]),
        "nrmse": metrics.nrmse(truth[answered], predicted[answered]),
        **({} if seen_misses is None else {"auroc_miss": seen_misses}),
    }
