"""Windows are exact slices of the recording, in microvolts."""

import numpy as np
import pytest

from hbn.files import HbnError, write_csv
from hbn.windows import RECORDING_COLUMNS, WindowCache, samples, window_starts


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


def test_gather_equals_slicing(cache):
    recordings, starts = np.array([1, 0, 1]), np.array([301, 0, 7])
    batch, scale_uv = cache.gather(recordings, starts, 200)
    assert batch.dtype == np.float16
    assert batch.flags.c_contiguous
    for i, (recording, start) in enumerate(zip(recordings, starts, strict=True)):
        whole = np.load(cache.path(recording))
        assert (batch[i] == whole[start : start + 200]).all()
    assert list(scale_uv) == [0.5, 1.0, 0.5]


def test_an_absent_recording_is_named(cache):
    cache.path(0).unlink()
    with pytest.raises(HbnError, match=r"a\.npy does not exist; run `dvc repro assemble`"):
        cache.gather(np.array([0]), np.array([0]), 200)


def test_windows_do_not_straddle_a_boundary():
    assert list(window_starts(10, 4, 2, [])) == [0, 2, 4, 6]
    assert list(window_starts(10, 4, 2, [5])) == [0, 6]
    assert list(window_starts(10, 4, 2, [4])) == [0, 4, 6]
    assert list(window_starts(3, 4, 2, [])) == []


def test_seconds_to_samples_rounds_to_the_nearest():
    assert samples(2.0, 500) == 1000
    assert samples(0.3, 500) == 150
    assert samples(1.3459, 100) == 135
