"""The verdict on a deployed variant: its scores on the test participants compared with those of PyTorch's FP32."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hbn.data import bids
from hbn.data.dataset import Dataset, response_times_s
from hbn.scoring import metrics
from hbn.scoring.trials import MEASURES

BATCH = 256

Runner = Callable[[np.ndarray], np.ndarray]  # (B, C, T) microvolts -> (B, K)


@dataclass(frozen=True)
class TestSet:
    """The test set of a network: P trials or participants, each with its own windows."""

    __test__ = False  # pytest would collect a class whose name begins with Test

    participant: np.ndarray  # (P,)
    y: np.ndarray  # (P,) response times, NaN for none, or (P, 4) factors
    measures: dict[str, metrics.Score]  # of (y, outputs)
    windows: np.ndarray  # (N, 2)
    owner: np.ndarray  # (N,) row of y to which each window belongs

    def outputs(self, runners: dict[str, Runner], dataset: Dataset) -> dict[str, np.ndarray]:
        """Outputs (P, K) of every runner, averaged over windows; each window is read once."""
        batches = {name: [] for name in runners}
        with torch.inference_mode():
            for i in range(0, len(self.windows), BATCH):
                x_uv = dataset.batch_uv(self.windows[i : i + BATCH]).contiguous().numpy()
                for name, runner in runners.items():
                    batches[name].append(runner(x_uv))
        return {name: self._mean(np.concatenate(parts)) for name, parts in batches.items()}

    def scores(self, output: np.ndarray) -> dict[str, float]:
        """The defined scores of outputs (P, K), by measure."""
        scores = {name: score(self.y, output) for name, score in self.measures.items()}
        return {name: value for name, value in scores.items() if value is not None}

    def _mean(self, output: np.ndarray) -> np.ndarray:
        total = np.zeros((len(self.y), output.shape[1]))
        np.add.at(total, self.owner, output)
        return total / np.bincount(self.owner, minlength=len(self.y))[:, None]


def trial_test(dataset: Dataset) -> TestSet:
    """Response time and no response of the test trials."""
    trials = dataset.split_trials("test")
    return TestSet(
        participant=np.array([trial["participant_id"] for trial in trials]),
        y=response_times_s(trials),
        measures={name: MEASURES[name] for name in ("pearson_r", "auroc_miss")},
        windows=dataset.trial_windows(trials),
        owner=np.arange(len(trials)),
    )


def factor_test(dataset: Dataset) -> TestSet:
    """The factors of the test participants who have them."""
    participants = dataset.split_participants("test", known=bids.FACTORS[0])
    windows, owner = dataset.participant_windows(participants)
    return TestSet(
        participant=np.array([row["participant_id"] for row in participants]),
        y=bids.factor_values(participants),
        measures={"mean_pearson_r": metrics.mean_over_columns(metrics.pearson_r)},
        windows=windows,
        owner=owner,
    )


def judge(test: TestSet, reference: np.ndarray, output: np.ndarray, max_score_drop: float, p) -> dict:
    """The verdict, the scores, and their drops from those of the reference outputs (P, K), with intervals.

    `p` is the section scores.
    """
    if bad := int(np.sum(~np.isfinite(output))):
        return {"accepted": False, "reason": f"{bad} of {output.size} outputs are not finite"}
    draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
    drops = {}
    for name, score in test.measures.items():
        paired = metrics.difference(score)
        interval = metrics.with_interval(paired, test.participant, test.y, reference, output, **draws)
        # Further digits are rounding errors, which differ between machines.
        drops[name] = {bound: round(value, 5) for bound, value in interval.items()}
    lost = {name: drop["value"] for name, drop in drops.items() if drop}
    worst = max(lost, key=lost.__getitem__)
    row = {"accepted": lost[worst] <= max_score_drop, "scores": test.scores(output), "drop": drops}
    if not row["accepted"]:
        row["reason"] = f"loses {lost[worst]:.3g} of {worst}, the limit is {max_score_drop:g}"
    return row
