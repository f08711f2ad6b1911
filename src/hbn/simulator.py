"""The simulated cohort's EEG: a spherical head, named sources, artefacts, and HBN-identical files.

All signals are float32 (C, T) in microvolts against Cz. What a participant's factors change is in
FEATURES; how the sources move is in `rhythms_uv` and `responses_uv`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from hbn import bids, metrics, params
from hbn.behaviour import Person, rng_of
from hbn.bids import CHANNELS, FACTORS, Recording

# Each factor acts on one spectral feature: what it is, and how much one standard deviation changes
# it (the exponent by that much, amplitudes by that much on a logarithmic scale).
FEATURES = {
    "p_factor": ("exponent of the 1/f background", 0.25),
    "attention": ("amplitude of frontal theta", 0.45),
    "internalizing": ("alpha amplitude, right over left frontal", 0.35),
    "externalizing": ("amplitude of central beta", 0.45),
}
# Dipoles, named by the electrode above them; radial, 65 mm from the centre of the head.
SOURCES = {
    **{"parietal": "E62", "left_motor": "E36", "right_motor": "E104", "frontal": "E11", "midline": "E6"},
    **{"left_frontal": "E24", "right_frontal": "E124", "left_occipital": "E70", "right_occipital": "E83"},
    **{"occipital": "E75", "left_temporal": "E45", "right_temporal": "E108"},
}
N_BACKGROUND = 96
# The named sources have a background of their own, which no spatial filter can tell from what they
# respond: rms of each, in units of the background's at a typical electrode.
OWN_BACKGROUND = 0.3
EXPONENT = 1.3  # of the background's power spectrum
SENSOR_NOISE_UV = 1.0
RAMP_START_S = 0.3  # after the target
MISS_RAMP = 0.25  # share of the ramp's height reached without a response


@lru_cache
def head() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Topographies of SOURCES (C,) and of everything with a 1/f background (C, N_BACKGROUND + sources).

    Potentials of current dipoles in MNE's four-shell spherical head under the net's standard
    montage, against the average, scaled to 1 at the best electrode.
    """
    import mne

    info = mne.create_info(list(CHANNELS), 500.0, "eeg")
    info.set_montage(bids.MONTAGE)
    sphere = mne.make_sphere_model("auto", "auto", info, verbose="ERROR")
    positions_m = {
        channel["ch_name"]: channel["loc"][:3] - sphere["r0"]
        for channel in info["chs"]
        if channel["ch_name"] in CHANNELS
    }
    rng = rng_of("head")
    directions = rng.normal(size=(N_BACKGROUND, 3))
    directions[:, 2] = np.abs(directions[:, 2]) - 0.3
    tilts = rng.normal(scale=0.7, size=(N_BACKGROUND, 3))
    named = np.array([positions_m[electrode] for electrode in SOURCES.values()])
    directions = _unit(np.vstack([_unit(named), _unit(directions)]))
    normals = _unit(directions + np.vstack([np.zeros_like(named), tilts]))
    radius_m = 0.72 * sphere["layers"][-1]["rad"]
    space = mne.setup_volume_source_space(
        pos={"rr": directions * radius_m + sphere["r0"], "nn": normals}, sphere=sphere, verbose="ERROR"
    )
    forward = mne.make_forward_solution(info, None, space, sphere, meg=False, mindist=0.0, verbose="ERROR")
    gain = mne.convert_forward_solution(forward, force_fixed=True, verbose="ERROR")["sol"]["data"]  # (C, dipoles)
    gain = gain - gain.mean(axis=0)
    gain = (gain / np.abs(gain).max(axis=0)).astype(np.float32)
    named, others = gain[:, : len(SOURCES)], gain[:, len(SOURCES) :]
    typical = np.sqrt(np.median(np.sum(others.astype(np.float64) ** 2, axis=1)))
    background = np.hstack([others / np.float32(typical), OWN_BACKGROUND * named])
    return dict(zip(SOURCES, named.T, strict=True)), background


