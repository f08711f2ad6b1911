"""The one training loop of all stages, its data and its checkpoints."""

import logging
import math
import os
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hbn import device, params
from hbn.files import HbnError, atomic, digest, existing, read_csv, read_json, sha256, write_csv
from hbn.model import Encoder, load_file
from hbn.windows import WindowCache, samples

log = logging.getLogger(__name__)

DATASET = Path("data/dataset")
TABLES = ("recordings.csv", "participants.csv", "trials.csv", "windows.npy")
N_READERS = min(4, os.cpu_count())  # threads that fill a batch
READERS = ThreadPoolExecutor(N_READERS)
FREED: deque[np.ndarray] = deque(maxlen=2)  # memory of batches that are gone
N_ADAPT_WINDOWS = 500  # 10^5 samples at 100 Hz for a covariance of 129 channels


@dataclass(frozen=True)
class Dataset:
    """The assembled dataset: window cache, participants, trials, electrode positions."""

    cache: WindowCache
    windows: np.ndarray  # (N, 2): recording, start sample
    trials: list[dict[str, str]]
    participants: dict[str, dict[str, str]]
    positions_m: Tensor  # (C, 3)
    window_samples: int
    source: str  # 'simulated' or where the data came from
    sha256: str  # of its tables, which hold the checksum of every recording

    @classmethod
    def open(cls, root: Path | str, window_s: float) -> "Dataset":
        root = existing(root, made_by="assemble")
        cache = WindowCache(root)
        channels = read_csv(root / "channels.csv")
        return cls(
            cache=cache,
            windows=np.load(root / "windows.npy", mmap_mode="r", allow_pickle=False),
            trials=read_csv(root / "trials.csv"),
            participants={row["participant_id"]: row for row in read_csv(root / "participants.csv")},
            positions_m=torch.tensor([[float(row[axis]) for axis in ("x_m", "y_m", "z_m")] for row in channels]),
            window_samples=samples(window_s, cache.sfreq_hz),
            source=read_json(root / "about.json")["source"],
            sha256=digest([sha256(root / name) for name in TABLES]),
        )

    @property
    def facts(self) -> dict[str, object]:
        """What every model file says about the data it was made from."""
        return {"source": self.source, "data_sha256": self.sha256, "sfreq_hz": self.cache.sfreq_hz}

    def encoder(self, p: params.Model) -> Encoder:
        """A new encoder for this dataset's montage, rate and window: random weights, no whitener yet."""
        window_s = self.window_samples / self.cache.sfreq_hz
        return Encoder(
            self.positions_m, round(self.cache.sfreq_hz), window_s, p.size, p.patch_s, p.n_spatial_filters, p.dropout
        )

    def adapted_encoder(self, p: params.Model) -> Encoder:
        """A new encoder with the whitener of the training participants' windows."""
        encoder = self.encoder(p)
        train = self.split_windows("train")
        if not len(train):
            raise HbnError("the training split holds no window; raise data.n_participants or change the section splits")
        encoder.adapt(self.batch_uv(train[:: max(1, len(train) // N_ADAPT_WINDOWS)]))
        return encoder

    def split_windows(self, split: str) -> np.ndarray:
        """Windows (N, 2) of the participants of one split."""
        return self.participant_windows([one for one in self.participants.values() if one["split"] == split])[0]

    def participant_windows(self, people: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        """All windows (N, 2) of some participants, and which of these (N,) each belongs to."""
        row = {one["participant_id"]: i for i, one in enumerate(people)}
        of_recording = np.array([row.get(recording["participant_id"], -1) for recording in self.cache.recordings])
        owner = of_recording[self.windows[:, 0]]
        return self.windows[owner >= 0], owner[owner >= 0]

    def split_trials(self, split: str) -> list[dict[str, str]]:
        """Trials of the participants of one split."""
        return [t for t in self.trials if self.participants[t["participant_id"]]["split"] == split]

    def split_participants(self, split: str, known: str) -> list[dict[str, str]]:
        """Participants of one split of whom the column `known` is known (adults have no factors)."""
        return [one for one in self.participants.values() if one["split"] == split and one[known]]

    def trial_windows(self, trials: list[dict[str, str]]) -> np.ndarray:
        """Windows (N, 2) of trials."""
        rows = [(self.cache.row[t["recording"]], int(t["start_sample"])) for t in trials]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    def batch_uv(self, windows: np.ndarray) -> Tensor:
        """Windows (B, 2) as float32 microvolts (B, C, T); a transposed view of time-major memory."""
        batch = _memory((len(windows), self.window_samples, len(self.positions_m)))  # (B, T, C)
        parts = max(1, min(N_READERS, len(windows)))
        for _ in READERS.map(self._fill, np.array_split(windows, parts), np.array_split(batch, parts)):
            pass  # or an error would be lost
        return torch.from_numpy(batch).transpose(1, 2)

    def _fill(self, windows: np.ndarray, batch: np.ndarray) -> None:
        """Read windows (B, 2) into (B, T, C)."""
        window, scale_uv = np.empty(batch.shape[1:], dtype=np.float16), torch.from_numpy(self.cache.scale_uv)
        for into, (recording, start) in zip(torch.from_numpy(batch), windows.tolist(), strict=True):
            # One window at a time, so that it is converted and scaled while in the processor's cache. The scale,
            # an array of float32, makes the product one too.
            self.cache.read(recording, start, window)
            torch.mul(torch.from_numpy(window), scale_uv[recording : recording + 1], out=into)


def _memory(shape: tuple[int, ...]) -> np.ndarray:
    """Uninitialised float32; that of an earlier batch which is gone, where there is one of this shape.

    Fresh memory of this size costs a fault and a clearing for every page. (It is NumPy's, which asks for
    huge pages, and PyTorch does not.)
    """
    memory = FREED.pop() if FREED else None
    if memory is None or memory.shape != shape:
        memory = np.empty(shape, dtype=np.float32)
    lent = memory[:]
    weakref.finalize(lent, lambda: FREED.append(memory)).atexit = False
    return lent


def response_times_s(trials: list[dict[str, str]]) -> np.ndarray:
    """Response times (N,) in s, NaN where there was no response."""
    return np.array([float(t["rt_s"]) if t["rt_s"] else np.nan for t in trials])


def load_encoder(path: Path | str, dataset: Dataset, p: params.Model) -> Encoder:
    """The pretrained encoder for this dataset; HbnError if it was made for another shape."""
    encoder = dataset.encoder(p)
    try:
        encoder.load_state_dict(load_file(path, made_by="pretrain")["state"])
    except RuntimeError as error:
        raise HbnError(
            f"{path} does not fit the section model or the montage ({error}); run `dvc repro pretrain`"
        ) from None
    return encoder


class Sampler:
    """Which items make the batch of a step: a function of (seed, step) alone, so resuming is exact.

    The batch is the global one, the same in all processes of a distributed run: device.shard gives each its part.
    """

    def __init__(self, n_items: int, batch_size: int, seed: int):
        if n_items < 1:
            raise HbnError("nothing to train on: the training split is empty; raise data.n_participants")
        self.n_items, self.batch_size, self.seed = n_items, min(batch_size, n_items), seed
        if self.batch_size % device.n_processes():
            raise HbnError(
                f"a batch of {self.batch_size} cannot be shared evenly by {device.n_processes()} processes; "
                "change batch_size or --nproc-per-node"
            )
        self.batches_per_epoch = n_items // self.batch_size
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> np.ndarray:
        epoch, batch = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:  # drawn once: with millions of windows it takes longer than a step
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.n_items)
            self._epoch = epoch
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]


def fit(
    network: nn.Module,
    loss: device.Loss,
    validate: Callable[[nn.Module], float],
    p: params.Training,
    checkpoint: Path,
    curve: Path,
    sampler: Sampler,
) -> None:
    """Train `network` in place; it ends with the averaged weights of the best validation loss.

    `loss(network, step)` must depend on its arguments alone (randomness drawn from torch's global
    generator is seeded by the step). A run killed at any moment goes on from `checkpoint` and ends
    with the very weights of an undisturbed run. `curve` is a CSV of (step, train, validation)
    losses that grows while training. Where torchrun started several processes, `loss` is that of
    the process's shard of the global batch, the means over processes count, and the first process
    writes. Raises HbnError on what is not finite, with the items (rows of the training windows or
    trials) that `sampler` drew for the step.
    """
    home = next(network.parameters()).device
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    decayed, plain = _parameter_groups(network)
    groups = [{"params": decayed, "weight_decay": p.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=p.learning_rate)
    step, history, best, best_state, running = 0, [], math.inf, average, []
    saved = device.from_first(_load(checkpoint) if device.first() else None)
    if saved:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, best_state = ({n: t.to(home) for n, t in saved[key].items()} for key in ("average", "best_state"))
        step, history, best = saved["step"], saved["history"], saved["best"]
        log.info("resuming at step %d of %d", step, p.steps)

    def check_finite(**values: float) -> None:
        if not all(map(math.isfinite, values.values())):
            what = ", ".join(f"{name} {value}" for name, value in values.items())
            good = f"step {history[-1]['step']} in {checkpoint}" if history else "none yet"
            raise HbnError(
                f"{what} at step {step}: lower learning_rate or gradient_clip, or look at the training items "
                f"{sampler(step).tolist()}; last good checkpoint: {good}"
            )

    training_loss = device.training_loss(network, loss)
    bar = tqdm(total=p.steps, initial=step, unit="step", disable=None if device.first() else True)
    while step < p.steps and not _converged(history, p.patience):
        torch.manual_seed(p.seed * 1_000_003 + step + (device.rank() << 40))
        for group in optimizer.param_groups:
            group["lr"] = p.learning_rate * schedule(step, p.warmup_steps, p.steps)
        network.train()
        optimizer.zero_grad(set_to_none=True)
        value = training_loss(step)
        value.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), p.gradient_clip)
        mean = device.mean_of_all(value.item())  # the one moment of a step at which the CPU waits for a GPU
        check_finite(loss=mean, gradient_norm=norm.item())
        optimizer.step()
        running.append(mean)
        with torch.no_grad():
            decay = min(p.ema_decay, (step + 1) / (step + 11))
            for name, tensor in network.state_dict().items():
                average[name].lerp_(tensor, 1 - decay) if tensor.is_floating_point() else average[name].copy_(tensor)
        bar.update()
        if (step + 1) % p.validate_every == 0 or step + 1 == p.steps:
            score = device.from_first(_validate_average(network, average, validate))
            check_finite(validation_loss=score)
            history.append({"step": step + 1, "train": float(np.mean(running)), "validation": score})
            running = []
            if score < best:
                best, best_state = score, {name: tensor.clone() for name, tensor in average.items()}
            bar.set_postfix(train=f"{history[-1]['train']:.4f}", validation=f"{score:.4f}")
            if device.first():
                write_csv(curve, history, ["step", "train", "validation"])
                with atomic(checkpoint) as temporary:
                    torch.save(
                        {
                            **{"network": network.state_dict(), "optimizer": optimizer.state_dict()},
                            **{"average": average, "best_state": best_state, "best": best},
                            **{"step": step + 1, "history": history},
                        },
                        temporary,
                    )
        step += 1
    bar.close()
    if device.first():
        write_csv(curve, history, ["step", "train", "validation"])
    network.load_state_dict(best_state)
    network.eval()
    log.info("best validation loss %.4f, %d steps", best, step)


def schedule(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def checkpoint_path(scratch: Path, stage: str, **decides: object) -> Path:
    """Where a run keeps its checkpoint: a name that changes with all that decides the result.

    Covers what is in `decides` (data, parameters) and the library's code, so that a checkpoint of
    another run is never resumed.
    """
    code = sorted(sha256(path) for path in Path(__file__).parent.glob("*.py"))
    return scratch / "checkpoints" / f"{stage}-{digest({'code': code, **decides})[:16]}.pt"


def choose_device(wanted: str, threads: int) -> torch.device:
    """Set up deterministic arithmetic, join the processes of torchrun, return the device for `exec.device`."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    device.join()
    return device.choose(wanted)


def predict(
    network: Callable[[Tensor], Tensor], dataset: Dataset, windows: np.ndarray, batch_size: int = 256
) -> np.ndarray:
    """Outputs (N, ...) of `network` on windows (N, 2), in order."""
    with torch.inference_mode():
        parts = [
            network(dataset.batch_uv(windows[i : i + batch_size])).cpu() for i in range(0, len(windows), batch_size)
        ]
    return torch.cat(parts).numpy()


def _load(checkpoint: Path) -> dict | None:
    """A checkpoint, on the CPU whatever device it is of; None if there is none."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True) if checkpoint.exists() else None


def _validate_average(network: nn.Module, average: dict[str, Tensor], validate: Callable[[nn.Module], float]) -> float:
    """Validation loss of the averaged weights; the network's own are put back."""
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(average)
    network.eval()
    with torch.inference_mode():
        score = validate(network)
    network.load_state_dict(own)
    return score


def _converged(history: list[dict], patience: int) -> bool:
    """Whether the last `patience` validations brought no better loss."""
    losses = [row["validation"] for row in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def _parameter_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices, which are decayed, and vectors (biases, norms), which are not."""
    every = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [x for x in every if x.ndim > 1], [x for x in every if x.ndim <= 1]
