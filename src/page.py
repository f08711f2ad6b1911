"""Write one HTML file that shows everything, without a network: `make plots`.

Reads  dvc.yaml, metrics/, plots/, `dvc exp show`, models/challenge1.pt where it is there
Writes report/page.html (images are inside it)
"""

import base64
import io
import sys
from collections.abc import Iterator
from datetime import datetime
from html import escape
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader
from ruamel.yaml import YAML

from hbn.files import HbnError, read_json, write_text
from hbn.reporting.experiments import COLUMNS, by_score, experiments
from hbn.reporting.figures import FIGURES
from hbn.reporting.repository import git, stage_graph

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PAGE = Path("report/page.html")
MODEL = Path("models/challenge1.pt")
TABS = {
    "Data": ("spectra", "windows", "response_times"),
    "Training": ("pretrain", "challenge1_curves"),
    "Challenge 1": ("response_time", "calibration", "roc", "reliability"),
    "Challenge 2": ("factors",),
    "Deployment": ("deployed", "latency"),
}


def main() -> None:
    stages = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]
    declared = {}
    for name, stage in stages.items():
        stream = io.StringIO()
        YAML().dump({name: stage}, stream)
        declared[name] = stream.getvalue()
    commit = git("rev-parse", "--short", "HEAD") + (" and uncommitted changes" if git("status", "--porcelain") else "")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("page.html").render(
        about=f"Commit {commit}, drawn {datetime.now():%Y-%m-%d %H:%M}. Data: {', '.join(sorted(sources()))}.",
        tabs=[
            {"id": "pipeline", "title": "Pipeline", "graph": pipeline(stage_graph())},
            *({"id": identifier(title), "title": title, **figures(names)} for title, names in TABS.items()),
            {"id": "scalp", "title": "Scalp", **scalp(MODEL)},
            {
                "id": "scores",
                "title": "Scores",
                "columns": ("file", "number", "value", "low", "high"),
                "rows": scores(),
            },
            {"id": "experiments", "title": "Experiments", "columns": COLUMNS, "rows": runs()},
        ],
        stages=declared,
    )
    write_text(PAGE, page)
    print(f"{PAGE} is written")


def sources() -> set[str]:
    return {read_json(path).get("source", "unknown") for path in Path("metrics").rglob("*.json")} or {"none yet"}


def identifier(title: str) -> str:
    return title.lower().replace(" ", "-")


def figures(names: tuple[str, ...]) -> dict:
    """The figures of one tab; a note for each whose tables are not there."""
    drawn, notes = [], []
    for name in names:
        figure = FIGURES[name]
        if not figure.files(Path()):
            notes.append(f"{figure.title}: {' and '.join(figure.paths)} not there; run `dvc repro`.")
            continue
        image, axes = plt.subplots(figsize=(6.2, 4.6), layout="constrained")
        figure.on(axes, Path())
        drawn.append({"title": figure.title, "image": data_uri(image)})
    return {"figures": drawn, "notes": notes}


