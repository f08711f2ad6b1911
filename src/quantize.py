"""The two networks as ONNX files in narrower and narrower numbers, each scored beside PyTorch's FP32.

Reads  data/dataset, models/challenge1.pt, models/challenge2.pt
Writes models/deploy/<network>/<variant>.onnx, metrics/quantize.json, plots/quantize.csv

A variant that loses more than quantize.max_score_drop on the test participants, that cannot be made
or that this CPU cannot run is rejected, with the reason, and the others go on. Which of the accepted
ones is fastest is measured by the stage benchmark, for timings have no place in a reproducible file.
"""

import functools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn

from hbn.data import bids
from hbn.data.dataset import DATASET, Dataset, response_times_s
from hbn.deploy import export, runtime
from hbn.files import HbnError, write_csv, write_json
from hbn.networks import inference
from hbn.scoring import metrics
from hbn.stage import run
from hbn.training.loop import choose_device

log = logging.getLogger(__name__)

BATCH = 256
STATED = ("sfreq_hz", "window_s", "trial_offset_s", "source")  # facts that go into every file
Runner = Callable[[np.ndarray], np.ndarray]  # (B, C, T) microvolts -> (B, K)


def main(p) -> None:
    choose_device("cpu", p.exec.threads)
    shutil.rmtree(runtime.FOLDER, ignore_errors=True)
    report, rows = {"max_score_drop": p.quantize.max_score_drop}, []
    for name, test in (("challenge1", trial_test), ("challenge2", factor_test)):
        network, facts = inference.load_network(f"models/{name}.pt", made_by=name)
        dataset = Dataset.open(DATASET, facts["window_s"])
        report["source"] = dataset.source
        report[name] = compare(network, facts, dataset, test(dataset), p, name)
        for variant, row in report[name].items():
            rows += [
                {"network": name, "variant": variant, "score": score, "value": value}
                for score, value in row.get("scores", {}).items()
            ]
    write_json("metrics/quantize.json", report)
    write_csv("plots/quantize.csv", rows, ["network", "variant", "score", "value"])


@dataclass(frozen=True)
class Test:
    """What the networks are scored on: P trials or participants, each with windows of its own."""

    participant: np.ndarray  # (P,)
    y: np.ndarray  # (P,) response times, NaN for none, or (P, 4) factors
    measures: dict[str, metrics.Score]  # of (y, outputs)
    windows: np.ndarray  # (N, 2)
    owner: np.ndarray  # (N,) row of y that each window belongs to

    def outputs(self, runners: dict[str, Runner], dataset: Dataset) -> dict[str, np.ndarray]:
        """Outputs (P, K) of every runner, averaged over windows; each window is read once."""
        found = {name: [] for name in runners}
        with torch.inference_mode():
            for i in range(0, len(self.windows), BATCH):
                x_uv = dataset.batch_uv(self.windows[i : i + BATCH]).contiguous().numpy()
                for name, runner in runners.items():
                    found[name].append(runner(x_uv))
        return {name: self._mean(np.concatenate(parts)) for name, parts in found.items()}

    def _mean(self, output: np.ndarray) -> np.ndarray:
        total = np.zeros((len(self.y), output.shape[1]))
        np.add.at(total, self.owner, output)
        return total / np.bincount(self.owner, minlength=len(self.y))[:, None]

    def scores(self, output: np.ndarray) -> dict[str, float]:
        scores = {name: score(self.y, output) for name, score in self.measures.items()}
        return {name: value for name, value in scores.items() if value is not None}


def compare(network: nn.Module, facts: dict, dataset: Dataset, test: Test, p, name: str) -> dict[str, dict]:
    """Make, run and judge every variant of one network; a row of results each."""
    shape = len(dataset.positions_m), dataset.window_samples
    runners: dict[str, Runner] = {"pytorch": lambda x_uv: network(torch.from_numpy(x_uv)).numpy()}
    table, size_kb = {}, {}
    every = makers(network, shape, dataset, p.quantize)
    for variant in p.quantize.variants:
        make = every[variant]
        path = runtime.FOLDER / name / f"{variant}.onnx"
        try:
            export.write(make(), path, **{key: facts[key] for key in STATED if key in facts})
            session = runtime.session(path, p.exec.threads)
            session.run(None, {runtime.INPUT: np.zeros((1, *shape), np.float32)})
        except Exception as error:  # the exporter, the quantiser and the runtime raise many kinds
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            table[variant] = {"accepted": False, "reason": message[:200]}
        else:
            runners[variant] = lambda x_uv, session=session: session.run(None, {runtime.INPUT: x_uv})[0]
            size_kb[variant] = path.stat().st_size / 1e3
    outputs = test.outputs(runners, dataset)
    for variant in size_kb:
        table[variant] = {"size_kb": size_kb[variant], **judge(test, outputs["pytorch"], outputs[variant], p)}
    for variant, row in table.items():
        log.info("%s %s: %s", name, variant, "accepted" if row["accepted"] else f"rejected, {row['reason']}")
    return {"pytorch": {"scores": test.scores(outputs["pytorch"])}, **table}


