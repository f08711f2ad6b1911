"""Inference with ONNX Runtime, without PyTorch: sessions and the predictor of one window."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime as ort
from scipy.signal import resample_poly

from hbn.data.bids import FACTORS
from hbn.files import HbnError, existing, read_json
from hbn.scoring import distribution

INTERVAL = 0.8  # probability of the interval of response times
INPUT = "x_uv"  # (B, C, T) microvolts
FOLDER = Path("models/deploy")  # <network>/<variant>.onnx
BENCHMARK = Path("metrics/benchmark.json")


def session(path: Path | str | bytes, threads: int, **options: object) -> ort.InferenceSession:
    """Load an ONNX file (or its bytes) for the CPU; `options` are attributes of ort.SessionOptions.

    Raises what ONNX Runtime raises for an operator that this CPU or version cannot run.
    """
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    return ort.InferenceSession(path if isinstance(path, bytes) else str(path), settings, ["CPUExecutionProvider"])


def outputs(session: ort.InferenceSession, x_uv: np.ndarray) -> np.ndarray:
    """Outputs (B, K) of a network for windows (B, C, T)."""
    return np.asarray(session.run(None, {INPUT: x_uv})[0])


@dataclass(frozen=True)
class Prediction:
    """The predictions of both networks for one window."""

    rt_s: float  # response time after the target, given a response
    rt_low_s: float  # its 80 % interval
    rt_high_s: float
    p_miss: float  # no response
    p_correct: float  # the response is right, given a response
    factors: dict[str, float]


class Predictor:
    """Predictions from windows of EEG: load once, call often.

    Windows are (C, T) in microvolts, channels in the order of bids.CHANNELS, filtered and
    average-referenced as in the stage preprocess. For response times, a window starts `trial_offset_s`
    after the target of a contrast change trial.
    """

    def __init__(self, folder: Path | str = FOLDER, benchmark: Path | str = BENCHMARK, threads: int = 1):
        """Load the variants that the stage benchmark chose; HbnError if a file is missing."""
        chosen = read_json(existing(benchmark, made_by="benchmark"))["chosen"]
        self._sessions = {}
        for network, variant in chosen.items():
            if variant is None:
                raise HbnError(f"no variant of {network} was accepted; metrics/quantize.json says why")
            path = existing(Path(folder) / network / f"{variant}.onnx", made_by="quantize")
            self._sessions[network] = session(path, threads)
        trial = self._sessions["challenge1"]
        self.n_channels, self.window_samples = trial.get_inputs()[0].shape[1:]
        facts = trial.get_modelmeta().custom_metadata_map
        self.sfreq_hz, self.trial_offset_s = float(facts["sfreq_hz"]), float(facts["trial_offset_s"])

    @property
    def window_s(self) -> float:
        return self.window_samples / self.sfreq_hz

    def __call__(self, x_uv: np.ndarray, sfreq_hz: float) -> Prediction:
        """Predict from one window (C, T) of `window_s` at any sampling rate."""
        if x_uv.ndim != 2 or x_uv.shape[0] != self.n_channels or abs(x_uv.shape[1] / sfreq_hz - self.window_s) > 0.01:
            raise HbnError(
                f"a window is ({self.n_channels} channels, {self.window_s * sfreq_hz:g} samples) at {sfreq_hz:g} Hz, "
                f"this one is {x_uv.shape}"
            )
        if not np.isfinite(x_uv).all():
            raise HbnError("the window holds NaN or infinite samples")
        ratio = Fraction(self.sfreq_hz / sfreq_hz).limit_denominator(10_000)
        if ratio != 1:
            x_uv = resample_poly(x_uv, ratio.numerator, ratio.denominator, axis=1, padtype="line")
        missing = max(0, self.window_samples - x_uv.shape[1])  # a sample, if rates do not divide the window
        x_uv = np.pad(x_uv, ((0, 0), (0, missing)), mode="edge")[:, : self.window_samples]
        trial, factors = (output[0] for output in self.batch(x_uv[None]))
        return Prediction(*map(float, trial), dict(zip(FACTORS, map(float, factors), strict=True)))

    def batch(self, x_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict from windows (B, C, T) at `sfreq_hz`: (B, 5) in the order of Prediction, and factors (B, 4)."""
        x_uv = np.ascontiguousarray(x_uv, dtype=np.float32)
        trials, factors = (outputs(self._sessions[name], x_uv) for name in ("challenge1", "challenge2"))
        mass = trials[:, distribution.COLUMNS]
        if not mass.shape[1]:
            raise HbnError("models/deploy is of an earlier version of the network: run `dvc repro benchmark`")
        edges_s = distribution.bin_edges_s(self.trial_offset_s, self.window_s, mass.shape[1])
        low_s, high_s = distribution.central_interval(mass, edges_s, INTERVAL)
        return np.stack([trials[:, 0], low_s, high_s, trials[:, 1], trials[:, 2]], axis=1), factors
