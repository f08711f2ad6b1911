"""Whether a predictor is better than another beyond chance: paired over participants, corrected for many tests."""

from collections.abc import Sequence

import numpy as np

from hbn.scoring import metrics
from hbn.scoring.names import direction

LEVEL = 0.05
BETTER, WORSE, UNCLEAR = "better, beyond chance", "worse, beyond chance", "no difference beyond chance"


def paired(
    score: metrics.Score,
    participant: np.ndarray,
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    n_bootstrap: int,
    seed: int,
) -> dict[str, float]:
    """By how much `score` of `first` exceeds that of `second`: {'value', 'low', 'high', 'p'}, empty where undefined.

    All arrays have N rows. Both predictions are scored on the same samples of participants. The two-sided p is twice
    the share of samples on the rarer side of zero, with one added to both counts so that it is never zero.
    Source: Davison and Hinkley, Bootstrap methods and their application (1997).
    """
    difference = metrics.difference(score)
    value = difference(y, first, second)
    if value is None:
        return {}
    draws = metrics.bootstrap(difference, participant, y, first, second, n_bootstrap=n_bootstrap, seed=seed)
    rarer = min(np.sum(draws <= 0), np.sum(draws >= 0))
    low, high = np.percentile(draws, [2.5, 97.5])
    p = min(1.0, 2 * (1 + int(rarer)) / (1 + len(draws)))
    return {"value": value, "low": float(low), "high": float(high), "p": p}


def table(
    measures: dict[str, metrics.Score],
    participant: np.ndarray,
    y: np.ndarray,
    outputs: dict[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    n_bootstrap: int,
    seed: int,
) -> dict[str, dict]:
    """Judged comparisons of pairs of predictors in every measure, named '<first>_over_<second>.<measure>'.

    `outputs` holds what each predictor says of the rows, by its name.
    """
    draws = {"n_bootstrap": n_bootstrap, "seed": seed}
    return judge(
        {
            f"{first}_over_{second}.{measure}": paired(score, participant, y, outputs[first], outputs[second], **draws)
            for first, second in pairs
            for measure, score in measures.items()
        }
    )


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """p values corrected for the number of tests, so that the chance of any false claim stays below the level.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected


def judge(comparisons: dict[str, dict]) -> dict[str, dict]:
    """Comparisons by the dotted name of their score, each with 'p_holm' over all of them and a 'verdict'.

    The verdict is for the first predictor. The name decides whether higher is better, as in 'gain.pearson_r'.
    """
    corrected = holm({name: row["p"] for name, row in comparisons.items() if row})
    return {
        name: row | {"p_holm": corrected[name], "verdict": verdict(name, row["value"], corrected[name])} if row else {}
        for name, row in comparisons.items()
    }


def verdict(name: str, difference: float, p: float) -> str:
    """What a difference in the score `name` means for the first of two predictors, in words."""
    sign = direction(name)
    if not sign:
        raise ValueError(f"the score {name} has no direction in hbn.scoring.names; add it there")
    if p >= LEVEL:
        return UNCLEAR
    return BETTER if sign * difference > 0 else WORSE
