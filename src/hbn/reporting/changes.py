"""What changed between a commit and the working tree, in Markdown: parameters, scores and plots."""

import tempfile
from pathlib import Path
from typing import Any

import matplotlib

from hbn.files import atomic
from hbn.reporting.experiments import SCORES
from hbn.reporting.figures import FIGURES
from hbn.reporting.repository import TIMES, extract
from hbn.reporting.tables import is_number, markdown, show
from hbn.scoring.names import direction

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MAX_FOLDED = 200  # rows; a comment on a pull request holds 65,536 characters
TITLES = ("file", "score", "before", "here", "change", "", "beyond the interval")


def parameters(changes: dict) -> str:
    """A table of `dvc params diff`."""
    rows = [
        (f"`{key}`", change.get("old"), change.get("new"))
        for keys in changes.values()
        for key, change in sorted(keys.items())
    ]
    return markdown(("parameter", "before", "here"), rows) if rows else "None changed."


def changed_scores(diff: dict) -> list[dict]:
    """A row for each changed score of `dvc metrics diff`: file, name, values, interval before, verdict."""
    rows = []
    for file, keys in sorted(diff.items()):
        for key, change in sorted(keys.items()):
            old, new = change.get("old"), change.get("new")
            stem = key.removesuffix(".value")
            if old == new or (key.endswith((".low", ".high")) and key.rsplit(".", 1)[0] + ".value" in keys):
                continue
            ends = [keys.get(f"{stem}.{end}", {}).get("old") for end in ("low", "high")] if stem != key else [None]
            row = {"file": file, "name": stem, "old": old, "new": new, "verdict": verdict(stem, old, new)}
            rows.append(row | {"interval": None if None in ends else ends})
    return rows


def verdict(name: str, old: Any, new: Any) -> str:
    """'better' or 'worse'; '' for a score without a direction."""
    sign = direction(name)
    if not sign or not all(isinstance(value, int | float) for value in (old, new)):
        return ""
    return "better" if sign * (new - old) > 0 else "worse"


def beyond(row: dict) -> str:
    """Whether the new value lies outside the 95 % interval of the old value; '' where this is not known."""
    if row["interval"] is None or not is_number(row["new"]):
        return ""
    low, high = row["interval"]
    return "no" if low <= row["new"] <= high else "**yes**"


def summary(rows: list[dict]) -> str:
    """How many main scores, and how many others, are better and worse, in a sentence."""
    main, other, _ = parts(rows)
    far = sum(beyond(row) == "**yes**" for row in main)
    return (
        f"Main scores: {_counts(main)}, {far} of them beyond the 95 % interval that the score had before. "
        f"Other scores: {_counts(other)}."
    )


def score_tables(rows: list[dict]) -> str:
    """A visible table of the main scores; folded tables of the other scores and of the other numbers."""
    main, other, rest = parts(rows)
    text = markdown(TITLES, [_cells(row) for row in main]) if main else "No main score changed."
    text += _folded(other, "other scores: parts, variants, comparisons")
    return text + _folded(rest, "other numbers: counts, baselines, timings of this machine")


def parts(rows: list[dict]) -> tuple[list[dict], list[dict], list[dict]]:
    """The rows of main scores in the order of SCORES, of other scores with a verdict, and of the other numbers."""
    judged, rest = {}, []
    for row in rows:
        if row["verdict"] and not row["file"].startswith(TIMES):
            judged[row["file"], row["name"]] = row
        else:
            rest.append(row)
    names = [(file, key.removesuffix(".value")) for file, key in SCORES.values()]
    main = [judged.pop(name) for name in names if name in judged]
    return main, list(judged.values()), rest


def _counts(rows: list[dict]) -> str:
    verdicts = [row["verdict"] for row in rows]
    return f"{verdicts.count('better')} better, {verdicts.count('worse')} worse"


def _folded(rows: list[dict], about: str) -> str:
    if not rows:
        return ""
    about = f"{len(rows)} {about}"
    if len(rows) > MAX_FOLDED:
        about += f"; the first {MAX_FOLDED} (all: dvc metrics diff)"
    table = markdown(TITLES, [_cells(row) for row in rows[:MAX_FOLDED]])
    return f"\n\n<details><summary>{about}</summary>\n\n{table}\n\n</details>"


def _cells(row: dict) -> tuple[str, ...]:
    old, new = row["old"], row["new"]
    before = show(old) + (" ({} to {})".format(*map(show, row["interval"])) if row["interval"] else "")
    change = f"{new - old:+.3g}" if is_number(old) and is_number(new) else ""
    file = row["file"].removeprefix("metrics/")
    return (file, f"`{row['name']}`", before, show(new), change, row["verdict"], beyond(row))


def plots(start: str, base: str, folder: Path) -> str:
    """Draw every figure whose tables changed, before and here, into `folder`; returns links to the images."""
    links = []
    for image in folder.glob("*.png"):  # of an earlier report
        image.unlink()
    with tempfile.TemporaryDirectory() as temporary:
        before = Path(temporary)
        extract(start, before, "plots")
        for name, figure in FIGURES.items():
            if _contents(figure.files(before), before) == _contents(figure.files(Path()), Path()):
                continue
            image, axes = plt.subplots(
                1, 2, figsize=(10, 4), sharex=True, sharey=not figure.names_on_y, layout="constrained"
            )
            for place, root, when in zip(axes, (before, Path()), (f"before ({base})", "here"), strict=True):
                figure.on(place, root)
                place.set_title(f"{when}   {place.get_title()}", loc="left")
            image.suptitle(figure.title)
            with atomic(folder / f"{name}.png") as path:
                image.savefig(path, dpi=80, format="png")
            plt.close(image)
            links.append(f"![{figure.title}]({folder.as_posix()}/{name}.png)")
    return "\n\n".join(links) or "None changed."


def _contents(files: list[Path], root: Path) -> dict[Path, str]:
    return {file.relative_to(root): file.read_text() for file in files}
