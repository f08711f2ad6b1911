"""The signal path: filter and resample in one pass, bad channels, interpolation, reference.

All arrays are (C, T) float32 in microvolts, channels in the order of bids.CHANNELS.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.fft

from hbn import params
from hbn.data import bids

REFERENCE = bids.CHANNELS.index("Cz")  # of the recording; its channel is exactly zero before re-referencing
OTHER_UNITS = {"volts": 1e6, "millivolts": 1e3, "nanovolts": 1e-3}  # in microvolts; units that files confuse
NO_TIME_S = 1e-9  # a smaller time shift is only a rounding error
Stretch = tuple[int, int]  # first sample, first sample after the stretch
BLOCK = 16  # channels transformed together; bounds memory
DEAD_STEP = 1e-3  # share of a channel's usual step between samples; smaller steps are no signal
DEAD_SHARE = 0.9  # share of the channels without a signal from which a sample is dead


@lru_cache
def kernels(sfreq_hz: float, highpass_hz: float, lowpass_hz: float, notch_hz: float) -> tuple[np.ndarray, ...]:
    """Zero-phase FIR filters: band-pass and, where it fits below half the rate, notch.

    Designed by MNE with the defaults of raw.filter and raw.notch_filter (windowed sinc, Hamming).
    """
    import mne

    design = {"sfreq": sfreq_hz, "method": "fir", "phase": "zero", "fir_design": "firwin", "verbose": "ERROR"}
    band = mne.filter.create_filter(None, l_freq=highpass_hz, h_freq=lowpass_hz, **design)
    half_hz = notch_hz / 400 + 0.5  # half of notch_widths (freq / 200) plus half of trans_bandwidth (1 Hz)
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

    The spectrum of each channel is multiplied by the product of the filters' responses, then cut or
    extended to the new rate. This takes one forward and one inverse transform. Away from the edges, the result
    equals raw.filter, raw.notch_filter and raw.resample of MNE.

    `start` is the sample of the recording at which `data_uv` begins. The result begins with the recording's first new
    sample at or after it (see new_span).
    """
    filters = kernels(sfreq_hz, highpass_hz, lowpass_hz, notch_hz)
    n = data_uv.shape[1]
    reach = sum(len(kernel) // 2 for kernel in filters)
    pad = min(reach, n - 1)  # reflected samples; where a short recording has too few, zeros follow
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
        # The bin at half the lower rate stands for both signs of the frequency.
        response[n_bins - 1] *= 2 if new_size < size else 0.5
    response = (response[:n_bins] * (new_size / size)).astype(np.float32)
    # The time from the beginning of the padding to the first new sample, in whole new samples and a rest.
    lead_s = new_start / new_sfreq_hz - (start - pad) / sfreq_hz
    first = round(lead_s * new_sfreq_hz)
    rest_s = lead_s - first / new_sfreq_hz
    if abs(rest_s) > NO_TIME_S:
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
    """The stretch of new samples that covers the same time as the old samples from `start` up to `stop`."""
    return -round(-start * new_sfreq_hz // sfreq_hz), round(stop * new_sfreq_hz / sfreq_hz)


def clean(
    data_uv: np.ndarray, sfreq_hz: float, new_sfreq_hz: float, p: params.Preprocess, gaps: Sequence[Stretch] = ()
) -> tuple[np.ndarray, dict[str, str], list[Stretch]]:
    """The whole signal path: filtered, resampled, bad channels interpolated, average reference.

    Returns the signal (C, T), which is zero in dead stretches; the bad channels with their reasons; and the dead
    stretches in samples at the new rate. `gaps` of the recording are dead stretches, too. The pieces between dead
    stretches are filtered separately, so that filters do not spread dead samples into a piece. Raises
    UnusableRecording 'sampling_rate', 'too_short', 'no_signal', 'units' or 'bad_channels'.
    """
    n = data_uv.shape[1]
    if sfreq_hz % 1 or sfreq_hz <= 2 * p.lowpass_hz:
        detail = f"{sfreq_hz:.9g} Hz, needs a whole number above {2 * p.lowpass_hz:g} Hz (twice lowpass_hz)"
        raise bids.UnusableRecording("sampling_rate", detail)
    if n < p.min_duration_s * sfreq_hz:
        raise bids.UnusableRecording("too_short", f"{n / sfreq_hz:.1f} s, the limit is {p.min_duration_s:g} s")
    dead = sorted([*dead_stretches(data_uv, round(p.min_dead_s * sfreq_hz)), *gaps])
    pieces = [(a, b) for a, b in outside(n, dead) if b - a >= p.min_duration_s * sfreq_hz]
    if not pieces:
        live_s = sum(b - a for a, b in outside(n, dead)) / sfreq_hz
        detail = f"only {live_s:.1f} of {n / sfreq_hz:.1f} s hold a signal, none of {p.min_duration_s:g} s in one piece"
        raise bids.UnusableRecording("no_signal", detail)
    band = p.highpass_hz, p.lowpass_hz, p.notch_hz
    live = [filter_and_resample(data_uv[:, a:b], sfreq_hz, new_sfreq_hz, *band, start=a) for a, b in pieces]
    live_uv = np.concatenate(live, axis=1) if len(live) > 1 else live[0]
    check_level(live_uv, p.min_level_uv, p.max_level_uv)
    bads = bad_channels(live_uv, new_sfreq_hz, p.flat_uv, p.noisy_z, p.min_neighbour_correlation)
    if len(bads) > p.max_bad_channel_fraction * len(bids.CHANNELS):
        kinds = dict(Counter(bads.values()))
        raise bids.UnusableRecording("bad_channels", f"{len(bads)} of {len(bids.CHANNELS)} channels are bad ({kinds})")
    spans = [new_span(a, b, sfreq_hz, new_sfreq_hz) for a, b in pieces]
    new_n = new_span(0, n, sfreq_hz, new_sfreq_hz)[1]
    return placed(average_reference(interpolate(live_uv, tuple(bads))), spans, new_n), bads, outside(new_n, spans)


def outside(n_samples: int, stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretches of `n_samples` that lie between `stretches`, which are sorted."""
    remaining, begin = [], 0
    for start, stop in [*stretches, (n_samples, n_samples)]:
        if start > begin:
            remaining.append((begin, start))
        begin = max(begin, stop)
    return remaining


def placed(live_uv: np.ndarray, spans: list[Stretch], n_samples: int) -> np.ndarray:
    """(C, T) with the samples of `live_uv`, the concatenated `spans`, at their places, and zeros elsewhere."""
    if live_uv.shape[1] == n_samples:
        return live_uv
    data_uv, at = np.zeros((len(live_uv), n_samples), dtype=live_uv.dtype), 0
    for start, stop in spans:
        data_uv[:, start:stop] = live_uv[:, at : at + stop - start]
        at += stop - start
    return data_uv


def dead_stretches(data_uv: np.ndarray, min_samples: int) -> list[Stretch]:
    """Stretches of raw (C, T) in which nearly all channels are without a signal for at least `min_samples`.

    A switched-off amplifier or a paused recording leaves a constant value. A channel is without a signal where its
    steps are below a thousandth of its usual step. Channels that never change (Cz) do not count.
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


def check_level(data_uv: np.ndarray, min_level_uv: float, max_level_uv: float) -> None:
    """UnusableRecording 'units' where the median channel of filtered (C, T) is too small or too large for scalp EEG.

    The level of a channel is the median of its absolute values, scaled to a standard deviation, so that artefacts do
    not affect it.
    """
    levels_uv = 1.4826 * np.median(np.abs(data_uv[:REFERENCE]), axis=1)
    level_uv = float(np.median(levels_uv))
    if not min_level_uv <= level_uv <= max_level_uv:
        guess = [f"{unit} " for unit, uv in OTHER_UNITS.items() if min_level_uv <= level_uv * uv <= max_level_uv]
        raise bids.UnusableRecording(
            "units",
            f"the median channel has {level_uv:.3g} uV, scalp EEG has {min_level_uv:g} to {max_level_uv:g}: "
            f"the samples are probably {'or '.join(guess) or 'not in the unit that the file says '}(.set: microvolts)",
        )


def bad_channels(
    data_uv: np.ndarray, sfreq_hz: float, flat_uv: float, noisy_z: float, min_neighbour_correlation: float
) -> dict[str, str]:
    """Names of bad channels with the reason: 'flat', 'noisy' or 'uncorrelated'.

    Amplitude and high-frequency content (first difference) are compared with the other channels
    by robust z-scores of their logarithms, each channel with its four nearest neighbours by
    correlation. Ideas of the PREP pipeline (Bigdely-Shamlo et al. 2015). Cz, the reference, may be
    flat and unlike its neighbours, but not noisy. The data are band-limited already, so about 100
    samples per second suffice.
    """
    sd = data_uv.std(axis=1)
    rough = np.diff(data_uv, axis=1).std(axis=1)
    # Channels near the reference are small by nature, so amplitudes are compared after re-referencing. To the median
    # over channels: through the mean, one huge artefact would reach all channels and hide other bad ones.
    common = data_uv[:, :: max(1, round(sfreq_hz / 100))]
    common = common - np.median(common, axis=0, keepdims=True)
    z = np.maximum(_robust_z(common.std(axis=1)), _robust_z(rough))
    common = (common - common.mean(axis=1, keepdims=True)) / (common.std(axis=1, keepdims=True) + 1e-6)
    correlation = np.abs(common @ common.T) / common.shape[1]
    best = np.take_along_axis(correlation, _neighbours(), axis=1).max(axis=1)
    bads = {}
    for i, name in enumerate(bids.CHANNELS):
        if sd[i] < flat_uv and i != REFERENCE:
            bads[name] = "flat"
        elif z[i] > noisy_z:
            bads[name] = "noisy"
        elif best[i] < min_neighbour_correlation and i != REFERENCE:
            bads[name] = "uncorrelated"
    return bads


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
    return np.asarray(units.get_data(picks=np.array(bads)), dtype=np.float32)


def average_reference(data_uv: np.ndarray) -> np.ndarray:
    """Subtract the mean over all channels, the flat Cz included.

    Cz, the recording reference, is a real electrode whose channel is zero. The average over all electrodes
    includes it, and afterwards Cz holds a signal like the other channels (minus the mean).
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