@dataclass(frozen=True)
class Brain:
    """A participant's own spectral features."""

    exponent: float
    theta: float
    asymmetry: float  # log amplitude of alpha, right minus left
    beta: float
    alpha: float
    alpha_hz: float

    @classmethod
    def of(cls, one: Person, p: params.Simulator) -> "Brain":
        rng = rng_of(p.seed, one.participant_id, "brain")
        z = {}
        for factor, value in zip(FACTORS, one.factors_z, strict=True):
            effect = getattr(p, f"effect_{factor}")
            z[factor] = (effect * value + np.sqrt(1 - effect**2) * rng.normal()) * FEATURES[factor][1]
        return cls(
            exponent=EXPONENT + z["p_factor"],
            theta=float(np.exp(z["attention"])),
            asymmetry=z["internalizing"],
            beta=float(np.exp(z["externalizing"])),
            alpha=float(np.exp(0.03 * (one.age_years - 10) + 0.25 * rng.normal())),
            alpha_hz=float(np.clip(9.0 + 0.15 * (one.age_years - 10) + 0.4 * rng.normal(), 7.5, 11.5)),
        )


def recording_uv(one: Person, recording: Recording, rows: list[dict], p: params.Simulator) -> np.ndarray:
    """The EEG (C, T) float32 of one recording, whose events (the last one ends it) are `rows`."""
    rng = rng_of(p.seed, one.participant_id, recording.column, "eeg")
    brain = Brain.of(one, p)
    topographies, background = head()
    time_s = np.arange(round(rows[-1]["onset_s"] * p.sfreq_hz), dtype=np.float32) / p.sfreq_hz
    n = len(time_s)

    hz = np.maximum(scipy.fft.rfftfreq(_fast(n), 1 / p.sfreq_hz), 0.3)
    pink = (hz / 10) ** (-brain.exponent / 2)
    # Scaled as if every exponent were the usual one, so that the exponent tilts around 10 Hz.
    level_uv = p.background_uv * background_scale(p.sfreq_hz)
    noise = _shaped(rng, background.shape[1], n, pink) * level_uv
    data_uv = background @ noise  # (C, T)

    named = {name: np.zeros(n, dtype=np.float32) for name in SOURCES}
    for part in (rhythms_uv(rng, brain, rows, time_s, p), responses_uv(rng, rows, time_s, p.ramp_uv)):
        for name, values in part.items():
            named[name] += values
    data_uv += np.stack([topographies[name] for name in named], axis=1) @ np.stack(list(named.values()))
    add_artefacts(rng, data_uv, rows, time_s)
    data_uv -= data_uv[-1].copy()  # Cz is the reference: exactly zero
    return data_uv


def background_scale(sfreq_hz: float) -> float:
    """Factor that gives white noise of sd 1, shaped by (f / 10)^(-e/2), an rms of 1 in 0.5-45 Hz."""
    hz = np.arange(0.5, 45, 0.1)
    power = np.sum((hz / 10) ** -EXPONENT) * 0.1 / (sfreq_hz / 2)
    return float(1 / np.sqrt(power))


def rhythms_uv(
    rng: np.random.Generator, brain: Brain, rows: list[dict], time_s: np.ndarray, p: params.Simulator
) -> dict[str, np.ndarray]:
    """Ongoing rhythms of named sources: alpha, mu, beta, theta."""
    n = len(time_s)
    closed = spans(rows, "instructed_toCloseEyes", "instructed_toOpenEyes", time_s)
    posterior = 5.0 * brain.alpha * (1 + 1.2 * closed)
    frontal = 2.5 * brain.alpha
    left, right = hand_modulation(rows, time_s)
    alpha = _narrow(rng, 7, n, p.sfreq_hz, brain.alpha_hz, 1.0)
    mu = _narrow(rng, 2, n, p.sfreq_hz, brain.alpha_hz + 1.0, 1.2)
    beta = _narrow(rng, 4, n, p.sfreq_hz, 20.0, 3.5) * 2.5 * brain.beta
    theta = _narrow(rng, 2, n, p.sfreq_hz, 6.0, 0.9) * 4.0 * brain.theta
    return {
        "occipital": posterior * alpha[0],
        "left_occipital": posterior * alpha[1],
        "right_occipital": posterior * alpha[2],
        "parietal": 0.5 * posterior * alpha[3],
        "left_frontal": frontal * np.exp(-brain.asymmetry).astype(np.float32) * alpha[4] + 0.7 * beta[2],
        "right_frontal": frontal * np.exp(brain.asymmetry).astype(np.float32) * alpha[5] + 0.7 * beta[3],
        "left_motor": left * (4.0 * mu[0] + beta[0]),
        "right_motor": right * (4.0 * mu[1] + beta[1]),
        "frontal": theta[0],
        "midline": 0.6 * theta[1],
    }


