"""Scores by group, which show a model that works for teenagers only."""

from collections.abc import Mapping, Sequence

import numpy as np

from hbn.scoring import baselines, metrics

SMALLEST = 5  # participants of a group; an interval over fewer says nothing
UNKNOWN = "unknown"


def by_group(
    score: metrics.Score,
    participant: np.ndarray,
    group: np.ndarray,
    *arrays: np.ndarray,
    n_bootstrap: int,
    seed: int,
    smallest: int = SMALLEST,
) -> dict[str, dict]:
    """`score(*arrays)` within each group of rows, with n and a 95 % interval over its participants.

    participant, group and each array are (N,). A group with fewer than `smallest` participants, or in which the
    score is undefined, has a 'reason' instead of a value.
    """
    report = {}
    for name in np.unique(group):
        rows = group == name
        n_participants = len(np.unique(participant[rows]))
        entry = {"n": {"participants": n_participants, "rows": int(rows.sum())}}
        if n_participants < smallest:
            entry["reason"] = f"fewer than {smallest} participants"
        else:
            inside = [array[rows] for array in arrays]
            value = metrics.with_interval(score, participant[rows], *inside, n_bootstrap=n_bootstrap, seed=seed)
            entry |= value or {"reason": "not defined: the truth is constant"}
        report[str(name)] = entry
    return report


def table(
    measures: dict[str, metrics.Score],
    participant: np.ndarray,
    groupings: dict[str, np.ndarray],
    y: np.ndarray,
    output: np.ndarray,
    n_bootstrap: int,
    seed: int,
) -> dict[str, dict[str, dict]]:
    """Every measure of (y, output) in every group: entries of `by_group` by grouping, measure and group.

    `groupings` holds labels (N,) by name, such as sex, release, fast block and `age_thirds`.
    """
    return {
        name: {
            measure: by_group(score, participant, group, y, output, n_bootstrap=n_bootstrap, seed=seed)
            for measure, score in measures.items()
        }
        for name, group in groupings.items()
    }


def of_participants(participants: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Labels (N,) by age, sex and release of the participant of each row."""
    names, releases = (np.array([row[key] for row in participants]) for key in ("participant_id", "release"))
    sex = np.array([row["sex"] or UNKNOWN for row in participants])
    return {"age": age_thirds(names, baselines.age_sex(participants)[:, 0]), "sex": sex, "release": releases}


def age_thirds(participant: np.ndarray, age_years: np.ndarray) -> np.ndarray:
    """Labels (N,) of the thirds by age, in which each participant (N,) counts once.

    A label states the range in whole years; it has no dots, because dots separate the names of metrics. age_years (N,)
    is NaN where unknown.
    """
    _, first = np.unique(participant, return_index=True)
    ages = np.sort(age_years[first][~np.isnan(age_years[first])])
    labels = np.full(len(participant), UNKNOWN, dtype=object)
    if not len(ages):
        return labels
    cuts = np.quantile(ages, [1 / 3, 2 / 3])
    third_of_ages, third = (np.searchsorted(cuts, values, side="left") for values in (ages, age_years))
    for i, name in enumerate(("youngest", "middle", "oldest")):
        inside = ages[third_of_ages == i]
        if len(inside):
            text = f"{name} ({inside.min():.0f} to {inside.max():.0f} years)"
            labels[(third == i) & ~np.isnan(age_years)] = text
    return labels
