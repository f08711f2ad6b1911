"""Windows are exact slices of the recording, in microvolts."""

from pathlib import Path

import numpy as np
import pytest

from hbn.data.windows import RECORDING_COLUMNS, WindowCache, samples, window_starts
from hbn.files import HbnError, write_csv


@pytest.fixture
def cache(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i, name in enumerate(("a", "b")):
        data = rng.normal(size=(500 + i, 129)).astype(np.float16)
        (tmp_path / f"recordings/R1/{name}").mkdir(parents=True)
        np.save(tmp_path / f"recordings/R1/{name}/{name}.npy", data)
        facts = {"recording": name, "release": "R1", "participant_id": name, "samples": len(data)}
        rows.append({**facts, "sfreq_hz": 100, "scale_uv": 2.0**-i})
    write_csv(tmp_path / "recordings.csv", rows, RECORDING_COLUMNS)
    return WindowCache(tmp_path)


def test_a_window_equals_slicing(cache):
    for recording, start in ((1, 301), (0, 0), (1, 7)):
        window = np.empty((200, 129), dtype=np.float16)
        cache.read(recording, start, window)
        assert (window == np.load(cache.path(recording))[start : start + 200]).all()
    assert list(cache.scale_uv) == [1.0, 0.5]


def test_no_file_stays_open(cache):
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for recording in (0, 1):
        cache.read(recording, 0, np.empty((200, 129), dtype=np.float16))
    assert not before or len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_absent_recording_is_named(cache):
    cache.path(0).unlink()
    with pytest.raises(HbnError, match=r"a\.npy does not exist; run `dvc repro assemble`"):
        cache.read(0, 0, np.empty((200, 129), dtype=np.float16))


def test_a_file_that_is_no_cached_recording_is_named(cache):
    with pytest.raises(HbnError, match=r"a\.npy ends before sample 501"):
        cache.read(0, 301, np.empty((200, 129), dtype=np.float16))
    np.save(cache.path(1), np.zeros((500, 129), dtype=np.float32))
    with pytest.raises(HbnError, match=r"b\.npy should hold float16 \(T, 129\)"):
        cache.read(1, 0, np.empty((200, 129), dtype=np.float16))


def test_windows_hold_no_discontinuity_and_no_unusable_sample():
    assert list(window_starts(10, 4, 2, [])) == [0, 2, 4, 6]
    assert list(window_starts(10, 4, 2, [(5, 5)])) == [0, 6]
    assert list(window_starts(10, 4, 2, [(4, 4)])) == [0, 4, 6]
    assert list(window_starts(10, 3, 1, [(4, 6)])) == [0, 1, 6, 7]  # samples 4 and 5 are not usable
    assert list(window_starts(3, 4, 2, [])) == []


def test_seconds_to_samples_rounds_to_the_nearest():
    assert samples(2.0, 500) == 1000
    assert samples(0.3, 500) == 150
    assert samples(1.3459, 100) == 135