def responses_uv(
    rng: np.random.Generator, rows: list[dict], time_s: np.ndarray, ramp_uv: float
) -> dict[str, np.ndarray]:
    """What targets, presses, feedback and flicker evoke in named sources."""
    n = len(time_s)
    evoked = {name: np.zeros(n, dtype=np.float32) for name in SOURCES}
    contrast = {"left": np.zeros(n, dtype=np.float32), "right": np.zeros(n, dtype=np.float32)}
    for trial in trials_of(rows):
        after_s = time_s - np.float32(trial["target_s"])
        height_uv = ramp_uv * np.exp(rng.normal(0, 0.3))
        evoked["parietal"] += height_uv * ramp(after_s, trial["rt_s"])
        if trial["rt_s"] is not None:
            evoked[f"{contralateral(trial['hand'])}_motor"] += 0.5 * ramp_uv * motor(after_s, trial["rt_s"])
            shown_s = after_s - np.float32(trial["feedback_s"] - trial["target_s"])
            negativity_uv = -9.0 if trial["feedback"] == "sad_face" else -4.0
            evoked["midline"] += negativity_uv * _bump(shown_s, 0.25, 0.05)
            evoked["parietal"] += 8.0 * _bump(shown_s, 0.40, 0.09)
        contrast[trial["side"]] += np.clip(np.minimum(after_s / 1.6, (2.4 - after_s) / 0.8), 0, 1)
        contrast["left"] += 0.5 * (np.abs(after_s) < 3)
        contrast["right"] += 0.5 * (np.abs(after_s) < 3)
    # The gratings flicker at 20 Hz (left) and 25 Hz (right), seen by the other hemisphere.
    evoked["right_occipital"] += 1.5 * contrast["left"] * np.sin(2 * np.pi * 20 * time_s)
    evoked["left_occipital"] += 1.5 * contrast["right"] * np.sin(2 * np.pi * 25 * time_s)
    for row in rows:
        if row["value"] == "stim_ON":
            evoked["occipital"] += 6.0 * _bump(time_s - np.float32(row["onset_s"]), 0.12, 0.03)
    return evoked


def ramp(after_s: np.ndarray, rt_s: float | None) -> np.ndarray:
    """Centro-parietal positivity, 1 at its peak: rises from 0.3 s after the target to the response.

    After O'Connell, Dockree & Kelly (2012): its peak marks the decision. Without a response it
    creeps up and stays low.
    """
    if rt_s is None:
        return MISS_RAMP * np.clip((after_s - RAMP_START_S) / 2.0, 0, 1) * (after_s < 2.6)
    start_s = min(RAMP_START_S, 0.5 * rt_s)
    rising = np.clip((after_s - start_s) / (rt_s - start_s), 0, 1)
    falling = np.exp(-np.clip(after_s - rt_s, 0, None) / 0.2)
    height = min(1.0, rt_s / 1.0)  # a premature press has little evidence behind it
    return (height * rising * falling).astype(np.float32)


def motor(after_s: np.ndarray, rt_s: float) -> np.ndarray:
    """Lateralised readiness potential, -1 at the press: rises over 0.4 s, gone 0.15 s after."""
    before = np.clip((after_s - rt_s + 0.4) / 0.4, 0, 1)
    return (-before * np.exp(-np.clip(after_s - rt_s, 0, None) / 0.08)).astype(np.float32)


