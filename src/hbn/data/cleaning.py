"""The signal path: dead stretches, filter and resample in one pass, bad channels, interpolation, reference.

All arrays are (C, T) float32 in microvolts, channels in the order of bids.CHANNELS.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from hbn import params
from hbn.data import bids
from hbn.data.stretches import Stretch, dead_stretches, gaps_between, live_pieces

REFERENCE = bids.CHANNELS.index("Cz")  # the last channel, of the recording: exactly zero until re-referenced
BLOCK = 16  # channels transformed at once, which bounds memory
ROUGH_HZ = 100  # enough for amplitudes and correlations of what is band-limited already
MAD_TO_SD = 1.4826  # of a normal distribution
UNITS = {1e-6: "volts", 1e-3: "millivolts", 1e3: "nanovolts"}  # by the factor to microvolts of their numbers


@dataclass(frozen=True)
class Cleaned:
    """A recording as the networks see it."""

    data_uv: np.ndarray  # float32 (C, T), zero in dead stretches
    bad_channels: dict[str, str]  # the reason by name
    dead: list[Stretch]  # in samples of data_uv: nothing was recorded there, or too little between two of them


@lru_cache
def kernels(sfreq_hz: float, highpass_hz: float, lowpass_hz: float, notch_hz: float) -> tuple[np.ndarray, ...]:
    """Zero-phase FIR filters: band-pass and, where it fits below half the rate, notch.

    Designed by MNE with the defaults of raw.filter and raw.notch_filter (windowed sinc, Hamming).
    """
    import mne

    design = {"sfreq": sfreq_hz, "method": "fir", "phase": "zero", "fir_design": "firwin", "verbose": "ERROR"}
    band = mne.filter.create_filter(None, l_freq=highpass_hz, h_freq=lowpass_hz, **design)
    half_hz = notch_hz / 400 + 0.5  # notch_widths = freq / 200 and trans_bandwidth = 1, half on each side
    if notch_hz + half_hz >= sfreq_hz / 2:
        return (band,)
    notch = mne.filter.create_filter(
        None,
        l_freq=notch_hz + half_hz,
        h_freq=notch_hz - half_hz,
        l_trans_bandwidth=0.5,
        h_trans_bandwidth=0.5,
        **design,
    )
    return band, notch


def filter_and_resample(
    data_uv: np.ndarray,
    sfreq_hz: float,
    new_sfreq_hz: float,
    highpass_hz: float,
    lowpass_hz: float,
    notch_hz: float,
    start: int = 0,
) -> np.ndarray:
    """Band-pass, notch and resample (C, T) -> (C, T') in one pass.

    The spectrum of each channel is multiplied by the product of the filters' responses and cut (or
    extended) to the new rate's, so that there is one transform there and one back. Equals
    raw.filter, raw.notch_filter and raw.resample away from the edges.

    Both rates are whole numbers. Where `data_uv` begins with sample `start` of a recording, the result begins with the
    recording's first new sample at or after it (see new_span).
    """
    filters = kernels(sfreq_hz, highpass_hz, lowpass_hz, notch_hz)
    n = data_uv.shape[1]
    reach = sum(len(kernel) // 2 for kernel in filters)
    pad = min(reach, n - 1)  # beyond the reflected samples of a short recording: zeros
    # A padded length at which both rates have whole samples.
    unit = round(sfreq_hz / np.gcd(round(sfreq_hz), round(new_sfreq_hz)))
    size = unit * scipy.fft.next_fast_len(-(-(n + 2 * reach) // unit), real=True)
    new_size = round(size * new_sfreq_hz / sfreq_hz)
    new_start, new_stop = new_span(start, start + n, sfreq_hz, new_sfreq_hz)

    response = np.ones(size // 2 + 1)
    for kernel in filters:
        centred = np.zeros(size)
        centred[: len(kernel)] = kernel
        # Symmetric around sample 0: a real response, no delay.
        response *= scipy.fft.rfft(np.roll(centred, -(len(kernel) // 2))).real
    n_bins = min(size, new_size) // 2 + 1
    if new_size != size:
        response[n_bins - 1] *= 2 if new_size < size else 0.5  # half the lower rate stands for both signs
    response = (response[:n_bins] * (new_size / size)).astype(np.float32)
    # From the beginning of the padding to the first new sample: whole new samples, and a rest.
    lead_s = new_start / new_sfreq_hz - (start - pad) / sfreq_hz
    first = round(lead_s * new_sfreq_hz)
    rest_s = lead_s - first / new_sfreq_hz
    if abs(rest_s) > 1e-9:
        hz = scipy.fft.rfftfreq(size, 1 / sfreq_hz)[:n_bins]
        response = response * np.exp(2j * np.pi * hz * rest_s).astype(np.complex64)

    result = np.empty((len(data_uv), new_stop - new_start), dtype=np.float32)
    for begin in range(0, len(data_uv), BLOCK):
        block = data_uv[begin : begin + BLOCK]
        block = block - block.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        # Odd reflection around the end samples, as MNE's 'reflect_limited'.
        left = 2 * block[:, :1] - block[:, pad:0:-1]
        right = 2 * block[:, -1:] - block[:, -2 : -pad - 2 : -1]
        spectrum = scipy.fft.rfft(np.concatenate([left, block, right], axis=1), size, axis=1)
        filtered = scipy.fft.irfft(spectrum[:, :n_bins] * response, new_size, axis=1)
        result[begin : begin + BLOCK] = filtered[:, first : first + new_stop - new_start]
    return result


def new_span(start: int, stop: int, sfreq_hz: float, new_sfreq_hz: float) -> Stretch:
    """The new samples that lie in the time of the samples from `start` up to `stop`, before the next one."""
    return (-round(-start * new_sfreq_hz // sfreq_hz), round(stop * new_sfreq_hz / sfreq_hz))


def clean(data_uv: np.ndarray, sfreq_hz: float, new_sfreq_hz: float, p: params.Preprocess) -> Cleaned:
    """The whole signal path: filtered, resampled, bad channels interpolated, average reference.

    The pieces between dead stretches are filtered each on its own, so that nothing of a stretch's edge gets into them.
    Raises UnusableRecording 'sampling_rate', 'too_short', 'dead', 'units' or 'bad_channels'.
    """
    n_samples = data_uv.shape[1]
    if sfreq_hz % 1 or sfreq_hz <= 2 * p.lowpass_hz:
        detail = f"{sfreq_hz:.9g} Hz, needs a whole number above {2 * p.lowpass_hz:g} Hz (twice lowpass_hz)"
        raise bids.UnusableRecording("sampling_rate", detail)
    if n_samples < p.min_duration_s * sfreq_hz:
        detail = f"{n_samples / sfreq_hz:.1f} s, the limit is {p.min_duration_s:g} s"
        raise bids.UnusableRecording("too_short", detail)
    dead = dead_stretches(data_uv[:REFERENCE], round(p.min_dead_s * sfreq_hz), p.max_bad_channel_fraction)
    pieces = live_pieces(n_samples, dead, round(p.min_duration_s * sfreq_hz))
    if not pieces:
        dead_s = sum(stop - start for start, stop in dead) / sfreq_hz
        detail = f"the channels hold one value for {dead_s:.1f} of {n_samples / sfreq_hz:.1f} s"
        raise bids.UnusableRecording(
            "dead", f"{detail}, and no piece of {p.min_duration_s:g} s (min_duration_s) is left"
        )
    spans = [new_span(*piece, sfreq_hz, new_sfreq_hz) for piece in pieces]
    parts = [
        filter_and_resample(
            data_uv[:, start:stop], sfreq_hz, new_sfreq_hz, p.highpass_hz, p.lowpass_hz, p.notch_hz, start
        )
        for start, stop in pieces
    ]
    live_uv = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    check_level(live_uv, new_sfreq_hz, p.min_level_uv, p.max_level_uv)
    bads = bad_channels(live_uv, new_sfreq_hz, p.flat_uv, p.noisy_z, p.min_neighbour_correlation)
    if len(bads) > p.max_bad_channel_fraction * len(bids.CHANNELS):
        kinds = dict(Counter(bads.values()))
        raise bids.UnusableRecording("bad_channels", f"{len(bads)} of {len(bids.CHANNELS)} channels are bad ({kinds})")
    live_uv = average_reference(interpolate(live_uv, tuple(bads)))
    new_n = new_span(0, n_samples, sfreq_hz, new_sfreq_hz)[1]
    return Cleaned(_placed(live_uv, spans, new_n), bads, gaps_between(new_n, spans))


def _placed(live_uv: np.ndarray, spans: list[Stretch], n_samples: int) -> np.ndarray:
    """All samples (C, T) of a recording from those of its spans, which stand one after the other; zero elsewhere."""
    if live_uv.shape[1] == n_samples:
        return live_uv
    data_uv, at = np.zeros((len(live_uv), n_samples), dtype=live_uv.dtype), 0
    for start, stop in spans:
        data_uv[:, start:stop] = live_uv[:, at : at + stop - start]
        at += stop - start
    return data_uv


def check_level(data_uv: np.ndarray, sfreq_hz: float, min_level_uv: float, max_level_uv: float) -> None:
    """Raise UnusableRecording 'units' where the amplitude of (C, T), as filtered, is that of no scalp EEG.

    The level is the median over electrodes of the standard deviation, as the median absolute deviation shows it:
    artefacts and bad channels change it little.
    """
    rough = data_uv[:REFERENCE, :: max(1, round(sfreq_hz / ROUGH_HZ))]
    deviation = np.abs(rough - np.median(rough, axis=1, keepdims=True))
    level_uv = float(np.median(MAD_TO_SD * np.median(deviation, axis=1)))
    if min_level_uv <= level_uv <= max_level_uv:
        return
    guess = [name for factor, name in UNITS.items() if min_level_uv <= level_uv / factor <= max_level_uv]
    why = f"are these {' or '.join(guess)} instead of microvolts?" if guess else "which unit does the file have?"
    raise bids.UnusableRecording(
        "units",
        f"the median channel has an amplitude of {level_uv:.3g} uV, scalp EEG has {min_level_uv:g} to {max_level_uv:g} "
        f"uV (min_level_uv, max_level_uv): {why}",
    )


def bad_channels(
    data_uv: np.ndarray, sfreq_hz: float, flat_uv: float, noisy_z: float, min_neighbour_correlation: float
) -> dict[str, str]:
    """Names of bad channels with the reason: 'flat', 'noisy' or 'uncorrelated'.

    Amplitude and high-frequency content (first difference) are compared with the other channels
    by robust z-scores of their logarithms, each channel with its four nearest neighbours by
    correlation. Ideas of the PREP pipeline (Bigdely-Shamlo et al. 2015). Cz, the reference, is
    never bad. The data are band-limited already, so about 100 samples per second suffice.
    """
    sd = data_uv.std(axis=1)
    rough = np.diff(data_uv, axis=1).std(axis=1)
    # Near the reference channels are small by nature: amplitudes are compared after its removal. The
    # median over channels: one huge artefact would reach all of them through the mean and hide others.
    common = data_uv[:, :: max(1, round(sfreq_hz / ROUGH_HZ))]
    common = common - np.median(common, axis=0, keepdims=True)
    z = np.maximum(_robust_z(common.std(axis=1)), _robust_z(rough))
    common = (common - common.mean(axis=1, keepdims=True)) / (common.std(axis=1, keepdims=True) + 1e-6)
    correlation = np.abs(common @ common.T) / common.shape[1]
    best = np.take_along_axis(correlation, _neighbours(), axis=1).max(axis=1)
    found = {}
    for i, name in enumerate(bids.CHANNELS):
        if i == REFERENCE:
            continue
        if sd[i] < flat_uv:
            found[name] = "flat"
        elif z[i] > noisy_z:
            found[name] = "noisy"
        elif best[i] < min_neighbour_correlation:
            found[name] = "uncorrelated"
    return found


def interpolate(data_uv: np.ndarray, bads: tuple[str, ...]) -> np.ndarray:
    """Replace bad channels by spherical splines of the good ones; returns (C, T)."""
    if not bads:
        return data_uv
    rows = [bids.CHANNELS.index(name) for name in bads]
    result = data_uv.copy()
    result[rows] = interpolation_weights(bads) @ data_uv
    return result


@lru_cache(maxsize=256)
def interpolation_weights(bads: tuple[str, ...]) -> np.ndarray:
    """Weights (bads, C) of MNE's spherical splines, read off by interpolating unit vectors."""
    import mne

    info = mne.create_info(list(bids.CHANNELS), 100.0, "eeg")
    units = mne.io.RawArray(np.eye(len(bids.CHANNELS)), info, verbose="ERROR")
    units.set_montage(bids.MONTAGE)
    units.info["bads"] = list(bads)
    units.interpolate_bads(reset_bads=True, verbose="ERROR")
    return units.get_data(picks=list(bads)).astype(np.float32)


