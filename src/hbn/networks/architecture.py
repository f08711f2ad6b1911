"""The network: an encoder from microvolts to features of every sample, and the heads of the training stages.

Everything the network needs at inference is inside it: resampling to its own 100 Hz, bad channels,
normalisation, clipping. Inputs are (B, C, T) in microvolts, average-referenced and filtered to 0.5-45 Hz.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SFREQ_HZ = 100  # of the network; the signal ends at 45 Hz, so every 5th sample of 500 Hz is enough
CLIP = 5.0  # standard deviations
BAD_RATIO = 3.0  # times the median channel's rms; a channel above it is bad
FLAT_RATIO = 0.05  # times the median channel's rms; a channel below it is flat
BRIDGED_RATIO = 0.1  # times the median distance of channels to their nearest one; a nearer pair records the same
N_REPAIRS = 3  # Jacobi's steps; further ones change nothing up to 20 bad channels
STEPS = (2, 5)  # samples per feature of the first scale (50 Hz), of those per feature of the next (10 Hz)
SIZES = {  # widths, and numbers of blocks, of the two scales
    "tiny": ((64, 96), (1, 3)),
    "small": ((128, 256), (2, 4)),
    "base": ((256, 640), (2, 5)),
    "large": ((512, 1152), (3, 6)),
}
BANDS_HZ = ((1, 4), (4, 8), (8, 13), (13, 20), (20, 30), (30, 45))
# Kinds of events in the order of the read-out. A press is one of either hand.
KINDS = ("press", "stimulus_onset", "feedback", "eyes_opened", "eyes_closed", "start", "stop")
PRESS = KINDS.index("press")


def smooth_components(positions_m: Tensor, n: int, length_m: float = 0.03) -> Tensor:
    """The n smoothest patterns over the scalp (C, n), orthogonal: leading eigenvectors of a
    squared-exponential kernel between electrodes."""
    distance_m = torch.cdist(positions_m.double(), positions_m.double())
    patterns = torch.linalg.eigh(torch.exp(-0.5 * (distance_m / length_m) ** 2)).eigenvectors[:, -n:].flip(1)
    peak = patterns.gather(0, patterns.abs().argmax(0, keepdim=True))
    return (patterns * peak.sign()).float()  # the sign of an eigenvector is arbitrary


def whitening(covariance: Tensor, shrinkage: float = 0.05) -> Tensor:
    """The symmetric inverse square root (C, C) of a covariance shrunk towards a multiple of the identity."""
    n = len(covariance)
    shrunk = covariance.double() + shrinkage * covariance.double().trace() / n * torch.eye(n, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(shrunk)
    return (vectors / values.sqrt() @ vectors.T).float()


class Block(nn.Module):
    """Residual block over time (B, N, D): a dilated convolution of width 3 and a linear layer.

    The convolution is one matrix product over three shifted copies. On a CPU this is much faster than
    a depthwise convolution, and it is quantised like any linear layer.
    """

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(3 * width, 2 * width)
        self.out = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h, d, n = self.norm(x), self.dilation, x.shape[1]
        padded = F.pad(h, (0, 0, d, d))  # (B, N + 2d, D)
        h = torch.cat([padded[:, :n], h, padded[:, 2 * d :]], dim=-1)  # (B, N, 3D)
        h = self.out(F.gelu(self.mix(h)))
        if self.training:  # drop a feature in the whole window, because its neighbours in time would reveal it
            h = h * self.dropout(torch.ones_like(h[:, :1]))
        return x + h


class Encoder(nn.Module):
    """(B, C, T) microvolts at `sfreq_hz` -> fine features of every 0.02 s and coarse features of every 0.1 s.

    A U-Net over time (Ronneberger, Fischer & Brox 2015) behind whitening. It makes features at 50 Hz, from these
    features at 10 Hz, then goes back to 50 Hz with skip connections. There is no position embedding, so a window moved
    in time has the same features, and the weights fit windows of any length. The weights do not depend on `sfreq_hz`,
    which must be a multiple of 100 Hz.
    """

    positions_m: Tensor
    whitener: Tensor

    def __init__(
        self, positions_m: Tensor, sfreq_hz: int, window_s: float, size: str, n_spatial_filters: int, dropout: float
    ):
        super().__init__()
        widths, depths = SIZES[size]
        self.step = _whole(sfreq_hz / SFREQ_HZ, "preprocess.sfreq_hz should be a multiple of 100 Hz")
        tokens = window_s * SFREQ_HZ / math.prod(STEPS)
        self.n_samples = math.prod(STEPS) * _whole(tokens, "windows.window_s should be a multiple of 0.1 s")
        self.n_channels, self.width, self.coarse_width = len(positions_m), widths[0], widths[-1]
        self.fine_samples = STEPS[0]  # in a fine feature
        self.register_buffer("positions_m", positions_m)
        self.reference = int(positions_m[:, 2].argmax())  # Cz, the topmost electrode
        # Spatial filters are learned in whitened space. There the large shared background is no larger than
        # the small differences that carry information, so few labels suffice.
        self.register_buffer("whitener", torch.eye(self.n_channels))
        self.spatial = nn.Parameter(torch.randn(self.n_channels, n_spatial_filters) / self.n_channels**0.5)
        self.stem = nn.Linear(STEPS[0] * n_spatial_filters, widths[0])
        self.down = nn.ModuleList(_blocks(*scale, dropout) for scale in zip(widths, depths, strict=True))
        self.up = nn.ModuleList(_blocks(width, 1, dropout) for width in widths[:-1])
        pairs = list(zip(widths[:-1], widths[1:], STEPS[1:], strict=True))
        self.pool = nn.ModuleList(nn.Linear(step * fine, coarse) for fine, coarse, step in pairs)
        self.unpool = nn.ModuleList(nn.Linear(coarse, step * fine) for fine, coarse, step in pairs)
        self.norm, self.coarse_norm = nn.LayerNorm(widths[0]), nn.LayerNorm(widths[-1])

    def resample(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) at the data's rate -> (B, C, T') at 100 Hz."""
        return x_uv[..., :: self.step]

    def repair(self, x_uv: Tensor) -> Tensor:
        """(B, C, T') -> (B, C, T'), centred, referenced to the mean of the good channels, with bad channels filled in.

        The second pass detects bad channels that a worse one hid through the average reference. Bad channels are
        replaced by their conditional mean, given the good ones, under the covariance of training windows (a Gaussian
        whose precision is the square of the whitener). Jacobi's iteration computes it. Zeros instead would stand out
        after whitening.
        """
        x = x_uv - x_uv.mean(dim=-1, keepdim=True)
        good = self._looks_single(x)
        for _ in range(2):
            good = good * self._looks_good(x)
            x = x - (good * x).sum(1, keepdim=True) / good.sum(1, keepdim=True)
        known = x = x * good
        precision = self.whitener @ self.whitener
        from_others = precision / precision.diagonal()[:, None] - torch.eye(self.n_channels, device=x.device)
        for _ in range(N_REPAIRS):
            x = known - (1 - good) * (from_others.to(x.dtype) @ x)
        return x

    def normalise(self, x: Tensor) -> Tensor:
        """Repaired (B, C, T') -> (B, T', C): the window scaled to rms 1, and clipped.

        All channels have one scale, because spatial filters use the relations between channels.
        """
        scale = (x.square().mean(dim=(-2, -1), keepdim=True) + 0.01).sqrt()
        return (x / scale).clamp(-CLIP, CLIP).transpose(1, 2)

    def _looks_good(self, x: Tensor) -> Tensor:
        """(B, C, T') -> (B, C, 1): 1 where a channel is as strong as the others (FLAT_RATIO, BAD_RATIO), else 0."""
        rms = x.square().mean(dim=-1, keepdim=True).sqrt()
        median = rms.sort(dim=1).values[:, self.n_channels // 2, None]
        return self._or_reference((rms >= FLAT_RATIO * median) & (rms <= BAD_RATIO * median)).to(x.dtype)

    def _looks_single(self, x: Tensor) -> Tensor:
        """(B, C, T') -> (B, C, 1): 0 where another channel records the same (BRIDGED_RATIO), else 1.

        Gel bridges two electrodes. A dead electrode records the same as Cz: nothing. Every 4th sample suffices.
        """
        against_cz = (x[..., ::4] - x[:, self.reference, None, ::4]).float()
        power = against_cz.square().mean(dim=-1)
        products = against_cz @ against_cz.transpose(1, 2) / against_cz.shape[-1]
        squared = power[:, :, None] + power[:, None] - 2 * products  # (B, C, C) distances
        itself = torch.full((self.n_channels,), torch.inf, device=x.device).diag()
        nearest = (squared + itself).amin(dim=-1, keepdim=True)
        median = nearest.sort(dim=1).values[:, self.n_channels // 2, None]
        return self._or_reference(nearest >= BRIDGED_RATIO**2 * median).to(x.dtype)

    def _or_reference(self, good: Tensor) -> Tensor:
        """(B, C, 1) with Cz, which is as a reference should be even where it is zero or the same as a dead channel."""
        return good | (torch.arange(self.n_channels, device=good.device) == self.reference)[:, None]

    def adapt(self, x_uv: Tensor) -> None:
        """Set the whitener from unlabelled windows (B, C, T) of training participants."""
        x = self.normalise(self.repair(self.resample(x_uv))).flatten(0, 1)  # (B * T', C)
        self.whitener.copy_(whitening(x.T @ x / x.shape[0]))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised (B, T', C) -> fine features (B, T' / 2, D) and coarse ones (B, T' / 10, E)."""
        sources = x @ (self.whitener @ self.spatial)  # (B, T', S)
        h = self.stem(sources.reshape(x.shape[0], x.shape[1] // STEPS[0], -1))
        skips = []
        for blocks, pool, step in zip(self.down[:-1], self.pool, STEPS[1:], strict=True):
            skips.append(blocks(h))
            h = pool(skips[-1].reshape(h.shape[0], h.shape[1] // step, -1))
        h = self.down[-1](h)
        coarse = self.coarse_norm(h)
        for skip, blocks, unpool in zip(skips[::-1], self.up[::-1], self.unpool[::-1], strict=True):
            h = blocks(skip + unpool(h).reshape(skip.shape))
        return self.norm(h), coarse

    def forward(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        return self.features(self.normalise(self.repair(self.resample(x_uv))))


def _blocks(width: int, depth: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(*(Block(width, 2 ** (i % 3), dropout) for i in range(depth)))


class EventReadout(nn.Module):
    """Reads out which events are where in a window. Pretraining learns it, and challenge 1 starts from it.

    For every kind of event, it gives a distribution over the samples of the window and "none".
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.when = nn.Linear(encoder.width, encoder.fine_samples * len(KINDS))
        self.absent = nn.Linear(encoder.width, len(KINDS))  # evidence against the event, at the place where it would be
        self.none = nn.Linear(encoder.coarse_width, len(KINDS))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, M, D), (B, N, E) -> logits of samples (B, T', K), of none (B, K), and shares (B, M, K).

        The shares are the probability of each fine feature to hold the event, given that the window holds one.
        """
        when = self.when(fine).reshape(fine.shape[0], fine.shape[1], -1, len(KINDS))  # (B, M, samples, K)
        share = when.flatten(1, 2).softmax(1).reshape(when.shape).sum(2)
        none = self.none(coarse.mean(1)) + (share * self.absent(fine)).sum(1)
        return when.flatten(1, 2), none, share


class ResponseTime(nn.Module):
    """Challenge 1: a distribution over the outcomes of a trial, read out like the press in pretraining.

    The outcomes are a press in each sample of the window, a press before the window and no response. The predicted
    response time is the expectation over the outcomes with a response.
    """

    centres_s: Tensor
    temperature: Tensor

    def __init__(self, encoder: Encoder, window_s: float, trial_offset_s: float):
        super().__init__()
        self.encoder, self.events = encoder, EventReadout(encoder)
        n = encoder.n_samples
        self.bin_s = window_s / n
        self.trial_offset_s = trial_offset_s
        centres_s = trial_offset_s + self.bin_s * (torch.arange(n) + 0.5)
        self.register_buffer("centres_s", torch.cat([centres_s, torch.tensor([trial_offset_s / 2])]), persistent=False)
        self.prior = nn.Parameter(torch.zeros(n))  # log prior of the responses over the window
        self.register_buffer("temperature", torch.ones(()))  # of the distribution; fitted to validation trials
        pooled = encoder.width + encoder.coarse_width
        self.early = nn.Linear(pooled, 1)
        self.auxiliary = nn.Linear(pooled, 2)  # pressed right, correct

    def logits(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        """Outcome logits (B, T' + 2: samples, early, no response) and auxiliary logits (B, 2)."""
        fine, coarse = self.encoder(x_uv)  # (B, M, D), (B, N, E)
        when, none, share = self.events(fine, coarse)
        at_press = (share[..., PRESS, None] * fine).sum(1)
        pooled = torch.cat([coarse.mean(1), at_press], dim=-1)
        outcome = torch.cat([when[..., PRESS] + self.prior, self.early(pooled), none[:, PRESS, None]], dim=-1)
        return outcome, self.auxiliary(pooled)

    def forward(self, x_uv: Tensor) -> Tensor:
        """(B, 3 + 1 + T'): expected response time in s, P(no response), P(correct | response), distribution."""
        outcome, auxiliary = self.logits(x_uv)
        return torch.cat([self.expected(outcome), auxiliary[:, 1:].sigmoid(), self.distribution(outcome)], dim=-1)

    def expected(self, outcome: Tensor) -> Tensor:
        """Outcome logits (B, T' + 2) -> (B, 2): expected response time in s, P(no response)."""
        probability = outcome.softmax(-1)
        answered = probability[:, :-1]
        rt_s = (answered * self.centres_s).sum(-1) / answered.sum(-1)
        return torch.stack([rt_s, probability[:, -1]], dim=-1)

    def distribution(self, outcome: Tensor) -> Tensor:
        """Outcome logits (B, T' + 2) -> (B, 1 + T'): probability, given a response, of a press before the window and
        in each of its samples."""
        return (torch.cat([outcome[:, -2:-1], outcome[:, :-2]], dim=-1) / self.temperature).softmax(-1)

    def targets(self, rt_s: Tensor, sd_s: float) -> Tensor:
        """Target distributions (B, T' + 2) of response times (B,); NaN means no response.

        The target is the mass of a Gaussian around the response time in each sample. The mass before the window
        belongs to 'early', the mass after it to the last sample.
        """
        edges = self.trial_offset_s + self.bin_s * torch.arange(len(self.prior) + 1, device=rt_s.device)
        answered = ~rt_s.isnan()
        z = (edges - rt_s.nan_to_num()[:, None]) / sd_s  # (B, T' + 1)
        cumulative = torch.special.ndtr(z)
        cumulative[:, -1] = 1.0
        mass = torch.cat([cumulative.diff(dim=1), cumulative[:, :1]], dim=1) * answered[:, None]
        return torch.cat([mass, (~answered)[:, None].to(mass.dtype)], dim=1)


class Ensemble(nn.Module):
    """Challenge 1: the mean of the predictions of several networks."""

    def __init__(self, members: list[ResponseTime] | list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the first member; all have the same form."""
        first = self.members[0]
        assert isinstance(first, ResponseTime)
        return first.encoder

    def forward(self, x_uv: Tensor) -> Tensor:
        return torch.stack([member(x_uv) for member in self.members]).mean(0)


class Factors(nn.Module):
    """Challenge 2: four factors as a linear read-out of spectral and encoder features of a window.

    The read-out is linear, so a participant's prediction is the mean of the window predictions.
    """

    fourier: Tensor
    bands: Tensor
    regions: Tensor

    def __init__(self, encoder: Encoder, n_regions: int, n_outputs: int):
        super().__init__()
        self.encoder = encoder
        n_samples = encoder.n_samples
        bin_hz = SFREQ_HZ / n_samples
        low_hz, high_hz = BANDS_HZ[0][0], BANDS_HZ[-1][1]
        hz = bin_hz * torch.arange(math.ceil(low_hz / bin_hz), math.ceil(high_hz / bin_hz), dtype=torch.float64)
        angle = 2 * torch.pi * torch.arange(n_samples)[:, None] / SFREQ_HZ * hz  # (T', F)
        taper = torch.hann_window(n_samples, periodic=False, dtype=torch.float64)[:, None]
        fourier = taper * torch.cat([angle.cos(), angle.sin()], 1)
        fourier = fourier - fourier.mean(0)  # removes the mean of a window
        self.register_buffer("fourier", fourier.float(), persistent=False)  # (T', 2F)
        bands = torch.stack([((hz >= low) & (hz < high)).double() for low, high in BANDS_HZ], 1)  # (F, bands)
        self.register_buffer("bands", (bands / bands.sum(0)).repeat(2, 1).float(), persistent=False)
        regions = smooth_components(encoder.positions_m, n_regions)
        self.register_buffer("regions", regions / encoder.n_channels**0.5, persistent=False)
        self.n_features = n_regions * len(BANDS_HZ) + encoder.coarse_width
        self.readout = nn.Linear(self.n_features, n_outputs)

    def features(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) -> (B, bands * regions + E): log band power on smooth components, mean of the coarse features."""
        x = self.encoder.repair(self.encoder.resample(x_uv))
        log_power = ((x @ self.fourier).square() @ self.bands + 1.0).log()  # (B, C, bands)
        spectral = (log_power.transpose(1, 2) @ self.regions).flatten(1)  # (B, bands * R)
        _, coarse = self.encoder.features(self.encoder.normalise(x))
        return torch.cat([spectral, coarse.mean(1)], dim=-1)

    def forward(self, x_uv: Tensor) -> Tensor:
        return self.readout(self.features(x_uv))


def rebuild(saved: dict, sfreq_hz: int) -> nn.Module:
    """The network that challenge1 or challenge2 saved, for windows at `sfreq_hz`."""
    if members := members_of(saved["state"]):
        return Ensemble([rebuild(saved | {"state": state}, sfreq_hz) for state in members])
    state, p, window_s = saved["state"], saved["model"], saved["window_s"]
    settings = p["size"], p["n_spatial_filters"], p["dropout"]
    encoder = Encoder(state["encoder.positions_m"], sfreq_hz, window_s, *settings)
    if "trial_offset_s" in saved:
        network = ResponseTime(encoder, window_s, saved["trial_offset_s"])
    else:
        network = Factors(encoder, saved["n_regions"], len(state["readout.bias"]))
    network.load_state_dict(state)
    return network.eval()


def members_of(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The weights of each network of an ensemble; empty for those of a single network."""
    members: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("members."):
            _, member, own_name = name.split(".", 2)
            members.setdefault(member, {})[own_name] = tensor
    return list(members.values())


def _whole(value: float, message: str) -> int:
    if abs(value - round(value)) > 1e-6 or round(value) < 1:
        raise ValueError(f"{message} ({value:g} is no whole number)")
    return round(value)
