"""Whether dvc.lock matches dvc.yaml, params.yaml, the code and the results in git; and what dvc.lock records."""

import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from hbn.reporting.repository import dvc_json, extract, git, ignored, stage_graph

LOCK = Path("dvc.lock")
# Stages whose output is always the same, so that no stage after them reruns.
NEVER_CHANGES = {"check_params"}

Stages = dict[str, dict]


def read_lock(path: Path = LOCK) -> Stages:
    """The stages of a dvc.lock; none when there is no such file."""
    return parse(path.read_text(encoding="utf-8")) if path.exists() else {}


def parse(text: str) -> Stages:
    """The stages in the text of a dvc.lock."""
    return YAML(typ="safe").load(text)["stages"]


def out_of_date() -> dict[str, list[str]]:
    """Stages that no longer match dvc.lock, and why."""
    lock = read_lock()
    stale = stale_stages(dvc_json("status"))
    # `dvc status` does not see these reasons where the data are absent.
    for stage in stage_graph().keys() - lock.keys():
        stale.setdefault(stage, []).append("not in dvc.lock")
    for stage, path in broken_links(lock):
        stale.setdefault(stage, []).append(f"{path} is not the one that its stage made")
    return stale


def stale_stages(status: dict) -> dict[str, list[str]]:
    """Stages that no longer match dvc.lock and why, from `dvc status`.

    Absent outputs that git ignores are no reason, because a fresh clone has none of them.
    """
    stale: dict[str, list[str]] = {}
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # such as 'changed command'
                stale.setdefault(stage, []).append(entry)
                continue
            changes = {path: state for kind in entry.values() for path, state in kind.items()}
            absent = ignored([path for path, state in changes.items() if state in ("deleted", "not in cache")])
            for path, state in changes.items():
                if isinstance(state, dict):  # parameters of one file
                    stale.setdefault(stage, []).extend(f"parameter {key} {how}" for key, how in sorted(state.items()))
                elif path not in absent:
                    stale.setdefault(stage, []).append(f"{path} {state}")
    return stale


def broken_links(lock: Stages) -> list[tuple[str, str]]:
    """(stage, path) of each dependency in dvc.lock that differs from the output of the stage that made it."""
    made = {out["path"]: out.get("md5") for stage in lock.values() for out in stage.get("outs", [])}
    return [
        (name, dep["path"])
        for name, stage in lock.items()
        for dep in stage.get("deps", [])
        if dep["path"] in made and made[dep["path"]] != dep.get("md5")
    ]


def rerun_since(start: str) -> list[str]:
    """Stages whose entry in dvc.lock differs from the one in git at `start`."""
    with tempfile.TemporaryDirectory() as folder:
        extract(start, Path(folder), LOCK.name)
        before = read_lock(Path(folder) / LOCK.name)
    return sorted(name for name, entry in read_lock().items() if entry != before.get(name))


def stages_to_rerun(stale: dict[str, list[str]]) -> str:
    """The stages that `dvc repro` would run, in Markdown: the stale stages and all stages after them."""
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
    """A line for each stale stage."""
    return [f"- `{stage}`: {'; '.join(reasons)}" for stage, reasons in stale.items()]


def last_changes(n_commits: int = 100) -> dict[str, tuple[str, str]]:
    """Commit and date (YYYY-MM-DD) that gave each stage its present entry, among the last n_commits of dvc.lock.

    A stage whose entry is older or not committed is left out.
    """
    log = git("log", f"-{n_commits}", "--format=%h %cs", "--", LOCK.name)
    changes: dict[str, tuple[str, str]] = {}
    open_stages = read_lock()
    for entry in log.splitlines():
        if not open_stages:
            break
        commit, date = entry.split()
        committed = parse(git("show", f"{commit}:{LOCK.name}"))
        open_stages = {name: stage for name, stage in open_stages.items() if committed.get(name) == stage}
        changes |= dict.fromkeys(open_stages, (commit, date))  # an older commit had the same entry
    return changes
