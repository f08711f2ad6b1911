"""The names in metrics files: which predictors are baselines, and whether a higher or a lower score is better.

It imports no other package, because the report of a pull request is written with only DVC and matplotlib installed.
"""

import re

# Predictors that see no EEG, and what each of them knows.
BASELINES = {
    "mean": "training mean",
    "age_sex": "age and sex",
    "stimulus_history": "age, sex, stimulus, previous trial",
}
# Numbers without a direction have these words in their names: baselines, bounds and differences.
NO_DIRECTION = re.compile(rf"(^|\.)({'|'.join(BASELINES)}|ceiling|drop|reference)(\.|$)|_of_zero$|_training_mean$")
LOWER_IS_BETTER = re.compile(r"nrmse|mae|crps|loss|_ms$|size|width|_mb$|rejected|dropped")
HIGHER_IS_BETTER = re.compile(r"pearson_r|(^|_)r$|auroc|explained|speedup|windows_per_s|accepted|within_budget|enough")


def direction(name: str) -> int:
    """1 where higher is better, -1 where lower is better, 0 where neither is (counts, facts, baselines).

    `name` is the dotted name of a number in a metrics file, such as 'test.pretrained.nrmse'; a last part that is a
    number (a batch size) takes the direction of the part before it.
    """
    if NO_DIRECTION.search(name):
        return 0
    parts = [part for part in name.removesuffix(".value").split(".") if not part.isdigit()]
    last = parts[-1] if parts else ""
    if LOWER_IS_BETTER.search(last):
        return -1
    return 1 if HIGHER_IS_BETTER.search(last) else 0
