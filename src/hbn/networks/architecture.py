"""The network: an encoder from microvolts to tokens, and the heads of the three training stages.

Everything the network needs at inference is inside it: resampling to its own 100 Hz, normalisation,
clipping. Inputs are (B, C, T) in microvolts, average-referenced and filtered to 0.5-45 Hz.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SFREQ_HZ = 100  # of the network; the signal holds nothing above 45 Hz, so every 5th sample of 500 Hz is enough
CLIP = 5.0  # standard deviations
SIZES = {"tiny": (96, 4), "small": (192, 6), "base": (512, 8), "large": (1024, 10)}  # width, blocks
BANDS_HZ = ((1, 4), (4, 8), (8, 13), (13, 20), (20, 30), (30, 45))


def smooth_components(positions_m: Tensor, n: int, length_m: float = 0.03) -> Tensor:
    """The n smoothest patterns over the scalp (C, n), orthogonal: leading eigenvectors of a
    squared-exponential kernel between electrodes."""
    distance_m = torch.cdist(positions_m.double(), positions_m.double())
    patterns = torch.linalg.eigh(torch.exp(-0.5 * (distance_m / length_m) ** 2)).eigenvectors[:, -n:].flip(1)
    peak = patterns.gather(0, patterns.abs().argmax(0, keepdim=True))
    return (patterns * peak.sign()).float()  # eigenvectors have no sign of their own


def whitening(covariance: Tensor, shrinkage: float = 0.05) -> Tensor:
    """The symmetric inverse square root (C, C) of a covariance shrunk towards a multiple of the identity."""
    n = len(covariance)
    shrunk = covariance.double() + shrinkage * covariance.double().trace() / n * torch.eye(n, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(shrunk)
    return (vectors / values.sqrt() @ vectors.T).float()


class Block(nn.Module):
    """Residual block over tokens (B, N, D): a dilated convolution of width 3 and a linear layer.

    The convolution is one matrix product over the three shifted copies: on a CPU much faster than
    a depthwise convolution, and quantised like any linear layer.
    """

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(3 * width, 2 * width)
        self.out = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        d, n = self.dilation, h.shape[1]
        padded = F.pad(h, (0, 0, d, d))  # (B, N + 2d, D)
        h = torch.cat([padded[:, :n], h, padded[:, 2 * d :]], dim=-1)  # (B, N, 3D)
        return x + self.dropout(self.out(F.gelu(self.mix(h))))


class Encoder(nn.Module):
    """(B, C, T) microvolts at `sfreq_hz` -> tokens (B, N, D), one per `patch_s`.

    The weights do not depend on `sfreq_hz`, which must be a multiple of 100 Hz.
    """

    def __init__(
        self,
        positions_m: Tensor,
        sfreq_hz: int,
        window_s: float,
        size: str,
        patch_s: float,
        n_spatial_filters: int,
        dropout: float,
    ):
        super().__init__()
        width, depth = SIZES[size]
        self.step = _whole(sfreq_hz / SFREQ_HZ, "preprocess.sfreq_hz should be a multiple of 100 Hz")
        self.patch_samples = _whole(patch_s * SFREQ_HZ, "model.patch_s should be whole samples at 100 Hz")
        self.n_tokens = _whole(window_s / patch_s, "windows.window_s should be a multiple of model.patch_s")
        self.width, self.n_channels = width, len(positions_m)
        self.register_buffer("positions_m", positions_m)
        # Spatial filters are learned in whitened space, where the large shared background is no larger
        # than the small differences that carry information: few labels then suffice.
        self.register_buffer("whitener", torch.eye(self.n_channels))
        self.spatial = nn.Parameter(torch.randn(self.n_channels, n_spatial_filters) / self.n_channels**0.5)
        self.patch = nn.Linear(self.patch_samples * n_spatial_filters, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.n_tokens, width))
        self.blocks = nn.Sequential(*(Block(width, 2 ** (i % 3), dropout) for i in range(depth)))
        self.norm = nn.LayerNorm(width)

    def resample(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) at the data's rate -> (B, C, T') at 100 Hz."""
        return x_uv[..., :: self.step]

    def normalise(self, x_uv: Tensor) -> Tensor:
        """(B, C, T') -> (B, T', C): each channel centred, the window scaled to rms 1, clipped.

        One scale for all channels: their relation is what spatial filters work on.
        """
        centred = x_uv - x_uv.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=(-2, -1), keepdim=True) + 0.01).sqrt()
        return (centred / scale).clamp(-CLIP, CLIP).transpose(1, 2)

    def adapt(self, x_uv: Tensor) -> None:
        """Set the whitener from unlabelled windows (B, C, T) of training participants."""
        x = self.normalise(self.resample(x_uv)).flatten(0, 1)  # (B * T', C)
        self.whitener.copy_(whitening(x.T @ x / x.shape[0]))

    def tokens(self, x: Tensor) -> Tensor:
        """Normalised (B, T', C) -> tokens (B, N, D)."""
        sources = x @ (self.whitener @ self.spatial)  # (B, T', S)
        patches = sources.reshape(x.shape[0], self.n_tokens, -1)  # (B, N, P * S)
        return self.norm(self.blocks(self.patch(patches) + self.position))

    def forward(self, x_uv: Tensor) -> Tensor:
        return self.tokens(self.normalise(self.resample(x_uv)))


