"""What is learned of challenge 1 in the same wall-clock time, and from how many labels.

    python benchmarks/learning.py [--minutes 3] [--seeds 3] [--models ...] [--csv FILE] [--plot FILE]

Reads data/dataset and models/encoder.pt, which `dvc repro` makes. Every network is trained on the same trial windows
of the same participants by the same loop (training.fit) with the settings of params.yaml: ours, with its outcome
distribution, for as many steps as params.yaml says, the others for as many as --minutes allow, counted beforehand
from a few steps (ours on exec.threads, the others on all cores). Those regress the response time and have a logit
for no response. braindecode's networks get windows at 100 Hz as in the challenge's start kit, five times faster for
them than 500 Hz; the reference transformer has a token per sample at 500 Hz. Pretraining needs no labels and is
not counted.

Scores are means over seeds; intervals are over test participants. A share of the ceiling (of the simulator's
ideal observer, metrics/fetch) is the way from knowing nothing to it. Then the same with the trials of only some of
the training participants, pretrained against from scratch (--plot draws that); validation trials, which decide
when to stop, stay.

Finished runs are kept in --results: started again, the benchmark goes on from there. `ratio` is our Pearson r over
the best other network's; null if none ran.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import common
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F

import challenge1
from hbn import params
from hbn.data.dataset import Dataset, response_times_s
from hbn.deploy import timing
from hbn.files import atomic, code_digest, digest, read_json, sha256, write_csv
from hbn.networks import architecture
from hbn.networks.inference import new_encoder, predict
from hbn.networks.reference import Reference
from hbn.scoring import baselines, metrics
from hbn.training.loop import Sampler, choose_device, fit

OURS = ("pretrained", "from_scratch")
BRAINDECODE = ("EEGNeX", "ShallowFBCSPNet", "EEGConformer")
PEERS = ("reference", *BRAINDECODE)
WITHOUT_TRAINING = ("mean", "age_sex", "stimulus_history", "ridge_band_power")
PEER_BATCH = 16  # of the reference: attention over 1000 samples takes 16 MB per window
VALIDATIONS = 16
CLIP = 5.0
SCORES = {"pearson_r": 0.0, "nrmse": 1.0, "auroc_miss": 0.5}  # with what knowing nothing scores

Outputs = tuple[np.ndarray, np.ndarray]  # predicted response times in s, probabilities of no response


def main(arguments: argparse.Namespace) -> None:
    p = params.load(common.ROOT / "params.yaml")
    if arguments.bootstrap:
        p = p.model_copy(update={"scores": p.scores.model_copy(update={"n_bootstrap": arguments.bootstrap})})
    choose_device("cpu", p.exec.threads)
    challenge1.ENCODER = arguments.encoder.resolve()
    dataset = Dataset.open(arguments.data.resolve(), p.windows.window_s)
    trials = {split: dataset.split_trials(split) for split in ("train", "validation", "test")}
    test = trials["test"]
    rt_s, participant = response_times_s(test), np.array([t["participant_id"] for t in test])
    runs = Runs(arguments, p, dataset, trials)

    outputs = {
        (name, 1.0): [output]
        for name, output in untrained(p, dataset, trials).items()
        if name in arguments.models or name == "mean"
    }
    wanted = [name for name in (*OURS, *PEERS) if name in arguments.models]
    cells = [(name, fraction) for fraction in arguments.fractions for name in OURS if name in wanted]
    cells += [(name, 1.0) for name in wanted if (name, 1.0) not in cells]
    seeds = range(1, arguments.seeds + 1)
    left = {name for name, fraction in cells for seed in seeds if runs.key(name, fraction, seed) not in runs.done}
    for name in sorted(left):  # first of all, while nobody uses the machine; what follows only counts steps
        runs.steps(name, runs.trainer(name, trials))
    for name, fraction in cells:
        outputs[name, fraction] = [runs.output(name, fraction, seed) for seed in seeds]

    ideal = ceiling(arguments.metrics, {dataset.participants[one]["release"] for one in participant})
    scored = {key: scores(rt_s, participant, found, p.scores) for key, found in outputs.items()}
    rows = [table_row(*key, one, ideal) for key, one in scored.items()]
    print(f"{dataset.source}: {len(test)} trials of {len(set(participant))} test participants")
    common.print_table([row for row in rows if row["labels"] == "100 %"])
    print()
    gains = {
        fraction: gain(rt_s, participant, *(outputs[name, fraction] for name in OURS), p.scores)
        for fraction in arguments.fractions
        if all((name, fraction) in outputs for name in OURS)
    }
    if gains:
        common.print_table([efficiency_row(f, scored, gains[f]) for f in sorted(gains)])
        print()
    result = summary(outputs, scored, gains, ideal, rt_s, participant, p.scores)
    if arguments.csv:
        write_csv(arguments.csv, csv_rows(scored, ideal), CSV_COLUMNS)
    if arguments.plot:
        draw(arguments.plot, scored)
    common.print_result(result | {"seeds": arguments.seeds, "minutes": arguments.minutes, "source": dataset.source})


class Runs:
    """Trained networks' outputs on the test trials, each kept in a line of the results file."""

    def __init__(self, arguments: argparse.Namespace, p: params.Params, dataset: Dataset, trials: dict):
        self.path, self.budget_s = arguments.results.resolve(), 60 * arguments.minutes
        self.p, self.dataset, self.trials = p, dataset, trials
        self.threads = arguments.threads
        self.fitting: dict[str, int] = {}
        self.validations: dict[str, int] = {}
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.done = {row["key"]: row for row in map(json.loads, lines)}

    def output(self, name: str, fraction: float, seed: int) -> Outputs:
        key = self.key(name, fraction, seed)
        if key not in self.done:
            trials = self.trials | {"train": some_participants(self.trials["train"], fraction, seed)}
            trainer = self.trainer(name, trials)
            steps = self.steps(name, trainer)
            begin = time.perf_counter()
            n = self.validations["ours" if name in OURS else name]
            found = trainer(settings(self.p.challenge1, steps, seed, n))
            row = {"key": key, "model": name, "fraction": fraction, "seed": seed, "steps": steps}
            row |= {"train_trials": len(trials["train"]), "s": time.perf_counter() - begin}
            row |= dict(zip(("predicted_s", "p_miss"), (x.astype(float).tolist() for x in found()), strict=True))
            self.done[key] = row
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{name}, {100 * fraction:g} % of labels, seed {seed}: {steps} steps at most, {row['s']:.0f} s",
                flush=True,
            )
        row = self.done[key]
        return np.array(row["predicted_s"]), np.array(row["p_miss"])

    def trainer(self, name: str, trials: dict) -> Callable:
        torch.set_num_threads(self.p.exec.threads if name in OURS else self.threads)
        make = own_trainer if name in OURS else peer_trainer
        return make(name, self.p, self.dataset, trials)

    def steps(self, name: str, trainer: Callable) -> int:
        """Steps that fit into the time, with set-up and validations; ours takes no more than params.yaml says."""
        kind = "ours" if name in OURS else name  # as fast with any number of labels
        if kind not in self.fitting:

            def spent_s(steps: int, validations: int) -> float:
                begin = time.perf_counter()
                trainer(settings(self.p.challenge1, steps, 0, validations))
                return time.perf_counter() - begin

            spent_s(1, 1)  # caches and memory are cold
            few_s, more_s, twice_s = spent_s(2, 1), spent_s(5, 1), spent_s(2, 2)
            step_s, validation_s = max((more_s - few_s) / 3, 1e-4), max(twice_s - few_s, 0)
            setup_s = max(few_s - 2 * step_s - validation_s, 0)
            # Validations of slow networks may take a quarter of the time, not all of it.
            n = min(VALIDATIONS, max(1, int(self.budget_s / 4 / max(validation_s, 1e-4))))
            self.validations[kind] = VALIDATIONS if kind == "ours" else n
            fitting = max(1, int((self.budget_s - setup_s - n * validation_s) / step_s))
            self.fitting[kind] = min(fitting, self.p.challenge1.steps) if kind == "ours" else fitting
        return self.fitting[kind]

    def key(self, name: str, fraction: float, seed: int) -> str:
        """Of all that decides a result: the code too, or figures of several versions would be mixed."""
        code = [sha256(path) for path in (__file__, challenge1.__file__)]
        about = {
            "code": [*code, code_digest("model", "training")],
            "data": self.dataset.sha256,
            "model": name,
            "fraction": fraction,
            "seed": seed,
        }
        about |= {"challenge1": self.p.challenge1.model_dump(), "budget_s": self.budget_s}
        if name in OURS:
            about |= {"network": self.p.model.model_dump()}
        if name == "pretrained":
            about |= {"encoder": sha256(challenge1.ENCODER)}
        return digest(about)[:16]


