"""What happens to the scores when recordings are worse than ours: challenge 1 of this repository beside braindecode's.

    python benchmarks/robustness.py [--minutes 3] [--csv benchmarks/results/robustness.csv]

Needs data/dataset, models/challenge1.pt and models/challenge2.pt of `dvc repro`. The test windows are disturbed as
recordings are, before the average reference, and every network predicts from them as it is, at its 100 Hz. The
others, EEGNeX, ShallowFBCSPNet and EEGConformer of braindecode, are trained on the same trials with each channel of a
window standardised, as their users do, for --minutes of one core each; the step is chosen on validation trials.
Without braindecode (requirements-bench.txt) ours alone is measured.

channels    of a window that record nothing (dead), noise of 200 uV rms (noisy), or the same as a neighbour (bridged)
gain        of the amplifier
reference   Cz, linked mastoids (E57 and E100), or the average without Cz
shift_s     of the window after the target, whose response time stays what it is
mains_uv    amplitude of 60 Hz that no filter took away
blinks      twice as large
sfreq_hz    at which the windows are recorded; they are resampled to the network's rate
"""

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from peers import standardised
from scipy.signal import resample_poly
from torch import Tensor, nn
from torch.nn import functional as F

from hbn import params
from hbn.data import bids
from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.files import write_csv
from hbn.networks import inference
from hbn.networks.architecture import SFREQ_HZ, rebuild
from hbn.networks.arithmetic import use_cpu
from hbn.scoring import factors, trials
from hbn.training.response_time import jittered, split_trials

PEERS = ("EEGNeX", "ShallowFBCSPNet", "EEGConformer")
BAD_COUNTS = (1, 2, 5, 10, 20, 40)
NOISY_UV = 200.0
BLINK_UV = 60.0  # at the electrodes above the eyes: what is larger is a blink
ABOVE_EYES = [bids.CHANNELS.index(name) for name in ("E8", "E25")]
MASTOIDS = [bids.CHANNELS.index(name) for name in ("E57", "E100")]
CZ = bids.CHANNELS.index("Cz")
LAST_S = 10.0  # of a training, in which every step is judged: slow networks make few steps
WINDOWS_EACH = 20  # of a participant, for the factors
COLUMNS = ["disturbance", "level", "network", "score", "value"]

Disturb = Callable[[np.ndarray], np.ndarray]  # windows (N, C, T) in microvolts against Cz -> against anything
Network = Callable[[Tensor], Tensor]  # (B, C, T) against their average -> (B, >= 2) as of challenge 1


def main(minutes: float, csv: Path | None) -> None:
    use_cpu(1)
    p = params.load(common.ROOT / "params.yaml")
    dataset = Dataset.open(common.ROOT / DATASET, p.windows.window_s)
    networks: dict[str, Network] = {"ours": saved("challenge1")}
    if importlib.util.find_spec("braindecode"):
        networks |= {name: trained(name, dataset, p, 60 * minutes) for name in PEERS}
    rows = challenge1_rows(networks, dataset) + challenge2_rows(dataset)
    shown = {}
    for row in rows:
        about = {key: row[key] for key in ("disturbance", "level", "score")}
        shown.setdefault(tuple(about.values()), about)[row["network"]] = row["value"]
    common.print_table(
        [dict.fromkeys(["disturbance", "level", "score", *networks], "") | row for row in shown.values()]
    )
    if csv:
        write_csv(csv, rows, COLUMNS)
    common.print_result(loss_of_ten(rows, list(networks)))


def saved(name: str) -> nn.Module:
    """A network of the pipeline for windows at 100 Hz."""
    return rebuild(inference.load_file(common.ROOT / f"models/{name}.pt", made_by=name), SFREQ_HZ)


def challenge1_rows(networks: dict[str, Network], dataset: Dataset) -> list[dict]:
    """Scores of response times and of no response under every disturbance."""
    test = dataset.split_trials("test")
    rt_s, windows = response_times_s(test), dataset.trial_windows(test)
    rows = []
    for name, level, shift_s, disturb in disturbances(dataset):
        moved = windows + np.array([0, round(shift_s * dataset.cache.sfreq_hz)])
        for network, output in predictions(networks, dataset, moved, disturb).items():
            scored = {score: measure(rt_s, output) for score, measure in trials.JUDGED.items()}
            about = {"disturbance": name, "level": level, "network": network}
            rows += [about | {"score": score, "value": value} for score, value in scored.items()]
    return rows


