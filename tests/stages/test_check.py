"""check.py: what the pipeline would use of a folder, from headers and tables, in seconds."""

import os
import struct
import time
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat
from small_recordings import write_bdf_of
from small_release import person, write_release

import check
from hbn.data.bids import CHANNELS
from hbn.data.signals import problem_of
from hbn.files import HbnError, write_text, write_tsv

STEM = "sub-A/eeg/sub-A_task-contrastChangeDetection_run-1"
REST = "sub-B/eeg/sub-B_task-RestingState"
P = SimpleNamespace(data=SimpleNamespace(tasks=["RestingState", "contrastChangeDetection_1"]))
TRIALS = [
    *((0.5, "contrastChangeB1_start", "n/a"), (1.0, "contrastTrial_start", "n/a"), (3.8, "left_target", "n/a")),
    *((5.3, "left_buttonPress", "smiley_face"), (6.2, "contrastTrial_start", "n/a"), (9.0, "right_target", "n/a")),
    *((11.4, "contrastTrial_start", "n/a"), (12.0, "contrastChangeB2_start", "n/a"), (15.0, "left_target", "n/a")),
]


@pytest.fixture
def root(workspace):
    """A release of .set files that have a header of MATLAB and, where nothing else is said, no samples."""
    root = write_release(workspace / "mine", person("sub-A", sex="male"), person("sub-B", age="?"), person("sub-C"))
    for path in root.rglob("*.set"):
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + struct.pack("<II", 14, 80_000_000 - 136))
        os.truncate(path, 80_000_000)  # without taking room
    rows = [dict(zip(("onset", "value", "feedback"), map(str, row), strict=True)) for row in TRIALS]
    write_tsv(root / f"{STEM}_events.tsv", rows, ["onset", "value", "feedback"])
    return root


def said(root, capsys) -> str:
    before = sorted(root.rglob("*"))
    check.main(P, str(root))
    assert sorted(root.rglob("*")) == before
    assert sorted(path.name for path in root.parent.iterdir()) == [root.name]  # nothing is written
    return capsys.readouterr().out


def test_what_is_used(root, capsys):
    start_s = time.monotonic()
    text = said(root, capsys)
    assert time.monotonic() - start_s < 5
    assert "2 participants: 1 F, 1 M, 0 unknown; 9.5 to 9.5 years; 2 with all four factors" in text
    assert "4 recordings\n         2 RestingState\n         2 contrastChangeDetection_1" in text
    assert "Trials of contrastChangeDetection: 2 (1 correct, 1 miss)" in text
    assert "1 foreign_block" in text
    assert "Refused" not in text


def test_what_is_not_used_and_why(root, capsys):
    write_text(root / "derivatives/x.tsv", "")
    write_text(root / f"{STEM}_eeg.bdf", "")
    for kind in ("eeg.set", "eeg.json", "events.tsv"):
        write_text(root / f"sub-B/eeg/sub-B_task-ThePresent_{kind}", "x")
    (root / f"{REST}_eeg.set").unlink()
    (root / f"{REST}_eeg.set").symlink_to("../.git/annex/objects/x")
    text = said(root, capsys)
    assert "2 recordings" in text
    assert "Refused, 2 recordings" in text
    assert f"one recording in 2 files: {STEM}_eeg.bdf and {STEM}_eeg.set" in text
    assert f"{REST}_eeg.set is a placeholder of git-annex" in text
    assert "       1 ThePresent" in text
    assert "Not used, 1 files: in derivatives/, which is no participant's folder (sub-ID)\n  such as" in text
    assert "Not used, 1 participants: no recording of data.tasks\n  such as sub-C" in text
    assert "column sex: 'male' of sub-A is taken for M" in text
    assert "column age: '?' of sub-B is not understood" in text


def test_what_is_no_release_is_said(root):
    with pytest.raises(HbnError, match="is no BIDS release"):
        check.main(P, str(root / "sub-A"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content, ""),
        (lambda content: content[:-100], "cut or damaged, it has 3.99948 records of samples, the header says 4"),
        (lambda content: content[:236] + b"-1      " + content[244:], ""),
        (lambda content: content[:236] + b"-1      " + content[244:-100], "cut or damaged, it has 3.99948 records"),
        (lambda content: content[:252] + b"four" + content[256:], "a damaged header of BDF"),
        (lambda content: b"0" + content[1:], "not the beginning of a BDF file"),
        (lambda content: content.replace(b"uV  ", b"ADU ", 1), "channel E1 of x_eeg.bdf has 'ADU'"),
        (lambda content: content.replace(b"E77 ", b"E78 ", 1), "x_eeg.bdf has channel E78 twice"),
    ],
)
def test_headers_of_bdf(tmp_path, change, reason):
    path = write_bdf_of(tmp_path / "x_eeg.bdf", np.ones((129, 2000)))
    path.write_bytes(change(path.read_bytes()))
    assert problem_of(path).startswith(reason)
    assert bool(problem_of(path)) == bool(reason)


@pytest.mark.parametrize(
    ("n_bytes", "named", "reason"),
    [
        (4 * 129 * 100, "x_eeg.fdt", ""),
        (4 * 129 * 99, "x_eeg.fdt", "x_eeg.fdt has 51084 bytes, the header says 51600"),
        (4 * 129 * 100, "as_it_was_called.fdt", ""),
    ],
)
@pytest.mark.parametrize("top_level", [True, False])
def test_headers_of_set(tmp_path, n_bytes, named, reason, top_level):
    header = {"nbchan": 129.0, "pnts": 100.0, "trials": 1.0, "srate": 500.0, "data": named}
    header["chanlocs"] = np.array([(name,) for name in CHANNELS], dtype=[("labels", object)])
    path = tmp_path / "x_eeg.set"
    savemat(path, header if top_level else {"EEG": header}, appendmat=False)
    (tmp_path / "x_eeg.fdt").write_bytes(b"\0" * n_bytes)
    assert problem_of(path) == reason
    (tmp_path / "x_eeg.fdt").unlink()
    assert problem_of(path).endswith("x_eeg.fdt, and neither is beside it")
    path.write_bytes(path.read_bytes()[:300])
    assert problem_of(path).startswith("cut or damaged, it has 300 bytes")
    path.write_bytes(b"nothing of MATLAB")
    assert problem_of(path) == "not the beginning of a MATLAB file"
    os.truncate(path, 2_000_000)
    assert problem_of(path) == "not the beginning of a MATLAB file"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF")
    assert problem_of(path)
    os.truncate(path, 2_000_000)
    assert problem_of(path) == ""
