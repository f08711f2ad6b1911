"""The figures of reports and pages, drawn from the tables in plots/."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from hbn.files import read_csv

Table = list[dict[str, str]]


@dataclass(frozen=True)
class Figure:
    """A drawing of the tables that match the patterns in `paths` (relative to the repository)."""

    title: str
    paths: tuple[str, ...]
    draw: Callable[[Axes, dict[str, Table]], None]  # tables by file stem
    names_on_y: bool = False  # two of them then share no axis: each may have other names

    def files(self, root: Path) -> list[Path]:
        return sorted(file for path in self.paths for file in root.glob(path))

    def on(self, axes: Axes, root: Path) -> None:
        """Draw what `root` holds, or say that it holds nothing."""
        tables = {file.stem: table for file in self.files(root) if (table := read_csv(file))}
        if tables:
            self.draw(axes, tables)
        else:
            axes.text(0.5, 0.5, "not there", ha="center", va="center", transform=axes.transAxes, color="grey")
            axes.set_axis_off()


def column(table: Table, name: str) -> np.ndarray:
    """A column of numbers (N,), NaN where it is empty."""
    return np.array([float(row[name] or "nan") for row in table])


def groups(table: Table, *names: str) -> dict[str, Table]:
    """The rows by the values of these columns, in their order in the table."""
    by_value: dict[str, Table] = {}
    for row in table:
        by_value.setdefault(" ".join(row[name] for name in names), []).append(row)
    return by_value


def losses(axes: Axes, tables: dict[str, Table]) -> None:
    for i, (name, table) in enumerate(tables.items()):
        steps, label = column(table, "step"), name.removeprefix("curve_").replace("_", " ")
        axes.plot(steps, column(table, "train"), color=f"C{i}", alpha=0.4, label=f"{label}, training")
        axes.plot(steps, column(table, "validation"), color=f"C{i}", marker=".", label=f"{label}, validation")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()


def response_time(axes: Axes, tables: dict[str, Table]) -> None:
    (table,) = tables.values()
    true_s, predicted_s = column(table, "rt_s"), column(table, "predicted_s")
    axes.plot(true_s, predicted_s, ".", alpha=0.5)
    axes.axline((1, 1), slope=1, color="grey", lw=1)
    axes.set(xlabel="response time, s", ylabel="predicted, s", title=f"n = {len(table)}, r = {_r(true_s, predicted_s)}")


def calibration(axes: Axes, tables: dict[str, Table]) -> None:
    """Mean and standard error of the true response time in tenths of the trials, by prediction."""
    (table,) = tables.values()
    true_s, predicted_s = column(table, "rt_s"), column(table, "predicted_s")
    tenths = [part for part in np.array_split(np.argsort(predicted_s, kind="stable"), 10) if len(part)]
    mean_s = [true_s[part].mean() for part in tenths]
    error_s = [true_s[part].std() / len(part) ** 0.5 for part in tenths]
    axes.errorbar([predicted_s[part].mean() for part in tenths], mean_s, error_s, fmt="o-", capsize=2)
    axes.axline((1, 1), slope=1, color="grey", lw=1)
    axes.set(xlabel="predicted, s (tenths of the trials)", ylabel="mean response time, s")


def reliability(axes: Axes, tables: dict[str, Table]) -> None:
    """Share of trials without a response, with its standard error, in tenths of the trials by its prediction."""
    (table,) = tables.values()
    predicted, observed = column(table, "predicted"), column(table, "observed")
    error = (observed * (1 - observed) / column(table, "trials")) ** 0.5
    axes.errorbar(predicted, observed, error, fmt="o-", capsize=2)
    axes.axline((0, 0), slope=1, color="grey", lw=1)
    axes.set(xlabel="predicted P(no response) (tenths of the trials)", ylabel="share without a response")


def distribution(axes: Axes, tables: dict[str, Table]) -> None:
    (table,) = tables.values()
    for name in (name for name in table[0] if name != "rt_s"):
        label, style = ("HBN, from its quantiles", "k:") if name == "hbn" else (name, "")
        axes.step(column(table, "rt_s"), column(table, name), style, where="mid", label=label)
    axes.set(xlabel="response time, s", ylabel="share of trials")
    axes.legend()


def roc(axes: Axes, tables: dict[str, Table]) -> None:
    (table,) = tables.values()
    x, y = column(table, "false_positive_rate"), column(table, "true_positive_rate")
    axes.plot(x, y)
    axes.axline((0, 0), slope=1, color="grey", lw=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"area = {np.trapezoid(y, x):.2f}")


def factors(axes: Axes, tables: dict[str, Table]) -> None:
    (table,) = tables.values()
    for name, rows in groups(table, "factor").items():
        true, predicted = column(rows, "value"), column(rows, "predicted")
        axes.plot(true, predicted, ".", alpha=0.7, label=f"{name}, r = {_r(true, predicted)}")
    axes.axline((0, 0), slope=1, color="grey", lw=1)
    axes.set(xlabel="factor", ylabel="predicted")
    axes.legend()


def deployed(axes: Axes, tables: dict[str, Table]) -> None:
    (table,) = tables.values()
    names = list(groups(table, "network", "variant"))
    for score, rows in groups(table, "score").items():
        places = [names.index(f"{row['network']} {row['variant']}") for row in rows]
        axes.plot(column(rows, "value"), places, "o", alpha=0.7, label=score)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="score")
    axes.legend()


def latency(axes: Axes, tables: dict[str, Table]) -> None:
    """Median (dot) and the range from the first to the last percentile (line) of each variant."""
    (table,) = tables.values()
    names = dict(sorted(groups(table, "network", "variant").items()))
    for place, (name, rows) in enumerate(names.items()):
        ms = dict(zip(column(rows, "percentile"), column(rows, "latency_ms"), strict=True))
        color = f"C{list(groups(table, 'network')).index(name.split()[0])}"
        axes.plot([min(ms.values()), max(ms.values())], [place, place], color=color)
        axes.plot(ms[50], place, "o", color=color)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="latency, ms: median, and percentiles 1 to 99", xscale="log")


def spectra(axes: Axes, tables: dict[str, Table]) -> None:
    for i, (name, table) in enumerate(tables.items()):
        for stage, style in (("before", ":"), ("after", "-")):
            hz, power_db = column(table, "frequency_hz"), column(table, f"{stage}_db")
            axes.plot(hz, power_db, style, color=f"C{i}", lw=1, label=f"{name.removesuffix('_spectrum')}, {stage}")
    axes.set(xlabel="frequency, Hz", ylabel="power, dB")
    axes.legend(ncols=2)


def windows(axes: Axes, tables: dict[str, Table]) -> None:
    (table,) = tables.values()
    for i, (split, rows) in enumerate(groups(table, "split").items()):
        counts = np.sort(column(rows, "windows"))[::-1]
        axes.plot(counts, ".", color=f"C{i}", label=f"{split}, {len(rows)} participants")
    axes.set(xlabel="participant, by number of windows", ylabel="windows", ylim=(0, None))
    axes.legend()


def _r(x: np.ndarray, y: np.ndarray) -> str:
    """Pearson's r for a label."""
    return f"{np.corrcoef(x, y)[0, 1]:.2f}" if len(x) > 2 and x.std() > 0 and y.std() > 0 else "n/a"


