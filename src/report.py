"""Report what a branch changes, for its pull request: `make report BASE=main`, or only check with `--check`.

Reads  params.yaml, dvc.yaml, dvc.lock, metrics/, plots/, here and in git at the commit where the branch left BASE
Writes report.md, report/*.png

`--check` writes nothing and fails when dvc.lock is not what dvc.yaml, params.yaml, the code and the
results in git say. It needs no data, so it works in a fresh clone.
"""

import argparse
import sys
from pathlib import Path

from hbn.files import HbnError, write_text
from hbn.reporting import changes, lock
from hbn.reporting.repository import dvc_json, git


def main(base: str) -> None:
    start = git("merge-base", base, "HEAD")
    scores = changes.changed_scores(dvc_json("metrics", "diff", "--all", start))
    rerun = ", ".join(lock.rerun_since(start)) or "none"
    about = f"Against `{base}` (where the branch left it, {start[:8]}). {changes.summary(scores)}"
    parts = [
        f"# What this branch changes\n\n{about}",
        "## Parameters\n\n" + changes.parameters(dvc_json("params", "diff", start)),
        "## Scores\n\n" + changes.score_tables(scores),
        f"## Stages\n\nRun again since then: {rerun}.\n\n{lock.stages_to_rerun(lock.out_of_date())}",
        "## Plots\n\n" + changes.plots(start, base, Path("report")),
    ]
    write_text("report.md", "\n\n".join(parts) + "\n")
    print("report.md and report/ are written")


def check() -> None:
    """HbnError when dvc.lock does not match what is in git."""
    if stale := lock.out_of_date():
        reasons = "\n".join(lock.lines(stale))
        raise HbnError(f"dvc.lock is out of date; run `dvc repro` and commit:\n{reasons}")
    print("dvc.lock matches dvc.yaml, params.yaml, the code and the results in git")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="main", help="the branch or commit to compare with (main)")
    parser.add_argument("--check", action="store_true", help="only check that dvc.lock is up to date")
    arguments = parser.parse_args()
    try:
        check() if arguments.check else main(arguments.base)
    except HbnError as error:
        sys.exit(f"report.py: {error}")
