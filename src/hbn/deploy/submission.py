"""Networks for the EEG Foundation Challenge (NeurIPS 2025): what its organisers import and call.

hbn.deploy.challenge_zip puts this file into the zip, beside architecture.py and the weights. It can only be imported
there.
"""

from pathlib import Path

import torch
from architecture import SFREQ_HZ, rebuild  # beside this file in the zip
from torch import Tensor, nn

OUTPUTS = {"challenge1": 0, "challenge2": 3}  # response time in s; externalizing
SMALLEST_UV = 0.01  # rms over a window; EEG in microvolts is larger, and even artefacts in volts are smaller


class OneOutput(nn.Module):
    """(B, 129, 200) at 100 Hz as recorded against Cz, 0.5-50 Hz -> (B, 1), one output of a network.

    The average reference includes Cz, which is zero here, as in preprocessing. No low-pass is needed:
    the filter of preprocessing falls to half only near 50 Hz, where these recordings end. Windows
    may be in volts, as MNE reads files, or in microvolts. A window too small for microvolts is in volts.
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
    """The class that the organisers import and call.

    A network that was trained at 500 Hz is rebuilt at 100 Hz with the same weights. At 500 Hz it first keeps every
    5th sample. Every 5th sample of a band-limited upsampling from 100 Hz is the original sample, so
    leaving out both steps gives exactly the same input.
    """

    def __init__(self, SFREQ, DEVICE):
        if SFREQ != SFREQ_HZ:
            raise ValueError(f"the networks are for windows at {SFREQ_HZ} Hz, SFREQ is {SFREQ}")
        self.device = DEVICE

    def get_model_challenge_1(self) -> nn.Module:
        return self._load("challenge1")

    def get_model_challenge_2(self) -> nn.Module:
        return self._load("challenge2")

    def _load(self, name: str) -> nn.Module:
        path = Path(__file__).resolve().parent / f"{name}.pt"
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return OneOutput(rebuild(saved, SFREQ_HZ), OUTPUTS[name]).to(self.device).eval()
