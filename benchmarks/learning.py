"""What pretraining on events is worth: by the share of labels, by pretraining participants, by size and by encoder.

    python benchmarks/learning.py [--data FOLDER] [--studies labels peers participants sizes factors] [--csv FILE]

The CSV of the larger cohort is benchmarks/results/learning.csv, in git, of which README.md has a figure.

Reads a dataset (data/dataset, which `dvc repro` makes, or another one of `assemble`) and the settings of params.yaml.
Every network is trained on the same windows by the loops of the stages, on one core; test participants are those of
the split. Studies:

labels        0 to 100 % of the participants with labels, ours pretrained and from scratch. A share is one of training
              and of validation participants: the others' trials are unseen, their other tasks are not.
peers         two winners' forms and braindecode's network with our read-out, from scratch for --minutes of one core
              each; braindecode's also pretrained as ours is. Ours, pretraining included, has half of the minutes.
participants  25, 50, 100, ... participants to pretrain on, the rest withheld from that, 10 % of the labels.
sizes         tiny, small, ..., pretrained and from scratch, 25 % of the labels.
factors       Challenge 2: spectral features alone, with an untrained and with the pretrained encoder; scored on the
              participants of validation and test, on every --stride-th window of each.

Scores are means over seeds with intervals over test participants; gains are paired on the same trials. Finished runs
and pretrained encoders are kept in --results: started again, the benchmark goes on from there.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import common
import factors
import numpy as np
import torch
from peers import PEERS

from hbn import params
from hbn.data.dataset import Dataset, response_times_s
from hbn.files import atomic, code_digest, digest, sha256, write_csv
from hbn.networks.architecture import Encoder, ResponseTime
from hbn.networks.inference import adapted_encoder
from hbn.networks.pretraining import EventPretraining
from hbn.scoring import metrics
from hbn.training.device import choose_device
from hbn.training.pretraining import Pretraining
from hbn.training.response_time import fit_trials, outputs, split_trials, start_without_labels

STUDIES = ("labels", "peers", "participants", "sizes", "factors")
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
SCORES = {"pearson_r": metrics.pearson_r, "nrmse": metrics.nrmse, "auroc_miss": metrics.auroc}
CODE = (
    *("data.dataset", "networks.architecture", "networks.inference", "networks.pretraining", "training.criteria"),
    *("training.event_windows", "training.loop", "training.pretraining", "training.response_time"),
)
CPU = torch.device("cpu")
WITHHELD = "withheld"  # instead of a participant's split

Outputs = tuple[np.ndarray, np.ndarray]  # predicted response times in s, probabilities of no response


@dataclasses.dataclass(frozen=True)
class Cell:
    """One kind of run; its seeds are its repetitions."""

    encoder: str = "ours"
    pretrained: bool = True
    labels: float = 1.0  # share of the labelled participants
    size: str = "tiny"
    participants: int = 0  # to pretrain on, 0 for all
    minutes: float = 0.0  # of training, 0 for the steps of params.yaml

    @property
    def name(self) -> str:
        start = ("zero_shot" if not self.labels else "pretrained") if self.pretrained else "from_scratch"
        return start if self.encoder == "ours" else f"{self.encoder}_{start}"


def cells(study: str, size: str, a: argparse.Namespace) -> list[Cell]:
    """The runs of a study. A pretrained one comes before the same from scratch."""
    pair, minutes = (True, False), a.minutes
    match study:
        case "labels":
            return [Cell(pretrained=p, labels=s, size=size) for s in a.shares for p in pair if s or p]
        case "peers":
            peers = [Cell(name, False, size=size, minutes=minutes) for name in a.peers if _there(name)]
            both = "braindecode" in a.peers and _there("braindecode")
            same = [Cell("braindecode", True, size=size, minutes=minutes)] if both else []
            return [Cell(size=size, minutes=minutes / 2), *peers, *same]
        case "participants":
            scratch = Cell(pretrained=False, labels=0.1, size=size)
            return [*(Cell(labels=0.1, size=size, participants=n) for n in a.participants), scratch]
        case _:  # sizes
            return [Cell(pretrained=p, labels=0.25, size=one) for one in a.sizes for p in pair]


def _there(name: str) -> bool:
    return name != "braindecode" or importlib.util.find_spec("braindecode") is not None


class Runs:
    """Trained networks' outputs on the test trials, each kept in a line of the results file."""

    def __init__(self, arguments: argparse.Namespace, p: params.Params, dataset: Dataset):
        self.folder, self.p, self.dataset = arguments.results.resolve(), p, dataset
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "runs.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.done = {row["key"]: row for row in map(json.loads, lines)}
        self.test = dataset.split_trials("test")

    def outputs(self, cell: Cell, seed: int) -> Outputs:
        """Of the trained network, on the test trials."""
        key = self.key(cell, seed, "model", "pretrain", "challenge1", "windows")
        if key not in self.done:
            network, pretraining_s = self.network(cell, seed)
            begin = time.process_time()
            if cell.labels:
                steps = self.fit(network, cell, seed, pretraining_s)
            else:
                steps, train = 0, self.dataset.split_trials("train")
                start_without_labels(network.eval(), self.p.challenge1, self.dataset, train, CPU)
            row = {"key": key, **dataclasses.asdict(cell), "seed": seed, "steps": steps}
            row |= {"pretraining_core_s": pretraining_s, "training_core_s": time.process_time() - begin}
            found = outputs(network.eval(), self.dataset, self.test, CPU)[:, :2].T
            row |= dict(zip(("predicted_s", "p_miss"), (x.astype(float).tolist() for x in found), strict=True))
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
            self.done[key] = row
            print(f"{cell}, seed {seed}: {steps} steps, {row['training_core_s']:.0f} s", flush=True)
        row = self.done[key]
        return np.array(row["predicted_s"]), np.array(row["p_miss"])

    def key(self, cell: Cell, seed: int, *sections: str) -> str:
        """A name for all that decides a result: the code too, or figures of several versions would be mixed."""
        about: dict[str, Any] = {
            "code": [code_digest(*CODE), sha256(Path(__file__).with_name("peers.py"))],
            "seed": seed,
        }
        about |= {"data": self.dataset.sha256, "cell": dataclasses.asdict(cell)}
        return digest(about | {name: getattr(self.p, name).model_dump() for name in sections})[:16]

    def network(self, cell: Cell, seed: int) -> tuple[ResponseTime, float]:
        """The network before it sees a label, and the core-seconds of its pretraining."""
        torch.manual_seed(seed)
        network = ResponseTime(self.encoder(cell), self.p.windows.window_s, self.p.windows.trial_offset_s)
        if not cell.pretrained:
            return network, 0.0
        alike = dataclasses.replace(cell, labels=1.0, minutes=0.0)
        path = self.folder / f"encoder-{self.key(alike, seed, 'model', 'pretrain', 'windows')}.pt"
        if not path.exists():
            begin, dataset = time.process_time(), self.dataset
            if cell.participants:
                dataset = withhold(dataset, "train", cell.participants, seed)
            p = self.p.pretrain.model_copy(update={"seed": seed})
            pretrained = EventPretraining(network.encoder)
            with elsewhere() as folder:
                pretraining = Pretraining(dataset, p, CPU, network.encoder.n_samples)
                pretraining.fit(pretrained, folder / "checkpoint.pt", folder / "curve.csv")
            with atomic(path) as temporary:
                torch.save({"state": pretrained.state_dict(), "core_s": time.process_time() - begin}, temporary)
        saved = torch.load(path, weights_only=True)
        pretrained = EventPretraining(network.encoder)
        pretrained.load_state_dict(saved["state"])
        network.events = pretrained.events
        return network, saved["core_s"]

    def encoder(self, cell: Cell) -> Encoder:
        """A new encoder, or a peer with its interface."""
        if cell.encoder == "ours":
            return adapted_encoder(self.dataset, self.p.model.model_copy(update={"size": cell.size}))
        sfreq_hz = round(self.dataset.cache.sfreq_hz)
        return PEERS[cell.encoder](len(self.dataset.positions_m), sfreq_hz, self.p.windows.window_s)

    def fit(self, network: ResponseTime, cell: Cell, seed: int, pretraining_s: float) -> int:
        """Train on the trials of a share of the participants; the number of steps at most."""
        dataset = self.dataset
        for split in ("train", "validation") if cell.labels < 1 else ():
            ids = [one for one in dataset.participants.values() if one["split"] == split]
            dataset = withhold(dataset, split, max(2, round(cell.labels * len(ids))), seed)
        trials = split_trials(dataset)
        p = self.p.challenge1.model_copy(update={"seed": seed})
        with elsewhere() as folder:
            if cell.minutes:
                p = self.longer(network, p, dataset, trials, 60 * cell.minutes - pretraining_s, folder)
            paths = folder / "checkpoint.pt", folder / "curve.csv"
            fit_trials(network, p, dataset, trials, CPU, *paths, pretrained=cell.pretrained)
        return p.steps

    def longer(self, network, p: params.Challenge1, dataset: Dataset, trials: dict, core_s: float, folder: Path):
        """The settings with as many steps as fit into the core-seconds, validations included."""
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        every = p.validate_every
        begin = time.process_time()
        p = p.model_copy(update={"max_epochs": 10**6, "patience": 10**6})
        short = p.model_copy(update={"steps": every, "warmup_steps": 1})
        fit_trials(network, short, dataset, trials, CPU, folder / "trial.pt", folder / "trial.csv", pretrained=False)
        each_s = (time.process_time() - begin) / every
        network.load_state_dict(state)
        return p.model_copy(update={"steps": max(every, int(core_s / each_s) // every * every)})


def withhold(dataset: Dataset, split: str, n: int, seed: int) -> Dataset:
    """The dataset with only n participants in a split; a smaller number is part of a larger one."""
    ids = np.array(sorted(name for name, one in dataset.participants.items() if one["split"] == split))
    kept = set(np.random.default_rng([seed, 10]).permutation(ids)[:n].tolist())
    left_out = set(ids.tolist()) - kept
    people = {
        name: one | ({"split": WITHHELD} if name in left_out else {}) for name, one in dataset.participants.items()
    }
    return dataclasses.replace(dataset, participants=people)


@contextlib.contextmanager
def elsewhere() -> Generator[Path]:
    """A temporary folder as the current one: checkpoints and curves of the stages stay as they are."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ.pop("DVC_ROOT", None)  # which would lead to the repository's own scratch folder
        yield Path(folder)


def arrays(trials: list[dict], found: list[Outputs]) -> dict[str, tuple]:
    """What each score is computed from: participants, truth, and predictions (N, seeds)."""
    rt_s, participant = response_times_s(trials), np.array([t["participant_id"] for t in trials])
    miss = np.isnan(rt_s)
    predicted_s, p_miss = (np.stack(one, axis=1) for one in zip(*found, strict=True))
    answered = participant[~miss], rt_s[~miss], predicted_s[~miss]
    return {"pearson_r": answered, "nrmse": answered, "auroc_miss": (participant, miss, p_miss)}


def scores(trials: list[dict], found: list[Outputs], p: params.Scores) -> dict[str, dict]:
    """Scores with intervals over participants, and their standard deviation over seeds."""
    scored = {}
    for name, (who, y, prediction) in arrays(trials, found).items():
        score, draws = SCORES[name], {"n_bootstrap": p.n_bootstrap, "seed": p.seed}
        scored[name] = metrics.with_interval(factors.over_seeds(score), who, y, prediction, **draws)
        each = [score(y, column) for column in prediction.T]
        defined = [value for value in each if value is not None]
        if len(each) > 1 and len(defined) == len(each):
            scored[name]["sd_over_seeds"] = float(np.std(defined, ddof=1))
    return scored


def gain(trials: list[dict], better: list[Outputs], worse: list[Outputs], p: params.Scores) -> dict[str, dict]:
    """Paired differences of two networks' scores on the same trials, with intervals over participants."""
    first, second = arrays(trials, better), arrays(trials, worse)
    return {
        name: metrics.with_interval(
            metrics.difference(factors.over_seeds(score)),
            *(*first[name], second[name][2]),
            n_bootstrap=p.n_bootstrap,
            seed=p.seed,
        )
        for name, score in SCORES.items()
    }


def compared(study: str, wanted: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Pairs whose difference the study is about, the one that should be better first."""
    if study == "peers":
        return [(wanted[0], other) for other in wanted[1:]]
    if study == "participants":
        return [(cell, wanted[-1]) for cell in wanted[:-1]]
    return [
        (cell, other)
        for cell in wanted
        for other in wanted
        if cell.pretrained and not other.pretrained and dataclasses.replace(other, pretrained=True) == cell
    ]


COLUMNS = [
    *("study", "model", "versus", "size", "labels", "pretraining_participants", "seeds", "score", "value", "low"),
    *("high", "sd_over_seeds"),
]


def row_of(**known: object) -> dict:
    return dict.fromkeys(COLUMNS, "") | known


def factor_rows(runs: Runs, stride: int, seeds: range, p: params.Params) -> list[dict]:
    """Scores of challenge 2 by each set of features, and gains of the encoders over the spectral ones."""
    dataset, size = dataclasses.replace(runs.dataset, windows=runs.dataset.windows[::stride]), p.model.size

    def encoder(pretrained: bool, seed: int) -> Encoder:
        return runs.network(Cell(pretrained=pretrained, size=size), seed)[0].encoder

    outside, predicted = factors.predictions(dataset, encoder, seeds, p.challenge2)
    return [
        row_of(study="factors", model=model, versus=versus, size=size, seeds=len(seeds), score=score, **values)
        for model, versus, score, values in factors.entries(outside, predicted, p.scores)
    ]


def rows_of(study: str, runs: Runs, wanted: list[Cell], seeds: range, p: params.Scores) -> list[dict]:
    """Scores of every cell of a study and, where `versus` names another one, paired gains over it."""
    found = {cell: [runs.outputs(cell, seed) for seed in seeds] for cell in wanted}
    entries = [(cell, "", scores(runs.test, outputs, p)) for cell, outputs in found.items()]
    for cell, other in compared(study, wanted):
        entries.append((cell, other.name, gain(runs.test, found[cell], found[other], p)))
    return [
        row_of(study=study, model=cell.name, versus=versus, size=cell.size, labels=cell.labels)
        | {"pretraining_participants": cell.participants or "", "seeds": len(seeds), "score": score, **values}
        for cell, versus, scored in entries
        for score, values in scored.items()
    ]


def main(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    if arguments.bootstrap:
        p = p.model_copy(update={"scores": p.scores.model_copy(update={"n_bootstrap": arguments.bootstrap})})
    choose_device("cpu", 1)
    runs = Runs(arguments, p, Dataset.open(arguments.data.resolve(), p.windows.window_s))
    split = [one["split"] for one in runs.dataset.participants.values()]
    print(f"{runs.dataset.source}: {split.count('train')} participants to train, {split.count('test')} to test")
    seeds, rows = range(1, arguments.seeds + 1), []
    for study in arguments.studies:
        if study == "factors":
            rows += factor_rows(runs, arguments.stride, seeds, p)
        else:
            rows += rows_of(study, runs, cells(study, p.model.size, arguments), seeds, p.scores)
        if arguments.csv:
            write_csv(arguments.csv, rows, COLUMNS)
    common.print_table([{key: row[key] for key in COLUMNS} for row in rows])
    result = {"source": runs.dataset.source, "seeds": arguments.seeds}
    for row in rows:
        if row["versus"] and row["value"] != "":
            about = "participants" if row["study"] == "participants" else "size" if row["study"] == "sizes" else ""
            suffix = f"_{row['pretraining_participants' if about == 'participants' else about]}" if about else ""
            percent = f"_{100 * row['labels']:g}_percent" if row["labels"] != "" else ""
            key = f"gain_{row['score']}_{row['model']}_{row['versus']}{percent}{suffix}"
            result |= {f"{key}_{bound}": row[bound] for bound in ("value", "low", "high")}
    common.print_result(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=common.ROOT / "data/dataset")
    parser.add_argument("--params", type=Path, default=common.ROOT / "params.yaml")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="of the labelled participants")
    parser.add_argument("--participants", nargs="+", type=int, default=[25, 50, 100, 200], help="to pretrain on")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--minutes", type=float, default=12.0, help="of one core, for each peer")
    parser.add_argument("--stride", type=int, default=4, help="every such window counts in the study factors")
    parser.add_argument("--bootstrap", type=int, help="samples for the intervals; as in params.yaml if not given")
    parser.add_argument("--results", type=Path, default=common.ROOT / ".scratch/learning")
    parser.add_argument("--csv", type=Path)
    main(parser.parse_args())
