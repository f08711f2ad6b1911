"""The generated parts of README.md and docs/, made from results and code.

Each part stands between <!-- made: NAME --> and <!-- /made -->.
"""

import re
from collections.abc import Callable
from pathlib import Path

from hbn.data.bids import FACTORS
from hbn.files import HbnError, read_json
from hbn.reporting import errors, summary
from hbn.reporting.pictures import learning_rows
from hbn.reporting.tables import interval, markdown

PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- /made -->)", re.DOTALL)
SCORES = {"pearson_r": "Pearson r", "nrmse": "NRMSE", "auroc_miss": "AUROC, no response", "auroc_miss_within": "within"}


def filled(text: str, root: Path) -> str:
    """The text of a page in which all generated parts are made anew from the repository at `root`."""

    def part(match: re.Match) -> str:
        if match[2] not in PARTS:
            raise HbnError(f"<!-- made: {match[2]} -->: no part has this name; the parts are {', '.join(PARTS)}")
        return f"{match[1]}\n{PARTS[match[2]](root)}\n\n{match[3]}"

    return PART.sub(part, text)


def data(root: Path) -> str:
    """The source and the size of the data behind the results."""
    dataset, first, second = (
        read_json(root / f"metrics/{name}.json") for name in ("dataset", "challenge1", "challenge2")
    )
    n_people = sum(split["participants"] for split in dataset["splits"].values())
    releases = ", ".join(sorted(path.stem for path in (root / "metrics/fetch").glob("*.json")))
    n = first["n"]
    return (
        f"Data: **{first['source']}**, {n_people} participants of {releases}. Tested on "
        f"{second['n']['test_participants']} people who were in no training; {n['participants']} of them did the task "
        f"of challenge 1, {n['trials']} trials ({n['answered']} answered). Brackets hold 95 % intervals."
    )


def challenge1(root: Path) -> str:
    """The table of challenge 1: networks, then predictors without EEG, then the ideal observer."""
    tests = read_json(root / "metrics/challenge1.json")["test"]
    rows = []
    for name in sorted(tests, key=summary.order):
        pearson_r, nrmse, auroc, within = (tests[name].get(score, {}) for score in SCORES)
        values = [interval(pearson_r), _number(nrmse), interval(auroc), _number(within)]
        rows.append((summary.label(name), *values))
    limits = [summary.ceiling(root / "metrics", (f"challenge1_{score}",)) for score in SCORES]
    if any(limit is not None for limit in limits):
        cells = ["" if limit is None else f"{limit:.2f}" for limit in limits]
        rows.append(("ideal observer of the simulation", *cells))
    return markdown(("challenge 1", *SCORES.values()), rows)


def challenge2(root: Path) -> str:
    """The table of challenge 2: means over the factors, and the correlation of each factor."""
    tests = read_json(root / "metrics/challenge2.json")["test"]
    rows = []
    for name in sorted(tests, key=summary.order):
        means = [interval(tests[name][f"mean_{score}"]) for score in ("pearson_r", "nrmse")]
        rows.append((summary.label(name), *means, *(_number(tests[name][factor]["pearson_r"]) for factor in FACTORS)))
    names = [f"challenge2_{factor}_r" for factor in FACTORS]
    limits = [summary.ceiling(root / "metrics", which) for which in (tuple(names), *((name,) for name in names))]
    if limits[0] is not None:
        mean, *each = ("" if limit is None else f"{limit:.2f}" for limit in limits)
        rows.append(("ideal observer of the simulation", mean, "", *each))
    titles = (f"r, {factor.replace('_', ' ')}" for factor in FACTORS)
    return markdown(("challenge 2", "mean Pearson r", "mean NRMSE", *titles), rows)


def comparisons(root: Path) -> str:
    """The comparisons of two predictors, with their verdicts."""
    rows = []
    for task in ("challenge1", "challenge2"):
        for name, row in read_json(root / f"metrics/{task}.json").get("comparisons", {}).items():
            pair, _, score = name.partition(".")
            first, _, second = pair.partition("_over_")
            if row:
                text = f"{summary.label(first)} over {summary.label(second)}"
                rows.append((task, text, score, interval(row, sign="+"), row["verdict"]))
    return (
        markdown(("task", "comparison", "score", "difference", "verdict"), rows)
        if rows
        else "The results hold none yet."
    )


