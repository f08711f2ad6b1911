"""The ceiling of challenge 1 on the simulated cohort: the scores of the best possible predictor, given the noise."""

from collections.abc import Callable
from dataclasses import dataclass

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

SFREQ_HZ, N_SAMPLES = 50.0, 100  # of the window that the observer sees
HIGHPASS_HZ = 0.25  # half amplitude of MNE's 0.5 Hz high-pass
TEMPLATE_S = -4.0 + np.arange(600) / SFREQ_HZ  # after the target; longer than the window, for the high-pass
WINDOW = slice(225, 225 + N_SAMPLES)  # of TEMPLATE_S: 0.5 to 2.5 s after the target
FILTERED = ("parietal", "left_motor", "right_motor")  # sources with a spatial filter
RESPONSES_S = np.arange(0.05, 2.4, 0.05)  # grid of the response times that the observer considers
OUTCOMES = [(rt_s, hand) for rt_s in (*RESPONSES_S, None) for hand in ("left", "right")]
HEIGHTS = np.linspace(-2, 2, 9)  # grid of the logarithm of the ramp's height, in standard deviations


def ceiling(
    trials: list[tuple[float | None, str]], p: params.Simulator, n_draws: int = 1500
) -> dict[str, float | None]:
    """Scores of ideal observers of challenge 1's window: Pearson r and NRMSE of response time, AUROC of misses.

    An ideal observer knows how an average participant's EEG is made: topographies and time courses of the ramp
    and the readiness potential, the spread of the ramp's height, spectra and topographies of
    background, rhythms and sensor noise, and the distribution of `trials` (response time or None,
    hand). Given the response, all of these are Gaussian. The best possible answer is therefore the posterior mean,
    given the output of the optimal spatial filters from 0.5 to 2.5 s after the target.
    'challenge1_evoked_*' uses only the evoked potentials, as a predictor that is linear in the signal
    does. 'challenge1_*' also uses the weakening of mu and beta before a press and their rebound after it.
    The model leaves out artefacts and differences between participants, so real predictors stay
    below the ceiling. The scores are estimated on `n_draws` trials drawn from the model.
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
    world = World.of(p, modulation)
    roots = [world.root(*outcome) for outcome in OUTCOMES]
    drawn = [trials[i] for i in rng.integers(len(trials), size=n_draws)]
    signals = np.empty((n_draws, len(FILTERED) * N_SAMPLES))
    for signal, (rt_s, hand) in zip(signals, drawn, strict=True):
        ramp_signal, motor_signal = world.means(rt_s, hand)
        nearest = len(RESPONSES_S) if rt_s is None else np.abs(RESPONSES_S - rt_s).argmin()
        noise = roots[2 * nearest + (hand == "right")] @ rng.normal(size=signals.shape[1])
        signal[:] = np.exp(HEIGHT_SD * rng.normal()) * ramp_signal + motor_signal + noise
    posterior = outcome_posterior(signals, world, roots, outcome_prior(trials))

    truth_s = np.array([np.nan if rt_s is None else rt_s for rt_s, _ in drawn])
    answered = ~np.isnan(truth_s)
    predicted_s = posterior[:, :-1] @ RESPONSES_S / np.maximum(posterior[:, :-1].sum(axis=1), 1e-12)
    auroc_miss = metrics.auroc(~answered, posterior[:, -1])
    return {
        "pearson_r": metrics.pearson_r(truth_s[answered], predicted_s[answered]),
        "nrmse": metrics.nrmse(truth_s[answered], predicted_s[answered]),
        **({} if auroc_miss is None else {"auroc_miss": auroc_miss}),
    }


@dataclass(frozen=True)
class World:
    """Signal and noise of a trial behind the optimal spatial filters of FILTERED, of which n = N_SAMPLES are seen."""

    p: params.Simulator
    modulation: Callable
    passed: np.ndarray  # (3, 3): output of each filter by each of the sources FILTERED
    noise: np.ndarray  # (3 n, 3 n): covariance of all noise that does not depend on the response
    motor_rhythms: list[tuple[np.ndarray, np.ndarray]]  # left, right: covariance over filters (3, 3), over time (n, n)

    @classmethod
    def of(cls, p: params.Simulator, modulation: Callable) -> "World":
        """Solve for the spatial filters and pass the noise through them."""
        topographies, background = head()
        gains = {name: g.astype(np.float64) - g[-1] for name, g in topographies.items()}
        gains = {name: g[:-1] for name, g in gains.items()}  # without the reference, which is zero
        wanted = np.stack([gains[name] for name in FILTERED], axis=1)  # (C - 1, 3)
        background = (background.astype(np.float64) - background[-1])[:-1]
        background_cov = background @ background.T * (p.background_uv * background_scale(p.sfreq_hz)) ** 2
        sensor_cov = SENSOR_NOISE_UV**2 * (np.eye(len(CHANNELS) - 1) + 1)
        rhythm_cov = sum(np.outer(gains[s], gains[s]) * sum(uv**2 for uv in r.values()) for s, r in RHYTHMS_UV.items())
        filters = np.linalg.solve(background_cov + sensor_cov + rhythm_cov, wanted)  # (C - 1, 3)

        lag_s = np.subtract.outer(np.arange(N_SAMPLES), np.arange(N_SAMPLES)) / SFREQ_HZ
        hz = np.arange(HIGHPASS_HZ, SFREQ_HZ / 2, 0.02)
        density = (np.maximum(hz, FLAT_BELOW_HZ) / 10) ** -EXPONENT / (p.sfreq_hz / 2) * 0.02
        pink = np.array([np.cos(2 * np.pi * lag * hz) @ density for lag in lag_s[:, 0]])
        pink = pink[np.abs(lag_s * SFREQ_HZ).round().astype(int)]  # (n, n)
        noise = np.kron(filters.T @ background_cov @ filters, pink)
        noise += np.kron(filters.T @ sensor_cov @ filters, np.eye(N_SAMPLES) * SFREQ_HZ / p.sfreq_hz)
        motor_rhythms = []
        for source in RHYTHMS_UV:
            over_filters = np.outer(filters.T @ gains[source], gains[source] @ filters)
            over_time = rhythm_covariance(source, lag_s)
            if source.endswith("_motor"):
                motor_rhythms.append((over_filters, over_time))
            else:
                noise += np.kron(over_filters, over_time)
        return cls(p, modulation, filters.T @ wanted, noise, motor_rhythms)

    def means(self, rt_s: float | None, hand: str) -> tuple[np.ndarray, np.ndarray]:
        """Filtered signals (3 n,) of a ramp of height 1, and of the readiness potential."""
        courses = np.zeros((2, len(FILTERED), len(TEMPLATE_S)))
        courses[0, 0] = self.p.ramp_uv * ramp(TEMPLATE_S, rt_s)
        if rt_s is not None:
            courses[1, 1 + (hand == "left")] = MOTOR_SHARE * self.p.ramp_uv * motor(TEMPLATE_S, rt_s)
        # High-passed like the data: otherwise the observer would see slow shifts free of noise.
        spectrum = scipy.fft.rfft(courses)
        spectrum[..., scipy.fft.rfftfreq(len(TEMPLATE_S), 1 / SFREQ_HZ) < HIGHPASS_HZ] = 0
        filtered = self.passed @ scipy.fft.irfft(spectrum, len(TEMPLATE_S))[..., WINDOW]
        return filtered[0].ravel(), filtered[1].ravel()

    def root(self, rt_s: float | None, hand: str) -> np.ndarray:
        """Cholesky factor of the noise's covariance (3 n, 3 n), given the response."""
        press = [] if rt_s is None else [{"onset_s": rt_s, "value": f"{hand}_buttonPress"}]
        covariance = self.noise + 1e-6 * np.trace(self.noise) / len(self.noise) * np.eye(len(self.noise))
        envelopes = self.modulation(press, TEMPLATE_S[WINDOW])
        for envelope, (over_filters, over_time) in zip(envelopes, self.motor_rhythms, strict=True):
            covariance += np.kron(over_filters, over_time * np.outer(envelope, envelope))
        return np.linalg.cholesky(covariance)


