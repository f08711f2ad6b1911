"""The one training loop of all stages and its checkpoints."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hbn import params
from hbn.files import HbnError, atomic, code_digest, digest, write_csv
from hbn.networks.inference import use_cpu
from hbn.training import device

log = logging.getLogger(__name__)


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
    decides["code"] = code_digest()
    return scratch / "checkpoints" / f"{stage}-{digest(decides)[:16]}.pt"


def choose_device(wanted: str, threads: int) -> torch.device:
    """Set up deterministic arithmetic, join the processes of torchrun, return the device for `exec.device`."""
    use_cpu(threads)
    device.join()
    return device.choose(wanted)


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