class ResponseTime(nn.Module):
    """Challenge 1: a distribution over what a trial leads to.

    Outcomes are the time bins of the window (two per token), a press before the window and no
    response. The predicted response time is the expectation over the outcomes with a response.
    """

    BINS_PER_TOKEN = 2

    def __init__(self, encoder: Encoder, window_s: float, trial_offset_s: float):
        super().__init__()
        self.encoder = encoder
        n_bins = encoder.n_tokens * self.BINS_PER_TOKEN
        self.bin_s = window_s / n_bins
        self.trial_offset_s = trial_offset_s
        centres_s = trial_offset_s + self.bin_s * (torch.arange(n_bins) + 0.5)
        self.register_buffer("centres_s", torch.cat([centres_s, torch.tensor([trial_offset_s / 2])]), persistent=False)
        self.time = nn.Linear(encoder.width, self.BINS_PER_TOKEN)
        self.time_prior = nn.Parameter(torch.zeros(n_bins))
        self.outside = nn.Linear(2 * encoder.width, 2)  # early, no response
        self.auxiliary = nn.Linear(2 * encoder.width, 2)  # pressed right, correct

    def logits(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome logits (B, bins + 2: time bins, early, no response) and auxiliary logits (B, 2)."""
        tokens = self.encoder(x_uv)  # (B, N, D)
        time = self.time(tokens).flatten(1) + self.time_prior  # (B, bins)
        when = time.reshape(time.shape[0], -1, self.BINS_PER_TOKEN).logsumexp(-1).softmax(-1)  # (B, N)
        at_response = (when[:, :, None] * tokens).sum(1)
        pooled = torch.cat([tokens.mean(1), at_response], dim=-1)  # (B, 2D)
        return torch.cat([time, self.outside(pooled)], dim=-1), self.auxiliary(pooled)

    def forward(self, x_uv: Tensor) -> Tensor:
        """(B, 3): expected response time in s, P(no response), P(correct | response)."""
        outcome, auxiliary = self.logits(x_uv)
        probability = outcome.softmax(-1)
        answered = probability[:, :-1]
        rt_s = (answered * self.centres_s).sum(-1) / answered.sum(-1)
        return torch.stack([rt_s, probability[:, -1], auxiliary[:, 1].sigmoid()], dim=-1)

    def targets(self, rt_s: Tensor, sd_s: float) -> Tensor:
        """Target distributions (B, bins + 2) of response times (B,); NaN means no response.

        The mass of a Gaussian around the response time in each bin; what lies before the window is
        'early', what lies after belongs to the last bin.
        """
        n_bins = len(self.time_prior)
        edges = self.trial_offset_s + self.bin_s * torch.arange(n_bins + 1, device=rt_s.device)
        answered = ~rt_s.isnan()
        z = (edges - rt_s.nan_to_num()[:, None]) / sd_s  # (B, bins + 1)
        cumulative = torch.special.ndtr(z)
        cumulative[:, -1] = 1.0
        mass = torch.cat([cumulative.diff(dim=1), cumulative[:, :1]], dim=1) * answered[:, None]
        return torch.cat([mass, (~answered)[:, None].to(mass.dtype)], dim=1)


class Ensemble(nn.Module):
    """Challenge 1: the mean of what several networks predict."""

    def __init__(self, members: list[ResponseTime]):
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the first member; all have the same form."""
        return self.members[0].encoder

    def forward(self, x_uv: Tensor) -> Tensor:
        return torch.stack([member(x_uv) for member in self.members]).mean(0)


class Factors(nn.Module):
    """Challenge 2: four factors as a linear read-out of spectral and encoder features of a window.

    The read-out is linear, so a participant's prediction is the mean of the window predictions.
    """

    def __init__(self, encoder: Encoder, n_regions: int, n_outputs: int):
        super().__init__()
        self.encoder = encoder
        n_samples = encoder.n_tokens * encoder.patch_samples
        bin_hz = SFREQ_HZ / n_samples
        low_hz, high_hz = BANDS_HZ[0][0], BANDS_HZ[-1][1]
        hz = bin_hz * torch.arange(math.ceil(low_hz / bin_hz), math.ceil(high_hz / bin_hz), dtype=torch.float64)
        angle = 2 * torch.pi * torch.arange(n_samples)[:, None] / SFREQ_HZ * hz  # (T', F)
        taper = torch.hann_window(n_samples, periodic=False, dtype=torch.float64)[:, None]
        fourier = taper * torch.cat([angle.cos(), angle.sin()], 1)
        fourier = fourier - fourier.mean(0)  # blind to the mean of a window
        self.register_buffer("fourier", fourier.float(), persistent=False)  # (T', 2F)
        bands = torch.stack([((hz >= low) & (hz < high)).double() for low, high in BANDS_HZ], 1)  # (F, bands)
        self.register_buffer("bands", (bands / bands.sum(0)).repeat(2, 1).float(), persistent=False)
        regions = smooth_components(encoder.positions_m, n_regions)
        self.register_buffer("regions", regions / encoder.n_channels**0.5, persistent=False)
        self.n_features = n_regions * len(BANDS_HZ) + encoder.width
        self.readout = nn.Linear(self.n_features, n_outputs)

    def features(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) -> (B, bands * regions + D): log band power on smooth components, mean token."""
        spectrum = self.encoder.resample(x_uv) @ self.fourier  # (B, C, 2F)
        log_power = (spectrum.square() @ self.bands + 1.0).log()  # (B, C, bands)
        spectral = (log_power.transpose(1, 2) @ self.regions).flatten(1)  # (B, bands * R)
        return torch.cat([spectral, self.encoder(x_uv).mean(1)], dim=-1)

    def forward(self, x_uv: Tensor) -> Tensor:
        return self.readout(self.features(x_uv))


def rebuild(saved: dict, sfreq_hz: int) -> nn.Module:
    """What challenge1 or challenge2 saved, as a network for windows at `sfreq_hz`."""
    if members := members_of(saved["state"]):
        return Ensemble([rebuild(saved | {"state": state}, sfreq_hz) for state in members])
    state, p, window_s = saved["state"], saved["model"], saved["window_s"]
    settings = p["size"], p["patch_s"], p["n_spatial_filters"], p["dropout"]
    encoder = Encoder(state["encoder.positions_m"], sfreq_hz, window_s, *settings)
    if "trial_offset_s" in saved:
        network = ResponseTime(encoder, window_s, saved["trial_offset_s"])
    else:
        network = Factors(encoder, saved["n_regions"], len(state["readout.bias"]))
    network.load_state_dict(state)
    return network.eval()


def members_of(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The weights of each network of an ensemble; empty for those of a single network."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("members."):
            _, member, own_name = name.split(".", 2)
            found.setdefault(member, {})[own_name] = tensor
    return list(found.values())


def _whole(value: float, message: str) -> int:
    if abs(value - round(value)) > 1e-6 or round(value) < 1:
        raise ValueError(f"{message} ({value:g} is no whole number)")
    return round(value)
