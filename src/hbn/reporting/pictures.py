"""The pictures of README.md and docs/: SVG that is legible on a phone, and on light and dark pages.

Each is drawn from files in git, so that a test can draw it again (but for the scalp maps, which need the model that
dvc.lock names). It brings its own paper: it stays legible where a page is dark although the reader's system is light.
"""

import io
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from hbn.files import read_csv, read_json
from hbn.reporting import scalp
from hbn.reporting.figures import column, groups
from hbn.reporting.repository import md5
from hbn.reporting.tables import interval

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WIDTH_PX = 400  # as wide as a phone shows, so that letters keep their size there
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# Colours on light and on dark paper. A drawing uses the first, which `themed` replaces by a variable.
COLOURS = {
    "ink": ("#1f2328", "#e6edf3"),
    "paper": ("#ffffff", "#0d1117"),
    "faint": ("#6e7781", "#8b949e"),
    "line": ("#d0d7de", "#3d444d"),
    "fill": ("#f6f8fa", "#161b22"),
    "ours": ("#0969da", "#58a6ff"),
    "other": ("#bc4c00", "#f0883e"),
}
INK, PAPER, FAINT, LINE, FILL, OURS, OTHER = (light for light, _ in COLOURS.values())
STYLE: dict[Any, Any] = {
    **{"svg.hashsalt": "hbn", "svg.fonttype": "none", "font.size": 10, "axes.titlesize": 10, "legend.fontsize": 10},
    **{"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FAINT},
    **{"figure.facecolor": PAPER, "axes.facecolor": PAPER, "legend.frameon": False, "axes.titlelocation": "left"},
    **{"axes.spines.top": False, "axes.spines.right": False},
}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # a date would change the file
TASKS = ("challenge1", "challenge2")
BAD = ("dead", "noisy", "bridged")  # channels
MODEL, SCALP = Path("models/challenge1.pt"), Path("docs/figures/scalp.svg")
# Results of benchmarks, which take hours: they are in git, too.
LEARNING, INFERENCE, ROBUSTNESS = (f"benchmarks/results/{name}.csv" for name in ("learning", "inference", "robustness"))


def plot(title: str, height_px: int, draw: Callable[..., None], n_rows: int = 1, n_columns: int = 1) -> str:
    """An SVG of what `draw(*axes)` draws on a grid of panels."""
    with plt.rc_context(STYLE):
        size = WIDTH_PX / 72, height_px / 72
        image, panels = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
        image.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        draw(*panels.flat)
        stream = io.StringIO()
        image.savefig(stream, format="svg", metadata=NO_METADATA)
        plt.close(image)
    svg = re.sub(r"font-family: [^;]*?sans-serif", f"font-family: {FONT}", stream.getvalue())
    svg = svg.replace("#000000", INK)  # what MNE draws
    return themed("<svg" + svg.partition("<svg")[2])


def themed(svg: str) -> str:
    """The SVG with colours that follow the reader's theme."""
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    light, dark = (";".join(f"--{name}:{pair[i]}" for name, pair in COLOURS.items()) for i in (0, 1))
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, end, rest = svg.partition(">")
    return f"{head}{end}\n{style}{rest.rstrip()}\n"


def pipeline(root: Path) -> str:
    """The stages from top to bottom, with what each of them made in the last run."""
    metrics = root / "metrics"
    fetched, cleaned = (
        [read_json(path) for path in sorted((metrics / stage).glob("*.json"))] for stage in ("fetch", "preprocess")
    )
    dataset, pretrained, first, second, speed = (
        read_json(metrics / f"{name}.json") for name in ("dataset", "pretrain", "challenge1", "challenge2", "benchmark")
    )
    n_people = {name: dataset["splits"][name]["participants"] for name in ("train", "validation", "test")}
    n_trials = sum(split["trials"] for split in dataset["splits"].values())
    n_recordings = sum(sum(release["recordings"].values()) for release in fetched)
    n_rejected = sum(sum(reasons.values()) for release in cleaned for reasons in release["rejected"].values())
    n_events = sum(sum(tasks.values()) for tasks in pretrained["events"].values())
    variant = speed["chosen"]["challenge1"]
    deployed = speed["variants"]["challenge1"][variant]
    gb, hours = sum(release["bytes"] for release in fetched) / 1e9, sum(release["hours"] for release in cleaned)
    rows = (
        [
            (
                "fetch",
                f"{sum(n_people.values())} participants, {n_recordings} recordings",
                f"{gb:.1f} GB, {first['source']}",
            )
        ],
        [("preprocess", f"{hours:.1f} hours of clean EEG", f"{n_rejected} recordings rejected")],
        [
            (
                "cache_windows, assemble",
                f"{dataset['windows']:,} windows, {n_trials:,} trials",
                "{train} / {validation} / {test} participants".format(**n_people),
            )
        ],
        [("pretrain", f"{n_events} events of other tasks", f"in {pretrained['windows']:,} windows")],
        [
            ("challenge1", "response time", f"r {interval(first['test']['pretrained']['pearson_r'])}"),
            ("challenge2", "four factors", f"r {interval(second['test']['eeg']['mean_pearson_r'])}"),
        ],
        [
            (
                "quantize, benchmark",
                f"{deployed['size_kb']:.0f} kB, {variant.replace('_', ' ').replace('int', 'INT')}",
                f"{deployed['p50_ms']:.2f} ms a window",
            ),
            ("submission", "zip for the challenge,", "needs PyTorch alone"),
        ],
    )
    return flow(rows)


def flow(rows: tuple[list[tuple[str, str, str]], ...]) -> str:
    """Rows of one or two boxes (name and two lines), with arrows from row to row."""
    parts, top, above = [], 8, []
    for row in rows:
        wide = len(row) == 1
        width, height = (WIDTH_PX - 16, 46) if wide else (WIDTH_PX / 2 - 14, 62)
        lefts = [8 + k * (width + 12) for k in range(len(row))]
        middles = [left + width / 2 for left in lefts]
        for end in middles if above else ():
            for start in above if len(above) == 2 and not wide else [end]:
                line = f"M{start} {top - 20}L{end} {top - 3}m-4 -5l4 5l4 -5"
                parts.append(f'<path d="{line}" fill="none" stroke="{FAINT}"/>')
        for left, (name, *lines) in zip(lefts, row, strict=True):
            box = f'x="{left}" y="{top}" width="{width}" height="{height}"'
            parts.append(f'<rect {box} rx="6" fill="{FILL}" stroke="{LINE}"/>')
            place = f'x="{left + 12}" y="{top + (28 if wide else 20)}"'
            parts.append(f'<text {place} font-weight="bold" fill="{OURS}">{escape(name)}</text>')
            for k, line in enumerate(lines):
                place = f'x="{left + width - 12}" text-anchor="end"' if wide else f'x="{left + 12}"'
                parts.append(
                    f'<text {place} y="{top + (19 if wide else 38) + 17 * k}" fill="{INK}">{escape(line)}</text>'
                )
        above, top = middles, top + height + 22
    size = f'width="{WIDTH_PX}pt" height="{top - 14}pt" viewBox="0 0 {WIDTH_PX} {top - 14}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" font-size="12">'
    return themed(f'{head}<rect width="100%" height="100%" fill="{PAPER}"/>{"".join(parts)}</svg>')


def response_time(root: Path) -> str:
    """Predicted against true response times of the test trials."""
    table, scores = read_csv(root / "plots/challenge1/response_time.csv"), read_json(root / "metrics/challenge1.json")
    true_s, predicted_s = column(table, "rt_s"), column(table, "predicted_s")

    def draw(axes: Axes) -> None:
        ends_s = min(true_s.min(), predicted_s.min()), max(true_s.max(), predicted_s.max())
        axes.plot(ends_s, ends_s, color=FAINT, lw=1)
        axes.plot(true_s, predicted_s, "o", ms=3.5, mew=0, alpha=0.55, color=OURS, rasterized=len(table) > 500)
        axes.set(xlabel="true response time, s", ylabel="predicted, s")
        r = interval(scores["test"]["pretrained"]["pearson_r"])
        axes.text(0.02, 0.97, f"r {r}", va="top", color=OURS, transform=axes.transAxes)
        axes.text(0.99, 0.03, "line: a perfect prediction", ha="right", color=FAINT, transform=axes.transAxes)

    n = scores["n"]["participants"]
    return plot(f"{len(table)} trials of {n} people whom the network never saw", 300, draw)


def learning_rows(root: Path, study: str) -> list[dict[str, str]]:
    """The rows of one study of benchmarks/learning.py."""
    return [row for row in read_csv(root / LEARNING) if row["study"] == study]


def label_efficiency(root: Path) -> str:
    """Scores against the share of participants with labels: pretrained on events, and from scratch."""
    rows = [row for row in learning_rows(root, "labels") if not row["versus"]]
    looks = {"pretrained": ("pretrained on events", OURS, "o-"), "from_scratch": ("from scratch", OTHER, "s--")}
    scores = {"pearson_r": "Pearson r", "auroc_miss": "AUROC, no response"}

    def draw(*panels: Axes) -> None:
        for axes, (score, name) in zip(panels, scores.items(), strict=True):
            by_model = groups([row for row in rows if row["score"] == score], "model")
            for model, (label, colour, look) in looks.items():
                known = sorted(by_model[model], key=lambda row: float(row["labels"]))
                percent = 100 * column(known, "labels")
                axes.plot(percent, column(known, "value"), look, color=colour, label=label, ms=4)
                axes.fill_between(percent, column(known, "low"), column(known, "high"), color=colour, alpha=0.15, lw=0)
            for row in by_model.get("zero_shot", []):
                axes.axhline(float(row["value"]), ls=":", color=OURS, label="no label at all")
            axes.set(xscale="log", title=name, xlabel="people with labels, %")
            axes.set_xticks(percent, [f"{value:g}" for value in percent])
            axes.minorticks_off()
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return plot("Where labels are few, on a larger simulated cohort", 300, draw, n_columns=2)


def latency(root: Path) -> str:
    """Median time for one window on one CPU, beside other networks."""
    table = read_csv(root / INFERENCE)
    ms = {(row["network"], row["runtime"]): float(row["p50_ms"]) for row in table}
    best = {network: min(ms[key] for key in ms if key[0] == network) for network, _ in ms}
    names = sorted(best, key=lambda name: best[name])
    looks = {"ONNX Runtime": ("o", "full", 6), "PyTorch": ("s", "none", -14)}  # marker, filling, where its number is

    def draw(axes: Axes) -> None:
        for runtime, (marker, filling, above) in looks.items():
            axes.plot([], [], marker, color=INK, fillstyle=filling, label=runtime)
            for place, name in enumerate(names):
                if value := ms.get((name, runtime)):
                    axes.plot(value, place, marker, color=OURS if name in TASKS else OTHER, fillstyle=filling)
                    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
                    axes.annotate(text, (value, place), (0, above), ha="center", textcoords="offset points")
        axes.set_yticks(range(len(names)), [f"{name} (ours)" if name in TASKS else name for name in names])
        axes.set(xscale="log", xlabel="median, ms", ylim=(len(names) - 0.5, -0.8))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(loc="lower left")

    return plot("Time for one window of 2 s on one CPU", 250, draw)


def robustness(root: Path) -> str:
    """NRMSE of challenge 1 against the number of bad channels of each kind, beside other networks."""
    rows = [row for row in read_csv(root / ROBUSTNESS) if row["score"] == "nrmse"]
    clean = {row["network"]: float(row["value"]) for row in rows if row["disturbance"] == "none"}
    kinds = {kind: [row for row in rows if row["disturbance"] == f"{kind}_channels"] for kind in BAD}
    values = [*clean.values(), *(value for known in kinds.values() for value in column(known, "value"))]
    ends = min(values) - 0.02, max(values) + 0.02

    def draw(*panels: Axes) -> None:
        for axes, (kind, known_of_kind) in zip(panels, kinds.items(), strict=True):
            by_network = groups(known_of_kind, "network")
            for (network, known), marker in zip(by_network.items(), "os^Dv", strict=False):
                n_bad, nrmse = [0.0, *column(known, "level")], [clean[network], *column(known, "value")]
                axes.plot(n_bad, nrmse, f"{marker}-", ms=4, color=OURS if network == "ours" else OTHER, label=network)
            axes.set(title=kind, xlabel="bad channels", ylabel="NRMSE" if axes is panels[0] else "", xscale="symlog")
            axes.set_xticks([0, 1, 5, 20], ["0", "1", "5", "20"])
            axes.minorticks_off()
            axes.set_ylim(*ends)
            axes.tick_params(labelleft=axes is panels[0])
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return plot("What bad channels do to the error", 300, draw, n_columns=3)


def scalp_maps(root: Path) -> str:
    """What the most used spatial filters of challenge 1 pick up."""
    path = root / MODEL
    patterns, use = scalp.most_used(path, 8)

    def draw(*panels: Axes) -> None:
        scalp.draw(panels, patterns, use, cmap=plt.get_cmap("RdBu_r", 20), contours=0, res=64)
        for axes in panels:
            axes.images[0].set_interpolation("none")  # the pixels as they are, in a small file: browsers smooth them

    svg = re.sub(
        r' style="image-rendering[^"]*"',
        "",
        plot("What the most used spatial filters pick up", 250, draw, n_rows=2, n_columns=4),
    )
    return svg.replace("</style>", f"</style><desc>{MODEL} {md5(path)}</desc>", 1)


PICTURES = {
    "pipeline": pipeline,
    "response_time": response_time,
    "labels": label_efficiency,
    "latency": latency,
    "robustness": robustness,
}
