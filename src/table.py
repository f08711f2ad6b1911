"""Print the experiments from best to worst: `make table BY=challenge1.nrmse`, or any column of scores.

Reads  `dvc exp show`: the last commits and their experiments
"""

import shutil
import signal
import sys

from hbn.files import HbnError
from hbn.reporting import tables
from hbn.reporting.experiments import COLUMNS, SCORES, by_score, experiments

# Columns that are left out on a narrow terminal, in this order.
LEAST_TELLING = (
    *("pretrain.explained", "commit", "challenge1.auroc", "challenge2.r", "challenge1.r"),
    *("challenge2.nrmse", "challenge1.nrmse"),
)


def main(score: str = "challenge1.nrmse") -> None:
    if score not in SCORES:
        raise HbnError(f"{score} is no score; choose one of {', '.join(SCORES)}")
    rows = [[_rounded(row[name]) for name in COLUMNS] for row in by_score(experiments(), score)]
    optional = [name for name in LEAST_TELLING if name != score]
    print(tables.terminal(COLUMNS, rows, width=shutil.get_terminal_size((100, 24)).columns, optional=optional))


def _rounded(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else value


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends it without a word
    try:
        main(*sys.argv[1:])
    except HbnError as error:
        sys.exit(f"table.py: {error}")
