"""Run the unpacked zip as the organisers do, in a separate process without this library."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hbn.deploy import challenge_zip
from hbn.files import HbnError

# Largest allowed difference from the pipeline, in s and in units of the factor. Stored samples are rounded to 11
# bits, so their mean over channels is not exactly zero, and the zip's average reference changes them a little.
TOLERANCE = 2e-3
LOOP = """
import sys
import torch
sys.path.insert(0, "")  # the working directory, which -I leaves out
from submission import Submission
batch, channels, samples = map(int, sys.argv[2:])
model = getattr(Submission(SFREQ=100, DEVICE=torch.device("cpu")), f"get_model_{sys.argv[1]}")()
model.eval()
predictions = []
with torch.inference_mode():
    while data := sys.stdin.buffer.read(batch * channels * samples * 4):
        X = torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(-1, channels, samples)
        predictions.append(model.forward(X))
sys.stdout.buffer.write(torch.cat(predictions).numpy().tobytes())
"""


def run(name: str, batches: Iterable[np.ndarray], folder: Path | str, threads: int) -> np.ndarray:
    """Predictions (N,) of the submission unpacked in `folder`, for batches of windows (B, C, 200) in microvolts.

    Raises HbnError with the submission's messages if it does not run by itself.
    """
    command = [sys.executable, "-I", "-c", LOOP, name.replace("challenge", "challenge_")]
    command += map(str, (challenge_zip.BATCH, *challenge_zip.SHAPE))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    answer = b""
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages
        )
        assert process.stdin  # they are pipes
        assert process.stdout
        try:
            with process:
                for windows in batches:
                    process.stdin.write(np.ascontiguousarray(windows, dtype=np.float32).tobytes())
                process.stdin.close()
                answer = process.stdout.read()
        except BrokenPipeError:
            pass  # the process stopped before it had read all windows: its messages say why
        if process.returncode:
            messages.seek(0)
            raise HbnError(f"the submission of {name} does not run by itself:\n{messages.read().strip()}")
    return np.frombuffer(answer, dtype=np.float32)


def check(name: str, predicted: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference between the submission's predictions (N,) and the pipeline's; HbnError if too large."""
    if predicted.shape != expected.shape:
        raise HbnError(f"the submission of {name} has {len(predicted)} outputs for {len(expected)} windows")
    difference = float(np.abs(predicted - expected).max())
    if not difference <= TOLERANCE:  # true for NaN as well
        raise HbnError(f"the submission of {name} differs from the pipeline by {difference:.3g}, not {TOLERANCE:g}")
    return difference
