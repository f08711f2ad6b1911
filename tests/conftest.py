"""What several tests share."""

import fcntl
import os
import pickle
import tempfile
import threading
from pathlib import Path

from clone import REPOSITORY

# Two test processes share the machine: threads that wait for each other would stop both. Before NumPy and PyTorch.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest

from hbn.data import bids
from hbn.data.event_kinds import KINDS, TASKS
from hbn.data.windows import RECORDING_COLUMNS, samples
from hbn.files import write_csv, write_json

SPLIT_OF = {
    "sub-A": "train",
    "sub-B": "train",
    "sub-C": "validation",
    "sub-D": "test",
    "sub-E": "test",
    "sub-F": "test",
}


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory):
    """What libraries put into the system's temporary folder goes with that of the tests."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))
    tempfile.tempdir = None  # asked anew


# Folders whose files take long. They come first, or one process ends with such a file while the others are idle.
LONG = ("pipeline", "deploy", "benchmarks", "reporting", "stages", "sources")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.parent.name) if item.path.parent.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def built(tmp_path_factory, worker_id):
    """A finished build of the miniature, committed, for tests to copy. It takes a minute: the first process that needs
    it builds it for all."""
    from clone import MINIATURE, Clone  # not at the top: most tests need none of it

    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    with open(folder / "built.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        saved = folder / "built.pickle"
        if not saved.exists():
            clone = Clone(folder / "built/clone", MINIATURE)
            clone.build()
            saved.write_bytes(pickle.dumps(clone))
    return pickle.loads(saved.read_bytes())


@pytest.fixture
def threads_end():
    """Waits for what a fetch that failed has under way (elsewhere that ends with the process), at the end of the test
    as well: without the test's folder, it would go on in the repository."""

    def wait() -> None:
        for thread in threading.enumerate():
            if "(worker)" in thread.name:  # of a ThreadPool
                thread.join(20)

    yield wait
    wait()


@pytest.fixture
def tiny_dataset(tmp_path) -> Path:
    """data/dataset below tmp_path (see write_tiny_dataset)."""
    return write_tiny_dataset(tmp_path)


def write_tiny_dataset(folder: Path) -> Path:
    """Write <folder>/data/dataset as the stage assemble does, of noise: six participants with one
    recording of 30 s at 500 Hz and eight trials each, every fourth without a response."""
    rng = np.random.default_rng(7)
    root, sfreq_hz, n_samples = folder / "data/dataset", 500, 15_000
    recordings, trials, participants, windows, events = [], [], [], [], []
    for i, (name, split) in enumerate(SPLIT_OF.items()):
        stem = f"{name}_task-contrastChangeDetection_run-1"
        path = root / "recordings/R1" / name / f"{stem}.npy"
        path.parent.mkdir(parents=True)
        slow = rng.normal(size=(n_samples // 5, len(bids.CHANNELS))).cumsum(0).repeat(5, 0)  # (T, C)
        slow[:, 3] = 0  # a flat channel
        np.save(path, (slow / slow.std() * 640).astype(np.float16))  # in units of scale_uv: 10 uV
        recordings.append(
            dict.fromkeys(RECORDING_COLUMNS, "")
            | {"recording": stem, "release": "R1", "participant_id": name, "samples": n_samples}
            | {"task": "contrastChangeDetection", "run": 1, "sfreq_hz": sfreq_hz, "scale_uv": 1 / 64}
        )
        windows += [(i, start) for start in range(0, n_samples - 1000, 500)]
        for k in range(8):
            answered = k % 4 != 3
            rt_s = float(rng.uniform(0.8, 2.3)) if answered else None
            target, task = 250 + 1500 * k, TASKS.index("contrastChangeDetection")
            events.append((i, target, KINDS.index("stimulus_onset"), task))
            if answered:
                events.append((i, target + samples(rt_s, sfreq_hz), KINDS.index("press_left"), task))
            trials.append(
                {
                    **{"recording": stem, "participant_id": name, "start_sample": 500 + 1500 * k},
                    **{"side": "left", "outcome": "correct" if answered else "miss"},
                    "rt_s": rt_s,
                }
            )
        factors = dict(zip(bids.FACTORS, rng.normal(size=4).tolist(), strict=True))
        participants.append({"participant_id": name, "release": "R1", "split": split, **factors})
    write_csv(root / "recordings.csv", recordings, RECORDING_COLUMNS)
    write_csv(root / "trials.csv", trials, list(trials[0]))
    write_csv(root / "participants.csv", participants, list(participants[0]))
    np.save(root / "windows.npy", np.array(windows))
    np.save(root / "events.npy", np.array(events, dtype=np.int32))
    np.save(root / "breaks.npy", np.empty((0, 3), dtype=np.int32))
    positions = [dict(zip(("x_m", "y_m", "z_m"), xyz, strict=True)) for xyz in bids.electrode_positions_m().tolist()]
    rows = [{"channel": name, **xyz} for name, xyz in zip(bids.CHANNELS, positions, strict=True)]
    write_csv(root / "channels.csv", rows, ["channel", "x_m", "y_m", "z_m"])
    write_json(root / "about.json", {"source": "simulated", "event_kinds": KINDS, "event_tasks": TASKS})
    return root


@pytest.fixture
def hbn_metadata() -> Path:
    """Real metadata of HBN-EEG without signals (a folder per release), where the machine has it."""
    root = REPOSITORY.parent / "shared" / "hbn-metadata"
    if not root.exists():
        pytest.skip("no real metadata beside the repository")
    return root


@pytest.fixture(scope="session")
def deployed(tmp_path_factory) -> Path:
    """A folder with small networks of random weights as `quantize` writes them, for windows of 2 s at 100 Hz."""
    import onnx

    from hbn.deploy.runtime import INPUT

    root, rng = tmp_path_factory.mktemp("deployed"), np.random.default_rng(0)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        network (float[batch, 129, 200] {input}) => (float[batch, {n}] output) {{
            size = Abs({input})
            level = ReduceMean <axes = [2], keepdims = 0> (size)
            value = MatMul(level, weights)
            {rest}
        }}"""
    trial = """first, others = Split <axis = 1> (value, lengths)
            chances = Sigmoid(first)
            mass = Softmax <axis = 1> (others)
            output = Concat <axis = 1> (chances, mass)"""
    networks = {"challenge1": (24, trial), "challenge2": (4, "output = Identity(value)")}
    for name, (n, rest) in networks.items():
        model = onnx.parser.parse_model(text.format(input=INPUT, n=n, rest=rest))
        weights = (rng.normal(size=(129, n)) / 1000).astype(np.float32)
        constants = {"weights": weights} | ({"lengths": np.array([3, 21])} if "lengths" in rest else {})
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in constants.items())
        for key, value in {"sfreq_hz": "100.0", "trial_offset_s": "0.5"}.items():
            model.metadata_props.add(key=key, value=value)
        path = root / f"models/deploy/{name}/fp32.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(model, path)
    write_json(root / "metrics/benchmark.json", {"chosen": dict.fromkeys(networks, "fp32")})
    return root


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty working directory, as the stages see it."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
