"""Filtering and resampling: hbn.signal.filter_and_resample against MNE's own chain.

    python benchmarks/preprocess.py [--seconds 300] [--repeats 5]

The chain is raw.filter, raw.notch_filter and (to another rate) raw.resample with the settings of
params.yaml and MNE's defaults. Both see the same 129-channel recordings at 500 Hz, one of 1/f and one
of white noise, and take turns; what is timed is the signal path alone, not reading the file or making
MNE's object of it. 'ratio' is the smaller one of the two new rates in one process.

MNE's automatic padding in resample is no whole number of new samples, which moves its result by a
fraction of one. Here it is padded exactly, as in tests/test_signal.py, which is also faster.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import common
import mne
import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from hbn import params
from hbn.data import bids, cleaning

SFREQ_HZ = 500
NOISE_EXPONENTS = {"1/f": 1.3, "white": 0.0}
EDGE_S = 8.0  # longer than half of both filters
TARGETS = {500: 2.0, 100: 3.0}  # times faster than MNE, by new rate


def main(duration_s: float, repeats: int, n_channels: int) -> None:
    everything = params.load(common.ROOT / "params.yaml")
    p, workers = everything.preprocess, everything.exec.workers
    band = {"highpass_hz": p.highpass_hz, "lowpass_hz": p.lowpass_hz, "notch_hz": p.notch_hz}
    rng = np.random.default_rng(0)
    rows, result = [], {}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, exponent in enumerate(NOISE_EXPONENTS.values()):
            paths.append(Path(folder) / f"{number}.npy")
            np.save(paths[-1], common.noise_uv(rng, n_channels, round(duration_s * SFREQ_HZ), exponent))
        for new_hz, target in TARGETS.items():
            error = max(relative_error(path, new_hz, band) for path in paths)
            result[f"error_{new_hz}hz"] = error
            for n_jobs in (1, workers):
                rates = compare(paths, new_hz, band, n_jobs, repeats)
                name = f"{new_hz}hz_{n_jobs}_process{'es' if n_jobs > 1 else ''}"
                result |= {f"ratio_{name}": rates["ours"] / rates["mne"]}
                result |= {f"{kind}_recordings_per_s_{name}": rate for kind, rate in rates.items()}
                rows.append(
                    {
                        **{"rates": f"{SFREQ_HZ} -> {new_hz} Hz", "processes": n_jobs},
                        **{"ours, recordings/s": rates["ours"], "MNE, recordings/s": rates["mne"]},
                        **{"ratio": rates["ours"] / rates["mne"], "target": target, "relative RMS error": error},
                    }
                )
    print(f"{duration_s:g} s, {n_channels} channels, medians of {repeats} turns; error without {EDGE_S:g} s edges")
    common.print_table(rows)
    result["ratio"] = min(result[f"ratio_{new_hz}hz_1_process"] for new_hz in TARGETS)
    common.print_result({"ratio": result.pop("ratio"), "duration_s": duration_s, **result})


def compare(paths: list[Path], new_hz: int, band: dict, n_jobs: int, repeats: int) -> dict[str, float]:
    """Median recordings/s of both, which take turns; `n_jobs` processes work on a recording each."""
    rates = {"ours": [], "mne": []}
    with Parallel(n_jobs=n_jobs) as parallel:
        for turn in range(repeats + 1):
            for kind in rates:
                times_s = parallel(delayed(timed)(kind, path, new_hz, band) for path in (paths * n_jobs)[: 2 * n_jobs])
                if turn:  # the first is a warm-up: imports, filter design, FFT plans
                    rates[kind].append(n_jobs / statistics.mean(times_s))
    return {kind: statistics.median(values) for kind, values in rates.items()}


def timed(kind: str, path: Path, new_hz: int, band: dict) -> float:
    """Seconds of the signal path for one recording."""
    data_uv = np.load(path, allow_pickle=False)
    with threadpool_limits(1):
        if kind == "ours":
            begin = time.perf_counter()
            cleaning.filter_and_resample(data_uv, SFREQ_HZ, new_hz, **band)
        else:
            raw = as_raw(data_uv)
            begin = time.perf_counter()
            mne_chain(raw, new_hz, band)
        return time.perf_counter() - begin


def as_raw(data_uv: np.ndarray) -> mne.io.RawArray:
    """MNE's float64 object; microvolts stay microvolts, for the chain is linear."""
    return mne.io.RawArray(data_uv.astype(float), mne.create_info(len(data_uv), SFREQ_HZ, "eeg"), verbose="ERROR")


def mne_chain(raw: mne.io.RawArray, new_hz: int, band: dict) -> mne.io.RawArray:
    """Filters and resamples `raw` in place."""
    raw.filter(band["highpass_hz"], band["lowpass_hz"], verbose="ERROR")
    raw.notch_filter(band["notch_hz"], verbose="ERROR")
    if new_hz != SFREQ_HZ:
        raw.resample(new_hz, npad=-raw.n_times % 5000 + 5000, verbose="ERROR")
    return raw


def relative_error(path: Path, new_hz: int, band: dict) -> float:
    """Largest relative RMS difference of a channel, away from the edges."""
    data_uv = np.load(path, allow_pickle=False)
    ours = cleaning.filter_and_resample(data_uv, SFREQ_HZ, new_hz, **band)
    theirs = np.asarray(mne_chain(as_raw(data_uv), new_hz, band).get_data())
    edge = min(round(EDGE_S * new_hz), ours.shape[1] // 3)
    inner = slice(edge, -edge)
    power = np.mean(theirs[:, inner] ** 2, axis=1)
    return float(np.sqrt(np.mean((ours - theirs)[:, inner] ** 2, axis=1) / power).max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="length of the recordings")
    parser.add_argument("--repeats", type=int, default=5, help="turns after the warm-up")
    parser.add_argument("--channels", type=int, default=len(bids.CHANNELS))
    arguments = parser.parse_args()
    main(arguments.seconds, arguments.repeats, arguments.channels)