def settings(p: params.Training, steps: int, seed: int, validations: int) -> params.Training:
    """The training settings of params.yaml, for another number of steps."""
    changed = {"steps": steps, "seed": seed, "warmup_steps": min(p.warmup_steps, 1 + steps // 8)}
    if steps != p.steps:
        changed["validate_every"] = max(1, steps // validations)
    return p.model_copy(update=changed)


def some_participants(trials: list[dict], fraction: float, seed: int) -> list[dict]:
    """Trials of a share of the participants, at least one; a smaller share is part of a larger one."""
    names = np.array(sorted({t["participant_id"] for t in trials}))
    drawn = np.random.default_rng([seed, 10]).permutation(names)[: max(1, round(fraction * len(names)))]
    return [t for t in trials if t["participant_id"] in set(drawn)]


def own_trainer(name: str, p: params.Params, dataset: Dataset, trials: dict) -> Callable:
    """Trains challenge 1 as its stage does and returns what gives the network's outputs."""

    def train(changed: params.Training) -> Callable[[], Outputs]:
        everything = p.model_copy(update={"challenge1": changed})
        with elsewhere():  # checkpoints and curves of the stage stay as they are
            network = challenge1.train(everything, dataset, trials, torch.device("cpu"), name == "pretrained")
        return lambda: challenge1.network_outputs(network, dataset, trials["test"], torch.device("cpu"))

    return train


class Peer(nn.Module):
    """Another network behind the usual preparation: fewer samples, z-score of each channel, clipping."""

    def __init__(self, network: nn.Module, step: int):
        super().__init__()
        self.network, self.step = network, step

    def forward(self, x_uv: Tensor) -> Tensor:
        """(B, C, T) -> (B, 2): standardised response time, logit of no response."""
        x = x_uv[..., :: self.step]
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1)
        return self.network(x.clamp(-CLIP, CLIP).contiguous())


def peer_network(name: str, dataset: Dataset) -> Peer:
    if name == "reference":
        network = Reference()
        network.position = nn.Parameter(network.position.detach()[: dataset.window_samples])
        return Peer(network, 1)
    warnings.simplefilter("ignore")  # about torchaudio in pure Python, see requirements-bench.txt
    from braindecode import models

    step = round(dataset.cache.sfreq_hz / architecture.SFREQ_HZ)
    shape = {
        "n_chans": len(dataset.positions_m),
        "n_times": dataset.window_samples // step,
        "sfreq": architecture.SFREQ_HZ,
    }
    return Peer(getattr(models, name)(**shape, n_outputs=2), step)


def peer_trainer(name: str, p: params.Params, dataset: Dataset, trials: dict) -> Callable:
    """The same for another network: mean squared error of the answered and cross-entropy of no response."""
    windows, rt_s = {}, {}
    for split in ("train", "validation", "test"):
        windows[split], rt_s[split], _ = challenge1.tensors(dataset, trials[split])
    known = rt_s["train"][~rt_s["train"].isnan()]
    mean_s, sd_s = known.mean(), known.std()

    def trial_loss(output: Tensor, rt_s: Tensor) -> Tensor:
        miss = rt_s.isnan()
        error = (output[:, 0] - (rt_s.nan_to_num() - mean_s) / sd_s).square() * ~miss
        return error.mean() + F.binary_cross_entropy_with_logits(output[:, 1], miss.float())

    def output(network: nn.Module, split: str) -> Tensor:
        return torch.from_numpy(predict(network, dataset, windows[split], batch_size=PEER_BATCH))

    def train(changed: params.Training) -> Callable[[], Outputs]:
        torch.manual_seed(changed.seed)
        network = peer_network(name, dataset)
        batch_size = PEER_BATCH if name == "reference" else changed.batch_size
        sampler = Sampler(len(windows["train"]), batch_size, changed.seed)

        def loss(network: nn.Module, step: int) -> Tensor:
            rows = sampler(step)
            return trial_loss(network(dataset.batch_uv(windows["train"][rows])), rt_s["train"][rows])

        def validate(network: nn.Module) -> float:
            return trial_loss(output(network, "validation"), rt_s["validation"]).item()

        with elsewhere() as folder:
            fit(network, loss, validate, changed, folder / "checkpoint.pt", folder / "curve.csv", sampler)

        def outputs() -> Outputs:
            found = output(network, "test")
            return (mean_s + sd_s * found[:, 0]).numpy(), found[:, 1].sigmoid().numpy()

        return outputs

    return train


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """A temporary folder as the current one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ.pop("DVC_ROOT", None)  # which would lead to the repository's own scratch folder
        yield Path(folder)


def untrained(p: params.Params, dataset: Dataset, trials: dict) -> dict[str, Outputs]:
    """Floors without EEG, and ridge and logistic regression on the band power of trial windows."""
    train, test = trials["train"], trials["test"]
    network = architecture.Factors(new_encoder(dataset, p.model), p.challenge2.n_regions, 1).eval()
    n_spectral = p.challenge2.n_regions * len(architecture.BANDS_HZ)
    x, test_x = (
        predict(network.features, dataset, dataset.trial_windows(found))[:, :n_spectral] for found in (train, test)
    )
    y = response_times_s(train)
    miss = np.isnan(y)
    ridge = baselines.predict_number(x[~miss], y[~miss], test_x), baselines.predict_probability(x, miss, test_x)
    return challenge1.floor_outputs(dataset, train, test) | {"ridge_band_power": ridge}


def over_seeds(score: metrics.Score) -> metrics.Score:
    """The mean of `score` over seeds, the columns of predictions (N, seeds)."""

    def mean(y: np.ndarray, prediction: np.ndarray) -> float | None:
        values = [score(y, column) for column in prediction.T]
        return None if None in values else float(np.mean(values))

    return mean


def arrays(rt_s: np.ndarray, participant: np.ndarray, found: list[Outputs]) -> dict[str, tuple]:
    """What each score is computed from: participants, truth, and predictions (N, seeds)."""
    miss = np.isnan(rt_s)
    predicted_s, p_miss = (np.stack(one, axis=1) for one in zip(*found, strict=True))
    answered = participant[~miss], rt_s[~miss], predicted_s[~miss]
    return {"pearson_r": answered, "nrmse": answered, "auroc_miss": (participant, miss, p_miss)}


SCORE_OF = {"pearson_r": metrics.pearson_r, "nrmse": metrics.nrmse, "auroc_miss": metrics.auroc}


def scores(rt_s: np.ndarray, participant: np.ndarray, found: list[Outputs], p: params.Scores) -> dict[str, dict]:
    """Scores with intervals over participants, and their standard deviation over seeds."""
    scored = {}
    for name, (who, y, prediction) in arrays(rt_s, participant, found).items():
        score = SCORE_OF[name]
        draws = {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
        scored[name] = metrics.with_interval(over_seeds(score), who, y, prediction, **draws)
        each = [score(y, column) for column in prediction.T]
        if len(each) > 1 and None not in each:
            scored[name]["sd_over_seeds"] = float(np.std(each, ddof=1))
    return scored


def gain(
    rt_s: np.ndarray, participant: np.ndarray, better: list[Outputs], worse: list[Outputs], p: params.Scores
) -> dict[str, dict]:
    """Paired differences of two networks' scores on the same trials, with intervals over participants."""
    first, second = arrays(rt_s, participant, better), arrays(rt_s, participant, worse)
    return {
        name: metrics.with_interval(
            metrics.difference(over_seeds(SCORE_OF[name])),
            *(*first[name], second[name][2]),
            n_bootstrap=p.n_bootstrap,
            seed=p.seed,
        )
        for name in SCORES
    }


def ceiling(folder: Path, releases: set[str]) -> dict[str, float]:
    """The ideal observer's scores, averaged over the test participants' releases; empty for real data."""
    paths = [folder / f"{one}.json" for one in sorted(releases)]
    found = [read_json(path).get("ceiling", {}) for path in paths if path.exists()]
    keys = {name: f"challenge1_{name}" for name in SCORES}
    known = {name: [one[key] for one in found if key in one] for name, key in keys.items()}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def share(name: str, value: float | None, ideal: dict[str, float]) -> float | None:
    """How far a score is on the way from knowing nothing to the ceiling."""
    if value is None or name not in ideal:
        return None
    return (value - SCORES[name]) / (ideal[name] - SCORES[name])


def table_row(name: str, fraction: float, scored: dict[str, dict], ideal: dict[str, float]) -> dict:
    row = {"model": name, "labels": f"{100 * fraction:g} %"}
    for score, one in scored.items():
        row |= {score: text(one), f"{score} of ceiling": share(score, one.get("value"), ideal)}
    return row


def efficiency_row(fraction: float, scored: dict, gains: dict[str, dict]) -> dict:
    row = {"labels": f"{100 * fraction:g} %"}
    for score in ("pearson_r", "auroc_miss"):
        row |= {f"{score}, {name}": text(scored[name, fraction][score]) for name in OURS}
        row |= {f"{score}, gain": text(gains[score])}
    return row


def text(one: dict) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" if one else "undefined"


def summary(outputs, scored, gains, ideal, rt_s, participant, p) -> dict:
    """The figures of the last line."""
    values = {key: {name: one.get("value") for name, one in found.items()} for key, found in scored.items()}
    whole = {name: found for (name, fraction), found in values.items() if fraction == 1}
    others = [name for name in whole if name in PEERS]
    result = {"ratio": None}
    if others and "pretrained" in whole:
        best = max(others, key=lambda name: whole[name]["pearson_r"])
        ahead = gain(rt_s, participant, outputs["pretrained", 1.0], outputs[best, 1.0], p)["pearson_r"]
        # A network that orders nothing has r about 0: the ratio says little then, the lead does.
        result = {"ratio": whole["pretrained"]["pearson_r"] / max(whole[best]["pearson_r"], 0.01), "best_other": best}
        result |= {f"lead_pearson_r_{key}": value for key, value in ahead.items()}
    for name, found in whole.items():
        result |= {f"{score}_{name}": value for score, value in found.items()}
    if "pretrained" in whole:
        result |= {f"share_of_ceiling_{s}": share(s, whole["pretrained"][s], ideal) for s in SCORES}
    for fraction, found in gains.items():
        for score in ("pearson_r", "auroc_miss"):
            result |= {f"gain_{score}_{100 * fraction:g}_percent_{key}": x for key, x in found[score].items()}
    return result


CSV_COLUMNS = ["model", "fraction", "score", "value", "low", "high", "sd_over_seeds", "share_of_ceiling"]


def csv_rows(scored: dict, ideal: dict[str, float]) -> list[dict]:
    return [
        dict.fromkeys(CSV_COLUMNS)
        | {"model": name, "fraction": fraction, "score": score, **one}
        | {"share_of_ceiling": share(score, one.get("value"), ideal)}
        for (name, fraction), found in scored.items()
        for score, one in found.items()
    ]


def draw(path: Path, scored: dict) -> None:
    """Label efficiency: our scores with their intervals against the share of the labels."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    names = {"pearson_r": "Pearson r", "auroc_miss": "AUROC, no response"}
    for panel, score in zip(panels, names, strict=True):
        for name in OURS:
            known = {fraction: one[score] for (model, fraction), one in scored.items() if model == name and one[score]}
            percent = [100 * fraction for fraction in sorted(known)]
            value, low, high = ([known[f][key] for f in sorted(known)] for key in ("value", "low", "high"))
            panel.plot(percent, value, "o-", label=name.replace("_", " "))
            panel.fill_between(percent, low, high, alpha=0.2)
        panel.set(xlabel="training participants with labels, %", ylabel=names[score], xscale="log")
        panel.set_xticks(percent, [f"{one:g}" for one in percent], minor=False)
        panel.minorticks_off()
    panels[0].legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


if __name__ == "__main__":
    peers = BRAINDECODE if importlib.util.find_spec("braindecode") else ()
    known = [*OURS, *WITHOUT_TRAINING, "reference", *peers]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of each network and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=timing.CPUS, help="of the other networks")
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.1, 0.25, 1.0], help="of labels, for ours")
    parser.add_argument("--bootstrap", type=int, help="samples for the intervals; as in params.yaml if not given")
    parser.add_argument("--data", type=Path, default=common.ROOT / "data/dataset")
    parser.add_argument("--encoder", type=Path, default=common.ROOT / challenge1.ENCODER)
    parser.add_argument("--metrics", type=Path, default=common.ROOT / "metrics/fetch", help="with the ceilings")
    parser.add_argument("--results", type=Path, default=common.ROOT / ".scratch/learning.jsonl")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path, help="such as labels.svg")
    main(parser.parse_args())
