"""The networks in the form that the EEG Foundation Challenge (NeurIPS 2025) runs: a zip file of one level.

The zip holds submission.py, which is the text of the class Submission below with all that it uses of
this library, and the networks' weights. Text and weights rather than TorchScript: it runs under any
version of PyTorch (tracing is deprecated), on any device and batch size, and can be read.
"""

import ast
import inspect
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from hbn import bids, files, model
from hbn.bids import FACTORS
from hbn.files import HbnError, atomic
from hbn.model import SFREQ_HZ, rebuild

NAMES = ("challenge1", "challenge2")
WINDOW_S, TRIAL_OFFSET_S = 2.0, 0.5  # after the target of a trial
SHAPE = len(bids.CHANNELS), round(WINDOW_S * SFREQ_HZ)  # of a window at the networks' own 100 Hz
BATCH = 128  # windows at once
SHARES = {"challenge1": 0.3, "challenge2": 0.7}  # of the two NRMSE in the overall score
OUTPUTS = {"challenge1": 0, "challenge2": FACTORS.index("externalizing")}  # response time in s; externalizing
SMALLEST_UV = 0.01  # rms over a window; recorded brains have more, in volts even artefacts have less


class OneOutput(nn.Module):
    """(B, 129, 200) at 100 Hz as recorded against Cz, 0.5-50 Hz -> (B, 1), one output of a network.

    The average reference counts Cz, which is zero here, as in preprocessing. There is no low-pass:
    the filter of preprocessing falls to half only near 50 Hz, where these recordings end. Windows
    may be in volts, as MNE reads files, or in microvolts: what would be too small is in volts.
    """

    def __init__(self, network: nn.Module, output: int):
        super().__init__()
        self.network, self.output = network, output

    def forward(self, x: Tensor) -> Tensor:
        in_volts = x.square().mean(dim=(-2, -1), keepdim=True).sqrt() < SMALLEST_UV  # (B, 1, 1)
        x_uv = torch.where(in_volts, 1e6 * x, x)
        x_uv = x_uv - x_uv.mean(dim=1, keepdim=True)
        return self.network(x_uv)[:, self.output : self.output + 1]


class Submission:
    """What the organisers import and call.

    A network that was trained at 500 Hz is rebuilt at 100 Hz: its first step there is to keep every
    5th sample, and every 5th sample of a band-limited upsampling from 100 Hz is the original sample,
    so no resampling is exactly the same and its weights fit as they are.
    """

    def __init__(self, SFREQ, DEVICE):
        if SFREQ != SFREQ_HZ:
            raise HbnError(f"the networks are for windows at {SFREQ_HZ} Hz, SFREQ is {SFREQ}")
        self.device = DEVICE

    def get_model_challenge_1(self) -> nn.Module:
        return self._load("challenge1")

    def get_model_challenge_2(self) -> nn.Module:
        return self._load("challenge2")

    def _load(self, name: str) -> nn.Module:
        path = Path(__file__).resolve().parent / f"{name}.pt"
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return OneOutput(rebuild(saved, SFREQ_HZ), OUTPUTS[name]).to(self.device).eval()


def as_recorded(x_uv: Tensor, step: int) -> Tensor:
    """Windows (B, C, T) of the pipeline -> (B, C, 200) as the organisers have them: at 100 Hz, against Cz."""
    x_uv = x_uv[..., ::step]
    return x_uv - x_uv[:, bids.CHANNELS.index("Cz")][:, None]


def misfit(saved: dict) -> str | None:
    """Why a saved network cannot be submitted, if so: the challenge fixes windows and channels."""
    for key, wanted in (("window_s", WINDOW_S), ("trial_offset_s", TRIAL_OFFSET_S)):
        if saved.get(key, wanted) != wanted:
            return f"windows.{key} is {saved[key]:g}, in the challenge it is {wanted:g}"
    n_channels = next(len(tensor) for name, tensor in saved["state"].items() if name.endswith("positions_m"))
    return None if n_channels == SHAPE[0] else f"the network has {n_channels} channels, the challenge {SHAPE[0]}"


def write(path: Path | str, weights: dict[str, Path]) -> None:
    """Write the zip with weight files (name -> path), or an empty one: the same bytes each time."""
    content = {"submission.py": source().encode()} if weights else {}
    content |= {f"{name}.pt": Path(file).read_bytes() for name, file in weights.items()}
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # or it depends on the system
            archive.writestr(entry, data)


def source() -> str:
    """Text of submission.py: the class Submission and the definitions it needs, from all modules, in order."""
    definitions, imports = {}, {}
    for module in (bids, files, model, inspect.getmodule(Submission)):
        text = inspect.getsource(module)
        for node in ast.parse(text).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known = imports if not ast.unparse(node).startswith(("import hbn", "from hbn")) else {}
            elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Assign):
                known = definitions
            else:
                continue
            for name in _bound(node):
                known[name] = node, "\n".join(text.splitlines()[_first_line(node) - 1 : node.end_lineno])
    needed, todo = set(), ["Submission"]
    while todo:
        name = todo.pop()
        if name not in needed and name in definitions | imports:
            needed.add(name)
            tree = (definitions | imports)[name][0]
            todo += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    head = sorted({text for name, (_, text) in imports.items() if name in needed})
    body = dict.fromkeys(text for name, (_, text) in definitions.items() if name in needed)
    title = '"""Networks for the EEG Foundation Challenge; the library is hbn, see its challenge.py."""'
    return "\n\n\n".join([title, "\n".join(head), *body]) + "\n"


def _bound(node: ast.stmt) -> set[str]:
    """Names that a top-level statement defines."""
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    return {alias.asname or alias.name for alias in node.names}


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