def challenge2_rows(dataset: Dataset) -> list[dict]:
    """Scores of the factors under every disturbance that leaves the windows where they are."""
    network = saved("challenge2")
    people = dataset.split_participants("test", known=bids.FACTORS[0])
    windows, owner = dataset.participant_windows(people)
    picked = [np.flatnonzero(owner == i) for i in range(len(people))]
    kept = np.concatenate([rows[:: max(1, len(rows) // WINDOWS_EACH)] for rows in picked])
    windows, owner, y = windows[kept], owner[kept], bids.factor_values(people)
    rows = []
    for name, level, shift_s, disturb in disturbances(dataset):
        if not shift_s:
            output = predictions({"ours": network}, dataset, windows, disturb)["ours"]
            means = np.stack([output[owner == i].mean(0) for i in range(len(people))])
            value = factors.MEASURES["mean_pearson_r"](y, means)
            about = {"disturbance": name, "level": level, "network": "ours"}
            rows.append(about | {"score": "factors_mean_pearson_r", "value": value})
    return rows


def predictions(
    networks: dict[str, Network], dataset: Dataset, windows: np.ndarray, disturb: Disturb, batch: int = 64
) -> dict[str, np.ndarray]:
    """Outputs (N, ...) of every network for disturbed windows (N, 2)."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    with torch.inference_mode():
        for i in range(0, len(windows), batch):
            x_uv = read_uv(dataset, windows[i : i + batch]).numpy()
            x_uv = np.asarray(disturb(x_uv - x_uv[:, CZ, None]), dtype=np.float32)
            x = torch.from_numpy(x_uv - x_uv.mean(1, keepdims=True))
            for name, network in networks.items():
                parts[name].append(network(x).numpy())
    return {name: np.concatenate(outputs) for name, outputs in parts.items()}


def read_uv(dataset: Dataset, windows: np.ndarray) -> Tensor:
    """Windows (B, 2) as (B, C, 200) in microvolts at 100 Hz."""
    return dataset.batch_uv(windows)[..., :: round(dataset.cache.sfreq_hz / SFREQ_HZ)]


def disturbances(dataset: Dataset) -> Iterator[tuple[str, float | str, float, Disturb]]:
    """Name, level, shift of the windows in s, and what is done to windows against Cz."""
    neighbours = nearest(dataset.positions_m.numpy())
    yield "none", "", 0.0, lambda x: x
    for kind in ("dead", "noisy", "bridged"):
        for n in BAD_COUNTS:
            yield f"{kind}_channels", n, 0.0, lambda x, kind=kind, n=n: with_bad(x, kind, n, neighbours)
    for gain in (0.25, 0.5, 2.0, 4.0):
        yield "gain", gain, 0.0, lambda x, gain=gain: gain * x
    rest = [c for c in range(len(bids.CHANNELS)) if c != CZ]
    for name, channels in (("Cz", [CZ]), ("mastoids", MASTOIDS), ("average_without_Cz", rest)):
        yield "reference", name, 0.0, lambda x, channels=channels: x - x[:, channels].mean(1, keepdims=True)
    for shift_s in (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2):
        yield "shift_s", shift_s, shift_s, lambda x: x
    for amplitude_uv in (5.0, 20.0, 50.0):
        yield "mains_uv", amplitude_uv, 0.0, lambda x, a=amplitude_uv: x + a * mains(x.shape[-1])
    yield "blinks", 2, 0.0, doubled_blinks
    for new_hz in (100, 250, 500, 1000):
        yield "sfreq_hz", new_hz, 0.0, lambda x, new_hz=new_hz: recorded_at(x, new_hz)


def with_bad(x_uv: np.ndarray, kind: str, n: int, neighbours: np.ndarray) -> np.ndarray:
    """Windows (N, C, T) with n bad channels, others in every window; Cz stays, for it is the reference."""
    x_uv, rng = x_uv.copy(), np.random.default_rng(n)
    for window in x_uv:
        bad = rng.permutation(CZ)[:n]
        if kind == "dead":
            window[bad] = 0.0
        elif kind == "noisy":
            window[bad] = NOISY_UV * rng.normal(size=(n, window.shape[1]))
        else:
            window[bad] = window[neighbours[bad]]
    return x_uv


def nearest(positions_m: np.ndarray) -> np.ndarray:
    """The channel (C,) next to each channel, other than Cz."""
    distance_m = np.linalg.norm(positions_m[:, None] - positions_m, axis=-1)
    np.fill_diagonal(distance_m, np.inf)
    distance_m[:, CZ] = np.inf
    return distance_m.argmin(1)


def mains(n_samples: int) -> np.ndarray:
    """60 Hz (C, T) of an amplitude around 1, as 100 samples a second show it; electrodes catch more or less of it."""
    return np.sin(2 * np.pi * 60 * np.arange(n_samples) / SFREQ_HZ) * np.linspace(0.5, 1.5, len(bids.CHANNELS))[:, None]


def doubled_blinks(x_uv: np.ndarray) -> np.ndarray:
    """Windows (N, C, T) with what goes along with large deflections above the eyes once more."""
    eyes = x_uv[:, ABOVE_EYES].mean(1, keepdims=True)  # (N, 1, T)
    eyes = eyes - np.median(eyes, axis=-1, keepdims=True)
    blink = np.where(eyes > BLINK_UV, eyes, 0.0)
    if not blink.any():
        return x_uv
    pattern = (x_uv * blink).sum((0, 2)) / np.square(blink).sum()
    return x_uv + pattern[:, None] * blink


def recorded_at(x_uv: np.ndarray, sfreq_hz: int) -> np.ndarray:
    """Windows (N, C, T) recorded at another rate and resampled to 100 Hz."""
    if sfreq_hz == SFREQ_HZ:
        return x_uv
    other = resample_poly(x_uv, sfreq_hz, SFREQ_HZ, axis=-1, padtype="line")
    return resample_poly(other, SFREQ_HZ, sfreq_hz, axis=-1, padtype="line")


class Peer(nn.Module):
    """A network of braindecode behind the usual preparation: 100 Hz, each channel of a window standardised."""

    def __init__(self, name: str, n_channels: int, window_s: float, rt_s: np.ndarray):
        super().__init__()
        warnings.simplefilter("ignore")  # about torchaudio in pure Python, see requirements-bench.txt
        from braindecode import models

        about: dict[str, Any] = {"n_chans": n_channels, "n_times": round(window_s * SFREQ_HZ), "sfreq": SFREQ_HZ}
        self.network = getattr(models, name)(n_outputs=2, **about)
        self.mean_s, self.sd_s = float(np.nanmean(rt_s)), float(np.nanstd(rt_s))

    def logits(self, x_uv: Tensor) -> tuple[Tensor, Tensor]:
        """Response time (B,) in s and the log odds of no response (B,)."""
        output = self.network(standardised(x_uv))
        return self.mean_s + self.sd_s * output[:, 0], output[:, 1]

    def forward(self, x_uv: Tensor) -> Tensor:
        rt_s, log_odds = self.logits(x_uv)
        return torch.stack([rt_s, log_odds.sigmoid()], dim=1)


def trained(name: str, dataset: Dataset, p: params.Params, core_s: float) -> Peer:
    """A peer trained on the training trials for so many core-seconds, at the step with the best validation NRMSE."""
    torch.manual_seed(1)
    split = split_trials(dataset)
    rt_s, windows = response_times_s(split["train"]), dataset.trial_windows(split["train"])
    held_out, held_out_s = dataset.trial_windows(split["validation"]), response_times_s(split["validation"])
    network = Peer(name, len(dataset.positions_m), p.windows.window_s, rt_s)
    optimizer = torch.optim.AdamW(network.parameters(), lr=p.challenge1.learning_rate, weight_decay=0.01)
    best, state, step, end_s = np.inf, network.state_dict(), 0, time.process_time() + core_s
    while (left_s := end_s - time.process_time()) > 0:
        rows = np.random.default_rng([1, step]).permutation(len(windows))[: p.challenge1.batch_size]
        moved, shift_s = jittered(dataset, windows[rows], p.challenge1.jitter_s, [1, step])
        y_s, known = torch.from_numpy(rt_s[rows]).float() - shift_s, torch.from_numpy(~np.isnan(rt_s[rows]))
        predicted_s, log_odds = network.train().logits(read_uv(dataset, moved))
        loss = F.mse_loss(predicted_s[known] / network.sd_s, y_s[known] / network.sd_s)
        loss = loss + F.binary_cross_entropy_with_logits(log_odds, (~known).float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 20 == 0 or left_s < LAST_S:
            output = predictions({name: network.eval()}, dataset, held_out, lambda x: x)[name]
            value = trials.MEASURES["nrmse"](held_out_s, output)
            if value is not None and value < best:
                best, state = value, {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.load_state_dict(state)
    print(f"{name}: {step} steps in {core_s:.0f} core-seconds, validation NRMSE {best:.3f}", flush=True)
    return network.eval()


def loss_of_ten(rows: list[dict], networks: list[str]) -> dict[str, float]:
    """By how much NRMSE rises with up to ten bad channels of any kind, for each network."""
    nrmse = {(r["network"], r["disturbance"], r["level"]): r["value"] for r in rows if r["score"] == "nrmse"}
    kinds = ("dead_channels", "noisy_channels", "bridged_channels")
    return {
        f"nrmse_loss_{name}": max(
            nrmse[name, kind, n] - nrmse[name, "none", ""] for kind in kinds for n in (1, 2, 5, 10)
        )
        for name in networks
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="of one core, to train each of the others")
    parser.add_argument("--csv", type=Path, help="write every number to this file")
    arguments = parser.parse_args()
    main(arguments.minutes, arguments.csv)
