"""The page's first tab: scores beside baselines and ceiling, the data, and changes since the last version tag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from hbn.data.bids import FACTORS
from hbn.files import read_json
from hbn.reporting import changes
from hbn.reporting.repository import dvc_json, git
from hbn.reporting.tables import show
from hbn.scoring.names import BASELINES, direction

N_COMMITS = 10
NETWORKS = {
    "pretrained": "EEG, pretrained network",
    "from_scratch": "EEG, same network from scratch",
    "zero_shot": "EEG, pretrained, no label of this task",
    "eeg": "EEG",
    "eeg_and_metadata": "EEG and metadata",
}


@dataclass(frozen=True)
class Panel:
    """A score of one metrics file that the summary draws."""

    title: str
    file: str
    score: str
    guess: float  # the score of knowing nothing
    ceiling: tuple[str, ...] = ()  # names in metrics/fetch; an ideal observer reaches their mean


PANELS = (
    Panel("Response time, NRMSE", "challenge1", "nrmse", 1.0, ("challenge1_nrmse",)),
    Panel("Response time, Pearson r", "challenge1", "pearson_r", 0.0, ("challenge1_pearson_r",)),
    Panel("No response, AUROC", "challenge1", "auroc_miss", 0.5, ("challenge1_auroc_miss",)),
    Panel("Factors, mean NRMSE", "challenge2", "mean_nrmse", 1.0),
    Panel("Factors, mean Pearson r", "challenge2", "mean_pearson_r", 0.0, tuple(f"challenge2_{f}_r" for f in FACTORS)),
)


def forest(metrics: Path) -> list[dict]:
    """The panels that have results, each with its rows (label, kind, value, low, high) and its axis."""
    panels = []
    for panel in PANELS:
        file = metrics / f"{panel.file}.json"
        tests = read_json(file).get("test", {}) if file.exists() else {}
        rows: list[dict[str, Any]] = [
            {"label": label(name), "kind": "baseline" if name in BASELINES else "network", **by_score[panel.score]}
            for name, by_score in sorted(tests.items(), key=lambda item: order(item[0]))
            if by_score.get(panel.score)
        ]
        if not rows:
            continue
        limit = ceiling(metrics, panel.ceiling)
        if limit is not None:
            rows.append({"label": "ideal observer of the simulation", "kind": "ceiling", "value": limit})
        ends = [row.get(end, row["value"]) for row in rows for end in ("low", "high")] + [panel.guess]
        lowest, highest = min(ends), max(ends)
        span = (highest - lowest) or 1.0
        axis = {"low": lowest - 0.03 * span, "span": 1.06 * span, "guess": panel.guess}
        better = {1: "higher is better", -1: "lower is better"}[direction(panel.score)]
        panels.append({"title": panel.title, "better": better, "rows": rows, "axis": axis})
    return panels


def label(name: str) -> str:
    """A predictor's name in words."""
    return NETWORKS.get(name) or BASELINES.get(name) or name.replace("_", " ").replace("eeg", "EEG")


def ceiling(metrics: Path, names: tuple[str, ...]) -> float | None:
    """What an ideal observer of the simulated test releases reaches: the mean over `names` and releases."""
    test_releases = YAML(typ="safe").load(Path("params.yaml"))["splits"]["test_releases"]
    values = []
    for release in test_releases if names else ():
        path = metrics / f"fetch/{release}.json"
        reached = read_json(path).get("ceiling", {}) if path.exists() else {}
        values += [reached[name] for name in names if name in reached]
    return float(np.mean(values)) if values else None


def data_facts(metrics: Path) -> dict[str, str]:
    """The data behind the results: source, releases, participants and trials by split."""
    sources = {read_json(path).get("source", "unknown") for path in metrics.rglob("*.json")}
    facts = {"Data": ", ".join(sorted(sources)) or "no result yet"}
    if releases := sorted(path.stem for path in metrics.glob("fetch/*.json")):
        facts["Releases"] = ", ".join(releases)
    dataset = metrics / "dataset.json"
    splits = read_json(dataset)["splits"] if dataset.exists() else {}
    for split in (name for name in ("train", "validation", "test") if name in splits):
        facts[split.capitalize()] = "{participants} participants, {trials} trials".format(**splits[split])
    return facts


def since_last_tag() -> dict:
    """The commits since the last version tag, the scores that changed, and a title that says since when.

    Without a tag, the last commits alone.
    """
    tag = next(iter(git("tag", "--list", "v*", "--sort=-creatordate", "--merged", "HEAD").split()), None)
    span = [f"{tag}..HEAD"] if tag else []
    log = git("log", f"-{N_COMMITS}", "--format=%h%x09%cs%x09%s", *span)
    news = {"commits": [line.split("\t", 2) for line in log.splitlines()], "rows": (), "scores": ""}
    if not tag:
        return news | {"title": f"No version tag yet: the last {N_COMMITS} commits"}
    rows = changes.changed_scores(dvc_json("metrics", "diff", "--all", tag))
    main, other, _ = changes.parts(rows)
    table = [
        (row["file"], row["name"], show(row["old"]), show(row["new"]), row["verdict"], changes.beyond(row).strip("*"))
        for row in (*main, *other)
    ]
    n_commits = int(git("rev-list", "--count", f"{tag}..HEAD"))
    title = f"Since {tag}: {n_commits} commit{'' if n_commits == 1 else 's'}"
    return news | {"title": title, "rows": table, "scores": changes.summary(rows)}


def order(name: str) -> tuple[bool, int]:
    """Sort key of predictors: networks in the order of NETWORKS, then baselines from the best informed on."""
    if name in BASELINES:
        return True, -list(BASELINES).index(name)
    return False, list(NETWORKS).index(name) if name in NETWORKS else len(NETWORKS)
