"""The reference network of speed comparisons, from the project that this one replaces."""

import torch
from torch import Tensor, nn

SHAPE = 129, 1000  # channels, samples


class Reference(nn.Module):
    """A transformer with a token per sample: (B, 129, 1000) -> (B, 2); 541,442 parameters."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(SHAPE[0], 128)
        self.position = nn.Parameter(0.02 * torch.randn(SHAPE[1], 128))
        layer = nn.TransformerEncoderLayer(128, nhead=4, dim_feedforward=512, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.out = nn.Linear(128, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.transpose(1, 2)) + self.position  # (B, T, 128)
        return self.out(self.encoder(tokens).mean(1))
