"""The networks in the form that the EEG Foundation Challenge (NeurIPS 2025) runs: a zip file of one level.

The zip holds submission.py, the network module (a copy; it depends on PyTorch alone) and the weights.
Source text and weights, unlike TorchScript (whose tracing is deprecated), run under any version of PyTorch, on any
device and with any batch size, and people can read them.
"""

import zipfile
from pathlib import Path

from torch import Tensor

from hbn.data import bids
from hbn.data.bids import FACTORS
from hbn.files import atomic
from hbn.networks import architecture
from hbn.networks.architecture import SFREQ_HZ

NAMES = ("challenge1", "challenge2")
WINDOW_S, TRIAL_OFFSET_S = 2.0, 0.5  # after the target of a trial
SHAPE = len(bids.CHANNELS), round(WINDOW_S * SFREQ_HZ)  # of a window at the networks' own 100 Hz
BATCH = 128  # windows at once
SHARES = {"challenge1": 0.3, "challenge2": 0.7}  # weights of the two NRMSE in the overall score
OUTPUTS = {"challenge1": 0, "challenge2": FACTORS.index("externalizing")}  # column: response time in s; externalizing


def as_recorded(x_uv: Tensor, step: int) -> Tensor:
    """Windows (B, C, T) of the pipeline -> (B, C, 200) at 100 Hz against Cz, as recordings are."""
    x_uv = x_uv[..., ::step]
    return x_uv - x_uv[:, bids.CHANNELS.index("Cz")][:, None]


def misfit(saved: dict) -> str | None:
    """Why a saved network cannot be submitted, or None. The challenge fixes windows and channels."""
    for key, wanted in (("window_s", WINDOW_S), ("trial_offset_s", TRIAL_OFFSET_S)):
        if saved.get(key, wanted) != wanted:
            return f"windows.{key} is {saved[key]:g}, in the challenge it is {wanted:g}"
    n_channels = next(len(tensor) for name, tensor in saved["state"].items() if name.endswith("positions_m"))
    return None if n_channels == SHAPE[0] else f"the network has {n_channels} channels, the challenge {SHAPE[0]}"


def write(path: Path | str, weights: dict[str, Path]) -> None:
    """Write the zip with weight files (name -> path), or an empty zip without any; always the same bytes."""
    content = code() if weights else {}
    content |= {f"{name}.pt": Path(file).read_bytes() for name, file in weights.items()}
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # otherwise they depend on the system
            archive.writestr(entry, data)


def code() -> dict[str, bytes]:
    """The Python files of the zip: submission.py and the network module that it imports."""
    paths = Path(__file__).with_name("submission.py"), Path(architecture.__file__)
    return {path.name: path.read_bytes() for path in paths}
