"""Each benchmark runs on a small input and ends with one JSON object; how fast is not asked here."""

import json
import subprocess
import sys

from clone import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


def last_line(script: str, *arguments: str) -> dict:
    """The JSON object that ends a benchmark's standard output."""
    command = [sys.executable, BENCHMARKS / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_preprocess_compares_with_the_chain_of_mne():
    result = last_line("preprocess.py", "--seconds", "10", "--repeats", "1", "--channels", "4")
    assert result["ratio"] > 0
    assert result["error_500hz"] < 1e-5


def test_loader_measures_the_window_cache_with_or_without_a_peer():
    result = last_line("loader.py", "--recordings", "2", "--seconds", "6", "--repeats", "1", "--without-peer")
    assert result["ratio"] is None
    assert result["n_windows"] == 10
    assert result["open_s_3000_recordings"] > 0
    assert result["peak_mb_cohort"] > 0
