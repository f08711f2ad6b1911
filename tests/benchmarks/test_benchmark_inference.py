"""The benchmark of inference runs from a clone without results; how fast is not asked here."""

import json
import subprocess
import sys

from clone import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks/inference.py"


def test_it_measures_our_networks_and_the_reference_without_a_peer():
    command = [sys.executable, SCRIPT, "--runs", "1", "--without-peer"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ratio"] is None
    assert result["ratio_reference"] > 1
    assert result["p50_ms_challenge1"] > 0