def data_uri(image: plt.Figure) -> str:
    """A drawn figure as text that an <img> shows."""
    stream = io.BytesIO()
    image.savefig(stream, dpi=90, format="png")
    plt.close(image)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def scalp(path: Path) -> dict:
    """Scalp maps of what the network's spatial filters pick up, the most used first."""
    if not path.exists():
        return {"notes": [f"Scalp maps need {path}: run `dvc repro challenge1` or `dvc pull {path}`."]}
    # Slow to import, and of no use without the model.
    import mne

    from hbn.data.bids import CHANNELS, MONTAGE
    from hbn.networks.architecture import members_of
    from hbn.networks.inference import load_file

    state = load_file(path, made_by="challenge1")["state"]
    state = next(iter(members_of(state)), state)
    spatial, patch = state["encoder.spatial"], state["encoder.patch.weight"]  # (C, S), (D, P * S)
    # What a filter w responds to is not w but its covariance with every electrode: C w, where the
    # whitener is the inverse square root of C and w = whitener @ spatial.
    patterns = state["encoder.whitener"].double().inverse() @ spatial.double()  # (C, S)
    use = patch.reshape(len(patch), -1, spatial.shape[1]).square().sum((0, 1)).sqrt() * spatial.norm(dim=0)  # (S,)
    order = use.argsort(descending=True)[:16].tolist()

    info = mne.create_info(list(CHANNELS), 100.0, "eeg")
    info.set_montage(MONTAGE)
    rows = -(-len(order) // 8)
    image, axes = plt.subplots(rows, 8, figsize=(12, 1.8 * rows), layout="constrained", squeeze=False)
    for place in axes.flat[len(order) :]:
        place.set_axis_off()
    for place, k in zip(axes.flat, order, strict=False):
        mne.viz.plot_topomap(patterns[:, k].numpy(), info, axes=place, show=False, contours=4, sensors=False)
        place.set_title(f"{use[k] / use.max():.2f}", fontsize=9)
    note = (
        "Covariance of each filter's output with every electrode, each map on its own scale (the sign has no "
        "meaning). Numbers: how strongly the network reads the filter, relative to the first."
    )
    title = f"Challenge 1: the {len(order)} spatial filters that are used most"
    return {"figures": [{"title": title, "image": data_uri(image)}], "notes": [note]}


def scores() -> list[tuple]:
    """Every number in metrics/; a score's interval stands in its row."""
    return [
        (path.relative_to("metrics").as_posix(), *row)
        for path in sorted(Path("metrics").rglob("*.json"))
        for row in numbers(read_json(path))
    ]


def numbers(content: dict, prefix: str = "") -> Iterator[tuple]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            yield name, value, "", ""
        elif {"value", "low", "high"} <= value.keys():
            yield name, value["value"], value["low"], value["high"]
        else:
            yield from numbers(value, f"{name}.")


def runs() -> list[list]:
    """The experiments, best first, in the order of COLUMNS."""
    rows = by_score(experiments(), "challenge1.nrmse")
    return [[round(x, 4) if isinstance(x, float) else x or "" for x in map(row.get, COLUMNS)] for row in rows]


def pipeline(followers: dict[str, set[str]]) -> str:
    """The stages as an SVG drawing from left to right; those of one matrix share a box.

    Lines go from column to column only: every stage has one from the last stage that it waits for, and
    its other inputs are in what a click shows.
    """
    releases: dict[str, list[str]] = {}
    after: dict[str, set[str]] = {}
    for name, following in followers.items():
        base, _, item = name.partition("@")
        releases.setdefault(base, []).extend([item] if item else [])
        after.setdefault(base, set()).update(one.split("@")[0] for one in following)
    columns = depths(after)
    width, height, box_width, box_height = 148, 64, 112, 40  # pixels
    levels: dict[int, list[str]] = {}
    for name in after:
        levels.setdefault(columns[name], []).append(name)
    tallest = max(map(len, levels.values()), default=1)
    place = {
        name: (level * width + 1, round(((tallest - len(names)) / 2 + i) * height) + 20)
        for level, names in levels.items()
        for i, name in enumerate(names)
    }
    parts = []
    for name, following in after.items():
        for other in sorted(one for one in following if columns[one] == columns[name] + 1):
            (x0, y0), (x1, y1) = place[name], place[other]
            x0, y0, x1, y1 = x0 + box_width, y0 + box_height / 2, x1, y1 + box_height / 2
            half = (x0 + x1) / 2
            parts.append(f'<path d="M{x0} {y0} C{half} {y0} {half} {y1} {x1} {y1}" fill="none" stroke="#999"/>')
    for name, (x, y) in place.items():
        parts.append(
            f'<g class="stage" data-name="{escape(name)}"><rect x="{x}" y="{y}" width="{box_width}" '
            f'height="{box_height}" rx="5"/><text x="{x + box_width / 2}" y="{y + 17}" text-anchor="middle" '
            f'font-size="13">{escape(name)}</text><text x="{x + box_width / 2}" y="{y + 32}" text-anchor="middle" '
            f'font-size="10">{escape(summary(releases[name]))}</text></g>'
        )
    box = f"0 0 {max(levels, default=0) * width + box_width + 2} {tallest * height + 30}"
    return f'<svg viewBox="{box}" width="100%" role="img" aria-label="pipeline">{"".join(parts)}</svg>'


def summary(items: list[str]) -> str:
    return " ".join(items) if len(items) < 6 else f"{len(items)} releases"


def depths(after: dict[str, set[str]]) -> dict[str, int]:
    """The column of each stage: the longest way to it from a first one."""
    depth = dict.fromkeys(after, 0)
    for _ in after:  # no way is longer than the number of stages
        for name, following in after.items():
            for other in following:
                depth[other] = max(depth[other], depth[name] + 1)
    return depth


if __name__ == "__main__":
    try:
        main()
    except HbnError as error:
        sys.exit(f"page.py: {error}")
