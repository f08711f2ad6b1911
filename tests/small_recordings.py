"""Small recordings and releases of the kind that the stage preprocess meets."""

from types import SimpleNamespace

import h5py
import numpy as np
from clone import REPOSITORY
from edfio import Bdf, BdfSignal, EdfAnnotation
from scipy.io import savemat

import preprocess
from hbn import params
from hbn.data import bids, cleaning
from hbn.data.manifest import write_label
from hbn.files import md5, sha256, write_tsv
from hbn.sources.simulated import write_set

SFREQ_HZ = 250


def parameters(workers: int = 1, **changes) -> SimpleNamespace:
    whole = params.load(REPOSITORY / "params.yaml")
    return SimpleNamespace(
        data=SimpleNamespace(url="simulated://{release}", endpoint_url=""),
        preprocess=whole.preprocess.model_copy(update={"sfreq_hz": 100, **changes}),
        exec=whole.exec.model_copy(update={"workers": workers}),
    )


def recording_uv(seed: int, duration_s: float = 6.0, sfreq_hz: float = SFREQ_HZ) -> np.ndarray:
    """Smooth 1/f sources on the net with offsets, mains and a dead channel, against Cz."""
    rng = np.random.default_rng(seed)
    positions_m = bids.electrode_positions_m()
    n = round(duration_s * sfreq_hz)
    sources = np.cumsum(rng.normal(size=(30, n)), axis=1) + 5 * rng.normal(size=(30, n))
    distance_m = np.linalg.norm(positions_m[:, None] - positions_m[rng.permutation(128)[:30]], axis=-1)
    data_uv = np.exp(-((distance_m / 0.04) ** 2)) @ sources + rng.normal(size=(129, n))
    data_uv += 3 * np.sin(2 * np.pi * 60 * np.arange(n) / sfreq_hz) * rng.uniform(0.5, 2, (129, 1))
    data_uv += rng.uniform(-20000, 20000, size=(129, 1))
    data_uv -= data_uv[128]
    data_uv[6] = 0
    return data_uv.astype(np.float32)


def add(participant: str, data_uv: np.ndarray, task: str = "RestingState", sfreq_hz: float = SFREQ_HZ):
    path = preprocess.Path(f"data/raw/R1/{participant}/eeg/{participant}_task-{task}_eeg.set")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_set(path, data_uv, sfreq_hz)
    return path


def build(p: SimpleNamespace) -> dict[str, str]:
    """Write the manifest of what is there, run the stage and return the checksums of all it wrote."""
    root = preprocess.Path("data/raw/R1")
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*_eeg.*"))]
    write_tsv(root / "manifest.tsv", [{"path": one, "md5": md5(root / one)} for one in paths], ["path", "md5"])
    write_label(root, "simulated")
    preprocess.main(p, "R1")
    outputs = [path for top in ("data/preprocessed", "metrics", "plots") for path in preprocess.Path(top).rglob("*.*")]
    return {path.as_posix(): sha256(path) for path in outputs}


def scalp_uv() -> np.ndarray:
    """Forty smooth sources on the net with a flat, a noisy and an uncorrelated channel."""
    rng = np.random.default_rng(2)
    positions_m = bids.electrode_positions_m()
    sources_m = rng.normal(size=(40, 3))
    sources_m = 0.07 * sources_m / np.linalg.norm(sources_m, axis=1, keepdims=True)
    distance_m = np.linalg.norm(positions_m[:, None] - sources_m[None], axis=-1)
    data_uv = np.exp(-((distance_m / 0.05) ** 2)) @ rng.normal(size=(40, 5000)) * 10 + rng.normal(size=(129, 5000))
    data_uv -= data_uv[cleaning.REFERENCE]
    data_uv[9] = 0.0
    data_uv[20] += 300 * rng.normal(size=5000)
    data_uv[70] = data_uv[60].std() * rng.normal(size=5000)
    return data_uv.astype(np.float32)


def write_set_of(path, data_uv, names=bids.CHANNELS, event=(), sfreq_hz=500.0, shape=None):
    """A .set whose samples are (C, T), or of that shape and in the .fdt that `data_uv` names."""
    n_channels, n_samples = shape or data_uv.shape
    labels = np.array([(name,) for name in names], dtype=[("labels", object)])
    facts = {"nbchan": n_channels, "pnts": n_samples, "trials": 1, "srate": float(sfreq_hz)}
    facts |= {"xmin": 0.0, "xmax": (n_samples - 1) / sfreq_hz}
    empty = {key: [] for key in ("icawinv", "icasphere", "icaweights", "epoch")}
    savemat(path, {"EEG": {**facts, **empty, "data": data_uv, "chanlocs": labels, "event": event}}, appendmat=False)
    return path


def write_set_7_3(path, data_uv, sfreq_hz=500.0):
    """A .set of MATLAB 7.3, which is HDF5."""
    n = data_uv.shape[1]
    facts = {"nbchan": len(data_uv), "pnts": n, "trials": 1, "srate": sfreq_hz, "xmin": 0, "xmax": (n - 1) / sfreq_hz}
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("EEG")
        group["data"] = data_uv.T
        for key, value in facts.items():
            group[key] = np.array([[float(value)]])
        for i, name in enumerate(bids.CHANNELS):
            file[f"#refs#/{i}"] = np.array([[ord(c)] for c in name], dtype=np.uint16)
            file[f"#refs#/{i}"].attrs["MATLAB_class"] = np.bytes_("char")
        references = [[file[f"#refs#/{i}"].ref] for i in range(len(data_uv))]
        group.create_dataset("chanlocs/labels", data=np.array(references, dtype=h5py.ref_dtype))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def write_bdf_of(path, data_uv, names=bids.CHANNELS, sfreq_hz=500, annotations=None):
    limits = {"physical_dimension": "uV", "physical_range": (-20000, 20000)}
    rows = [BdfSignal(row, sfreq_hz, label=n, **limits) for n, row in zip(names, data_uv.astype(float), strict=True)]
    Bdf(rows, data_record_duration=1, annotations=annotations).write(path)
    return path


def write_paused_bdf(path, data_uv, begins_s, sfreq_hz=500):
    """A BDF+D of records of 1 s that begin at `begins_s`, each in at most 30 bytes."""
    write_bdf_of(path, data_uv, sfreq_hz=sfreq_hz, annotations=[EdfAnnotation(0.0, None, "x" * 30)])
    content = bytearray(path.read_bytes())
    n_signals = len(data_uv) + 1
    labels = [bytes(content[256 + 16 * i : 272 + 16 * i]).strip() for i in range(n_signals)]
    at_lengths = 256 + n_signals * (16 + 80 + 8 * 5 + 80)
    n_bytes = [3 * int(content[at_lengths + 8 * i : at_lengths + 8 * i + 8]) for i in range(n_signals)]
    i = labels.index(b"BDF Annotations")
    for k, begin_s in enumerate(begins_s):
        at = 256 * (n_signals + 1) + k * sum(n_bytes) + sum(n_bytes[:i])
        text = begin_s if isinstance(begin_s, bytes) else b"+%g" % begin_s
        content[at : at + n_bytes[i]] = (text + b"\x14\x14\0").ljust(n_bytes[i], b"\0")
    content[192:197] = b"BDF+D"
    path.write_bytes(content)
    return path
