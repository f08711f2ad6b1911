"""Print the experiments from best to worst: `make table BY=challenge1.nrmse`, or any column of scores."""

import signal
import sys

from hbn.files import HbnError
from hbn.reporting.experiments import COLUMNS, SCORES, by_score, experiments


def main(score: str = "challenge1.nrmse") -> None:
    if score not in SCORES:
        raise HbnError(f"{score} is no score; choose one of {', '.join(SCORES)}")
    table = [[cell(row[name]) for name in COLUMNS] for row in by_score(experiments(), score)]
    # Runs are told apart by what was changed: a column that says nothing only takes room.
    shown = [i for i in range(len(COLUMNS)) if any(row[i] for row in table)]
    lines = [[row[i] for i in shown] for row in (list(COLUMNS), *table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends it without a word
    try:
        main(*sys.argv[1:])
    except HbnError as error:
        sys.exit(f"table.py: {error}")
