"""predict.py on several recordings: a bad one costs its own prediction alone, and is named."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from small_recordings import parameters, recording_uv, write_paused_bdf, write_set_of

import predict
from hbn.files import HbnError, read_csv, write_tsv

SFREQ_HZ = 200
BLOCK = [
    *((0.5, "contrastChangeB1_start"), (1, "contrastTrial_start"), (2.9, "left_target")),
    *((4.1, "left_buttonPress", "smiley_face"), (5.3, "contrastTrial_start"), (8.1, "right_target")),
    *((10.5, "contrastTrial_start"), (10.6, "left_target")),
]
P = SimpleNamespace(preprocess=parameters(min_duration_s=1.0).preprocess, exec=parameters().exec)


def contrast(person: str) -> str:
    return f"{person}_task-contrastChangeDetection_run-1"


@pytest.fixture
def recordings(deployed, workspace):
    """A folder with a good recording, and others that have something wrong."""
    shutil.copytree(deployed, workspace, dirs_exist_ok=True)
    root = workspace / "mine"
    root.mkdir()
    data_uv = recording_uv(0, 14, SFREQ_HZ)
    data_uv -= data_uv.mean(axis=1, keepdims=True)
    columns = ("onset", "value", "feedback")
    rows = [dict(zip(columns, row, strict=False)) for row in BLOCK]
    for person in ("sub-bytes", "sub-good", "sub-link", "sub-short", "sub-twice", "sub-unit"):
        n = 300 if person == "sub-short" else data_uv.shape[1]
        factor = np.float32(1e-6 if person == "sub-unit" else 1)
        write_set_of(root / f"{contrast(person)}_eeg.set", factor * data_uv[:, :n], sfreq_hz=SFREQ_HZ)
        table = root / f"{contrast(person)}_events.tsv"
        if person == "sub-link":
            table.symlink_to("../.git/annex/objects/x")
        else:
            write_tsv(table, rows, list(columns))
    write_paused_bdf(root / f"{contrast('sub-twice')}_eeg.bdf", data_uv, range(14), SFREQ_HZ)
    (root / f"{contrast('sub-bytes')}_eeg.set").write_bytes(b"MATLAB 5.0 MAT-file".ljust(200))
    return root


def test_one_bad_recording_never_loses_the_others(recordings, caplog, capsys):
    with pytest.raises(HbnError, match=r"^6 of 7 recordings, such as .*sub-bytes.*cut or damaged"):
        predict.main(P, str(recordings), "--csv", "rows.csv")
    rows = read_csv("rows.csv")
    of = {name: [row for row in rows if row["participant_id"] == f"sub-{name}"] for name in ("good", "link", "short")}
    assert [row["side"] for row in of["good"]] == ["left", "right"]
    assert all(float(row["rt_s"]) > 0 for row in of["good"] + of["link"])
    assert [float(row["window_s"]) for row in of["link"]] == [0, 2, 4, 6, 8, 10, 12]
    assert "sub-link" in caplog.text
    assert "git-annex" in caplog.text
    assert [row["not_used"] for row in of["short"]] == ["too_short: 1.5 s, a window has 2 s"]
    bad = {row["participant_id"]: row["not_used"] for row in rows if row["not_used"]}
    assert bad["sub-bytes"].startswith("unreadable: ")
    assert bad["sub-unit"].startswith("units: the median channel")
    assert "one recording in 2 files" in bad["sub-twice"]
    assert sum(row["participant_id"] == "sub-twice" for row in rows) == 2


def test_what_is_printed_names_problems_and_dropped_targets(recordings, capsys):
    predict.main(P, str(recordings / f"{contrast('sub-good')}_eeg.set"))
    assert "Targets that are no trials: 1 table_ends" in capsys.readouterr().out
    with pytest.raises(HbnError, match="git-annex"):
        predict.main(P, str(recordings / f"{contrast('sub-link')}_eeg.set"), "--json")
    [item] = json.loads(capsys.readouterr().out)
    assert item["problem"].startswith("pointer: ")
    assert len(item["rows"]) == 7
    with pytest.raises(HbnError, match="units: the median channel"):
        predict.main(P, str(recordings / f"{contrast('sub-unit')}_eeg.set"))
    assert "units" not in capsys.readouterr().out


def test_a_target_in_a_pause_has_no_prediction(recordings, capsys):
    begins_s = (*range(5), *range(7, 16))
    data_uv = recording_uv(0, 14, SFREQ_HZ)
    path = recordings / f"{contrast('sub-good')}_eeg"
    path.with_suffix(".set").unlink()
    data_uv -= data_uv.mean(axis=1, keepdims=True)
    write_paused_bdf(path.with_suffix(".bdf"), data_uv, begins_s, SFREQ_HZ)
    predict.main(P, str(path.with_suffix(".bdf")), "--json")
    [item] = json.loads(capsys.readouterr().out)
    assert item["duration_s"] == 16
    assert [row["not_used"] for row in item["rows"]] == ["no signal", None]
