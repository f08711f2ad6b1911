"""The figures say what the tables hold."""

import matplotlib
import numpy as np
import pytest

from hbn.files import write_csv
from hbn.reporting.figures import FIGURES
from hbn.scoring import metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_calibration_is_the_mean_of_tenths_of_the_trials(axes, tmp_path):
    rows = [{"participant_id": "a", "rt_s": 1 + i / 100, "predicted_s": 2 + i / 100} for i in range(100)]
    write_csv(tmp_path / "plots/challenge1/response_time.csv", rows, list(rows[0]))
    FIGURES["calibration"].on(axes, tmp_path)
    x, y = axes.lines[0].get_data()
    assert len(x) == 10
    assert x[0] == pytest.approx(2.045)  # the mean of 2.00 to 2.09
    assert y[0] == pytest.approx(1.045)


def test_reliability_is_the_share_of_events_in_tenths(axes, tmp_path):
    probability = np.arange(100) / 100
    label = np.arange(100) % 10 < np.arange(100) // 10  # none of the first ten, one of the second, ...
    columns = ["predicted", "observed", "trials"]
    rows = [dict(zip(columns, row, strict=True)) for row in metrics.calibration(label, probability)]
    write_csv(tmp_path / "plots/challenge1/calibration.csv", rows, columns)
    FIGURES["reliability"].on(axes, tmp_path)
    x, y = axes.lines[0].get_data()
    assert x == pytest.approx(np.arange(10) / 10 + 0.045)
    assert y == pytest.approx(np.arange(10) / 10)
    assert {row["trials"] for row in rows} == {10}
    assert len(metrics.calibration(label[:3], probability[:3])) == 3


def test_roc_has_its_area_and_scatter_its_r(axes, tmp_path):
    points = [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    rows = [{"false_positive_rate": x, "true_positive_rate": y} for x, y in points]
    write_csv(tmp_path / "plots/challenge1/roc.csv", rows, list(rows[0]))
    FIGURES["roc"].on(axes, tmp_path)
    assert axes.get_title() == "area = 0.75"
    rows = [{"participant_id": "a", "rt_s": x, "predicted_s": 3 - x} for x in (0.5, 1.0, 2.0)]
    write_csv(tmp_path / "plots/challenge1/response_time.csv", rows, list(rows[0]))
    FIGURES["response_time"].on(axes, tmp_path)
    assert axes.get_title() == "n = 3, r = -1.00"


@pytest.mark.parametrize("name", FIGURES)
def test_absent_and_empty_tables_are_said_to_be_so(name, axes, tmp_path):
    FIGURES[name].on(axes, tmp_path)
    assert axes.texts[0].get_text() == "not there"
    (tmp_path / FIGURES[name].paths[0].replace("*", "R1")).parent.mkdir(parents=True)
    (tmp_path / FIGURES[name].paths[0].replace("*", "R1")).write_text("step,train,validation\n")
    FIGURES[name].on(axes, tmp_path)
    assert len(axes.texts) == 2
