"""Other encoders with our read-outs: two winners' forms of 2025, written anew from descriptions, and braindecode's.

Each has the interface of hbn.networks.architecture.Encoder as the read-outs use it: `width`, `coarse_width`,
`n_samples`, `fine_samples`, and features of every sample (B, T', D) and of the window (B, N, E) from microvolts
(B, C, T). All normalise each channel of a window by itself (z-score) and clip, as those systems did; there is no
whitening.
"""

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hbn.networks.architecture import CLIP, SFREQ_HZ


def standardised(x_uv: Tensor) -> Tensor:
    """(B, C, T) with each channel of a window by itself at mean 0 and sd 1, and clipped."""
    x = x_uv - x_uv.mean(-1, keepdim=True)
    return (x / (x.square().mean(-1, keepdim=True) + 0.01).sqrt()).clamp(-CLIP, CLIP)


class _Peer(nn.Module):
    def __init__(self, n_channels: int, sfreq_hz: int, window_s: float, width: int, coarse_width: int):
        super().__init__()
        self.n_channels, self.step = n_channels, sfreq_hz // SFREQ_HZ
        self.n_samples = round(window_s * SFREQ_HZ)
        self.width, self.coarse_width, self.fine_samples = width, coarse_width, 1

    def normalise(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T') at 100 Hz."""
        return standardised(x_uv[..., :: self.step])


class _Separable(nn.Module):
    """Residual block (B, D, T): depthwise over time, then two pointwise layers."""

    def __init__(self, width: int, kernel: int, dilation: int = 1, dropout: float = 0.2):
        super().__init__()
        reach = kernel // 2 * dilation
        self.depthwise = nn.Conv1d(width, width, kernel, padding=reach, dilation=dilation, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.pointwise = nn.Sequential(nn.Conv1d(width, 2 * width, 1), nn.GELU(), nn.Conv1d(2 * width, width, 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.pointwise(self.norm(self.depthwise(x))))


class UNet(_Peer):
    """1-D U-Net over time at 100 Hz: channels squeezed to 32, three scales, separable residual blocks, skips."""

    WIDTHS = (32, 64, 128)

    def __init__(self, n_channels: int, sfreq_hz: int, window_s: float):
        super().__init__(n_channels, sfreq_hz, window_s, self.WIDTHS[0], self.WIDTHS[-1])
        self.squeeze = nn.Conv1d(n_channels, self.WIDTHS[0], 1)
        pairs = list(zip(self.WIDTHS, self.WIDTHS[1:], strict=False))
        self.down = nn.ModuleList(nn.Sequential(_Separable(w, 7), _Separable(w, 7)) for w in self.WIDTHS)
        self.up = nn.ModuleList(nn.Sequential(_Separable(w, 7), _Separable(w, 7)) for w in self.WIDTHS[:-1])
        self.pool = nn.ModuleList(nn.Conv1d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.unpool = nn.ModuleList(nn.ConvTranspose1d(coarse, fine, 2, stride=2) for fine, coarse in pairs)

    def forward(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        h, skips = self.squeeze(self.normalise(x_uv)), []
        for blocks, pool in zip(self.down, self.pool, strict=False):
            skips.append(blocks(h))
            h = pool(skips[-1])
        h = self.down[-1](h)
        coarse = h.transpose(1, 2)
        for skip, blocks, unpool in zip(skips[::-1], self.up[::-1], self.unpool[::-1], strict=True):
            h = blocks(skip + unpool(h))
        return h.transpose(1, 2), coarse


class TCN(_Peer):
    """Dilated depthwise temporal convolutions at 100 Hz behind a 1x1 mix of the channels."""

    WIDTH, DILATIONS = 64, (1, 2, 4, 8, 16, 32)

    def __init__(self, n_channels: int, sfreq_hz: int, window_s: float):
        super().__init__(n_channels, sfreq_hz, window_s, self.WIDTH, self.WIDTH)
        self.mix = nn.Conv1d(n_channels, self.WIDTH, 1)
        self.blocks = nn.Sequential(*(_Separable(self.WIDTH, 5, dilation) for dilation in self.DILATIONS))

    def forward(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        h = self.blocks(self.mix(self.normalise(x_uv))).transpose(1, 2)
        return h, h


class Braindecode(_Peer):
    """ShallowFBCSPNet without its last layer; its features, 6.7 a second, are interpolated to every sample."""

    WIDTH = 40  # filters

    def __init__(self, n_channels: int, sfreq_hz: int, window_s: float):
        super().__init__(n_channels, sfreq_hz, window_s, self.WIDTH, self.WIDTH)
        warnings.simplefilter("ignore")  # about torchaudio in pure Python, see requirements-bench.txt
        from braindecode.models import ShallowFBCSPNet

        network = ShallowFBCSPNet(n_channels, 2, n_times=self.n_samples, sfreq=SFREQ_HZ, final_conv_length="auto")
        del network.final_layer
        self.layers = nn.Sequential(*network.children())

    def forward(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        h = self.layers(self.normalise(x_uv)).flatten(2)  # (B, D, N)
        fine = F.interpolate(h, size=self.n_samples, mode="linear", align_corners=False)
        return fine.transpose(1, 2), h.transpose(1, 2)


PEERS: dict[str, Callable[..., Any]] = {"unet": UNet, "tcn": TCN, "braindecode": Braindecode}
