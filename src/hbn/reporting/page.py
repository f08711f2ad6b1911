"""One HTML file with all results. It needs no network, because it holds its images."""

import base64
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader

from hbn.files import read_json
from hbn.reporting import pipeline, scalp, summary
from hbn.reporting.experiments import COLUMNS, by_score, experiments
from hbn.reporting.figures import FIGURES
from hbn.reporting.repository import git, stage_graph, uncommitted
from hbn.reporting.tables import show

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MODEL = Path("models/challenge1.pt")
PICTURES = ("response_time", "factors", "deployed", "latency")  # the summary's
TABS = {
    "Data": ("spectra", "windows", "response_times"),
    "Training": ("pretrain", "challenge1_curves"),
    "Challenge 1": ("response_time", "calibration", "roc", "reliability"),
    "Challenge 2": ("factors",),
    "Deployment": ("deployed", "latency"),
}


def render(scratch: Path) -> str:
    """The page of the repository in the current directory; the folder `scratch` holds the durations of the stages."""
    commit = " and ".join(filter(None, (git("rev-parse", "--short", "HEAD"), uncommitted())))
    metrics = Path("metrics")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters |= {"show": show, "duration": duration, "size": size}
    return environment.get_template("page.html").render(
        tabs=[
            {
                **{"id": "summary", "title": "Summary", "panels": summary.forest(metrics)},
                "facts": {**summary.data_facts(metrics), "Commit": commit, "Drawn": f"{datetime.now():%Y-%m-%d %H:%M}"},
                **{"news": summary.since_last_tag(), "figures": figures(PICTURES)["figures"]},
            },
            {
                **{"id": "pipeline", "title": "Pipeline", "graph": pipeline.drawing(stage_graph())},
                "stages": pipeline.stages(scratch),
            },
            *({"id": identifier(title), "title": title, **figures(names)} for title, names in TABS.items()),
            {"id": "scalp", "title": "Scalp", **scalp_tab(MODEL)},
            {
                **{"id": "scores", "title": "Scores", "rows": scores(metrics)},
                "columns": ("file", "number", "value", "low", "high"),
            },
            {"id": "experiments", "title": "Experiments", "columns": COLUMNS, "rows": runs()},
        ],
    )


def identifier(title: str) -> str:
    """The name of a tab in the page's address."""
    return title.lower().replace(" ", "-")


def figures(names: tuple[str, ...]) -> dict:
    """The figures of one tab, and a note for each figure whose tables are absent."""
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


def scalp_tab(path: Path) -> dict:
    """The scalp maps of a model file, or a note where it is absent."""
    if not path.exists():
        return {"notes": [f"Scalp maps need {path}: run `dvc repro challenge1` or `dvc pull {path}`."]}
    title, image = scalp.filter_maps(path)
    return {"figures": [{"title": title, "image": data_uri(image)}], "notes": [scalp.NOTE]}


def data_uri(image: plt.Figure) -> str:
    """A drawn figure as text that an <img> shows."""
    stream = io.BytesIO()
    image.savefig(stream, dpi=90, format="png")
    plt.close(image)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def scores(metrics: Path) -> list[tuple]:
    """Every number in the metrics files; a score's interval stands in its row."""
    return [
        (path.relative_to(metrics).as_posix(), *row)
        for path in sorted(metrics.rglob("*.json"))
        for row in numbers(read_json(path))
    ]


def numbers(content: dict, prefix: str = "") -> Iterator[tuple]:
    """Name, value, low and high of every number in nested values."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            yield name, value, "", ""
        elif {"value", "low", "high"} <= value.keys():
            yield name, value["value"], value["low"], value["high"]
            rest = {key: part for key, part in value.items() if key not in ("value", "low", "high")}
            yield from numbers(rest, f"{name}.")
        else:
            yield from numbers(value, f"{name}.")


def runs() -> list[list]:
    """The experiments, best first, in the order of COLUMNS."""
    rows = by_score(experiments(), "challenge1.nrmse")
    return [[round(x, 4) if isinstance(x, float) else x or "" for x in map(row.get, COLUMNS)] for row in rows]


def duration(seconds: float) -> str:
    """Seconds for reading: 4 s, 2 min, 3.1 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def size(n_bytes: int) -> str:
    """Bytes for reading: 21 B, 12 kB, 340 MB, 1.2 GB."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= divisor:
            return f"{n_bytes / divisor:.3g} {unit}"
    return f"{n_bytes} B"
