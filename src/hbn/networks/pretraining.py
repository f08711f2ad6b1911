"""Self-supervised pretraining: the encoder learns to fill in masked patches."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbn.networks.architecture import Encoder


class MaskedPretraining(nn.Module):
    """Reconstruction of masked (channel, token) patches from the others.

    The targets are whitened: in plain microvolts the large shared background decides the loss, and
    what the encoder learns of it serves neither challenge.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Linear(encoder.width, encoder.patch_samples * encoder.n_channels)

    def forward(self, x_uv: Tensor, mask: Tensor) -> Tensor:
        """Loss of windows (B, C, T) under a mask (B, N, C), true where the input is hidden.

        Smooth L1 in standard deviations, so that artefacts do not dominate.
        """
        patches = self._patches(x_uv)
        visible = (patches * ~mask[:, :, None]).flatten(1, 2)  # (B, T', C)
        prediction = self.decoder(self.encoder.tokens(visible)).reshape(patches.shape)
        return _masked_loss(prediction, patches @ self.encoder.whitener, mask)

    def baseline(self, x_uv: Tensor, mask: Tensor) -> Tensor:
        """The loss of predicting zero, the mean of every whitened channel."""
        whitened = self._patches(x_uv) @ self.encoder.whitener
        return _masked_loss(torch.zeros_like(whitened), whitened, mask)

    def _patches(self, x_uv: Tensor) -> Tensor:
        """Normalised windows cut into tokens (B, N, P, C)."""
        x = self.encoder.normalise(self.encoder.resample(x_uv))  # (B, T', C)
        return x.reshape(x.shape[0], self.encoder.n_tokens, self.encoder.patch_samples, -1)


def block_masks(n: int, positions_m: Tensor, n_tokens: int, window_s: float, p, seed: list[int]) -> Tensor:
    """Masks (n, N, C) that hide `mask_fraction` of the patches on average, in blocks.

    A block is a cap of electrodes around a random one during a stretch of tokens; the number of
    blocks is such that their union has the wanted size.
    """
    rng = np.random.default_rng(seed)
    caps = (torch.cdist(positions_m, positions_m) < p.mask_radius_m).numpy()  # (C, C)
    block_tokens = max(1, round(p.mask_block_s * n_tokens / window_s))
    covered = caps.mean() * block_tokens / (n_tokens + block_tokens - 1)
    n_blocks = max(1, round(math.log(1 - p.mask_fraction) / math.log(1 - covered)))
    centre = rng.integers(len(caps), size=(n, n_blocks))
    start = rng.integers(1 - block_tokens, n_tokens, size=(n, n_blocks, 1))
    token = np.arange(n_tokens)
    during = (token >= start) & (token < start + block_tokens)  # (n, blocks, N)
    hidden = np.einsum("bkn,bkc->bnc", during.astype(np.float32), caps[centre].astype(np.float32))
    return torch.from_numpy(hidden > 0)


def _masked_loss(prediction: Tensor, patches: Tensor, mask: Tensor) -> Tensor:
    """Mean smooth L1 of (B, N, P, C) over the patches that mask (B, N, C) hides."""
    error = F.smooth_l1_loss(prediction, patches, reduction="none") * mask[:, :, None]
    return error.sum() / (mask.sum() * patches.shape[2]).clamp(min=1)