def rhythm_covariance(source: str, lag_s: np.ndarray) -> np.ndarray:
    """Autocovariance (n, n) of the ongoing rhythms of a source at lags (n, n)."""
    return sum(
        uv**2 * np.cos(2 * np.pi * BANDS_HZ[band][0] * lag_s) * np.exp(-((np.pi * BANDS_HZ[band][1] * lag_s) ** 2))
        for band, uv in RHYTHMS_UV[source].items()
    )


def outcome_prior(trials: list[tuple[float | None, str]]) -> np.ndarray:
    """Probability of each of RESPONSES_S, smoothed, and of no response."""
    times_s = np.array([rt_s for rt_s, _ in trials if rt_s is not None])
    missed = 1 - len(times_s) / len(trials)
    prior = np.array([np.exp(-0.5 * ((times_s - t) / 0.1) ** 2).mean() for t in RESPONSES_S])
    return np.append(prior / prior.sum() * (1 - missed), missed)


def outcome_posterior(signals: np.ndarray, world: World, roots: list[np.ndarray], prior: np.ndarray) -> np.ndarray:
    """Probability (N, outcomes of `prior`) given signals (N, 3 n), summed over hands and heights of the ramp."""
    scores = np.empty((len(signals), len(OUTCOMES), len(HEIGHTS)))
    for k, (outcome, lower) in enumerate(zip(OUTCOMES, roots, strict=True)):
        ramp_signal, motor_signal = world.means(*outcome)
        white = scipy.linalg.solve_triangular(
            lower, np.column_stack([(signals - motor_signal).T, ramp_signal]), lower=True, check_finite=False
        )
        rest, template = white[:, :-1], white[:, -1:]
        log_density = np.log(prior[k // 2] + 1e-300) - np.log(np.diag(lower)).sum()
        for h, height in enumerate(np.exp(HEIGHT_SD * HEIGHTS)):
            distance = np.sum((rest - height * template) ** 2, axis=0)
            scores[:, k, h] = log_density - 0.5 * distance - 0.5 * HEIGHTS[h] ** 2
    weights = np.exp(scores - scores.max(axis=(1, 2), keepdims=True)).sum(axis=2)
    posterior = weights.reshape(len(signals), -1, 2).sum(axis=2)  # both hands
    return posterior / posterior.sum(axis=1, keepdims=True)
