"""The simulated cohort's EEG: a spherical head, named sources, rhythms, background and artefacts.

All signals are float32 (C, T) in microvolts against Cz. people.FEATURES says what a participant's factors change. The
module `evoked` makes what events evoke.
"""

from functools import lru_cache

import numpy as np
import scipy.fft

from hbn import params
from hbn.data import bids
from hbn.data.bids import CHANNELS, Recording
from hbn.simulator.evoked import hand_modulation, mouse_hand, responses_uv
from hbn.simulator.people import EXPONENT, Brain, Person, rng_of
from hbn.simulator.tasks import spans

# Radial dipoles and the electrode above each, 65 mm from the centre of the head.
SOURCES = {
    **{"parietal": "E62", "left_motor": "E36", "right_motor": "E104", "frontal": "E11", "midline": "E6"},
    **{"left_frontal": "E24", "right_frontal": "E124", "left_occipital": "E70", "right_occipital": "E83"},
    **{"occipital": "E75", "left_temporal": "E45", "right_temporal": "E108"},
}
# Ongoing rhythms of sources and their rms in microvolts, in the average participant with open eyes.
RHYTHMS_UV = {
    **{f"{side}occipital": {"alpha": 5.0} for side in ("", "left_", "right_")},
    **{f"{side}_frontal": {"alpha": 2.5, "beta": 1.75} for side in ("left", "right")},
    **{f"{side}_motor": {"mu": 3.0, "beta": 2.5} for side in ("left", "right")},
    **{"parietal": {"alpha": 2.5}, "frontal": {"theta": 4.0}, "midline": {"theta": 2.4}},
}
# Centre and width of the Gaussian spectrum of each rhythm; the centre of alpha is that of the average participant.
BANDS_HZ = {"alpha": (9.0, 1.0), "mu": (10.0, 1.2), "beta": (20.0, 3.5), "theta": (6.0, 0.9)}
N_BACKGROUND = 96
BLOCK = 16  # sources simulated together; bounds memory
# Rms of the background of each named source, relative to the background at a typical electrode. No spatial filter can
# separate it from the responses of that source.
OWN_BACKGROUND = 0.3
FLAT_BELOW_HZ = 0.3  # below, the spectrum of the background is constant
SENSOR_NOISE_UV = 1.0
MAINS_HZ = 60.0


@lru_cache
def head() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Topographies (C,) of SOURCES by name, and (C, N_BACKGROUND + sources) of all sources with a 1/f background.

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


def recording_uv(person: Person, recording: Recording, rows: list[dict], p: params.Simulator) -> np.ndarray:
    """The EEG (C, T) float32 of one recording with the events `rows`, the last of which is its end."""
    rng = rng_of(p.seed, person.participant_id, recording.column, "eeg")
    brain = Brain.of(person, p)
    topographies, background = head()
    time_s = np.arange(round(rows[-1]["onset_s"] * p.sfreq_hz), dtype=np.float32) / p.sfreq_hz
    n = len(time_s)

    hz = np.maximum(scipy.fft.rfftfreq(_fast(n), 1 / p.sfreq_hz), FLAT_BELOW_HZ)
    pink = (hz / 10) ** (-brain.exponent / 2)
    # Scaled as if every exponent were the usual one, so that the exponent tilts around 10 Hz.
    level_uv = p.background_uv * background_scale(p.sfreq_hz)
    data_uv = np.zeros((len(CHANNELS), n), dtype=np.float32)
    for begin in range(0, background.shape[1], BLOCK):
        block = background[:, begin : begin + BLOCK]
        data_uv += block @ (_shaped(rng, block.shape[1], n, pink) * np.float32(level_uv))

    named = {name: np.zeros(n, dtype=np.float32) for name in SOURCES}
    rhythms = rhythms_uv(rng, brain, hand_modulation(rows, time_s, mouse_hand(p.seed, person)), rows, time_s, p)
    for part in (rhythms, responses_uv(rng, p, person, recording, rows, time_s)):
        for name, values in part.items():
            named[name] += values
    data_uv += np.stack([topographies[name] for name in named], axis=1) @ np.stack(list(named.values()))
    add_artefacts(rng, data_uv, rows, time_s, p.sfreq_hz)
    data_uv -= data_uv[-1].copy()  # Cz is the reference: exactly zero
    return data_uv