def hand_modulation(rows: list[dict], time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes of left and right motor rhythms: less before a press of the other hand, more after."""
    gain = {"left": np.ones_like(time_s), "right": np.ones_like(time_s)}
    for row in rows:
        if row["value"].endswith("_buttonPress"):
            after_s = time_s - np.float32(row["onset_s"])
            change = -0.55 * _bump(after_s, -0.15, 0.25) + 0.5 * _bump(after_s, 0.8, 0.25)
            gain[contralateral(row["value"].split("_")[0])] += change
            gain[row["value"].split("_")[0]] += 0.4 * change
    return np.maximum(gain["left"], 0.2), np.maximum(gain["right"], 0.2)


def add_artefacts(rng: np.random.Generator, data_uv: np.ndarray, rows: list[dict], time_s: np.ndarray) -> None:
    """Add blinks, muscle, drift, mains, sensor noise and bad channels to (C, T) in place."""
    n = len(time_s)
    duration_s, sfreq_hz = n / (1 / (time_s[1] - time_s[0])), float(1 / (time_s[1] - time_s[0]))
    positions_m = bids.electrode_positions_m()
    closed = spans(rows, "instructed_toCloseEyes", "instructed_toOpenEyes", time_s)

    eyes_m = positions_m[[CHANNELS.index("E25"), CHANNELS.index("E8")]]
    near_eyes = np.exp(-np.linalg.norm(positions_m[:, None] - eyes_m, axis=-1) / 0.04).sum(axis=1)
    near_eyes = (near_eyes / near_eyes.max()).astype(np.float32)
    blinks = np.zeros(n, dtype=np.float32)
    for at_s in rng.uniform(0, duration_s, rng.poisson(0.25 * duration_s)):
        if rng.random() > 0.9 * closed[min(int(at_s * sfreq_hz), n - 1)]:
            begin, end = _around(at_s, 0.4, sfreq_hz, n)
            blinks[begin:end] += rng.uniform(60, 140) * _bump(time_s[begin:end], np.float32(at_s), 0.07)
    data_uv += near_eyes[:, None] * blinks

    for at_s in rng.uniform(0, duration_s, rng.poisson(0.03 * duration_s)):
        side_m = positions_m[CHANNELS.index("E45" if rng.random() < 0.5 else "E108")]
        near = np.exp(-np.linalg.norm(positions_m - side_m, axis=1) / 0.03).astype(np.float32)
        begin, end = _around(at_s, 0.3, sfreq_hz, n)
        burst = np.diff(rng.standard_normal(end - begin + 1, dtype=np.float32)) * np.hanning(end - begin)
        data_uv[:, begin:end] += near[:, None] * (12.0 * burst).astype(np.float32)

    c = len(CHANNELS)
    slow = np.stack([np.sin(2 * np.pi * time_s / period_s + rng.uniform(0, 6.28)) for period_s in (13.0, 29.0, 71.0)])
    data_uv += rng.normal(0, 15, size=(c, 3)).astype(np.float32) @ slow.astype(np.float32)
    mains = np.stack([f(2 * np.pi * 60 * time_s) for f in (np.sin, np.cos)]).astype(np.float32)
    data_uv += (2.0 * rng.lognormal(0, 0.5, size=(c, 1)) * rng.normal(size=(c, 2))).astype(np.float32) @ mains
    data_uv += rng.uniform(-200, 200, size=(c, 1)).astype(np.float32)
    for row in data_uv:
        row += SENSOR_NOISE_UV * rng.standard_normal(n, dtype=np.float32)

    bad = rng.permutation(c - 1)[: rng.poisson(2.5)]
    for channel in bad:
        if rng.random() < 0.4:
            data_uv[channel] = data_uv[-1]  # a dead electrode equals the reference
        else:
            data_uv[channel] += rng.uniform(60, 200) * rng.standard_normal(n, dtype=np.float32)


def trials_of(rows: list[dict]) -> list[dict]:
    """Targets with their side, response (None without), hand, feedback and when it is shown."""
    found, current = [], None
    for row in rows:
        value = row["value"]
        if value.endswith("_target"):
            current = {"target_s": row["onset_s"], "side": value.split("_")[0], "rt_s": None, "feedback_s": 1e9}
            found.append(current)
        elif value == "contrastTrial_start" and current is not None:
            current["feedback_s"], current = row["onset_s"], None
        elif value.endswith("_buttonPress") and current is not None and current["rt_s"] is None:
            current["rt_s"] = row["onset_s"] - current["target_s"]
            current["hand"], current["feedback"] = value.split("_")[0], row.get("feedback")
    return found


def contralateral(side: str) -> str:
    return {"left": "right", "right": "left"}[side]


def spans(rows: list[dict], begin: str, end: str, time_s: np.ndarray) -> np.ndarray:
    """1 between an event `begin` and the next `end` (or the last row), else 0; float32 (T,)."""
    inside = np.zeros(len(time_s), dtype=np.float32)
    for i, row in enumerate(rows):
        if row["value"] == begin:
            until_s = next((later["onset_s"] for later in rows[i + 1 :] if later["value"] == end), rows[-1]["onset_s"])
            inside[(time_s >= row["onset_s"]) & (time_s < until_s)] = 1
    return inside


def ceiling(trials: list[tuple[float | None, str]], p: params.Simulator, n_draws: int = 1500) -> dict[str, float]:
    """What an ideal observer of challenge 1's window reaches: Pearson r and NRMSE of response time, AUROC of misses.

    The observer knows the topographies and time courses of the ramp and of the readiness
    potential, the spread of the ramp's height, the spectrum and spatial covariance of the
    background and of sensor noise, and the distribution of `trials` (response time or None,
    hand). It sees the optimal spatial filters' outputs from 0.5 to 2.5 s after the target, free of
    artefacts, and answers with the posterior mean. Rhythms' power changes and feedback are not
    used, artefacts are not modelled: an estimate of the bound, by simulating `n_draws` trials.
    """
    rng = rng_of(p.seed, "ceiling")
    sfreq_hz, n = 50.0, 100
    # Templates are high-passed like the data, or the observer would find slow shifts free of noise.
    long_s = -4.0 + np.arange(600) / sfreq_hz
    seen, slow = slice(225, 225 + n), scipy.fft.rfftfreq(600, 1 / sfreq_hz) < 0.5
    topographies, background = head()
    gains = np.stack([topographies[name] for name in ("parietal", "left_motor", "right_motor")], axis=1)
    gains, background = (x.astype(np.float64) - x[-1].astype(np.float64) for x in (gains, background))
    level_uv = p.background_uv * background_scale(p.sfreq_hz)
    spatial = background @ background.T * level_uv**2 + SENSOR_NOISE_UV**2 * (np.eye(len(CHANNELS)) + 1)
    keep = slice(0, -1)  # the reference is zero
    filters = np.linalg.solve(spatial[keep, keep], gains[keep])  # (C - 1, 3), unnormalised optimal filters
    of_background = filters.T @ (background @ background.T * level_uv**2)[keep, keep] @ filters
    of_sensors = filters.T @ (SENSOR_NOISE_UV**2 * (np.eye(len(CHANNELS)) + 1))[keep, keep] @ filters
    response = filters.T @ gains[keep]  # what each filter passes of each source (3, 3)

    hz = np.arange(0.5, sfreq_hz / 2, 0.02)
    density = (hz / 10) ** -EXPONENT / (p.sfreq_hz / 2)
    lags_s = np.arange(n) / sfreq_hz
    autocovariance = (np.cos(2 * np.pi * lags_s[:, None] * hz) * density).sum(axis=1) * 0.02
    index = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    share = sfreq_hz / p.sfreq_hz  # of white sensor noise below the observer's Nyquist frequency
    covariance = np.kron(of_background, autocovariance[index]) + np.kron(of_sensors, share * np.eye(n))
    whiten = np.linalg.inv(
        np.linalg.cholesky(covariance + 1e-9 * np.trace(covariance) / len(covariance) * np.eye(3 * n))
    )

    def template(rt_s: float | None, hand: str, height: float) -> np.ndarray:
        sources = np.zeros((3, len(long_s)))
        sources[0] = height * p.ramp_uv * ramp(long_s, rt_s)
        if rt_s is not None:
            sources[{"left": 1, "right": 2}[contralateral(hand)]] = 0.5 * p.ramp_uv * motor(long_s, rt_s)
        spectrum = scipy.fft.rfft(sources, axis=1)
        spectrum[:, slow] = 0
        return whiten @ (response @ scipy.fft.irfft(spectrum, len(long_s), axis=1)[:, seen]).ravel()

    heights = np.exp(0.3 * np.array([-1.5, -0.75, 0.0, 0.75, 1.5]))
    height_prior = np.exp(-0.5 * np.array([-1.5, -0.75, 0.0, 0.75, 1.5]) ** 2)
    times_s = np.array([rt for rt, _ in trials if rt is not None])
    missed = 1 - len(times_s) / len(trials)
    grid_s = np.arange(0.05, 2.4, 0.05)
    prior = np.array([np.exp(-0.5 * ((times_s - t) / 0.1) ** 2).mean() for t in grid_s])
    prior = np.append(prior / prior.sum() * (1 - missed), missed)
    options = [(t, hand, h) for t in grid_s for hand in ("left", "right") for h in range(5)]
    options += [(None, hand, h) for hand in ("left", "right") for h in range(5)]
    templates = np.stack([template(t, hand, heights[h]) for t, hand, h in options])
    which = np.array([len(grid_s) if t is None else int(np.searchsorted(grid_s, t)) for t, _, _ in options])
    log_prior = np.log(prior[which] * np.array([height_prior[h] for _, _, h in options]) + 1e-300)

    truth, predicted, p_miss = [], [], []
    for i in rng.integers(len(trials), size=n_draws):
        rt_s, hand = trials[i]
        trial = template(rt_s, hand, float(np.exp(0.3 * rng.normal()))) + rng.normal(size=3 * n)
        score = log_prior + templates @ trial - 0.5 * np.sum(templates**2, axis=1)
        posterior = np.bincount(which, np.exp(score - score.max()), minlength=len(grid_s) + 1)
        posterior /= posterior.sum()
        truth.append(np.nan if rt_s is None else rt_s)
        p_miss.append(posterior[-1])
        predicted.append(posterior[:-1] @ grid_s / max(posterior[:-1].sum(), 1e-12))
    truth, predicted, answered = np.array(truth), np.array(predicted), ~np.isnan(truth)
    seen_misses = metrics.auroc(~answered, np.array(p_miss))
    return {
        "challenge1_pearson_r": metrics.pearson_r(truth[answered], predicted[answered]),
        "challenge1_nrmse": metrics.nrmse(truth[answered], predicted[answered]),
        **({} if seen_misses is None else {"challenge1_auroc_miss": seen_misses}),
    }


def factor_ceiling(people: list[Person], p: params.Simulator) -> dict[str, float]:
    """Pearson r between each factor and the feature it acts on, in these very people.

    What a perfect measurement of the feature would reach; 0 where hardly anybody has factors.
    """
    known = [one for one in people if any(one.factors_z)]
    result = {}
    for k, (factor, attribute) in enumerate(zip(FACTORS, ("exponent", "theta", "asymmetry", "beta"), strict=True)):
        features = [getattr(Brain.of(one, p), attribute) for one in known]
        features = features if attribute in ("exponent", "asymmetry") else np.log(features)
        values = [one.factors_z[k] for one in known]
        enough = len(known) > 2
        result[f"challenge2_{factor}_r"] = metrics.pearson_r(np.array(values), np.array(features)) if enough else 0.0
    return result


def _shaped(rng: np.random.Generator, rows: int, n: int, amplitude: np.ndarray) -> np.ndarray:
    """Gaussian noise (rows, n) float32 with the given amplitude spectrum (white noise of sd 1 where it is 1)."""
    size = 2 * (len(amplitude) - 1)
    spectrum = rng.standard_normal((rows, 2 * len(amplitude)), dtype=np.float32).view(np.complex64)
    spectrum *= (amplitude * np.sqrt(size / 2)).astype(np.float32)
    return scipy.fft.irfft(spectrum, size, axis=1)[:, :n]


def _narrow(rng: np.random.Generator, rows: int, n: int, sfreq_hz: float, hz: float, width_hz: float) -> np.ndarray:
    """Narrow-band noise (rows, n) of rms 1: it waxes and wanes by itself."""
    axis_hz = scipy.fft.rfftfreq(_fast(n), 1 / sfreq_hz)
    shape = np.exp(-0.5 * ((axis_hz - hz) / width_hz) ** 2)
    return _shaped(rng, rows, n, shape / np.sqrt(np.mean(shape**2)))


def _fast(n: int) -> int:
    """An even length that transforms quickly."""
    return 2 * scipy.fft.next_fast_len(-(-n // 2), real=True)


def _bump(time_s: np.ndarray, at_s: float, sd_s: float) -> np.ndarray:
    return np.exp(-0.5 * ((time_s - np.float32(at_s)) / np.float32(sd_s)) ** 2)


def _around(at_s: float, half_s: float, sfreq_hz: float, n: int) -> tuple[int, int]:
    return max(0, round((at_s - half_s) * sfreq_hz)), min(n, round((at_s + half_s) * sfreq_hz))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
