"""What a branch changes, for its pull request: `make report BASE=main`, or `--check` alone.

Reads  params.yaml, dvc.yaml, dvc.lock, metrics/, plots/, here and in git where the branch left BASE
Writes report.md, report/*.png

`--check` writes nothing and fails when dvc.lock is not what dvc.yaml, params.yaml, the code and the
results in git say. It needs no data, so it works in a fresh clone.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import matplotlib
from ruamel.yaml import YAML

from hbn.files import HbnError, atomic, write_text
from hbn.reporting.figures import FIGURES
from hbn.reporting.repository import dvc_json, extract, git, ignored, stage_graph

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# The direction of a score by its name; the first that matches. Others (counts, facts) have none.
NO_DIRECTION = re.compile(r"(^|\.)(mean|age_sex|stimulus_history|ceiling|drop|reference)\.|_of_zero$")
LOWER_IS_BETTER = re.compile(r"nrmse|mae|loss|_ms$|size|_mb$|rejected|dropped")
HIGHER_IS_BETTER = re.compile(r"pearson_r|auroc|explained|speedup|windows_per_s|accepted|within_budget|enough")
TIMINGS = "metrics/benchmark.json"  # measured anew on every machine
MAX_FOLDED = 200  # rows; a comment on a pull request holds 65,536 characters
# Its output is always the same text, so that nothing after it reruns.
NEVER_CHANGES = {"check_params"}


def main(base: str) -> None:
    start = git("merge-base", base, "HEAD")
    scores = changed_scores(dvc_json("metrics", "diff", "--all", start))
    stale = out_of_date()
    parts = [
        f"# What this branch changes\n\nAgainst `{base}` (where the branch left it, {start[:8]}). {summary(scores)}",
        "## Parameters\n\n" + parameters(dvc_json("params", "diff", start)),
        "## Scores\n\n" + score_tables(scores),
        f"## Stages\n\nRun again since then: {', '.join(rerun_since(start)) or 'none'}.\n\n{stages_to_rerun(stale)}",
        "## Plots\n\n" + plots(start, base),
    ]
    write_text("report.md", "\n\n".join(parts) + "\n")
    print("report.md and report/ are written")


def check() -> None:
    """HbnError when dvc.lock does not match what is in git."""
    if stale := out_of_date():
        raise HbnError("dvc.lock is out of date; run `dvc repro` and commit:\n" + "\n".join(lines(stale)))
    print("dvc.lock matches dvc.yaml, params.yaml, the code and the results in git")


def out_of_date() -> dict[str, list[str]]:
    """Stages that no longer match dvc.lock, and why."""
    lock = read_lock(Path("dvc.lock"))
    stale = stale_stages(dvc_json("status"))
    # What `dvc status` cannot see where the data are absent.
    for stage in stage_graph().keys() - lock.keys():
        stale.setdefault(stage, []).append("not in dvc.lock")
    for stage, path in broken_links(lock):
        stale.setdefault(stage, []).append(f"{path} is not the one that its stage made")
    return stale


def stale_stages(status: dict) -> dict[str, list[str]]:
    """Stages that no longer match dvc.lock and why, from `dvc status`.

    Products that git ignores and that are not here say nothing: a fresh clone has none.
    """
    found: dict[str, list[str]] = {}
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # such as 'changed command'
                found.setdefault(stage, []).append(entry)
                continue
            changes = {path: state for kind in entry.values() for path, state in kind.items()}
            absent = ignored([path for path, state in changes.items() if state in ("deleted", "not in cache")])
            for path, state in changes.items():
                if isinstance(state, dict):  # parameters of one file
                    found.setdefault(stage, []).extend(f"parameter {key} {how}" for key, how in sorted(state.items()))
                elif path not in absent:
                    found.setdefault(stage, []).append(f"{path} {state}")
    return found


def broken_links(lock: dict) -> list[tuple[str, str]]:
    """(stage, path) where dvc.lock has a stage reading another version than what its maker wrote."""
    made = {out["path"]: out.get("md5") for stage in lock.values() for out in stage.get("outs", [])}
    return [
        (name, dep["path"])
        for name, stage in lock.items()
        for dep in stage.get("deps", [])
        if dep["path"] in made and made[dep["path"]] != dep.get("md5")
    ]


def read_lock(path: Path) -> dict:
    """The stages of a dvc.lock; none when there is no such file."""
    return YAML(typ="safe").load(path)["stages"] if path.exists() else {}


def rerun_since(start: str) -> list[str]:
    """Stages whose entry in dvc.lock differs from the one in git at `start`."""
    with tempfile.TemporaryDirectory() as folder:
        extract(start, Path(folder), "dvc.lock")
        before = read_lock(Path(folder) / "dvc.lock")
    return sorted(name for name, entry in read_lock(Path("dvc.lock")).items() if entry != before.get(name))


def stages_to_rerun(stale: dict[str, list[str]]) -> str:
    if not stale:
        return "`dvc.lock` is up to date: `dvc repro` has nothing to run."
    graph, after, todo = stage_graph(), set(), [name for name in stale if name not in NEVER_CHANGES]
    while todo:
        new = graph.get(todo.pop(), set()) - after
        after |= new
        todo += new
    follow = ", ".join(sorted(after - set(stale)))
    text = "**`dvc.lock` is out of date.** `dvc repro` would run:\n\n" + "\n".join(lines(stale))
    return text + (f"\n\nand what follows them: {follow}." if follow else "")


def lines(stale: dict[str, list[str]]) -> list[str]:
    return [f"- `{stage}`: {'; '.join(reasons)}" for stage, reasons in stale.items()]


def parameters(changes: dict) -> str:
    rows = [
        (f"`{key}`", show(change.get("old")), show(change.get("new")))
        for keys in changes.values()
        for key, change in sorted(keys.items())
    ]
    return table(("parameter", "before", "here"), rows) if rows else "None changed."


def changed_scores(diff: dict) -> list[dict]:
    """One row per score that changed: file, name, values before and here, interval before, verdict."""
    rows = []
    for file, keys in sorted(diff.items()):
        for key, change in sorted(keys.items()):
            old, new = change.get("old"), change.get("new")
            stem = key.removesuffix(".value")
            if old == new or (key.endswith((".low", ".high")) and key.rsplit(".", 1)[0] + ".value" in keys):
                continue
            interval = [keys.get(f"{stem}.{end}", {}).get("old") for end in ("low", "high")] if stem != key else [None]
            rows.append(
                {
                    **{"file": file, "name": stem, "old": old, "new": new},
                    "interval": None if None in interval else interval,
                    "verdict": verdict(stem, old, new),
                }
            )
    return rows


def verdict(name: str, old: object, new: object) -> str:
    """'better' or 'worse', '' where the score has no direction."""
    if not all(isinstance(value, int | float) for value in (old, new)) or NO_DIRECTION.search(name):
        return ""
    last = name if name.rsplit(".", 1)[-1].isdigit() else name.rsplit(".", 1)[-1]
    if LOWER_IS_BETTER.search(last):
        return "better" if new < old else "worse"
    return ("better" if new > old else "worse") if HIGHER_IS_BETTER.search(last) else ""


def beyond(row: dict) -> str:
    """Whether the value here lies outside the 95 % interval of the value before."""
    if row["interval"] is None or not isinstance(row["new"], int | float):
        return ""
    low, high = row["interval"]
    return "no" if low <= row["new"] <= high else "**yes**"


def summary(rows: list[dict]) -> str:
    judged = [row for row in rows if row["verdict"] and row["file"] != TIMINGS]
    count = {name: sum(row["verdict"] == name for row in judged) for name in ("better", "worse")}
    far = sum(beyond(row) == "**yes**" for row in judged)
    return (
        f"Scores: {count['better']} better, {count['worse']} worse, "
        f"{far} of them beyond the 95 % interval that the score had before."
    )


def score_tables(rows: list[dict]) -> str:
    """What is better or worse in sight, the rest (counts, floors, timings) folded away."""
    titles = ("file", "score", "before", "here", "change", "", "beyond the interval")

    def cells(row: dict) -> tuple[str, ...]:
        old, new = row["old"], row["new"]
        both = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
        before = show(old) + (f" ({show(row['interval'][0])} to {show(row['interval'][1])})" if row["interval"] else "")
        return (
            *(row["file"].removeprefix("metrics/"), f"`{row['name']}`", before, show(new)),
            *(f"{new - old:+.3g}" if both else "", row["verdict"], beyond(row)),
        )

    seen = [cells(row) for row in rows if row["verdict"] and row["file"] != TIMINGS]
    rest = [cells(row) for row in rows if not row["verdict"] or row["file"] == TIMINGS]
    text = table(titles, seen) if seen else "No score changed."
    if rest:
        about = f"{len(rest)} other numbers: counts, floors, timings of this machine"
        if len(rest) > MAX_FOLDED:
            about += f"; the first {MAX_FOLDED} (all: dvc metrics diff)"
        text += f"\n\n<details><summary>{about}</summary>\n\n{table(titles, rest[:MAX_FOLDED])}\n\n</details>"
    return text


def plots(start: str, base: str) -> str:
    """Draw every figure whose tables changed, before and here, and link the images."""
    links = []
    for image in Path("report").glob("*.png"):  # of an earlier report
        image.unlink()
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder)
        extract(start, before, "plots")
        for name, figure in FIGURES.items():
            if contents(figure.files(before), before) == contents(figure.files(Path()), Path()):
                continue
            image, axes = plt.subplots(
                1, 2, figsize=(10, 4), sharex=True, sharey=not figure.names_on_y, layout="constrained"
            )
            for place, root, when in zip(axes, (before, Path()), (f"before ({base})", "here"), strict=True):
                figure.on(place, root)
                place.set_title(f"{when}   {place.get_title()}", loc="left")
            image.suptitle(figure.title)
            with atomic(f"report/{name}.png") as temporary:
                image.savefig(temporary, dpi=80, format="png")
            plt.close(image)
            links.append(f"![{figure.title}](report/{name}.png)")
    return "\n\n".join(links) or "None changed."


def contents(files: list[Path], root: Path) -> dict[Path, str]:
    return {file.relative_to(root): file.read_text() for file in files}


def show(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="main", help="the branch or commit to compare with (main)")
    parser.add_argument("--check", action="store_true", help="only check that dvc.lock is up to date")
    arguments = parser.parse_args()
    try:
        check() if arguments.check else main(arguments.base)
    except HbnError as error:
        sys.exit(f"report.py: {error}")
