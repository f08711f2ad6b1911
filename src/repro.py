"""Run `dvc repro` with one line per stage, then print the main scores: `make repro`.

Arguments and exit status are those of `dvc repro`. On a terminal, the running stage shows its progress in one line,
warnings stay, and a failed stage shows all its output. .scratch/repro.log has the complete output. Without a terminal
(a pipe, a cluster's log), DVC's output is passed on unchanged.
"""

import signal
import subprocess
import sys
import time

from hbn.reporting.main_scores import main_scores
from hbn.reporting.repository import OTHER_FILES, uncommitted
from hbn.reporting.terminal import duration, run_on_terminal


def main(*arguments: str) -> int:
    start_s = time.monotonic()
    command = ["dvc", "repro", *arguments]
    interrupts = []
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))  # Ctrl-C also reaches DVC, which ends
    status = run_on_terminal(command, interrupts) if sys.stdout.isatty() else subprocess.run(command).returncode
    if status == 0:
        print(*main_scores(), sep="\n")
        if (differs := uncommitted()) != OTHER_FILES:
            print(f"The results of the last commit{f', with {differs}' if differs else ''}")
        print("Next: `make plots` draws all results in report/page.html; `dvc metrics diff` says what changed")
    outcome = "Interrupted" if status and interrupts else "Failed" if status else "Done"
    print(f"{outcome} after {duration(time.monotonic() - start_s)}")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