def distributions(root: Path) -> str:
    """The scores of the predicted distributions of response times."""
    rows = []
    for name, scores in read_json(root / "metrics/challenge1.json").get("distribution", {}).items():
        covered = [_number(scores[f"coverage_{percent}"]) for percent in (50, 80, 95)]
        rows.append(
            (summary.label(name), interval(scores["crps_s"], digits=3), *covered, f"{_number(scores['width_s_80'])} s")
        )
    titles = ("predictor", "CRPS, s", "in 50 %", "in 80 %", "in 95 %", "width of 80 %")
    return markdown(titles, rows) if rows else "The results hold none yet."


def learning(root: Path) -> str:
    """Scores by the share of participants with labels, and what pretraining gains."""
    rows, table = learning_rows(root, "labels"), []
    for share in sorted({row["labels"] for row in rows}, key=float):
        found = {(row["model"], row["versus"], row["score"]): row for row in rows if row["labels"] == share}
        start = "pretrained" if float(share) else "zero_shot"
        scores = [found.get(key) for key in ((start, "", "pearson_r"), ("from_scratch", "", "pearson_r"))]
        gains = [found.get(("pretrained", "from_scratch", score)) for score in ("pearson_r", "auroc_miss")]
        cells = [interval(_floats(row)) for row in scores] + [
            interval(_floats(row), sign="+", digits=3) for row in gains
        ]
        table.append((f"{100 * float(share):g} %" if float(share) else "none", *cells))
    return markdown(("people with labels", "r, pretrained", "r, from scratch", "gain in r", "gain in AUROC"), table)


def pretraining_participants(root: Path) -> str:
    """What pretraining gains by the number of participants to pretrain on."""
    rows, table = learning_rows(root, "participants"), []
    for n in dict.fromkeys(row["pretraining_participants"] for row in rows if row["pretraining_participants"]):
        found = {(row["versus"], row["score"]): row for row in rows if row["pretraining_participants"] == n}
        gains = [_floats(found[("from_scratch", score)]) for score in ("pearson_r", "auroc_miss")]
        table.append((n, interval(_floats(found[("", "pearson_r")])), *(interval(gain, sign="+") for gain in gains)))
    return markdown(("people to pretrain on", "r", "gain in r", "gain in AUROC"), table)


def peers(root: Path) -> str:
    """Scores of our network and of others, and by how much ours is better."""
    rows = learning_rows(root, "peers")
    if not rows:
        return "The results hold none yet."
    found = {(row["model"], row["versus"], row["score"]): _floats(row) for row in rows}
    ours, *others = dict.fromkeys(row["model"] for row in rows)
    table = [
        (
            "ours" if name == ours else name.replace("_", " "),
            *(interval(found[name, "", score]) for score in ("pearson_r", "nrmse")),
            *(interval(found.get((ours, name, score), {}), sign="+") for score in ("pearson_r", "nrmse")),
        )
        for name in (ours, *others)
    ]
    return markdown(("network", "r", "NRMSE", "ours minus it, r", "NRMSE"), table)


def _floats(row: dict[str, str] | None) -> dict[str, float]:
    return {key: float(row[key]) for key in ("value", "low", "high")} if row else {}


def deployed(root: Path) -> str:
    """Speed and size of the deployed networks."""
    speed = read_json(root / "metrics/benchmark.json")
    rows = []
    for task, variant in speed["chosen"].items():
        row, target = speed["variants"][task][variant], speed["targets"][task]
        times = [f"{row[name]:.2f} ms" for name in ("p50_ms", "p99_ms")]
        faster = f"{target['speedup_over_reference_pytorch']:.0f} times"
        rows.append((task, variant.replace("_", " "), *times, f"{row['size_kb']:.0f} kB", faster))
    return markdown(("network", "variant", "median", "99 %", "size", "faster than the reference transformer"), rows)


def _number(score: dict) -> str:
    return f"{score['value']:.2f}" if "value" in score else ""


PARTS: dict[str, Callable[[Path], str]] = {
    "data": data,
    "challenge1": challenge1,
    "challenge2": challenge2,
    "comparisons": comparisons,
    "distributions": distributions,
    "learning": learning,
    "pretraining_participants": pretraining_participants,
    "peers": peers,
    "deployed": deployed,
    "errors": lambda root: errors.listing(root / "src"),
}
