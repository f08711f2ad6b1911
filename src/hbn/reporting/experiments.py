"""Experiments and commits with their main scores, from `dvc exp show`."""

from typing import Any

from hbn.reporting.repository import dvc_json
from hbn.scoring.names import direction

# Column -> metrics file, key.
SCORES = {
    "challenge1.nrmse": ("metrics/challenge1.json", "test.pretrained.nrmse.value"),
    "challenge1.r": ("metrics/challenge1.json", "test.pretrained.pearson_r.value"),
    "challenge1.auroc": ("metrics/challenge1.json", "test.pretrained.auroc_miss.value"),
    "challenge2.nrmse": ("metrics/challenge2.json", "test.eeg.mean_nrmse.value"),
    "challenge2.r": ("metrics/challenge2.json", "test.eeg.mean_pearson_r.value"),
    "pretrain.explained": ("metrics/pretrain.json", "explained"),
}
COLUMNS = ("experiment", "commit", "state", *SCORES, "changed parameters")


def experiments(n_commits: int = 5) -> list[dict]:
    """A row (COLUMNS) for the workspace, for each of the last commits and for each of their experiments.

    A commit before the last one is left out if it has no experiments and the scores of a later commit. Changed
    parameters are those that differ from the commit from which the experiment started. The state 'same scores' means
    those of that commit: the stages that score did not run, or nothing changed for them. The scores of an unfinished
    run are None, because `dvc exp show` would fill in those of its commit.
    """
    rows, commits = [], []
    for commit in dvc_json("exp", "show", "--num", str(n_commits)):
        start, runs = commit.get("data") or {}, commit.get("experiments") or []
        row = _row(commit["name"] or _short(commit["rev"]), commit["rev"], "", start, start)
        if runs or len(commits) < 2 or not any(_same_scores(row, other) for other in commits):
            rows.append(row)
        commits.append(row)
        for experiment in runs:
            state = ((experiment.get("executor") or {}).get("state") or "").lower().replace("success", "")
            last = experiment["revs"][0]
            name = experiment["name"] or _short(last["rev"])
            rows.append(_row(name, commit["rev"], state, last.get("data") or {}, start))
            if not state and _same_scores(rows[-1], row):
                rows[-1]["state"] = "same scores"
    return rows


def by_score(rows: list[dict], name: str) -> list[dict]:
    """The rows from best to worst, those without the score last."""
    return sorted(rows, key=lambda row: (row[name] is None, -direction(name) * (row[name] or 0)))


def _row(name: str, commit: str, state: str, data: dict, start: dict) -> dict:
    before = _parameters(start)
    changed = [f"{key}={value}" for key, value in _parameters(data).items() if value != before.get(key)]
    scores = {
        column: None if state else value_at((data.get("metrics") or {}).get(file, {}).get("data") or {}, key)
        for column, (file, key) in SCORES.items()
    }
    return {
        "experiment": name,
        "commit": _short(commit),
        "state": state,
        **scores,
        "changed parameters": ", ".join(changed),
    }


def _short(commit: str) -> str:
    return commit if commit == "workspace" else commit[:7]


def _same_scores(row: dict, other: dict) -> bool:
    return all(row[name] == other[name] for name in SCORES)


def _parameters(data: dict) -> dict[str, object]:
    return dotted((data.get("params") or {}).get("params.yaml", {}).get("data") or {})


def dotted(sections: dict[str, dict]) -> dict[str, object]:
    """The values of params.yaml by their names on a command line, such as 'pretrain.steps'."""
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def value_at(content: Any, key: str) -> float | None:
    """The value under a dotted key of a metrics file; None where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
