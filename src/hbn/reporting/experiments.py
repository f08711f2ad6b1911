"""Experiments and commits with the scores that tell them apart, from `dvc exp show`."""

from hbn.reporting.repository import dvc_json

# Column: metrics file, key, whether lower is better.
SCORES = {
    "challenge1.nrmse": ("metrics/challenge1.json", "test.pretrained.nrmse.value", True),
    "challenge1.r": ("metrics/challenge1.json", "test.pretrained.pearson_r.value", False),
    "challenge1.auroc": ("metrics/challenge1.json", "test.pretrained.auroc_miss.value", False),
    "challenge2.nrmse": ("metrics/challenge2.json", "test.eeg.mean_nrmse.value", True),
    "challenge2.r": ("metrics/challenge2.json", "test.eeg.mean_pearson_r.value", False),
    "pretrain.explained": ("metrics/pretrain.json", "explained", False),
}
COLUMNS = ("experiment", "commit", "state", *SCORES, "changed parameters")


def experiments(n_commits: int = 5) -> list[dict]:
    """One row (COLUMNS) for the workspace, for each of the last commits and for each of their experiments.

    Parameters are named where they differ from the commit that the experiment started from. A score is
    None where the run has none: `dvc exp show` would fill in the ones of its commit.
    """
    rows = []
    for commit in dvc_json("exp", "show", "--num", str(n_commits)):
        start = commit.get("data") or {}
        rows.append(_row(commit["name"] or "", commit["rev"], "", start, start))
        for one in commit.get("experiments") or []:
            state = ((one.get("executor") or {}).get("state") or "").lower().replace("success", "")
            last = one["revs"][0]
            rows.append(_row(one["name"] or last["rev"][:7], commit["rev"], state, last.get("data") or {}, start))
    return rows


def by_score(rows: list[dict], name: str) -> list[dict]:
    """The rows from best to worst, those without the score last."""
    sign = 1 if SCORES[name][2] else -1
    return sorted(rows, key=lambda row: (row[name] is None, sign * (row[name] or 0)))


def _row(name: str, commit: str, state: str, data: dict, start: dict) -> dict:
    before = _parameters(start)
    changed = [f"{key}={value}" for key, value in _parameters(data).items() if value != before.get(key)]
    scores = {
        column: None if state else _find((data.get("metrics") or {}).get(file, {}).get("data") or {}, key)
        for column, (file, key, _) in SCORES.items()
    }
    commit = commit if commit == "workspace" else commit[:7]
    return {"experiment": name, "commit": commit, "state": state, **scores, "changed parameters": ", ".join(changed)}


def _parameters(data: dict) -> dict[str, object]:
    sections = (data.get("params") or {}).get("params.yaml", {}).get("data") or {}
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def _find(content: dict, key: str) -> float | None:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