def average_reference(data_uv: np.ndarray) -> np.ndarray:
    """Subtract the mean over all channels, the flat Cz included.

    Cz, against which everything was recorded, is a real electrode at zero: counting it makes the
    average right, and it becomes a signal like the others (minus the mean).
    """
    return data_uv - data_uv.mean(axis=0, keepdims=True)


def power_db(data_uv: np.ndarray, sfreq_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (F,) in 1 Hz steps and the median over channels of Welch's power in dB (uV^2/Hz)."""
    import scipy.signal

    blocks = [
        scipy.signal.welch(data_uv[begin : begin + BLOCK], sfreq_hz, nperseg=round(sfreq_hz), axis=1)
        for begin in range(0, len(data_uv), BLOCK)
    ]
    power = np.concatenate([power for _, power in blocks])  # (C, F)
    return blocks[0][0], 10 * np.log10(np.median(power, axis=0) + 1e-12)


def _robust_z(values: np.ndarray) -> np.ndarray:
    """Deviation of the logarithm from the median, in median absolute deviations scaled to a sd."""
    logs = np.log(values + 1e-3)
    deviation = logs - np.median(logs)
    return deviation / (MAD_TO_SD * np.median(np.abs(deviation)) + 0.05)


@lru_cache
def _neighbours() -> np.ndarray:
    """Indices (C, 4) of the nearest electrodes, the reference left out."""
    positions_m = bids.electrode_positions_m()
    distance_m = np.linalg.norm(positions_m[:, None] - positions_m[None], axis=-1)
    np.fill_diagonal(distance_m, np.inf)
    distance_m[:, REFERENCE] = np.inf
    return np.argsort(distance_m, axis=1, kind="stable")[:, :4]