def background_scale(sfreq_hz: float) -> float:
    """Factor that gives white noise of sd 1, shaped by (f / 10)^(-e/2), an rms of 1 in 0.5-45 Hz."""
    hz = np.arange(0.5, 45, 0.1)
    power = np.sum((hz / 10) ** -EXPONENT) * 0.1 / (sfreq_hz / 2)
    return float(1 / np.sqrt(power))


def rhythms_uv(
    rng: np.random.Generator, brain: Brain, hands: tuple, rows: list[dict], time_s: np.ndarray, p: params.Simulator
) -> dict[str, np.ndarray]:
    """Ongoing rhythms (T,) of the named sources in a participant; `hands` scales the left and right motor rhythms."""
    closed = spans(rows, "instructed_toCloseEyes", "instructed_toOpenEyes", time_s)
    level = {"alpha": brain.log_alpha, "beta": brain.log_beta, "theta": brain.log_theta, "mu": 0.0}
    tilt = {"left_frontal": -brain.asymmetry, "right_frontal": brain.asymmetry}
    gain = {"left_motor": hands[0], "right_motor": hands[1]}
    gain |= dict.fromkeys(("occipital", "left_occipital", "right_occipital", "parietal"), 1 + 1.2 * closed)
    courses = {}
    for source, rhythms in RHYTHMS_UV.items():
        courses[source] = np.zeros_like(time_s)
        for band, rms_uv in rhythms.items():
            centre_hz, width_hz = BANDS_HZ[band]
            if band in ("alpha", "mu"):
                centre_hz += brain.alpha_hz - BANDS_HZ["alpha"][0]
            level_uv = rms_uv * np.exp(level[band] + (tilt.get(source, 0.0) if band == "alpha" else 0.0))
            noise = _narrow(rng, len(time_s), p.sfreq_hz, centre_hz, width_hz)
            courses[source] += np.float32(level_uv) * gain.get(source, np.float32(1)) * noise
    return courses


def add_artefacts(
    rng: np.random.Generator, data_uv: np.ndarray, rows: list[dict], time_s: np.ndarray, sfreq_hz: float
) -> None:
    """Add blinks, muscle, drift, mains, sensor noise and bad channels to (C, T) in place."""
    n = len(time_s)
    duration_s = n / sfreq_hz
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
    if sfreq_hz > 2 * MAINS_HZ:  # at lower rates the amplifier's filter removes mains before sampling
        mains = np.stack([f(2 * np.pi * MAINS_HZ * time_s) for f in (np.sin, np.cos)])
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


def _shaped(rng: np.random.Generator, rows: int, n: int, amplitude: np.ndarray) -> np.ndarray:
    """Gaussian noise (rows, n) float32 with the given amplitude spectrum (white noise of sd 1 where it is 1)."""
    size = 2 * (len(amplitude) - 1)
    spectrum = rng.standard_normal((rows, 2 * len(amplitude)), dtype=np.float32).view(np.complex64)
    spectrum *= (amplitude * np.sqrt(size / 2)).astype(np.float32)
    return scipy.fft.irfft(spectrum, size, axis=1)[:, :n]


def _narrow(rng: np.random.Generator, n: int, sfreq_hz: float, hz: float, width_hz: float) -> np.ndarray:
    """Narrow-band noise (n,) of rms 1: it waxes and wanes by itself."""
    axis_hz = scipy.fft.rfftfreq(_fast(n), 1 / sfreq_hz)
    shape = np.exp(-0.5 * ((axis_hz - hz) / width_hz) ** 2)
    return _shaped(rng, 1, n, shape / np.sqrt(np.mean(shape**2)))[0]


def _fast(n: int) -> int:
    """An even length that transforms quickly."""
    return 2 * scipy.fft.next_fast_len(-(-n // 2), real=True)


def _bump(time_s: np.ndarray, at_s: float | np.floating, sd_s: float) -> np.ndarray:
    return np.exp(-0.5 * ((time_s - np.float32(at_s)) / np.float32(sd_s)) ** 2)


def _around(at_s: float, half_s: float, sfreq_hz: float, n: int) -> tuple[int, int]:
    return max(0, round((at_s - half_s) * sfreq_hz)), min(n, round((at_s + half_s) * sfreq_hz))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