FIGURES = {
    "spectra": Figure("Power spectra before and after preprocessing", ("plots/preprocess/*_spectrum.csv",), spectra),
    "windows": Figure("Windows of each participant", ("plots/dataset/windows.csv",), windows),
    "response_times": Figure("Response times by split", ("plots/dataset/response_times.csv",), distribution),
    "pretrain": Figure("Pretraining", ("plots/pretrain.csv",), losses),
    "challenge1_curves": Figure("Challenge 1: fine-tuning", ("plots/challenge1/curve_*.csv",), losses),
    "response_time": Figure("Challenge 1: response time", ("plots/challenge1/response_time.csv",), response_time),
    "calibration": Figure(
        "Challenge 1: calibration of the response time", ("plots/challenge1/response_time.csv",), calibration
    ),
    "roc": Figure("Challenge 1: no response, ROC", ("plots/challenge1/roc.csv",), roc),
    "reliability": Figure(
        "Challenge 1: calibration of no response", ("plots/challenge1/calibration.csv",), reliability
    ),
    "factors": Figure("Challenge 2: factors", ("plots/challenge2.csv",), factors),
    "deployed": Figure("Scores of every deployed variant", ("plots/quantize.csv",), deployed, True),
    "latency": Figure("Latency of single windows (one machine)", ("plots/benchmark_latency.csv",), latency, True),
}