def makers(network: nn.Module, shape: tuple[int, int], dataset: Dataset, p) -> dict[str, Callable]:
    """How each variant is made from the network."""

    @functools.cache
    def fp32() -> onnx.ModelProto:
        return export.export(network, shape)

    return {
        "fp32": fp32,
        "fused": lambda: export.fuse(fp32()),
        "fp16_weights": lambda: export.half_weights(export.fuse(fp32())),
        "fp16": lambda: export.export(network, shape, torch.float16),
        "bf16": lambda: export.export(network, shape, torch.bfloat16),
        "int8_dynamic": lambda: export.int8(fp32()),
        "int8_static": lambda: export.int8(fp32(), calibration_uv(dataset, p), p.calibration_percentile),
    }


def calibration_uv(dataset: Dataset, p) -> np.ndarray:
    """Windows (N, C, T) of training participants, drawn without replacement."""
    windows = dataset.split_windows("train")
    if not len(windows):
        raise HbnError("no window of a training participant to calibrate on")
    drawn = np.random.default_rng(p.seed).permutation(len(windows))[: p.n_calibration_windows]
    return dataset.batch_uv(windows[np.sort(drawn)]).numpy()


def trial_test(dataset: Dataset) -> Test:
    """Response time and no response of the test trials."""
    trials = dataset.split_trials("test")
    return Test(
        participant=np.array([trial["participant_id"] for trial in trials]),
        y=response_times_s(trials),
        measures={"pearson_r": _response_time_r, "auroc_miss": _auroc_miss},
        windows=dataset.trial_windows(trials),
        owner=np.arange(len(trials)),
    )


def factor_test(dataset: Dataset) -> Test:
    """The factors of the test participants who have them."""
    people = dataset.split_participants("test", known=bids.FACTORS[0])
    windows, owner = dataset.participant_windows(people)
    return Test(
        participant=np.array([one["participant_id"] for one in people]),
        y=bids.factor_values(people),
        measures={"mean_pearson_r": metrics.mean_over_columns(metrics.pearson_r)},
        windows=windows,
        owner=owner,
    )


def judge(test: Test, reference: np.ndarray, output: np.ndarray, p) -> dict:
    """Scores, losses against FP32 with their intervals over participants, and the verdict."""
    if bad := int(np.sum(~np.isfinite(output))):
        return {"accepted": False, "reason": f"{bad} of {output.size} outputs are not finite"}
    drops = {}
    for name, score in test.measures.items():
        interval = metrics.with_interval(
            metrics.difference(score),
            test.participant,
            test.y,
            reference,
            output,
            n_bootstrap=p.scores.n_bootstrap,
            seed=p.scores.seed,
        )
        # Further digits are rounding errors of the arithmetic, which differ between machines.
        drops[name] = {bound: round(value, 5) for bound, value in interval.items()}
    lost = {name: drop["value"] for name, drop in drops.items() if drop}
    worst = max(lost, key=lost.get)
    row = {"accepted": lost[worst] <= p.quantize.max_score_drop, "scores": test.scores(output), "drop": drops}
    if not row["accepted"]:
        row["reason"] = f"loses {lost[worst]:.3g} of {worst}, the limit is {p.quantize.max_score_drop:g}"
    return row


def _response_time_r(y: np.ndarray, output: np.ndarray) -> float:
    answered = ~np.isnan(y)
    return metrics.pearson_r(y[answered], output[answered, 0])


def _auroc_miss(y: np.ndarray, output: np.ndarray) -> float | None:
    return metrics.auroc(np.isnan(y), output[:, 1])


if __name__ == "__main__":
    run(main, reads=("quantize", "scores"))
