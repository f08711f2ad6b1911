"""The one training loop of all stages and its checkpoints."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hbn import params
from hbn.files import HbnError, atomic, code_digest, digest, write_csv
from hbn.training import device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rate:
    """The learning rate of a part of a network."""

    share: float  # of the learning rate
    frozen_steps: int  # at the beginning, in which it is not trained at all


class Sampler:
    """The items in the batch of each step, a function of (seed, step) alone, so that resuming is exact.

    It is the global batch, the same in all processes of a distributed run. device.shard gives each process its part.
    """

    def __init__(self, n_items: int, batch_size: int, seed: int):
        if n_items < 1:
            raise HbnError("nothing to train on: the training split is empty; raise data.n_participants")
        self.n_items, self.batch_size, self.seed = n_items, min(batch_size, n_items), seed
        device.refuse_uneven(self.batch_size)
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
    validate: Callable[..., float],
    p: params.Training,
    checkpoint: Path,
    curve: Path,
    sampler: Callable[[int], np.ndarray],
    rates: dict[str, Rate] | None = None,
) -> None:
    """Train `network` in place, to the averaged weights of the best validation loss (those at step 0 included).

    `loss(network, step)` must depend on its arguments alone (randomness drawn from torch's global
    generator is seeded by the step). A run killed at any moment goes on from `checkpoint` and ends
    with exactly the weights of an undisturbed run. `curve` is a CSV of (step, train, validation)
    losses that grows during training. `rates` holds the Rate of the parameters whose names
    begin with its keys. In a run of several processes (torchrun), `loss` is the loss of
    the process's shard of the global batch, gradients and losses are means over processes, and the first
    process writes files. Raises HbnError if a loss or gradient is not finite, with the items (rows of the training
    windows or trials) that `sampler` drew for the step.
    """
    state = _State(network, p, rates or {})
    state.resume(checkpoint)
    if not state.history:  # where labels are few, training may make a pretrained network worse than it was
        state.keep_if_best(device.from_first(_validate_average(network, state.average, validate)))
    training_loss = device.training_loss(network, loss)
    running: list[float] = []
    bar = tqdm(total=p.steps, initial=state.step, unit="step", disable=None if device.first() else True)
    while state.step < p.steps and not _converged(state.history, p.patience):
        step = state.step
        torch.manual_seed(p.seed * 1_000_003 + step + (device.rank() << 40))
        network.train()
        values = state.descend(training_loss)
        _check_finite(values, step, state.history, checkpoint, sampler)
        running.append(values["loss"])
        state.step += 1
        bar.update()
        if state.step % p.validate_every == 0 or state.step == p.steps:
            score = device.from_first(_validate_average(network, state.average, validate))
            _check_finite({"validation_loss": score}, step, state.history, checkpoint, sampler)
            state.validated(float(np.mean(running)), score)
            running = []
            bar.set_postfix(train=f"{state.history[-1]['train']:.4f}", validation=f"{score:.4f}")
            if device.first():
                write_csv(curve, state.history, ["step", "train", "validation"])
                state.save(checkpoint)
    bar.close()
    if device.first():
        write_csv(curve, state.history, ["step", "train", "validation"])
    network.load_state_dict(state.best_state)
    network.eval()
    log.info("best validation loss %.4f, %d steps", state.best, state.step)


class _State:
    """The complete state of a training at a step, as its checkpoint holds it."""

    def __init__(self, network: nn.Module, p: params.Training, rates: dict[str, Rate]):
        self.network, self.p = network, p
        self.optimizer = torch.optim.AdamW(_parameter_groups(network, p.weight_decay, rates), lr=p.learning_rate)
        self.average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.step, self.history, self.best, self.best_state = 0, [], math.inf, self.average

    def descend(self, training_loss: Callable[[int], Tensor]) -> dict[str, float]:
        """Make one step of the optimizer and of the average; returns the loss and the norm of the gradient.

        If one of them is not finite, the weights and the average stay as they were.
        """
        for group in self.optimizer.param_groups:
            moving = group["share"] * (self.step >= group["frozen_steps"])
            group["lr"] = moving * self.p.learning_rate * schedule(self.step, self.p.warmup_steps, self.p.steps)
        self.optimizer.zero_grad(set_to_none=True)
        value = training_loss(self.step)
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.p.gradient_clip)
        mean = device.mean_of_all(value.item())  # the one moment of a step at which the CPU waits for a GPU
        values = {"loss": mean, "gradient_norm": norm.item()}
        if all(map(math.isfinite, values.values())):
            self.optimizer.step()
            self._update_average()
        return values

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.p.ema_decay, (self.step + 1) / (self.step + 11))
        for name, tensor in self.network.state_dict().items():
            average = self.average[name]
            average.lerp_(tensor, 1 - decay) if tensor.is_floating_point() else average.copy_(tensor)

    def validated(self, train: float, score: float) -> None:
        self.history.append({"step": self.step, "train": train, "validation": score})
        self.keep_if_best(score)

    def keep_if_best(self, score: float) -> None:
        """Keep the averaged weights if their validation loss is the best so far."""
        if score < self.best:
            self.best, self.best_state = score, {name: tensor.clone() for name, tensor in self.average.items()}

    def save(self, checkpoint: Path) -> None:
        parts = {name: getattr(self, name) for name in ("average", "best_state", "best", "step", "history")}
        with atomic(checkpoint) as temporary:
            torch.save(
                {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), **parts}, temporary
            )

    def resume(self, checkpoint: Path) -> None:
        """Go on from the checkpoint, if it exists. All processes use the one that the first process reads."""
        saved = device.from_first(_load(checkpoint) if device.first() else None)
        if not saved:
            return
        home = next(self.network.parameters()).device
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for key in ("average", "best_state"):
            setattr(self, key, {name: tensor.to(home) for name, tensor in saved[key].items()})
        self.step, self.history, self.best = saved["step"], saved["history"], saved["best"]
        log.info("resuming at step %d of %d", self.step, self.p.steps)


def _check_finite(
    values: dict[str, float],
    step: int,
    history: list[dict],
    checkpoint: Path,
    sampler: Callable[[int], np.ndarray],
) -> None:
    if all(map(math.isfinite, values.values())):
        return
    what = ", ".join(f"{name} {value}" for name, value in values.items())
    good = f"step {history[-1]['step']} in {checkpoint}" if history else "none yet"
    raise HbnError(
        f"{what} at step {step}: lower learning_rate or gradient_clip, or look at the training items "
        f"{sampler(step).tolist()}; last good checkpoint: {good}"
    )


def schedule(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def checkpoint_path(scratch: Path, stage: str, **decides: object) -> Path:
    """The path of a run's checkpoint, whose name depends on everything that decides the result.

    This is `decides` (data, parameters) and the library's code. A checkpoint of another run is
    therefore never resumed.
    """
    decides["code"] = code_digest()
    return scratch / "checkpoints" / f"{stage}-{digest(decides)[:16]}.pt"


def _load(checkpoint: Path) -> dict | None:
    """The checkpoint, loaded to the CPU from any device; None if it does not exist."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True) if checkpoint.exists() else None


def _validate_average(network: nn.Module, average: dict[str, Tensor], validate: Callable[[nn.Module], float]) -> float:
    """Validation loss of the averaged weights. Afterwards the network has its own weights again."""
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(average)
    network.eval()
    with torch.inference_mode():
        score = validate(network)
    network.load_state_dict(own)
    return score


def _converged(history: list[dict], patience: int) -> bool:
    """Whether none of the last `patience` validations had a better loss than all before."""
    losses = [row["validation"] for row in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def _parameter_groups(network: nn.Module, weight_decay: float, rates: dict[str, Rate]) -> list[dict]:
    """Parameter groups by rate; matrices with weight decay, vectors (biases, norms) without."""
    groups: dict[tuple[Rate, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = next((rate for prefix, rate in rates.items() if name.startswith(prefix)), Rate(1.0, 0))
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": found, "weight_decay": weight_decay * matrix, "share": rate.share, "frozen_steps": rate.frozen_steps}
        for (rate, matrix), found in groups.items()
    ]
