"""The signal path: filter and resample in one pass, bad channels, interpolation, reference.

All arrays are (C, T) float32 in microvolts, channels in the order of bids.CHANNELS.
"""

from collections import Counter
from functools import lru_cache

import numpy as np
import scipy.fft

from hbn import params
from hbn.data import bids

REFERENCE = bids.CHANNELS.index("Cz")  # of the recording: exactly zero until re-referenced
BLOCK = 16  # channels transformed at once, which bounds memory
DEAD_STEP = 1e-3  # of a channel's usual step from sample to sample: what is below is no signal
DEAD_SHARE = 0.9  # of the channels, which hold nothing at once


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
    data_uv: np.ndarray, sfreq_hz: float, new_sfreq_hz: float, highpass_hz: float, lowpass_hz: float, notch_hz: float
) -> np.ndarray:
    """Band-pass, notch and resample (C, T) -> (C, T') in one pass.

    The spectrum of each channel is multiplied by the product of the filters' responses and cut (or
    extended) to the new rate's, so that there is one transform there and one back. Equals
    raw.filter, raw.notch_filter and raw.resample away from the edges.
    """
    filters = kernels(sfreq_hz, highpass_hz, lowpass_hz, notch_hz)
    n = data_uv.shape[1]
    reach = sum(len(kernel) // 2 for kernel in filters)
    pad = min(reach, n - 1)  # beyond the reflected samples of a short recording: zeros
    # A padded length at which both rates have whole samples.
    unit = round(sfreq_hz / np.gcd(round(sfreq_hz), round(new_sfreq_hz)))
    size = unit * scipy.fft.next_fast_len(-(-(n + 2 * reach) // unit), real=True)
    new_size = round(size * new_sfreq_hz / sfreq_hz)
    new_n = round(n * new_sfreq_hz / sfreq_hz)

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
    first = round(pad * new_sfreq_hz / sfreq_hz)
    shift = first / new_sfreq_hz - pad / sfreq_hz
    if shift:  # the padding is no whole number of new samples: the signal is delayed by the rest
        hz = scipy.fft.rfftfreq(size, 1 / sfreq_hz)[:n_bins]
        response = response * np.exp(-2j * np.pi * hz * shift).astype(np.complex64)

    result = np.empty((len(data_uv), new_n), dtype=np.float32)
    for begin in range(0, len(data_uv), BLOCK):
        block = data_uv[begin : begin + BLOCK]
        block = block - block.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        # Odd reflection around the end samples, as MNE's 'reflect_limited'.
        left = 2 * block[:, :1] - block[:, pad:0:-1]
        right = 2 * block[:, -1:] - block[:, -2 : -pad - 2 : -1]
        spectrum = scipy.fft.rfft(np.concatenate([left, block, right], axis=1), size, axis=1)
        filtered = scipy.fft.irfft(spectrum[:, :n_bins] * response, new_size, axis=1)
        result[begin : begin + BLOCK] = filtered[:, first : first + new_n]
    return result


def clean(
    data_uv: np.ndarray, sfreq_hz: float, new_sfreq_hz: float, p: params.Preprocess
) -> tuple[np.ndarray, dict[str, str], list[tuple[int, int]]]:
    """The whole signal path: filtered, resampled, bad channels interpolated, average reference.

    Returns (C, T), the bad channels with their reasons and the dead stretches: first sample without a signal and
    first one after it, at the new rate. Raises UnusableRecording 'sampling_rate', 'too_short', 'no_signal', 'units'
    or 'bad_channels'.
    """
    if sfreq_hz % 1 or sfreq_hz <= 2 * p.lowpass_hz:
        detail = f"{sfreq_hz:g} Hz, needs a whole number above {2 * p.lowpass_hz:g} Hz (twice lowpass_hz)"
        raise bids.UnusableRecording("sampling_rate", detail)
    if data_uv.shape[1] < p.min_duration_s * sfreq_hz:
        seconds = data_uv.shape[1] / sfreq_hz
        raise bids.UnusableRecording("too_short", f"{seconds:.1f} s, the limit is {p.min_duration_s:g} s")
    dead = dead_stretches(data_uv, round(p.min_dead_s * sfreq_hz))
    live_s = (data_uv.shape[1] - sum(end - begin for begin, end in dead)) / sfreq_hz
    if live_s < p.min_duration_s:
        raise bids.UnusableRecording("no_signal", f"only {live_s:.1f} s hold a signal, the rest is constant")
    data_uv = bridge(data_uv, dead)
    data_uv = filter_and_resample(data_uv, sfreq_hz, new_sfreq_hz, p.highpass_hz, p.lowpass_hz, p.notch_hz)
    ratio, n = new_sfreq_hz / sfreq_hz, data_uv.shape[1]
    dead = [(max(0, int(begin * ratio) - 1), min(n, int(np.ceil(end * ratio)) + 1)) for begin, end in dead]
    live_uv = data_uv[:, live_samples(n, dead)] if dead else data_uv
    check_level(live_uv, p.min_level_uv, p.max_level_uv)
    bads = bad_channels(live_uv, new_sfreq_hz, p.flat_uv, p.noisy_z, p.min_neighbour_correlation)
    if len(bads) > p.max_bad_channel_fraction * len(bids.CHANNELS):
        kinds = dict(Counter(bads.values()))
        raise bids.UnusableRecording("bad_channels", f"{len(bads)} of {len(bids.CHANNELS)} channels are bad ({kinds})")
    return average_reference(interpolate(data_uv, tuple(bads))), bads, dead


def dead_stretches(data_uv: np.ndarray, min_samples: int) -> list[tuple[int, int]]:
    """Stretches of raw (C, T) in which nearly all channels hold nothing for at least `min_samples`.

    A switched-off amplifier or a paused recording leaves zero or one value. Each is its first sample and the first
    one after it. A channel holds nothing where its steps are below a thousandth of its usual ones; channels that
    never change (Cz) have no say.
    """
    n = data_uv.shape[1]
    still, n_channels = np.zeros(n - 1, dtype=np.int16), 0
    for row in data_uv:
        step = np.abs(np.diff(row))
        usual = np.median(moving) if len(moving := step[step > 0]) else 0.0
        if usual > 0:
            still += step <= DEAD_STEP * usual
            n_channels += 1
    if not n_channels:
        return [(0, n)]
    quiet = np.concatenate([[False], still >= DEAD_SHARE * n_channels, [False]])
    edges = np.flatnonzero(np.diff(quiet))
    return [(int(a), int(b) + 1) for a, b in edges.reshape(-1, 2) if b + 1 - a >= min_samples]


def bridge(data_uv: np.ndarray, dead: list[tuple[int, int]]) -> np.ndarray:
    """(C, T) with a straight line across each dead stretch: a step at its edges would ring through the filter."""
    if not dead:
        return data_uv
    data_uv, n = data_uv.copy(), data_uv.shape[1]
    for begin, end in dead:
        before = data_uv[:, begin - 1] if begin else data_uv[:, min(end, n - 1)]
        after = data_uv[:, end] if end < n else before
        weight = np.linspace(0, 1, end - begin + 2, dtype=np.float32)[1:-1]
        data_uv[:, begin:end] = before[:, None] * (1 - weight) + after[:, None] * weight
    return data_uv


def live_samples(n_samples: int, dead: list[tuple[int, int]]) -> np.ndarray:
    """Which samples (T,) are in no dead stretch."""
    live = np.ones(n_samples, dtype=bool)
    for begin, end in dead:
        live[begin:end] = False
    return live


def check_level(data_uv: np.ndarray, min_level_uv: float, max_level_uv: float) -> None:
    """UnusableRecording 'units' where the median channel of filtered (C, T) is too small or too large for scalp EEG.

    The level of a channel is the median of its absolute values, as a standard deviation: artefacts do not count.
    """
    levels_uv = 1.4826 * np.median(np.abs(data_uv[:REFERENCE]), axis=1)
    level_uv = float(np.median(levels_uv))
    if not min_level_uv <= level_uv <= max_level_uv:
        raise bids.UnusableRecording(
            "units",
            f"the median channel has {level_uv:.3g} uV, scalp EEG has {min_level_uv:g} to {max_level_uv:g}: "
            "the samples are probably not in the unit that the file says (.set: microvolts)",
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
    common = data_uv[:, :: max(1, round(sfreq_hz / 100))]
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
    return deviation / (1.4826 * np.median(np.abs(deviation)) + 0.05)


@lru_cache
def _neighbours() -> np.ndarray:
    """Indices (C, 4) of the nearest electrodes, the reference left out."""
    positions_m = bids.electrode_positions_m()
    distance_m = np.linalg.norm(positions_m[:, None] - positions_m[None], axis=-1)
    np.fill_diagonal(distance_m, np.inf)
    distance_m[:, REFERENCE] = np.inf
    return np.argsort(distance_m, axis=1, kind="stable")[:, :4]
